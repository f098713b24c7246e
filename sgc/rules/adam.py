"""Adam's two moments."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sgc import adam
from sgc.blocks import State, block
from sgc.rules.base import Moments, Rule, Shape, Step


class Adam(Rule):
    """``M ← β₁ M + (1 − β₁) p``, ``V ← β₂ V + (1 − β₂) q``, bias-corrected (Kingma & Ba 2015)."""

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        return {
            "exp_avg": torch.zeros(shape, dtype=dtype, device=device),
            "exp_avg_sq": torch.zeros(shape, dtype=dtype, device=device),
        }

    def accumulate(
        self, states: Sequence[State], p: Tensor, q: Tensor | None, *, step: Step
    ) -> Moments:
        first, keep_first = block(states, "exp_avg")
        second, keep_second = block(states, "exp_avg_sq")
        beta1, beta2 = step.betas
        adam.accumulate(first, second, p, q, beta1=beta1, beta2=beta2)
        keep_first()
        keep_second()
        unbias1, unbias2 = step.corrections()
        return Moments(first / unbias1, second / unbias2)
