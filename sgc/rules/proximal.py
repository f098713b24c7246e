"""Proximal SGD with momentum."""

from collections.abc import Sequence

from torch import Tensor

from sgc.options import number
from sgc.rules.momentum import Momentum


class Proximal(Momentum):
    """``W ← prox_{ηλ‖·‖₁}(W − η N)``, N from :class:`~sgc.rules.momentum.Momentum`.

    ProxGen (Yun et al. 2021) as in AdaRankGrad's Algorithm 5, for ``h = ‖W‖₁``: after the step
    every weight is drawn towards zero by ηλ, and stays there once it has arrived (soft
    thresholding).

    Args:
        l1: λ.
    """

    def __init__(self, *, l1: float = 0.0) -> None:
        self.l1 = number("l1", l1, least=0)

    def finish(self, weights: Sequence[Tensor], *, lr: float | Tensor) -> None:
        if self.l1:
            for weight in weights:
                threshold = lr * self.l1
                weight.copy_(weight.sign() * (weight.abs() - threshold).clamp_(min=0))
