"""The rest, scaled as the update scales what it covers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sgc.blocks import State, block
from sgc.residuals.base import Residual, scale_of
from sgc.rules.base import Shape, Step
from sgc.updates import Dense, Lazy, Update

if TYPE_CHECKING:
    from sgc.compressors.base import Compressed


class Fira(Residual):
    """``φ·(G − covered G)`` with ``φ_j = ‖N_j‖/‖R_j‖`` for each channel j (Chen et al. 2024).

    R is what the update covers of G and N what it made of it; channels are the rows or columns of a
    low-rank update's longer side, and the whole parameter where an update has none. A limiter lets
    the norm of this part grow by at most 1 % a step (the authors' γ), before bias correction as in
    their code.

    Args:
        scale: of this part.
        growth: γ ≥ 1; 0 for no limiter.
    """

    #: Also the covered part is replaced by its scaled gradient.
    whole = False

    def __init__(self, *, scale: float = 1.0, growth: float = 1.01) -> None:
        self.scale, self.growth = scale_of(scale, name="scale"), scale_of(growth, name="growth")
        if 0 < self.growth < 1:
            raise ValueError(f"growth must be at least 1, or 0 for no limiter, got {growth}")

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        return {"residual_norm": torch.zeros((), dtype=dtype, device=device)}

    def complete(
        self, update: Update, compressed: "Compressed", states: Sequence[State], *, step: Step
    ) -> tuple[Update, Tensor | None]:
        gradients = compressed.gradients
        shape = tuple(gradients[0].shape)
        n = len(gradients)
        gain = update.gain(gradients)

        def part(i: int) -> Tensor:
            there = (
                gradients[i] if self.whole else update.only(i).uncovered(gradients[i : i + 1])[0]
            )
            return there.to(gain.dtype) * gain[i]

        limit = self._limit(torch.stack([part(i).norm() for i in range(n)]), states, step)

        def make(i: int) -> Tensor:
            rest = part(i) * (self.scale * limit[i])
            return rest if self.whole else update.only(i).to_dense(shape)[0] + rest

        return Dense(Lazy(n, make)), None

    def _limit(self, norms: Tensor, states: Sequence[State], step: Step) -> Tensor:
        """What each part is multiplied by, so that its norm grows slowly; the norms are kept."""
        if not self.growth:
            return torch.ones_like(norms)
        unbias1, unbias2 = step.corrections()
        norms = norms * (unbias1 / unbias2**0.5)
        kept, write_back = block(states, "residual_norm")
        allowed = torch.where(kept > 0, kept * self.growth, torch.inf)
        limit = torch.where(norms > allowed, allowed / norms, 1.0)
        kept.copy_(norms * limit)
        write_back()
        return limit
