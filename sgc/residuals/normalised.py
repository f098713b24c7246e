"""The gradient itself, brought to one size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from sgc.blocks import State
from sgc.residuals.base import Residual, scale_of
from sgc.rules.base import Step
from sgc.top_entries import energies
from sgc.updates import Update

if TYPE_CHECKING:
    from sgc.compressors.base import Compressed

_RMS_FLOOR = 1e-30  # its reciprocal still fits float32


class Normalised(Residual):
    """``ρ·G/rms(G)`` where the update says nothing, rms over the whole parameter.

    0 is the SGC paper, which drops the rest of G. Below an rms of 1e-30 the residual fades out with
    G, so that a zero gradient moves nothing.

    Args:
        scale: ρ ≥ 0.
    """

    wants_energy = True

    def __init__(self, *, scale: float = 0.1) -> None:
        self.scale = scale_of(scale)
        self.active = self.scale > 0

    @property
    def as_number(self) -> float:
        return self.scale

    def complete(
        self, update: Update, compressed: "Compressed", states: Sequence[State], *, step: Step
    ) -> tuple[Update, Tensor | None]:
        if not self.scale:
            return update, None
        gradients, energy = compressed.gradients, compressed.energy
        squares = energies(gradients) if energy is None else energy
        rms = (squares / gradients[0].numel()).sqrt_().clamp_(min=_RMS_FLOOR)
        return update, self.scale / rms
