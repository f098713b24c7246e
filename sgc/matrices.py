"""Parameters as matrices, and their products with a basis of their shorter side."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import kernels, low_rank
from sgc.blocks import Shape


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """(First dimension)×(the rest)."""
    return int(shape[0]), math.prod(map(int, shape[1:]))


def as_matrix(tensor: Tensor) -> Float[Tensor, "m n"]:
    """The tensor as such a matrix."""
    return tensor.reshape(matrix_shape(tuple(tensor.shape)))


def is_wide(shape: Shape) -> bool:
    """Whether the rows are projected: a square matrix is projected on its right side."""
    rows, columns = matrix_shape(shape)
    return rows < columns


def no_subspace(shape: Shape, rank: int) -> str | None:
    """Why there is no subspace of this rank; None if there is."""
    if len(shape) < 2:
        return f"a parameter of shape {tuple(shape)} is not a matrix, so it has no subspace"
    rows, columns = matrix_shape(shape)
    if rank > min(rows, columns):
        return f"rank={rank} exceeds the shorter side of a {rows}×{columns} matrix"
    return None


def reduced_shape(shape: Shape, rank: int) -> tuple[int, int]:
    """Of what remains after the shorter side is projected."""
    rows, columns = matrix_shape(shape)
    return (rank, columns) if rows < columns else (rows, rank)


def project(
    matrices: Sequence[Float[Tensor, "m n"]], bases: Float[Tensor, "count side r"]
) -> Float[Tensor, "count *reduced"]:
    """``G B`` of each, or ``Bᵀ G`` for wide matrices; on CUDA half precision is read as it is."""
    first = matrices[0]
    shape = tuple(first.shape)
    wide = is_wide(shape)
    if not wide and kernels.thin_products(matrices, columns=first.shape[1], rank=bases.shape[2]):
        from sgc.kernels.low_rank import project as by_kernel  # noqa: PLC0415 — needs CuPy

        return by_kernel(matrices, bases)
    reduced = bases.new_empty(len(matrices), *reduced_shape(shape, bases.shape[2]))
    factors = _readable(bases, first).unbind()
    for G, B, R in zip(matrices, factors, reduced.unbind(), strict=True):
        H = G.to(B.dtype)
        _multiply(*((B.mT, H) if wide else (H, B)), out=R)
    return reduced


def onto_side(
    matrices: Sequence[Float[Tensor, "m n"]], reduced: Float[Tensor, "count *reduced"]
) -> Float[Tensor, "count side r"]:
    """``Gᵀ R`` of each, or ``G Rᵀ`` for wide matrices: the way back of :func:`project`."""
    first = matrices[0]
    wide = is_wide(tuple(first.shape))
    found = reduced.new_empty(len(matrices), min(first.shape), reduced.shape[1 if wide else 2])
    factors = _readable(reduced, first).unbind()
    for G, R, X in zip(matrices, factors, found.unbind(), strict=True):
        H = G.to(R.dtype)
        _multiply(*((H, R.mT) if wide else (H.mT, R)), out=X)
    return found


def orthonormal(
    X: Float[Tensor, "count side r"], *, filler: Float[Tensor, "count side r"]
) -> Float[Tensor, "count side r"]:
    """Q of ``X = Q R``, batched; ``filler`` shows where columns are zero or dependent.

    QR with a positive diagonal, by shifted CholeskyQR in float64 (:mod:`sgc.low_rank`).
    """
    whole = low_rank.filled(X.double(), filler.double())
    return low_rank.orthonormal(whole).to(X.dtype)


def _readable(thin: Float[Tensor, "..."], matrix: Tensor) -> Float[Tensor, "..."]:
    """The thin factors in the dtype that matrices are read in: on CUDA half precision as it is."""
    half = matrix.is_cuda and matrix.dtype in (torch.bfloat16, torch.float16)
    return thin.to(matrix.dtype) if half else thin


def _multiply(left: Tensor, right: Tensor, *, out: Tensor) -> None:
    """The product, summed in ``out``'s dtype: no wider copy of a half-precision factor."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        torch.mm(left, right, out_dtype=out.dtype, out=out)
