"""A dense update that speaks about a part of the gradient only."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.rounding import Rounding
from sgc.updates.base import Update
from sgc.updates.dense import Dense, Lazy


@dataclasses.dataclass(frozen=True)
class Partial(Dense):
    """N in full, of which only ``covered`` of the gradient was looked at.

    Attributes:
        values: the n updates, each in the parameter's shape.
        covered: the part of each gradient that N speaks about, in the same form.
    """

    covered: "Float[Tensor, 'n *shape'] | Sequence[Float[Tensor, '*shape']]"

    def covered_part(self, gradients: Sequence[Tensor]) -> Float[Tensor, "n *shape"]:
        covered = self.covered
        return covered if isinstance(covered, Tensor) else torch.stack([*covered])

    def only(self, i: int) -> "Partial":
        return Partial(self.values[i][None], self.covered[i][None])

    def scaled(self, factor: Float[Tensor, " n"]) -> "Partial":
        return Partial(super().scaled(factor).values, self.covered)

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
        whole = Dense(self.values) if residual is None else completed(self, residual, gradients)
        whole.apply_to(weights, gradients, lr=lr, decay=decay, residual=None, rounding=rounding)


def completed(
    update: Update, factor: Float[Tensor, " n"], gradients: Sequence[Float[Tensor, "*shape"]]
) -> Dense:
    """``N + factor·(what N leaves uncovered of G)`` of each parameter, in full."""

    def make(i: int) -> Tensor:
        one = update.only(i)
        rest = one.uncovered(gradients[i : i + 1])[0]
        N = one.to_dense(tuple(gradients[i].shape))[0]
        return N + factor[i].to(N.dtype) * rest

    return Dense(Lazy(len(gradients), make))
