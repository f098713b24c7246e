"""GaLore: dense Adam in the leading singular subspace."""

from sgc.compressors.base import Compressor
from sgc.compressors.subspace import Subspace
from sgc.residuals.base import Residual
from sgc.sources.svd import SVD


class GaLore(Subspace):
    """GaLore (Zhao et al. 2024): :class:`~sgc.compressors.subspace.Subspace` with dense moments.

    M and V are ``2·r·max(m, n)`` numbers, the basis ``r·min(m, n)``; moments are kept as they are
    when the basis changes. Another ``inner`` compressor works in the same subspace instead.

    Args:
        rank, refresh_every, residual, inner: see there.
        alpha: α, their code's ``scale`` (0.25 in its examples): of the lifted update.
        svd: how the basis is found, see :class:`sgc.sources.svd.SVD`.
    """

    def __init__(
        self,
        *,
        rank: int = 4,
        refresh_every: int = 200,
        alpha: float = 1.0,
        residual: float | str | Residual = 0.0,
        svd: str = "auto",
        inner: str | Compressor = "none",
    ) -> None:
        self.svd = svd
        super().__init__(
            inner=inner,
            rank=rank,
            source=SVD(method=svd),
            refresh_every=refresh_every,
            alpha=alpha,
            residual=residual,
        )
