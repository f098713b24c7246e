"""Measure sparse vectors: ``A x`` and ``A x²``."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from projections import DenseOperator, Projection
from sgc import kernels

#: Numbers of scratch worked on at once.
_CPU_TILE, _ACCELERATOR_TILE = 2**22, 2**26


def sketch(
    A: Projection, index: Int[Tensor, "m s"], values: Float[Tensor, "m s"]
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]]:
    """``A x`` and ``A x²`` of m sparse vectors, x given by its s places and values.

    Gathers the columns once for both when they are few, else multiplies densely.

    Args:
        A: k×d.
        index: places in x, each at most once; a place may come again with the value 0.
        values: x there, in the dtype of A.
    """
    (k, d), s = A.shape, index.shape[1]
    if isinstance(A, DenseOperator) and A.dtype == torch.float32 and kernels.usable([A.atoms]):
        from sgc.kernels import sketch as cuda  # noqa: PLC0415 — needs CuPy

        if k <= cuda.MOST:
            return cuda.measure(A.atoms, index.contiguous(), values.contiguous())
    few = 4 * s <= d
    measure = _gathered if few else _dense
    tile = _CPU_TILE if index.device.type == "cpu" else _ACCELERATOR_TILE
    rows = max(1, tile // (k * s if few else 2 * d))
    if index.shape[0] <= rows:
        return measure(A, index, values)
    tiles = zip(index.split(rows), values.split(rows), strict=True)
    p, q = zip(*(measure(A, i, v) for i, v in tiles), strict=True)
    return torch.cat(p), torch.cat(q)


def _gathered(A: Projection, index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    atoms = A.columns(index)
    if index.shape[1] == 1:
        p = atoms[..., 0] * values
        return p, p * values
    both = atoms @ torch.stack([values, values.square()], dim=-1)
    return both[..., 0], both[..., 1]


def _dense(A: Projection, index: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    x = values.new_zeros(index.shape[0], A.shape[1]).scatter_add_(1, index, values)
    return A.matvec(x), A.matvec(x.square())
