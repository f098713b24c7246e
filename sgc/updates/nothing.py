"""No update: all of the gradient is left to the residual."""

import dataclasses
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from sgc.blocks import together
from sgc.rounding import Rounding
from sgc.updates.base import Update
from sgc.updates.elementwise import multiply, subtract_scaled


@dataclasses.dataclass(frozen=True)
class Nothing(Update):
    """``N = 0`` for n parameters, and nothing of their gradients is covered.

    Attributes:
        n: how many.
        like: a tensor of the dtype and device that dense forms get.
    """

    n: int
    like: Tensor

    def to_dense(self, shape: tuple[int, ...]) -> Float[Tensor, "n *shape"]:
        return self.like.new_zeros(self.n, *shape)

    def covered_part(self, gradients: Sequence[Tensor]) -> Float[Tensor, "n *shape"]:
        return self.to_dense(tuple(gradients[0].shape))

    @property
    def covers_nothing(self) -> bool:
        return True

    def uncovered(self, gradients: Sequence[Tensor]) -> Float[Tensor, "n *shape"]:
        return together(gradients)

    def gain(
        self, gradients: Sequence[Tensor], *, channels: bool = True
    ) -> Float[Tensor, "n *ones"]:
        """1: the gradient as it is."""
        return self.like.new_ones(self.n, *(1 for _ in gradients[0].shape))

    def only(self, i: int) -> "Nothing":
        return Nothing(1, self.like)

    def scaled(self, factor: Float[Tensor, " n"]) -> "Nothing":
        return self

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
        if residual is None:
            multiply(weights, decay, rounding)
        else:
            scale = residual * lr
            subtract_scaled(weights, gradients, scale, decay=decay, rounding=rounding)
