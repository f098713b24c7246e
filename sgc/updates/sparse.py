"""An update of a few coordinates."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sgc import adam, kernels
from sgc.blocks import together
from sgc.rounding import Rounding
from sgc.updates.base import Update
from sgc.updates.elementwise import multiply, subtract_scaled


@dataclasses.dataclass(frozen=True)
class Sparse(Update):
    """m coordinates of each parameter; everything else of the gradient is uncovered.

    Half-precision weights are computed in float32 and rounded once.

    Attributes:
        index: flat places in the parameter, each at most once; −1 marks an unused slot.
        values: N there; 0 in unused slots.
    """

    index: Int[Tensor, "n m"]
    values: Float[Tensor, "n m"]

    def to_dense(self, shape: tuple[int, ...]) -> Float[Tensor, "n *shape"]:
        return _spread(self.index, self.values, shape)

    def covered_part(self, gradients: Sequence[Tensor]) -> Float[Tensor, "n *shape"]:
        flat = together(gradients).reshape(len(gradients), gradients[0].numel())
        there = flat.gather(1, self.index.clamp(min=0)).masked_fill(self.index < 0, 0)
        return _spread(self.index, there, tuple(gradients[0].shape))

    def only(self, i: int) -> "Sparse":
        return Sparse(self.index[i : i + 1], self.values[i : i + 1])

    def scaled(self, factor: Float[Tensor, " n"]) -> "Sparse":
        return Sparse(self.index, self.values * factor.to(self.values.dtype)[:, None])

    def apply_to(
        self,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        *,
        lr: float | Tensor,
        decay: float | Tensor,
        residual: Float[Tensor, " n"] | None,
        rounding: Rounding,
    ) -> None:
        change = self.values * lr
        if residual is None:
            subtract_at(weights, self.index, change, decay=decay, rounding=rounding)
        else:
            subtract_scaled_except(
                weights,
                gradients,
                residual * lr,
                self.index,
                change,
                decay=decay,
                rounding=rounding,
            )


def subtract_at(
    weights: Sequence[Tensor],
    index: Int[Tensor, "n m"],
    change: Float[Tensor, "n m"],
    *,
    decay: float | Tensor,
    rounding: Rounding,
) -> None:
    """``W ← decay·W``, less ``change`` at the places of ``index`` (−1 is none)."""
    if isinstance(decay, float) and kernels.usable(weights):
        from sgc.kernels import weights as cuda  # noqa: PLC0415 — needs CuPy

        if decay == 1.0:
            cuda.subtract_at(weights, index, change, rounding)
        else:
            cuda.subtract_scaled_except(
                weights, None, None, index, change, decay=decay, rounding=rounding
            )
        return
    index, change = _without_gaps(index, change, 0)
    targets = _targets(weights, index, change, decay, rounding)
    multiply(weights, decay, rounding)
    _put(weights, index, targets)


def subtract_scaled_except(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    scale: Float[Tensor, " n"],
    index: Int[Tensor, "n m"],
    change: Float[Tensor, "n m"],
    *,
    decay: float | Tensor,
    rounding: Rounding,
) -> None:
    """``W ← decay·W``, less ``change`` at the places of ``index``, and ``scale·G`` elsewhere."""
    if isinstance(decay, float) and kernels.usable([*weights, *gradients]):
        from sgc.kernels import weights as cuda  # noqa: PLC0415 — needs CuPy

        cuda.subtract_scaled_except(
            weights, gradients, scale, index, change, decay=decay, rounding=rounding
        )
        return
    heads = torch.stack([g[(0,) * g.ndim] for g in gradients])
    scale = scale.to(adam.moment_dtype(weights[0].dtype))
    index, change = _without_gaps(index, change, (heads * scale)[:, None])
    targets = _targets(weights, index, change, decay, rounding)
    subtract_scaled(weights, gradients, scale, decay=decay, rounding=rounding)
    _put(weights, index, targets)


def _without_gaps(
    index: Int[Tensor, "n m"], change: Float[Tensor, "n m"], at_zero: Tensor | int
) -> tuple[Int[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Unused slots repeat a used one of their row: every write is then a right one.

    A row without any used slot names place 0 with ``at_zero``, what happens there anyway.
    """
    used = index >= 0
    stand_in = used.to(torch.uint8).argmax(1, keepdim=True)
    index = torch.where(used, index, index.gather(1, stand_in))
    change = torch.where(used, change, change.gather(1, stand_in))
    return index.clamp(min=0), torch.where(index < 0, at_zero, change)


def _targets(
    weights: Sequence[Tensor],
    index: Int[Tensor, "n m"],
    change: Float[Tensor, "n m"],
    decay: float | Tensor,
    rounding: Rounding,
) -> Float[Tensor, "n m"]:
    """``decay·W − change`` at the places, rounded to the weights' dtype."""
    there = [
        w.view(-1).index_select(0, i) if w.is_contiguous() else w[torch.unravel_index(i, w.shape)]
        for w, i in _pairs(weights, index)
    ]
    now = torch.stack(there).to(change.dtype)
    return rounding.at(now * decay - change, weights[0].dtype, index)


def _put(
    weights: Sequence[Tensor], index: Int[Tensor, "n m"], values: Float[Tensor, "n m"]
) -> None:
    for (weight, where), new in zip(_pairs(weights, index), values.unbind(), strict=True):
        if weight.is_contiguous():
            weight.view(-1).index_copy_(0, where, new)
        else:
            weight.index_put_(torch.unravel_index(where, weight.shape), new)


def _pairs(weights: Sequence[Tensor], index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(weights, index.unbind(), strict=True)


def _spread(
    index: Int[Tensor, "n m"], values: Float[Tensor, "n m"], shape: tuple[int, ...]
) -> Float[Tensor, "n *shape"]:
    dense = values.new_zeros(index.shape[0], *shape)
    rows = dense[0].numel() * torch.arange(index.shape[0], device=index.device)
    # Unused slots add 0 to place 0.
    place = index.clamp(min=0) + rows[:, None]
    dense.view(-1).index_add_(0, place.view(-1), values.reshape(-1))
    return dense
