"""The rest, scaled as the update scales what it covers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State, block
from sgc.options import one_of
from sgc.residuals.base import Residual, scale_of
from sgc.rules.base import Shape, Step
from sgc.updates import Dense, Lazy, Update

if TYPE_CHECKING:
    from sgc.compressors.base import Compressed


class Fira(Residual):
    """``φ·(G − covered G)`` with ``φ_j = ‖N_j‖/‖R_j‖`` for each channel j (Chen et al. 2024).

    R is what the update covers of G and N what it made of it, α included (the authors' code has α
    in the subspace only, and takes ``φ·(G − α·covered G)``). Channels are the rows or columns of a
    low-rank update's longer side, and the whole parameter where an update has none.

    A limiter lets the norm of this part grow by at most 1 % a step (the authors' γ), before bias
    correction and ``scale`` as in their code. A part of norm zero leaves no mark: theirs holds the
    steps after it down to 1e-8.

    Args:
        scale: of this part.
        growth: γ ≥ 1; 0 for no limiter.
        per: ``channel``, or ``tensor`` for one φ.
    """

    #: Also the covered part is replaced by its scaled gradient.
    whole = False

    def __init__(self, *, scale: float = 1.0, growth: float = 1.01, per: str = "channel") -> None:
        self.scale, self.growth = scale_of(scale, name="scale"), scale_of(growth, name="growth")
        if 0 < self.growth < 1:
            raise ValueError(f"growth must be at least 1, or 0 for no limiter, got {growth}")
        self.per = one_of("per", per, ["channel", "tensor"])

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        return {"residual_norm": torch.zeros((), dtype=dtype, device=device)}

    def complete(
        self, update: Update, compressed: "Compressed", states: Sequence[State], *, step: Step
    ) -> tuple[Update, Tensor | None]:
        gradients = compressed.gradients
        shape = tuple(gradients[0].shape)
        n = len(gradients)
        gain = update.gain(gradients, channels=self.per == "channel")

        def part(i: int) -> Tensor:
            rest = update.only(i).uncovered(gradients[i : i + 1])[0]
            return rest * gain[i]  # in gain's dtype

        def norm(i: int) -> Tensor:
            return norm_of_product(gradients[i], gain[i]) if self.whole else part(i).norm()

        # One at a time and twice, for the norm and for the step: they need not all exist at once.
        limit = self._limit(torch.stack([norm(i) for i in range(n)]), states, step) * self.scale

        def make(i: int) -> Tensor:
            if self.whole:
                return gradients[i] * (gain[i] * limit[i])
            return part(i).mul_(limit[i]).add_(update.only(i).to_dense(shape)[0])

        return Dense(Lazy(n, make)), None

    def _limit(
        self, norms: Float[Tensor, " n"], states: Sequence[State], step: Step
    ) -> Float[Tensor, " n"]:
        """What each part is multiplied by, so that its norm grows slowly; the norms are kept."""
        if not self.growth:
            return torch.ones_like(norms)
        unbias1, unbias2 = step.corrections()
        norms = norms * (unbias1 / unbias2**0.5)
        kept, write_back = block(states, "residual_norm")
        allowed = torch.where(kept > 0, kept * self.growth, torch.inf)
        limit = torch.where(norms > allowed, allowed / norms, 1.0)
        limited = norms * limit
        kept.copy_(torch.where((limited > 0) & limited.isfinite(), limited, kept))
        write_back()
        return limit


def norm_of_product(G: Tensor, gain: Tensor) -> Tensor:
    """``‖G·gain‖`` where gain has one number for a channel or for all, without the product."""
    shared = [dim for dim, length in enumerate(gain.shape) if length == 1]
    each = torch.linalg.vector_norm(G, dim=shared, keepdim=True, dtype=gain.dtype)
    return torch.linalg.vector_norm(each * gain)
