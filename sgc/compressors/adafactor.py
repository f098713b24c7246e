"""Adafactor: a second moment in rows and columns, in front of any compressor."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import adam
from sgc.blocks import State, block, together
from sgc.compressors.base import Compressed, Compressor, Moments, Shape, Step
from sgc.compressors.stages import refuse_clash
from sgc.matrices import matrix_shape
from sgc.options import flag, number, part
from sgc.rules.base import Rule
from sgc.top_entries import energies
from sgc.updates import Update
from sgc.updates.partial import completed

#: Squares are cut here: sums of them still fit float32.
_LARGEST_SQUARE = 1e30


class Adafactor(Compressor):
    """Divide G by a factored second moment (Shazeer & Stern 2018); compress what comes of it.

    For a matrix of m×n numbers (AdaRankGrad's Algorithm 4, block 3, with means for its sums),

        ``R ← β̂ R + (1 − β̂) mean_columns(G² + ε₁)``,  ``C ← β̂ C + (1 − β̂) mean_rows(G² + ε₁)``,
        ``V̂ = R C / mean(R)``,  ``U = G/√V̂``,  ``U ← U / max(1, rms(U)/d)``,

    with ``β̂ = 1 − t^γ``: m + n numbers instead of m·n, and V̂ = G² where that has rank one. The
    inner compressor then works on U as on a gradient: ``sgd`` gives N = U, Adafactor without
    momentum; ``sgd-momentum`` Adafactor with momentum; ``mesgc`` with the rule momentum a
    factored second moment with a sketched first. Its residual is that of U.

    State: ``exp_avg_sq_row``, ``exp_avg_sq_col``; tensors of more than two dimensions are taken as
    (first dimension)×(the rest). Vectors keep V̂ in full, ``exp_avg_sq_full``. U of all alike
    parameters exists at once.

    Squares above 1e30 are cut to that, so that their sums stay finite.

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
        self.inner: Compressor = part("compressor", inner)
        own = factored_state((1, 1), torch.device("meta"), torch.float32)
        refuse_clash(self, own, self.inner)
        self.eps1, self.eps2 = positive("eps1", eps1), number("eps2", eps2, least=0)
        self.clip, self.decay_rate = positive("clip", clip), -positive("-decay_rate", -decay_rate)
        self.scale_parameter = flag("scale_parameter", scale_parameter)

    @property
    def rule(self) -> Rule:  # type: ignore[override]
        """The inner compressor's."""
        return self.inner.rule

    def refuses(self, shape: Shape) -> str | None:
        return self.inner.refuses(shape)

    def moment_shape(self, shape: Shape) -> Shape:
        return self.inner.moment_shape(shape)

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        return {
            **factored_state(shape, device, dtype),
            **self.inner.init_state(shape, device, dtype),
            **self.inner.residual_rule.init_state(shape, device, dtype),
        }

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        U = preconditioned(gradients, states, step=step, eps1=self.eps1, rate=self.decay_rate)
        inner = self.inner.compress(clipped(U, self.clip).unbind(), states, step=step)
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
        scale = self.inner.step_scale(weights)
        if not self.scale_parameter:
            return scale
        own = weight_scale(weights, least=self.eps2)
        return own if scale is None else own * scale

    def prepare(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.inner.prepare(shape, device, dtype)

    def size(self, size: int) -> dict[str, Any] | None:
        """The inner compressor's."""
        inner = self.inner.size(size)
        return inner and {f"inner.{option}": value for option, value in inner.items()}

    def shared_tensors(self) -> dict[str, int]:
        return self.inner.shared_tensors()


def positive(name: str, value: float) -> float:
    """An option that must be above 0.

    Raises:
        ValueError: it is not.
    """
    if number(name, value) <= 0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return float(value)


def factored_state(shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
    """Zeros for the second moment of one parameter."""
    if len(shape) < 2:
        return {"exp_avg_sq_full": torch.zeros(shape, device=device, dtype=dtype)}
    rows, columns = matrix_shape(shape)
    return {
        "exp_avg_sq_row": torch.zeros(rows, device=device, dtype=dtype),
        "exp_avg_sq_col": torch.zeros(columns, device=device, dtype=dtype),
    }


def preconditioned(
    gradients: Sequence[Float[Tensor, "*shape"]],
    states: Sequence[State],
    *,
    step: Step,
    eps1: float,
    rate: float,
) -> Float[Tensor, "n *shape"]:
    """``U = G/√V̂``, after G² went into the factors of V̂ in the states."""
    G = together(gradients)
    G = G.to(adam.moment_dtype(G.dtype)).contiguous()
    squares = (G.square() + eps1).clamp_(max=_LARGEST_SQUARE)
    beta = 1 - math.pow(step.number, rate)
    if G.ndim < 3:
        V, keep = block(states, "exp_avg_sq_full")
        adam.blend(V, squares, beta=beta)
        keep()
        return G * V.rsqrt()
    n, (rows, columns) = len(gradients), matrix_shape(tuple(G.shape[1:]))
    squares = squares.view(n, rows, columns)
    R, keep_rows = block(states, "exp_avg_sq_row")
    C, keep_columns = block(states, "exp_avg_sq_col")
    adam.blend(R, squares.mean(2), beta=beta)
    adam.blend(C, squares.mean(1), beta=beta)
    keep_rows()
    keep_columns()
    # One factor after the other: products of the two leave float32 where both are vanishing.
    of_rows = R.mean(1, keepdim=True).sqrt() * R.rsqrt()
    U = (G.view(n, rows, columns) * of_rows[:, :, None]).mul_(C.rsqrt()[:, None, :])
    return U.view(G.shape)


def clipped(U: Float[Tensor, "n *shape"], clip: float) -> Float[Tensor, "n *shape"]:
    """``U / max(1, rms(U)/d)`` of each, rms over the parameter; in place."""
    rms = (energies(U.unbind()) / U[0].numel()).sqrt_()
    factor = (rms / clip).clamp_(min=1).reciprocal_().to(U.dtype)
    return U.mul_(factor.view(-1, *(1,) * (U.ndim - 1)))


def weight_scale(weights: Sequence[Tensor], *, least: float) -> Float[Tensor, " n"]:
    """``max(ε₂, rms(W))`` of each parameter, in float64."""
    return (energies(weights) / weights[0].numel()).sqrt_().clamp_(min=least)
