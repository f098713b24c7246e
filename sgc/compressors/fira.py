"""Fira: GaLore whose rest is scaled as the subspace is."""

from sgc.compressors.subspace import Subspace
from sgc.options import part
from sgc.sources.svd import SVD


class Fira(Subspace):
    """Fira (Chen et al. 2024): GaLore's subspace, with the residual rule ``fira``.

    Args:
        rank, refresh_every, alpha: see :class:`~sgc.compressors.subspace.Subspace`.
        growth: γ of the norm-growth limiter.
        svd: how the basis is found, see :class:`sgc.sources.svd.SVD`.
    """

    def __init__(
        self,
        *,
        rank: int = 4,
        refresh_every: int = 200,
        alpha: float = 1.0,
        growth: float = 1.01,
        svd: str = "auto",
    ) -> None:
        super().__init__(
            rank=rank,
            source=SVD(method=svd),
            refresh_every=refresh_every,
            alpha=alpha,
            residual=part("residual", "fira", growth=growth),
        )
