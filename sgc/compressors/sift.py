"""SIFT: sparse increment fine-tuning, the support of the first gradient for ever."""

from sgc.compressors.explicit_sparse import ExplicitSparse
from sgc.residuals.base import Residual


class SIFT(ExplicitSparse):
    """SIFT (Song et al. 2024): Adam on the n entries that are largest in the first gradient.

    :class:`~sgc.compressors.explicit_sparse.ExplicitSparse` that never decides again. Slots for
    which the first gradient had no nonzero entry left are filled by later ones.

    Args:
        entries, alpha, residual: see there.
    """

    def __init__(
        self,
        *,
        entries: int = 256,
        alpha: float = 1.0,
        residual: float | str | Residual = 0.0,
    ) -> None:
        super().__init__(entries=entries, refresh_every=0, alpha=alpha, residual=residual)
