"""AdaRankGrad: the rank follows the gradient's information, the refresh its convergence."""

import math

from sgc.compressors.base import Compressor
from sgc.compressors.subspace import Subspace
from sgc.options import number, whole
from sgc.residuals.base import Residual
from sgc.sources.iass import IASS


class AdaRankGrad(Subspace):
    """AdaRankGrad (Refael et al. 2025, Algorithm 3).

    1. The subspace is the smallest that keeps ``1 − η_th`` of ‖G‖², between ``min_rank`` and
       ``rank`` (:class:`sgc.sources.iass.IASS`).
    2. At a refresh the moments are turned into the new coordinates by ``Q_tᵀ Q_{t−1}``: the first
       as printed; the second, whose printed form ``V ← R V`` leaves the positive numbers, by
       ``R∘R`` unless ``transfer`` is ``literal``.
    3. Adam works in the subspace until the gradient there has converged,

        ``‖Ĝ_t‖ ≤ ς·√(1 − η_th)·‖G‖``,  G the gradient at the last refresh,

       then the subspace is sought again. Theorem 2 prints ς₂ with ς = 1 and ``‖G‖²``; its proof
       needs ``ς₂ < √(1 − η_th)·‖G‖``, so that a fresh subspace has not converged. Where ``rank`` is
       too small to keep ``1 − η_th``, a fresh subspace can have: then every step seeks a new one.

    State has the size of GaLore's at ``rank``, whatever is alive: shapes must not depend on data.
    Its tensor ``rank`` is the live one; :func:`sgc.report.effective_ranks` counts what is in use.

    ``inner="adafactor", transfer="keep"`` is the paper's Algorithm 4, ``inner="proximal-sgd"`` with
    ``inner.l1`` = λ Algorithm 5.

    Args:
        rank: the largest rank.
        min_rank: the smallest.
        threshold: η_th, 0 ≤ η_th < 1.
        refresh_every: steps after which a subspace is sought again at the latest; 0 for never (the
            paper has no such limit; Table 5 fixes it at 200).
        convergence: ς; 0 for refreshes by ``refresh_every`` alone, and then nothing waits for a
            number of the device.
        transfer: ``rotate``, ``literal``, ``keep`` or ``projection-aware``, see
            :mod:`sgc.transfers`.
        range_finder, seed: see :class:`sgc.sources.iass.IASS`.
        alpha, residual, inner: see :class:`~sgc.compressors.subspace.Subspace`.
    """

    def __init__(
        self,
        *,
        rank: int = 4,
        min_rank: int = 1,
        threshold: float = 0.48,
        refresh_every: int = 200,
        convergence: float = 0.5,
        transfer: str = "rotate",
        range_finder: str = "subspace-iteration",
        seed: int = 0,
        alpha: float = 1.0,
        residual: float | str | Residual = 0.0,
        inner: str | Compressor = "none",
    ) -> None:
        if whole("min_rank", min_rank) > whole("rank", rank):
            raise ValueError(f"min_rank={min_rank} exceeds rank={rank}")
        source = IASS(threshold=threshold, min_rank=min_rank, range_finder=range_finder, seed=seed)
        super().__init__(
            inner=inner,
            rank=rank,
            source=source,
            refresh_every=refresh_every,
            convergence=number("convergence", convergence, least=0)
            * math.sqrt(1 - source.threshold),
            transfer=transfer,
            alpha=alpha,
            residual=residual,
        )
