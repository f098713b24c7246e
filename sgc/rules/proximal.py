"""Proximal SGD with momentum."""

from collections.abc import Sequence

from torch import Tensor

from sgc import adam
from sgc.options import number
from sgc.rounding import Rounding
from sgc.rules.momentum import Momentum
from sgc.updates.elementwise import store


class Proximal(Momentum):
    """``W ← prox_{ηλ‖·‖₁}(W − η N)``, N from :class:`~sgc.rules.momentum.Momentum`.

    ProxGen (Yun et al. 2021) as in AdaRankGrad's Algorithm 5, for ``h = ‖W‖₁``: after the step
    every weight is drawn towards zero by ηλ, and what is nearer than that is exactly zero (soft
    thresholding). Half precision is worked on in float32; a bfloat16 weight above 512·ηλ does not
    feel so small a pull when it is rounded to the nearest.

    Args:
        l1: λ.
    """

    def __init__(self, *, l1: float = 0.0) -> None:
        self.l1 = number("l1", l1, least=0)

    def finish(self, weights: Sequence[Tensor], *, lr: float | Tensor, rounding: Rounding) -> None:
        if not self.l1:
            return
        threshold = lr * self.l1
        for i, weight in enumerate(weights):
            x = weight.to(adam.moment_dtype(weight.dtype))
            store(weight, x.abs().sub_(threshold).clamp_(min=0).copysign_(x), rounding, i)
