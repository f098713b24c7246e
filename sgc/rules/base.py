"""The contract of a rule, and what passes between f, ρ and g in one step."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import Shape, State
from sgc.rounding import Rounding


@dataclasses.dataclass(frozen=True)
class Step:
    """What every part is told about a step.

    Attributes:
        number: 1 for the first.
        betas: β₁ and β₂.
        eps: ε.
    """

    number: int
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def corrections(self, *, before: int = 0) -> tuple[float, float]:
        """``1 − β₁^t`` and ``1 − β₂^t``, of ``before`` steps earlier if given."""
        t = self.number - before
        return 1 - self.betas[0] ** t, 1 - self.betas[1] ** t


@dataclasses.dataclass(frozen=True)
class Moments:
    """What ρ hands to g, bias-corrected.

    Attributes:
        first: M̂.
        second: V̂, of a shape that broadcasts to M̂'s; None where N is M̂ itself.
    """

    first: Float[Tensor, "n *moment"]
    second: Float[Tensor, "n *moment"] | None


class Rule(abc.ABC):
    """The moments of what f found, and nothing else: no learning rate, no weights.

    Its tensors stand in the state under names that begin with ``exp_avg``.
    """

    #: Works on each number alone, so that it may run on the measurements of a sketch.
    elementwise: ClassVar[bool] = True

    @abc.abstractmethod
    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        """Zeros for p of shape ``(n, *moment)``: what is alike lies in one block."""

    @abc.abstractmethod
    def accumulate(
        self,
        states: Sequence[State],
        p: Float[Tensor, "n *moment"],
        q: Float[Tensor, "n *moment"] | None,
        *,
        step: Step,
    ) -> Moments:
        """Take p (and q; None stands for p²) into the states, and say what they are now."""

    def finish(  # noqa: B027 — most rules end with the step
        self, weights: Sequence[Tensor], *, lr: float | Tensor, rounding: Rounding
    ) -> None:
        """What follows the step in the weights themselves (a proximal map); in place.

        Args:
            weights: of n alike parameters.
            lr: η; a tensor on the weights' device is read there.
            rounding: of half-precision weights.
        """
