"""CUDA forms of the step's hot loops: one launch for all parameters of a shape, no copies.

Each has a torch form that is the reference and runs where these cannot: on the CPU, without CuPy,
for float64 and for odd strides. :func:`usable` decides.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from recovery.kernels import has_kernels

#: As numbered in numbers.cuh.
DTYPES = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
#: Columns of a thin factor whose products stay in registers.
MOST_RANK = 128


def usable(tensors: Sequence[Tensor]) -> bool:
    """Whether the kernels take these: not empty, contiguous, on a GPU, of one known dtype."""
    dtype = tensors[0].dtype
    return (
        dtype in DTYPES
        and all(t.is_cuda and t.dtype is dtype and t.is_contiguous() and t.numel() for t in tensors)
        and has_kernels(tensors[0].device)
    )


def thin_products(matrices: Sequence[Tensor], *, columns: int, rank: int) -> bool:
    """Whether products of these with thin factors have a kernel: half precision, aligned rows."""
    return (
        usable(matrices)
        and matrices[0].element_size() == 2
        and columns % 8 == 0
        and rank <= MOST_RANK
        and all(t.data_ptr() % 16 == 0 for t in matrices)
    )
