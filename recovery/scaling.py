"""Scale-free arithmetic: rows of norm one, and what counts as zero beside them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def rounding_level(k: int, dtype: torch.dtype) -> float:
    """Relative residual that rounding leaves of k numbers: below it there is nothing to explain."""
    return 4 * k**0.5 * torch.finfo(dtype).eps


def normalised(
    y: Float[Tensor, "batch k"],
) -> tuple[Float[Tensor, "batch k"], Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Rows divided by their norm, the norms, and which rows are finite (the others become 0).

    The largest entry is first brought near one by a power of two, which is exact: 1e-30 and 1e30
    are as good as 1, and y and y·2ⁿ give the same bits.
    """
    largest = y.abs().amax(1)
    finite = torch.isfinite(largest)
    _, exponent = torch.frexp(torch.where(finite, largest, 1))
    half = exponent // 2  # in two steps: 2^-exponent itself may overflow
    down, down_rest = torch.exp2(-half.to(y.dtype)), torch.exp2((half - exponent).to(y.dtype))
    near_one = torch.where(finite[:, None], y, 0) * down[:, None] * down_rest[:, None]
    norm = torch.linalg.vector_norm(near_one, dim=1)
    scale = norm / down / down_rest
    finite = finite & torch.isfinite(scale)
    return near_one / norm.clamp(min=torch.finfo(y.dtype).tiny)[:, None], scale, finite
