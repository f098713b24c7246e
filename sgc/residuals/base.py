"""The contract of a residual rule."""

import abc
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State
from sgc.registry import create
from sgc.rules.base import Shape, Step
from sgc.updates import Update

if TYPE_CHECKING:
    from sgc.compressors.base import Compressed


class Residual(abc.ABC):
    """What the weights do with the part of G that the update does not cover.

    The dense gradient is there anyway, costs no state, and throwing it away is what costs accuracy.
    """

    #: False: :meth:`complete` changes nothing, so nobody need find out what is covered.
    active: bool = True
    #: True: :meth:`complete` reads ``Compressed.energy`` if f found it on its way.
    wants_energy: bool = False
    #: True: :meth:`complete` has something to do even where the update covers all of the gradient.
    everywhere: bool = False

    @property
    def as_number(self) -> float | None:
        """The plain number that this rule is known by in options, if it is."""
        return None

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        """Further state of one parameter; names begin with ``residual``."""
        return {}

    @abc.abstractmethod
    def complete(
        self,
        update: Update,
        compressed: "Compressed",
        states: Sequence[State],
        *,
        step: Step,
    ) -> tuple[Update, Float[Tensor, " n"] | None]:
        """The update with this rule's part.

        Returns:
            The update; and in float64 what it is to be completed with, so many times the uncovered
            part of each gradient (None for nothing).
        """


def scale_of(value: Any, *, name: str = "residual (ρ)") -> float:
    """A strength, or what is wrong with it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value}")
    return float(value)


def residual_of(value: "float | str | Residual") -> Residual:
    """A rule from what an option may be: ρ of the normalised rule, a registered name, or a rule.

    Raises:
        ValueError: a number that is negative or not finite.
        UnknownPluginError: no rule of that name.
    """
    if isinstance(value, Residual):
        return value
    if isinstance(value, str):
        made: Residual = create("residual", value)
        return made
    normalised: Residual = create("residual", "normalised", scale=value)
    return normalised
