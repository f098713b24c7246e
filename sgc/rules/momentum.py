"""SGD with momentum."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sgc import adam
from sgc.blocks import State, block
from sgc.rules.base import Moments, Rule, Shape, Step


class Momentum(Rule):
    """``M ← β₁ M + (1 − β₁) p`` and ``N = M``: SGD with momentum, one moment, no bias correction.

    AdaRankGrad's Algorithm 5, line 1 of its block 4. (torch.optim.SGD leaves out the ``1 − β₁``.)
    """

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        return {"exp_avg": torch.zeros(shape, dtype=dtype, device=device)}

    def accumulate(
        self, states: Sequence[State], p: Tensor, q: Tensor | None, *, step: Step
    ) -> Moments:
        first, keep = block(states, "exp_avg")
        adam.blend(first, p, beta=step.betas[0])
        keep()
        return Moments(first, None)
