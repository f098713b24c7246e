"""Online Subspace Descent: dense Adam in a subspace that moves a little at every step."""

from sgc.compressors.base import Compressor
from sgc.compressors.subspace import Subspace
from sgc.residuals.base import Residual
from sgc.sources.online_pca import OnlinePCA


class OnlineSubspaceDescent(Subspace):
    """Online Subspace Descent (Liang et al. 2024): GaLore without refreshes, its basis by PCA.

    M and V are those of GaLore and stay as they are while the basis moves under them; the basis and
    its own Adam take ``3·r·min(m, n)`` numbers.

    Args:
        rank, alpha, residual, inner: see :class:`~sgc.compressors.subspace.Subspace`.
        basis_lr, basis_optimizer, basis_decay: learning rate, optimizer and weight decay of the
            basis, see :class:`sgc.sources.online_pca.OnlinePCA`.
    """

    def __init__(
        self,
        *,
        rank: int = 4,
        alpha: float = 1.0,
        basis_lr: float = 0.005,
        basis_optimizer: str = "adam",
        basis_decay: float = 0.01,
        residual: float | str | Residual = 0.0,
        inner: str | Compressor = "none",
    ) -> None:
        super().__init__(
            inner=inner,
            rank=rank,
            source=OnlinePCA(lr=basis_lr, optimizer=basis_optimizer, weight_decay=basis_decay),
            refresh_every=0,
            alpha=alpha,
            residual=residual,
        )
