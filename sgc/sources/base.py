"""The contract of a source."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State
from sgc.rules.base import Step


class Source(abc.ABC):
    """Bases for the shorter sides of matrices of one shape."""

    #: False: a basis can be found again from the step of its refresh, so it is not part of a state.
    stored: ClassVar[bool] = True
    #: True: :meth:`advance` moves the basis after every step.
    follows: ClassVar[bool] = False

    def init_state(self, side: int, rank: int, device: torch.device, dtype: torch.dtype) -> State:
        """Further state of one parameter."""
        return {}

    @abc.abstractmethod
    def find(
        self,
        matrices: Sequence[Float[Tensor, "m n"]],
        rank: int,
        *,
        start: Float[Tensor, "count side r"] | None,
        states: Sequence[State],
        turn: int,
    ) -> Float[Tensor, "count side r"]:
        """A basis for each matrix.

        Args:
            matrices: gradients; not zero.
            rank: r.
            start: the old bases, None the first time.
            states: of the parameters; what :meth:`init_state` made may be updated.
            turn: the step of this refresh, from 1.
        """

    def advance(
        self,
        matrices: Sequence[Float[Tensor, "m n"]],
        reduced: Float[Tensor, "count *reduced"],
        bases: Float[Tensor, "count side r"],
        states: Sequence[State],
        *,
        step: Step,
    ) -> Float[Tensor, "count side r"]:
        """The bases of the next step, where :attr:`follows`; ``reduced`` is this step's product."""
        return bases

    def shared_tensors(self) -> dict[str, int]:
        """Bytes that all parameters share, by what they are."""
        return {}
