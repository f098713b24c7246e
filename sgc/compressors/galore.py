"""GaLore: dense Adam in the leading singular subspace."""

from sgc.compressors.none import NoCompression
from sgc.compressors.subspace import Subspace


class GaLore(Subspace):
    """GaLore (Zhao et al. 2024): :class:`~sgc.compressors.subspace.Subspace` with dense moments.

    M and V are ``2·r·max(m, n)`` numbers, the basis ``r·min(m, n)``.
    """

    def __init__(
        self,
        *,
        rank: int = 4,
        refresh_every: int = 200,
        alpha: float = 1.0,
        residual: float = 0.0,
        svd: str = "auto",
    ) -> None:
        super().__init__(
            NoCompression(),
            rank=rank,
            refresh_every=refresh_every,
            alpha=alpha,
            residual=residual,
            svd=svd,
        )
