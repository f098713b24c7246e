"""Launch of ``low_rank.cu``: products of big matrices with thin factors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.kernels import DTYPES
from sgc.kernels.tables import addresses, kernel
from sgc.kernels.weights import keys
from sgc.rounding import Rounding

_RANKS = (16, 32, 64, 128)  # the last is MOST_RANK of sgc.kernels
_ROWS, _DEPTH, _STAGES = 128, 64, 3  # of project
_LIFT_STAGES = 6
_COLUMNS = 256  # of a block of lift
_SHARE = 256  # rows that a block of lift walks down


def project(
    matrices: Sequence[Float[Tensor, "m n"]], bases: Float[Tensor, "count n r"]
) -> Float[Tensor, "count m r"]:
    """``G B`` of every matrix in float32, with B rounded to the matrices' dtype."""
    (m, n), rank, dtype = matrices[0].shape, bases.shape[2], matrices[0].dtype
    out = torch.empty(len(matrices), m, rank, device=bases.device)
    width = _padded(rank)
    stage = 2 * _DEPTH * (_ROWS + width)
    kernel("low_rank.cu", "project", shared=_STAGES * stage, DTYPE=DTYPES[dtype], RANK=width)(
        (-(-m // _ROWS), len(matrices)),
        128,
        *(addresses(matrices), _factor(bases, dtype), out, m, n, rank),
        device=bases.device,
    )
    return out


def lift(
    weights: Sequence[Tensor],
    left: Float[Tensor, "count m r"],
    right: Float[Tensor, "count n r"],
    gradients: Sequence[Tensor] | None,
    scale: Float[Tensor, " count"] | None,
    *,
    gain: float,
    decay: float,
    rounding: Rounding,
) -> None:
    """``W ← decay·W − gain·left rightᵀ − scale·G`` in one pass, factors rounded to W's dtype."""
    dtype, (m, rank), n = weights[0].dtype, left.shape[1:], right.shape[1]
    width = _padded(rank)
    moved, by_lot = gradients is not None, keys(rounding, weights[0])
    forms = {"MOVED": int(moved), "LOT": int(by_lot is not None)}
    ring = 16 * 256 * _LIFT_STAGES * (4 if moved else 2)
    kernel("low_rank.cu", "lift", shared=ring, DTYPE=DTYPES[dtype], RANK=width, **forms)(
        (-(-n // _COLUMNS), -(-m // _SHARE), len(weights)),
        256,
        addresses(weights),
        None if gradients is None else addresses(gradients),
        *(_factor(left, dtype), _factor(right, dtype)),
        None if scale is None else scale.to(torch.float32),
        *(by_lot, m, n, _SHARE, float(gain), float(decay)),
        device=left.device,
    )


def _padded(rank: int) -> int:
    return next(width for width in _RANKS if width >= rank)


def _factor(factor: Float[Tensor, "count rows r"], dtype: torch.dtype) -> Tensor:
    """In the kernels' dtype, contiguous, the rank padded with zeros."""
    count, rows, rank = factor.shape
    width = _padded(rank)
    if width == rank:
        return factor.to(dtype).contiguous()
    padded = torch.zeros(count, rows, width, dtype=dtype, device=factor.device)
    padded[..., :rank] = factor
    return padded
