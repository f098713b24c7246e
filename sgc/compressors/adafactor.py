"""Adafactor: a second moment in rows and columns, in front of any compressor."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State
from sgc.compressors.base import Compressed, Compressor, Moments, Shape, Step
from sgc.compressors.stages import Stage
from sgc.factored import Factored
from sgc.updates import Update
from sgc.updates.partial import completed


class Adafactor(Stage):
    """Divide G by a factored second moment (Shazeer & Stern 2018); compress what comes of it.

    For a matrix of m×n numbers (AdaRankGrad's Algorithm 4, block 3, with means for its sums),

        ``R ← β̂ R + (1 − β̂) mean_columns(G² + ε₁)``,  ``C ← β̂ C + (1 − β̂) mean_rows(G² + ε₁)``,
        ``V̂ = R C / mean(R)``,  ``U = G/√V̂``,  ``U ← U / max(1, rms(U)/d)``,

    with ``β̂ = 1 − t^γ``: m + n numbers instead of m·n, and V̂ = G² where that has rank one. The
    inner compressor then works on U as on a gradient: ``sgd`` gives N = U, Adafactor without
    momentum; ``sgd-momentum`` Adafactor with momentum; ``mesgc`` with the rule momentum a
    factored second moment with a sketched first. Its residual is that of U.

    State: that of :class:`sgc.factored.Factored`. U of all alike parameters exists at once.

    Args:
        inner: compressor of U, or its name.
        eps1: ε₁, added to the squares.
        eps2: ε₂, least scale of a parameter.
        clip: d, largest rms of U.
        decay_rate: γ < 0.
        scale_parameter: multiply the update by ``max(ε₂, rms(W))`` (Algorithm 4's α_t); weight
            decay is not multiplied by it.
    """

    def __init__(
        self,
        *,
        inner: str | Compressor = "sgd",
        eps1: float = 1e-30,
        eps2: float = 1e-3,
        clip: float = 1.0,
        decay_rate: float = -0.8,
        scale_parameter: bool = False,
    ) -> None:
        self.second = Factored(
            eps1=eps1, eps2=eps2, clip=clip, decay_rate=decay_rate, scale_parameter=scale_parameter
        )
        own = self.second.init_state((1, 1), torch.device("meta"), torch.float32)
        self.wrap(inner, own=own, completes=False)

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        return {
            **self.second.init_state(shape, device, dtype),
            **super().init_state(shape, device, dtype),
            **self.inner.residual_rule.init_state(shape, device, dtype),
        }

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        U = self.second.clipped(self.second.divided(gradients, states, step=step))
        inner = self.inner.compress(U.unbind(), states, step=step)
        return Compressed(inner.p, inner.q, gradients, inner=inner)

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        U = compressed.inner
        assert U is not None
        update = self.inner.decompress(moments, U, states, step=step)
        update, factor = self.inner.residual_rule.complete(update, U, states, step=step)
        return update if factor is None else completed(update, factor, U.gradients)

    def step_scale(self, weights: Sequence[Tensor]) -> Float[Tensor, " n"] | None:
        own, inner = self.second.step_scale(weights), super().step_scale(weights)
        return inner if own is None else own if inner is None else own * inner

    def size(self, size: int) -> dict[str, Any] | None:
        """The inner compressor's."""
        inner = self.inner.size(size)
        return inner and {f"inner.{option}": value for option, value in inner.items()}
