"""Launch of ``weights.cu``: the torch forms are in :mod:`sgc.updates`."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sgc.kernels import DTYPES
from sgc.kernels.tables import addresses, kernel, on_device
from sgc.rounding import Rounding

_THREADS = 256
_SUBTRACT, _TARGET, _PUT = 0, 1, 2  # modes of at_places
_BLOCKS = 1024  # of a weight, at most


def subtract_at(
    weights: Sequence[Tensor],
    index: Int[Tensor, "n m"],
    change: Float[Tensor, "n m"],
    rounding: Rounding,
) -> None:
    """``W[index] ← W[index] − change``."""
    _at(_SUBTRACT, weights, index, change, None, rounding, decay=1.0)


def subtract_scaled_except(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor] | None,
    scale: Float[Tensor, " n"] | None,
    index: Int[Tensor, "n m"],
    change: Float[Tensor, "n m"],
    *,
    decay: float,
    rounding: Rounding,
) -> None:
    """``W ← decay·W − scale·G``, but ``decay·W − change`` at the places of ``index``."""
    target = torch.empty_like(change)
    _at(_TARGET, weights, index, change, target, rounding, decay=decay)
    combine(weights, gradients, scale, decay=decay, rounding=rounding)
    _at(_PUT, weights, index, None, target, rounding, decay=decay)


def combine(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor] | None,
    scale: Float[Tensor, " n"] | None,
    *,
    decay: float,
    rounding: Rounding,
) -> None:
    """``W ← decay·W − scale·G`` in one pass; without gradients ``W ← decay·W``."""
    first = weights[0]
    every = [*weights, *(gradients or ())]
    vector = all(t.data_ptr() % 16 == 0 for t in every)
    blocks = min(_BLOCKS, -(-first.numel() * first.element_size() // (16 * _THREADS)))
    scales = None if scale is None else scale.to(torch.float32)
    kernel("weights.cu", "everywhere", DTYPE=DTYPES[first.dtype])(
        (blocks, len(weights)),
        _THREADS,
        addresses(weights),
        None if gradients is None else addresses(gradients),
        *(scales, keys(rounding, first), first.numel(), int(vector), float(decay)),
        device=first.device,
    )


def keys(rounding: Rounding, weight: Tensor) -> Int[Tensor, " n"] | None:
    """The keys of stochastic rounding where these weights are rounded so."""
    if rounding.keys is None or not rounding.stochastic(weight.dtype):
        return None
    return on_device(rounding.keys, weight.device)


def _at(
    mode: int,
    weights: Sequence[Tensor],
    index: Int[Tensor, "n m"],
    change: Float[Tensor, "n m"] | None,
    target: Float[Tensor, "n m"] | None,
    rounding: Rounding,
    *,
    decay: float,
) -> None:
    n, m = index.shape
    kernel("weights.cu", "at_places", DTYPE=DTYPES[weights[0].dtype], MODE=mode)(
        (-(-n * m // _THREADS),),
        _THREADS,
        *(addresses(weights), index.contiguous(), change, target, keys(rounding, weights[0])),
        *(n, m, float(decay)),
        device=index.device,
    )
