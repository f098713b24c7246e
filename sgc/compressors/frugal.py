"""FRUGAL: Adam in a subspace, sign-SGD on the rest."""

from sgc.compressors.subspace import Subspace
from sgc.options import part
from sgc.sources.base import Source


class Frugal(Subspace):
    """FRUGAL (Zmushko et al. 2024): no part of the gradient is left out, one part has no state.

    The subspace is random and orthonormal by default, their code's ``proj_type="random"``; the
    paper's columns and blocks are subsets of coordinates, its GaLore variant is ``source=svd``.
    Moments are kept over a refresh, as with their ``reset_statistics=False``; by default they start
    them again.

    Args:
        rank, refresh_every, source: see :class:`~sgc.compressors.subspace.Subspace`.
        sign_scale: learning rate of sign-SGD over that of Adam.
    """

    def __init__(
        self,
        *,
        rank: int = 4,
        refresh_every: int = 200,
        source: str | Source = "random",
        sign_scale: float = 1.0,
    ) -> None:
        super().__init__(
            rank=rank,
            source=source,
            refresh_every=refresh_every,
            residual=part("residual", "sign", scale=sign_scale),
        )
