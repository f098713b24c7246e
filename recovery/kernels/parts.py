"""The fp16 operands of the correlation kernels; see ``pursue.cu`` for what the parts are."""

import torch
from jaxtyping import Float
from torch import Tensor

SCALE = 2.0**11  # norm of the vectors that are split
TILE = 128  # atoms are padded to a multiple of it


def padded(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def split(
    rows: Float[Tensor, "d k"], parts: int, *, width: int, multiple: int
) -> Float[Tensor, "padded width"]:
    """Rows of fp16 parts (hi, hi, lo) of ``2¹¹·rows``; see ``kernels/pursue.cu``."""
    d, k = rows.shape
    out = torch.zeros(padded(d, multiple), width, dtype=torch.float16, device=rows.device)
    scaled = rows * SCALE
    high = scaled.half()
    out[:d, :k] = high
    if parts == 3:
        out[:d, k : 2 * k] = high
        out[:d, 2 * k : 3 * k] = scaled - high.float()
    return out


def margin(k: int) -> float:
    """Twice the worst error of an 11-bit correlation of two vectors of norm 2¹¹.

    Each operand is rounded by at most u = 2⁻¹¹ of itself, so by Cauchy–Schwarz the product of norms
    bounds the error by ((1 + u)² − 1); summing k products adds at most k·2⁻²² (tensor cores cut
    off), and the kernel keeps 18 bits of a correlation. Entries so small that fp16 holds them with
    fewer bits cost less than 2⁻³⁰ in all, far inside the slack of the sum.
    """
    unit = 2.0**-11
    return 2 * SCALE**2 * ((1 + unit) ** 2 - 1 + k * 2.0**-22 + 2.0**-18)


def in_fragment_order(parts: Float[Tensor, "padded width"]) -> Tensor:
    """``(padded/128, …)``: for 32 atoms at a time, what each lane feeds its tensor core."""
    padded, width = parts.shape
    tiles = parts.view(padded // 32, 4, 8, width // 8, 4, 2)  # [tile, e, g, block, t, pair]
    ordered = tiles.permute(0, 3, 2, 4, 1, 5).contiguous()  # [tile, block, g, t, e, pair]
    return ordered.view(padded // TILE, -1)
