"""Explicit sparse Adam: moments for a few entries of the gradient, by their places."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sgc import adam
from sgc.blocks import block
from sgc.compressors.base import Compressed, Compressor, Moments, Shape, State, Step
from sgc.options import number, whole
from sgc.residuals.base import Residual
from sgc.updates import Sparse, Update

#: Small parameters are worked on together up to this many numbers; a larger one alone.
_CPU_TILE, _ACCELERATOR_TILE = 2**20, 2**24


class ExplicitSparse(Compressor):
    """Adam on n entries of a parameter: their places are stored, the others have no state.

    What a sketch of as many numbers is held against. State: ``index``, n flat places (int32, or
    int64 for parameters of 2³¹ numbers and more), and M and V of n numbers each.

    Which n is decided at the first step, by the largest |G| of the whole parameter, and again every
    ``refresh_every`` steps, by the size that the momentum of an entry has, or would have,

        ``|β₁ M_i + (1 − β₁) G_i|`` where i is held,  ``(1 − β₁)·|G_i|`` elsewhere,

    so an entry that is held goes only when its momentum has fallen below what a newcomer brings.
    What goes loses its moments. What comes starts where the first step of Adam would leave it: with
    ``M = (1 − β₁ᵗ⁻¹) G`` and ``V = (1 − β₂ᵗ⁻¹) G²`` before step t, M̂ = G and V̂ = G² after it.

    An entry whose gradient and momentum are zero is never held: its slot stays unset (index −1)
    until there is one, so a gradient of zeros decides nothing.

    Every step looks at all of G for the n largest, as unset slots may be filled at any step without
    asking the device; a refresh costs nothing more, and one at every step (the default) holds the
    entries with the largest momentum of what it has seen.

    With n = d, and no gradient that is exactly zero at the first step, it is torch's AdamW.

    Args:
        entries: n ≥ 1, at most the numbers of the parameter.
        refresh_every: steps between two decisions; 0 for the first one only (``sift``).
        alpha: α, scale of the update.
        residual: what becomes of G where no entry is held.
    """

    def __init__(
        self,
        *,
        entries: int = 256,
        refresh_every: int = 1,
        alpha: float = 1.0,
        residual: float | str | Residual = 0.0,
    ) -> None:
        self.entries = whole("entries", entries, least=1)
        self.refresh_every = whole("refresh_every", refresh_every, least=0)
        self.alpha = number("alpha", alpha)
        self.take_residual(residual)

    def refuses(self, shape: Shape) -> str | None:
        numel = math.prod(shape)
        if self.entries > numel:
            return (
                f"entries={self.entries} exceeds the {numel} numbers of a parameter of shape "
                f"{tuple(shape)}"
            )
        return None

    def moment_shape(self, shape: Shape) -> Shape:
        return (self.entries,)

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        places = torch.int32 if math.prod(shape) < 2**31 else torch.int64
        return {"index": torch.full((self.entries,), -1, dtype=places, device=device)}

    def size(self, size: int) -> dict[str, Any]:
        return {"entries": size}

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        index, keep_index = block(states, "index")
        moments = (
            [block(states, key) for key in ("exp_avg", "exp_avg_sq")] if step.number > 1 else []
        )
        due = bool(self.refresh_every) and (step.number - 1) % self.refresh_every == 0
        p = index.new_zeros(index.shape, dtype=adam.moment_dtype(gradients[0].dtype))

        tile = _ACCELERATOR_TILE if gradients[0].is_cuda else _CPU_TILE
        at_once = max(1, tile // gradients[0].numel())
        for start in range(0, len(gradients), at_once):
            here = slice(start, start + at_once)
            flat = torch.stack([g.reshape(-1).to(p.dtype) for g in gradients[here]])
            old = index[here].long()
            momentum = moments[0][0][here] if moments else None
            new = largest(flat, old, momentum, self.entries, beta=step.betas[0], due=due)
            p[here] = there = _at(flat, new)
            index[here] = new
            newcomers = (there, there.square())
            corrections = step.corrections(before=1)
            for (moment, _), new_one, unbias in zip(moments, newcomers, corrections, strict=False):
                moment[here] = carried(moment[here], old, new, new_one * unbias)
        for keep in (keep_index, *(keep for _, keep in moments)):
            keep()
        return Compressed(p, None, gradients)

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        index, _ = block(states, "index")
        N = adam.direction(moments.first, moments.second, eps=step.eps, eps_under_root=False)
        return Sparse(index.long(), N * self.alpha)


def largest(
    flat: Float[Tensor, "n d"],
    held: Int[Tensor, "n m"],
    momentum: Float[Tensor, "n m"] | None,
    entries: int,
    *,
    beta: float,
    due: bool,
) -> Int[Tensor, "n m"]:
    """Places of the entries to be held, in rising order; −1, which comes first, for none.

    Args:
        flat: gradients.
        held: places held so far, each once, in rising order; −1 for none.
        momentum: M there; None for zero.
        entries: m.
        beta: β₁.
        due: False keeps what is held.
    """
    score = flat.abs() * (1 - beta)
    if momentum is not None:
        there = momentum.clone()
        adam.blend(there, _at(flat, held), beta=beta)
        there = there.abs_() if due else torch.full_like(there, torch.inf)
        # Unset slots repeat the last one of their row, which is set if any is; or change nothing.
        unset, last = held < 0, held[:, -1:]
        same = torch.where(last < 0, score[:, :1], there[:, -1:])
        places = torch.where(unset, last, held).clamp_(min=0)
        score.scatter_(1, places, torch.where(unset, same, there))
    top = score.topk(entries, dim=1, sorted=False)
    return top.indices.masked_fill(top.values == 0, -1).sort(dim=1).values


def carried(
    moment: Float[Tensor, "n m"],
    old: Int[Tensor, "n m"],
    new: Int[Tensor, "n m"],
    fresh: Float[Tensor, "n m"],
) -> Float[Tensor, "n m"]:
    """The moment of each new place: what the old one had, or ``fresh`` where it was not held.

    Both indices rise; unset slots are zero.
    """
    slot = torch.searchsorted(old, new).clamp_(max=old.shape[1] - 1)
    stayed = old.gather(1, slot) == new
    return torch.where(stayed, moment.gather(1, slot), fresh)


def _at(flat: Float[Tensor, "n d"], index: Int[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    return flat.gather(1, index.clamp(min=0)).masked_fill(index < 0, 0)
