"""The gradient as it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sgc.blocks import State
from sgc.residuals.base import Residual, scale_of
from sgc.rules.base import Step
from sgc.updates import Update

if TYPE_CHECKING:
    from sgc.compressors.base import Compressed


class Raw(Residual):
    """``ρ·G`` where the update says nothing: plain SGD there.

    Args:
        scale: ρ ≥ 0.
    """

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale_of(scale)

    def complete(
        self, update: Update, compressed: "Compressed", states: Sequence[State], *, step: Step
    ) -> tuple[Update, Tensor | None]:
        first = compressed.gradients[0]
        factor = torch.full(
            (len(compressed.gradients),), self.scale, dtype=torch.float64, device=first.device
        )
        return update, factor
