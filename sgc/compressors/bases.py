"""A basis for each parameter: from a source, and from there again when it is time."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State, block
from sgc.compressors.base import Compressor, Shape, Step
from sgc.matrices import is_wide, matrix_shape
from sgc.options import number, one_of, part, whole
from sgc.sources.base import Source
from sgc.transfers import TRANSFERS, carry_over


class WithBases(Compressor):
    """What compressors that project have in common: B_t, and when and how it is replaced.

    State: ``basis`` (shorter side × r, unless the source can find it again), ``basis_step``, the
    step of the last refresh, and what the source keeps. A gradient that is zero names no subspace,
    so the refresh waits for the next step.

    Args:
        rank: r ≥ 1.
        source: where B_t comes from, or its name.
        refresh_every: steps between two refreshes; 0 for the first one only.
        convergence: ς: B_t is also found again once ``‖R_t‖ ≤ ς·‖G‖``, G the gradient at the last
            refresh; 0 for never. It looks at a number at every step.
        transfer: what becomes of the moments then, see :mod:`sgc.transfers`.
    """

    def __init__(
        self,
        *,
        rank: int,
        source: str | Source,
        refresh_every: int,
        convergence: float,
        transfer: str,
    ) -> None:
        self.rank = whole("rank", rank, least=1)
        self.refresh_every = whole("refresh_every", refresh_every, least=0)
        self.convergence = number("convergence", convergence, least=0)
        self.transfer = one_of("transfer", transfer, list(TRANSFERS))
        self.source: Source = part("source", source)

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        own = self.basis_state(shape, device, dtype)
        return {**own, **super().init_state(shape, device, dtype)}

    def basis_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        """What the basis of one parameter needs."""
        side = min(matrix_shape(shape))
        state = {
            "basis_step": torch.tensor(0.0),  # on the CPU, like AdamW's step; 0 is never
            **self.source.init_state(side, self.rank, device, dtype),
        }
        if self.source.stored:
            state["basis"] = torch.zeros(side, self.rank, device=device, dtype=dtype)
        if self.convergence:
            state["basis_norm"] = torch.zeros((), device=device, dtype=dtype)
        return state

    def prepare(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        if not self.source.stored:  # what all parameters share then is that of the first step
            like = torch.zeros((), device=device, dtype=dtype).expand(matrix_shape(shape))
            self._find([like], [{}], None, 1)
        super().prepare(shape, device, dtype)

    def shared_tensors(self) -> dict[str, int]:
        return {**self.source.shared_tensors(), **super().shared_tensors()}

    def _late(self, states: Sequence[State], step: Step) -> list[int]:
        """Those whose basis is missing or old."""
        every = self.refresh_every
        return [
            i
            for i, then in enumerate(_refreshed(states))
            if then == 0 or (every and step.number - then >= every)
        ]

    def _converged(
        self, reduced: Float[Tensor, "n *reduced"], states: Sequence[State], step: Step
    ) -> list[int]:
        """Those in whose subspace little is left; not those whose basis is of this step."""
        norms = torch.linalg.vector_norm(reduced.flatten(1), dim=1)
        low = (norms <= self.convergence * block(states, "basis_norm")[0]).tolist()
        return [i for i, then in enumerate(_refreshed(states)) if low[i] and then != step.number]

    def _bases(
        self, matrices: Sequence[Float[Tensor, "m n"]], states: Sequence[State]
    ) -> Float[Tensor, "n side r"]:
        """As they are now."""
        if self.source.stored:
            return block(states, "basis")[0]
        turns = _refreshed(states)
        if len(set(turns)) == 1:
            return self._find(matrices, states, None, turns[0])
        each = [
            self._find([m], [s], None, t) for m, s, t in zip(matrices, states, turns, strict=True)
        ]
        return torch.cat(each)

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
        last = _refreshed([states[i] for i in due]) if due else []
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

    def _find(
        self,
        matrices: Sequence[Tensor],
        states: Sequence[State],
        start: Tensor | None,
        turn: int,
    ) -> Float[Tensor, "n side r"]:
        return self.source.find(matrices, self.rank, start=start, states=states, turn=turn)

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


def _refreshed(states: Sequence[State]) -> list[int]:
    """The step of each one's last refresh; 0 for never."""
    return [int(number) for number in block(states, "basis_step")[0].tolist()]
