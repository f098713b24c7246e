"""CESGC: the compute-efficient form, a sketch inside GaLore's subspace."""

from typing import Any

from sgc.compressors.mesgc import MESGC
from sgc.compressors.subspace import Subspace
from sgc.options import takes_options_of
from sgc.sources.svd import SVD


class CESGC(Subspace):
    """Compute-efficient SGC (the paper, Appendix F, eq. 8): ``W ← W − η·B_tᵀ SGC(B_t G)``.

    :class:`~sgc.compressors.subspace.Subspace` in front of
    :class:`~sgc.compressors.mesgc.MESGC`, whose options it takes. α is applied once, to the lifted
    update; ρ counts what lies outside the subspace as well as what is off the support.

    Args:
        rank, refresh_every, alpha: see :class:`~sgc.compressors.subspace.Subspace`.
        svd: how the basis is found, see :class:`sgc.sources.svd.SVD`.
        sparsity: s, entries kept of R = B_t G; divisible by chunks.
        chunks: c, of R.
        options: further ones of :class:`~sgc.compressors.mesgc.MESGC`.
    """

    @takes_options_of(MESGC)
    def __init__(
        self,
        *,
        rank: int = 32,
        refresh_every: int = 200,
        alpha: float = 1.0,
        svd: str = "auto",
        sparsity: int = 64,
        chunks: int = 64,
        **options: Any,
    ) -> None:
        inner = MESGC(sparsity=sparsity, chunks=chunks, **options)
        self.svd = svd
        super().__init__(
            inner=inner,
            rank=rank,
            source=SVD(method=svd),
            refresh_every=refresh_every,
            alpha=alpha,
            residual=inner.residual,
        )
        self._chunks_a_rank = max(1, inner.chunks // self.rank)
        self._chunk_sparsity = inner.chunk_sparsity

    def size(self, size: int) -> dict[str, Any]:
        """A higher rank, with as many chunks to each as now."""
        chunks = size * self._chunks_a_rank
        return {"rank": size, "chunks": chunks, "sparsity": chunks * self._chunk_sparsity}
