"""Whole weights scaled and moved along their gradients, without scratch of their size."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import adam, kernels
from sgc.rounding import Rounding

#: Half-precision weights are worked on in float32, so many numbers at once.
_CPU_TILE, _ACCELERATOR_TILE = 2**17, 2**22


def multiply(weights: Sequence[Tensor], decay: float | Tensor, rounding: Rounding) -> None:
    """``W ← decay·W`` for every weight, rounded once."""
    if isinstance(decay, float) and decay == 1.0:
        return
    if isinstance(decay, float) and kernels.usable(weights):
        from sgc.kernels.weights import combine  # noqa: PLC0415 — needs CuPy

        combine(weights, None, None, decay=decay, rounding=rounding)
        return
    # The foreach form rounds the factor itself to half precision on the CPU, or if it is a tensor.
    half = weights[0].dtype not in (torch.float32, torch.float64)
    exact = weights[0].is_cuda and isinstance(decay, float)
    if rounding.stochastic(weights[0].dtype) or (half and not exact):
        for i, weight in enumerate(weights):
            _by_tiles(weight, decay=decay, rounding=rounding, parameter=i)
    else:
        torch._foreach_mul_(list(weights), decay)


def subtract_scaled(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    scale: Float[Tensor, " n"],
    *,
    decay: float | Tensor,
    rounding: Rounding,
) -> None:
    """``W ← decay·W − scale·G`` for every weight; half precision in float32 and rounded once.

    Only half-precision weights that are not contiguous take a temporary copy of one weight.
    """
    if isinstance(decay, float) and kernels.usable([*weights, *gradients]):
        from sgc.kernels.weights import combine  # noqa: PLC0415 — needs CuPy

        combine(weights, gradients, scale, decay=decay, rounding=rounding)
        return
    scale = scale.to(adam.moment_dtype(weights[0].dtype))
    if weights[0].dtype in (torch.float32, torch.float64):
        multiply(weights, decay, rounding)
        for weight, gradient, factor in zip(weights, gradients, scale.unbind(), strict=True):
            weight.addcmul_(gradient, factor, value=-1)
        return
    for i, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        move = (gradient, scale[i])
        _by_tiles(weight, move, decay=decay, rounding=rounding, parameter=i)


def store(weight: Tensor, x: Tensor, rounding: Rounding, parameter: int) -> None:
    """``W ← x``, rounded; scratch of the noise stays small."""
    if not rounding.stochastic(weight.dtype):
        weight.copy_(x)
        return
    flat = x.reshape(-1)
    tile = _CPU_TILE if weight.device.type == "cpu" else _ACCELERATOR_TILE
    for start in range(0, flat.numel(), tile):
        part = flat[start : start + tile]
        # What is rounded is exact in the weight's dtype, so it may stay where it is.
        part.copy_(rounding.run(part, weight.dtype, parameter=parameter, start=start))
    weight.copy_(flat.view(weight.shape))


def _by_tiles(
    weight: Tensor,
    move: tuple[Tensor, Tensor] | None = None,
    *,
    decay: float | Tensor,
    rounding: Rounding,
    parameter: int,
) -> None:
    flat = weight.reshape(-1)  # a copy where the weight is not contiguous
    gradient, scale = (None, None) if move is None else (move[0].reshape(-1), move[1])
    tile = _CPU_TILE if weight.device.type == "cpu" else _ACCELERATOR_TILE
    for start in range(0, flat.numel(), tile):
        part = flat[start : start + tile]
        x = part.to(torch.float32)
        if not (isinstance(decay, float) and decay == 1.0):
            x = x * decay
        if gradient is not None and scale is not None:
            x = x.addcmul_(gradient[start : start + tile].to(torch.float32), scale, value=-1)
        part.copy_(rounding.run(x, weight.dtype, parameter=parameter, start=start))
    if flat.data_ptr() != weight.data_ptr():
        weight.copy_(flat.view(weight.shape))
