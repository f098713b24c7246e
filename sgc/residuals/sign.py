"""Sign-SGD on the rest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sgc.blocks import State
from sgc.residuals.base import Residual, scale_of
from sgc.rules.base import Step
from sgc.updates import Dense, Lazy, Update

if TYPE_CHECKING:
    from sgc.compressors.base import Compressed

_NOISE = 4.0  # roundings of the largest entry: what is left of a covered place


class Sign(Residual):
    """``ρ·sign(G)`` where the update says nothing, FRUGAL's signSGD (Zmushko et al. 2024).

    What is left of a covered part by rounding has no sign.

    Args:
        scale: ρ, the authors' ``inactive_lr_scale``: the rest's learning rate over the others'.
    """

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale_of(scale)

    def complete(
        self, update: Update, compressed: "Compressed", states: Sequence[State], *, step: Step
    ) -> tuple[Update, Tensor | None]:
        gradients = compressed.gradients

        def make(i: int) -> Tensor:
            G, one = gradients[i], update.only(i)
            rest = one.uncovered([G])[0]
            # The sign of NaN is 0 and that of infinity 1: both would hide a broken gradient.
            signs = torch.where(G.isfinite(), rest.sign(), torch.nan)
            if not one.covers_nothing:
                noise = _NOISE * torch.finfo(G.dtype).eps * G.abs().amax()
                signs = torch.where(rest.abs() <= noise, 0.0, signs)
                return one.to_dense(tuple(G.shape))[0] + self.scale * signs
            return self.scale * signs

        return Dense(Lazy(len(gradients), make)), None
