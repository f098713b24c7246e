"""What becomes of the moments when the basis changes under them.

``turn`` is ``R = B_newᵀ B_old``, by which coordinates in the old basis become coordinates in the
new one. Moments are given with the rank as their last dimension.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State, block
from sgc.rules.base import Step

Moment = Float[Tensor, "n long r"]
Transfer = Callable[..., tuple[Moment, Moment | None]]


def rotate(
    first: Moment, second: Moment | None, turn: Float[Tensor, "n r r"], *, step: Step
) -> tuple[Moment, Moment | None]:
    """``M ← R M``, ``V ← (R∘R) V``: variances turn with the squares, and stay above zero."""
    new = first @ turn.mT
    return new, None if second is None else second @ turn.square().mT


def literal(
    first: Moment, second: Moment | None, turn: Float[Tensor, "n r r"], *, step: Step
) -> tuple[Moment, Moment | None]:
    """``M ← R M``, ``V ← R V`` as in AdaRankGrad's Algorithm 3; a negative V is read as 0."""
    new = first @ turn.mT
    return new, None if second is None else (second @ turn.mT).clamp_(min=0)


def projection_aware(
    first: Moment, second: Moment | None, turn: Float[Tensor, "n r r"], *, step: Step
) -> tuple[Moment, Moment | None]:
    """``V̂ ← |(R∘R)(V̂ − M̂²) + (R M̂)²|`` with the bias corrections of the step before.

    LDAdam (Robert et al. 2025, section 3): the variance around the mean turns with the squares, the
    mean with R.
    """
    new = first @ turn.mT
    if second is None or step.number < 2:
        return new, second
    unbias1, unbias2 = step.corrections(before=1)
    variance = second / unbias2 - (first / unbias1).square()
    moved = variance @ turn.square().mT + (new / unbias1).square()
    return new, moved.abs_() * unbias2


TRANSFERS: dict[str, Transfer | None] = {
    "keep": None,
    "literal": literal,
    "projection-aware": projection_aware,
    "rotate": rotate,
}


def carry_over(
    name: str, states: Sequence[State], turn: Float[Tensor, "n r r"], *, wide: bool, step: Step
) -> None:
    """Turn the dense moments in these states, in place; ``wide``: the rank comes first there."""
    transfer = TRANSFERS[name]
    if transfer is None:
        return
    keys = [key for key in ("exp_avg", "exp_avg_sq") if key in states[0]]
    blocks = [block(states, key) for key in keys]
    moments = [here.mT if wide else here for here, _ in blocks]
    turned = transfer(moments[0], moments[1] if len(moments) > 1 else None, turn, step=step)
    for (here, write_back), new in zip(blocks, turned, strict=False):
        if new is not None:
            here.copy_(new.mT if wide else new)
        write_back()
