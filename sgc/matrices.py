"""Parameters as matrices, and their products with a basis of their shorter side."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import kernels

Shape = tuple[int, ...]


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
    # On CUDA half precision is read as it is and summed in float32: no wider copy of G.
    half = first.is_cuda and first.dtype in (torch.bfloat16, torch.float16)
    bases = bases.to(first.dtype) if half else bases
    for G, basis, R in zip(matrices, bases.unbind(), reduced.unbind(), strict=True):
        H = G.to(basis.dtype)
        left, right = (basis.mT, H) if wide else (H, basis)
        if half:
            torch.mm(left, right, out_dtype=R.dtype, out=R)
        else:
            torch.mm(left, right, out=R)
    return reduced


def lifted(
    reduced: Float[Tensor, "count *reduced"], bases: Float[Tensor, "count side r"], *, wide: bool
) -> Float[Tensor, "count m n"]:
    """``R Bᵀ`` of each, or ``B R`` for wide matrices."""
    return bases @ reduced if wide else reduced @ bases.mT
