"""A low-rank stage in front of any compressor: compress ``B_t G`` instead of G."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sgc.blocks import State, block, together
from sgc.compressors.base import Compressed, Compressor, Moments, Shape, Step
from sgc.compressors.bases import WithBases
from sgc.compressors.none import NoCompression
from sgc.compressors.stages import Stage
from sgc.matrices import as_matrix, is_wide, no_subspace, project, reduced_shape
from sgc.options import number
from sgc.residuals.base import Residual
from sgc.sources.base import Source
from sgc.updates import LowRank, Update


class Subspace(WithBases, Stage):
    """Project a matrix on a subspace of its shorter side, then let another compressor work there.

    For m < n, ``R = B_t G`` with ``B_t ∈ R^{r×m}`` (r×n remain), otherwise ``R = G B_tᵀ`` (m×r
    remain). For a square matrix both sides store the same; eq. 8 of the SGC paper writes the left
    one, GaLore's own code takes the right one, which also trained better here and is used. B_t is
    found at the first step and again every ``refresh_every`` steps. The update is ``α·B_tᵀ N``.
    Tensors with more than two dimensions are taken as (first dimension)×(the rest).

    Args:
        inner: compressor of R, or its name.
        rank: r ≥ 1, at most the shorter side.
        source, refresh_every, convergence: see :class:`~sgc.compressors.bases.WithBases`.
        transfer: ``keep`` (as in GaLore and eq. 8), or of dense moments ``rotate``, ``literal``,
            ``projection-aware``, see :mod:`sgc.transfers`.
        alpha: α, scale of the update.
        residual: what becomes of the part of G that the update does not cover, outside the subspace
            or off the inner compressor's support.
    """

    def __init__(
        self,
        *,
        inner: str | Compressor = "none",
        rank: int = 4,
        source: str | Source = "svd",
        refresh_every: int = 200,
        convergence: float = 0.0,
        transfer: str = "keep",
        alpha: float = 1.0,
        residual: float | str | Residual = 0.0,
    ) -> None:
        super().__init__(
            rank=rank,
            source=source,
            refresh_every=refresh_every,
            convergence=convergence,
            transfer=transfer,
        )
        self.alpha = number("alpha", alpha)
        self.take_residual(residual)
        example = ((self.rank, self.rank), torch.device("meta"), torch.float32)
        own = {**self.basis_state(*example), **self.residual_rule.init_state(*example)}
        self.wrap(inner, own=own, completes=True)
        rows_of_rank = isinstance(self.inner, NoCompression) and self.inner.rule.elementwise
        if self.transfer != "keep" and not rows_of_rank:
            raise ValueError(
                f"transfer={transfer!r} turns moments that have the rank as a dimension, which "
                f"those of inner={type(self.inner).__name__} have not: use transfer='keep'"
            )

    def inner_shape(self, shape: Shape) -> Shape:
        return reduced_shape(shape, self.rank)

    def refuses(self, shape: Shape) -> str | None:
        if reason := no_subspace(shape, self.rank):
            return reason
        reason = super().refuses(shape)
        return reason and f"after the projection of {tuple(shape)} on rank {self.rank}: {reason}"

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        matrices = [as_matrix(g) for g in gradients]
        self._refresh(matrices, states, step, self._late(states, step))
        bases = self._bases(matrices, states)
        reduced = project(matrices, bases)
        if self.convergence:
            done = self._converged(reduced, states, step)
            if self._refresh(matrices, states, step, done):
                bases = self._bases(matrices, states)
                reduced = project(matrices, bases)
        inner = self.inner.compress(reduced.unbind(), states, step=step)
        return Compressed(inner.p, inner.q, gradients, inner=inner, bases=bases)

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        assert compressed.inner is not None
        assert compressed.bases is not None
        reduced, bases = compressed.inner.gradients, compressed.bases
        update = self.inner.decompress(moments, compressed.inner, states, step=step)
        N = update.to_dense(tuple(reduced[0].shape)) * self.alpha
        asked = self.residual_rule.active or self._is_inner
        covered = update.covered_part(reduced) if asked else None
        if self.source.follows:
            bases = bases.clone()  # the update's own, while the state's moves on
            matrices = [as_matrix(g) for g in compressed.gradients]
            moved = self.source.advance(matrices, together(reduced), bases, states, step=step)
            here, write_back = block(states, "basis")
            here.copy_(moved)
            write_back()
        if is_wide(tuple(compressed.gradients[0].shape)):
            return LowRank(N.mT, bases, None if covered is None else covered.mT, transposed=True)
        return LowRank(N, bases, covered)

    def size(self, size: int) -> dict[str, int]:
        return {"rank": size}
