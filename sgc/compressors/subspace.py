"""A low-rank stage in front of any compressor: compress ``B_t G`` instead of G."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State, block
from sgc.compressors.base import Compressed, Compressor, Moments, Shape, Step
from sgc.compressors.none import NoCompression
from sgc.matrices import as_matrix, is_wide, matrix_shape, project, reduced_shape
from sgc.options import number, one_of, part, whole
from sgc.residuals.base import Residual
from sgc.rules.base import Rule
from sgc.sources.base import Source
from sgc.transfers import TRANSFERS, carry_over
from sgc.updates import LowRank, Update


class Subspace(Compressor):
    """Project a matrix on a subspace of its shorter side, then let another compressor work there.

    For m < n, ``R = B_t G`` with ``B_t ∈ R^{r×m}`` (r×n remain), otherwise ``R = G B_tᵀ`` (m×r
    remain). For a square matrix both sides store the same; eq. 8 of the SGC paper writes the left
    one, GaLore's own code takes the right one, which also trained better here and is used. B_t is
    found at the first step and again every ``refresh_every`` steps. The update is ``α·B_tᵀ N``.
    Tensors with more than two dimensions are taken as (first dimension)×(the rest).

    State beside the moments: ``basis`` (shorter side × r, unless the source can find it again) and
    ``basis_step``, the step of the last refresh. A gradient that is zero names no subspace, so the
    refresh waits for the next step.

    Args:
        inner: compressor of R, or its name.
        rank: r ≥ 1, at most the shorter side.
        source: where B_t comes from.
        refresh_every: steps between two refreshes; 0 for the first one only.
        convergence: ς: B_t is also found again once ``‖R_t‖ ≤ ς·‖G‖``, G the gradient at the last
            refresh; 0 for never. It looks at a number at every step.
        transfer: what becomes of the moments at a refresh, see :mod:`sgc.transfers`: ``keep`` (as
            in GaLore and eq. 8), or of dense moments ``rotate``, ``literal``, ``projection-aware``.
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
        self.rank = whole("rank", rank, least=1)
        self.refresh_every = whole("refresh_every", refresh_every, least=0)
        self.convergence = number("convergence", convergence, least=0)
        self.transfer = one_of("transfer", transfer, list(TRANSFERS))
        self.inner: Compressor = part("compressor", inner)
        self.source: Source = part("source", source)
        self.alpha = number("alpha", alpha)
        self.residual = residual
        self.residual_rule  # noqa: B018 — a rule that does not exist is refused now
        rows_of_rank = isinstance(self.inner, NoCompression) and self.inner.rule.elementwise
        if self.transfer != "keep" and not rows_of_rank:
            raise ValueError(
                f"transfer={transfer!r} turns moments that have the rank as a dimension, which "
                f"those of inner={type(self.inner).__name__} have not: use transfer='keep'"
            )

    @property
    def rule(self) -> Rule:  # type: ignore[override]
        """The inner compressor's."""
        return self.inner.rule

    def refuses(self, shape: Shape) -> str | None:
        if len(shape) < 2:
            return f"a parameter of shape {tuple(shape)} is not a matrix, so it has no subspace"
        rows, columns = matrix_shape(shape)
        if self.rank > min(rows, columns):
            return f"rank={self.rank} exceeds the shorter side of a {rows}×{columns} matrix"
        reason = self.inner.refuses(reduced_shape(shape, self.rank))
        return reason and f"after the projection of {tuple(shape)} on rank {self.rank}: {reason}"

    def moment_shape(self, shape: Shape) -> Shape:
        return self.inner.moment_shape(reduced_shape(shape, self.rank))

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        side = min(matrix_shape(shape))
        state = {
            "basis_step": torch.tensor(0.0),  # on the CPU, like AdamW's step; 0 is never
            **self.source.init_state(side, self.rank, device, dtype),
            **self.inner.init_state(reduced_shape(shape, self.rank), device, dtype),
        }
        if self.source.stored:
            state["basis"] = torch.zeros(side, self.rank, device=device, dtype=dtype)
        if self.convergence:
            state["basis_norm"] = torch.zeros((), device=device, dtype=dtype)
        return state

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        matrices = [as_matrix(g) for g in gradients]
        self._refresh(matrices, states, step, self._late(states, step))
        bases = self._bases(matrices, states)
        reduced = project(matrices, bases)
        if self.convergence:
            done = self._converged(reduced, states)
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
        covered = update.covered_part(reduced) if self.residual_rule.active else None
        if self.source.follows:
            bases = bases.clone()  # the update's own, while the state's moves on
            matrices = [as_matrix(g) for g in compressed.gradients]
            moved = self.source.advance(matrices, torch.stack([*reduced]), bases, states, step=step)
            here, write_back = block(states, "basis")
            here.copy_(moved)
            write_back()
        if is_wide(tuple(compressed.gradients[0].shape)):
            return LowRank(N.mT, bases, None if covered is None else covered.mT, transposed=True)
        return LowRank(N, bases, covered)

    def shared_tensors(self) -> dict[str, int]:
        return {**self.source.shared_tensors(), **self.inner.shared_tensors()}

    def prepare(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.inner.prepare(reduced_shape(shape, self.rank), device, dtype)

    def size(self, size: int) -> dict[str, int]:
        return {"rank": size}

    def _late(self, states: Sequence[State], step: Step) -> list[int]:
        """Those whose basis is missing or old."""
        last = [int(number) for number in block(states, "basis_step")[0].tolist()]
        every = self.refresh_every
        return [
            i for i, then in enumerate(last) if then == 0 or (every and step.number - then >= every)
        ]

    def _converged(
        self, reduced: Float[Tensor, "n *reduced"], states: Sequence[State]
    ) -> list[int]:
        norms = torch.linalg.vector_norm(reduced.flatten(1), dim=1)
        low = norms <= self.convergence * block(states, "basis_norm")[0]
        return [i for i, found in enumerate(low.tolist()) if found]

    def _bases(
        self, matrices: Sequence[Float[Tensor, "m n"]], states: Sequence[State]
    ) -> Float[Tensor, "n side r"]:
        if self.source.stored:
            return block(states, "basis")[0]
        turns = [int(number) for number in block(states, "basis_step")[0].tolist()]
        if len(set(turns)) == 1:
            return self._find(matrices, states, None, turns[0])
        each = [
            self._find([m], [s], None, t) for m, s, t in zip(matrices, states, turns, strict=True)
        ]
        return torch.cat(each)

    def _find(
        self,
        matrices: Sequence[Tensor],
        states: Sequence[State],
        start: Tensor | None,
        turn: int,
    ) -> Float[Tensor, "n side r"]:
        return self.source.find(matrices, self.rank, start=start, states=states, turn=turn)

    def _refresh(
        self,
        matrices: Sequence[Float[Tensor, "m n"]],
        states: Sequence[State],
        step: Step,
        due: list[int],
    ) -> bool:
        """New bases for those, except where a gradient is zero; says whether there were any."""
        if not due:
            return False
        # The one look at numbers: a zero gradient names no subspace.
        moved = torch.stack([matrices[i].any() for i in due]).tolist()
        due = [i for i, any_entry in zip(due, moved, strict=True) if any_entry]
        last = [int(states[i]["basis_step"]) for i in due]
        for cold in (True, False):
            chosen = [i for i, then in zip(due, last, strict=True) if (then == 0) == cold]
            if chosen:
                those, theirs = [matrices[i] for i in chosen], [states[i] for i in chosen]
                old = None if cold else self._bases(those, theirs).clone()
                new = self._find(those, theirs, old, step.number)
                if old is not None:
                    wide = is_wide(tuple(those[0].shape))
                    carry_over(self.transfer, theirs, new.mT @ old, wide=wide, step=step)
                self._keep(those, theirs, new, step)
        return bool(due)

    def _keep(
        self,
        matrices: Sequence[Tensor],
        states: Sequence[State],
        new: Float[Tensor, "n side r"],
        step: Step,
    ) -> None:
        for i, state in enumerate(states):
            state["basis_step"].fill_(step.number)
            if self.source.stored:
                state["basis"].copy_(new[i])
            if self.convergence:
                norm = torch.linalg.vector_norm(matrices[i], dtype=state["basis_norm"].dtype)
                state["basis_norm"].copy_(norm)
