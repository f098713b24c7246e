"""APOLLO: a random subspace decides how large a step each channel takes."""

import math

from sgc.compressors.subspace import Subspace
from sgc.options import number, part
from sgc.sources.random import Random


class Apollo(Subspace):
    """APOLLO (Zhu et al. 2024): Adam in a random subspace, used for its scale only.

    The subspace is drawn anew every ``refresh_every`` steps and not stored; the update is the
    gradient times ``√scale·‖N_j‖/‖R_j‖`` for each channel j (residual rule ``apollo``). The
    authors' APOLLO-Mini is ``rank=1, scale=128, per="tensor"``.

    Args:
        rank, refresh_every: see :class:`~sgc.compressors.subspace.Subspace`.
        scale: the authors' α; as in their code its root multiplies the update, after the limiter.
        growth: γ of the norm-growth limiter.
        per: one factor for each ``channel``, or for the whole ``tensor``.
        seed: of the subspaces.
    """

    def __init__(
        self,
        *,
        rank: int = 4,
        refresh_every: int = 200,
        scale: float = 1.0,
        growth: float = 1.01,
        per: str = "channel",
        seed: int = 0,
    ) -> None:
        self.seed = seed
        super().__init__(
            rank=rank,
            source=Random(orthonormal=False, seed=seed),
            refresh_every=refresh_every,
            residual=part(
                "residual",
                "apollo",
                scale=math.sqrt(number("scale", scale, least=0)),
                growth=growth,
                per=per,
            ),
        )
