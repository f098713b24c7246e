"""No memory at all."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sgc.blocks import State
from sgc.rules.base import Moments, Rule, Shape, Step


class Stateless(Rule):
    """``N = p``: nothing is kept."""

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        return {}

    def accumulate(
        self, states: Sequence[State], p: Tensor, q: Tensor | None, *, step: Step
    ) -> Moments:
        return Moments(p, None)
