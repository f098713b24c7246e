"""A second moment in rows and columns: what Adafactor divides by."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import adam
from sgc.blocks import State, block, together
from sgc.matrices import matrix_shape
from sgc.options import flag, number, positive
from sgc.rules.base import Shape, Step
from sgc.top_entries import energies

#: Squares are cut here: sums of them still fit float32.
_LARGEST_SQUARE = 1e30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factored:
    """``V̂ = R C / mean(R)`` and what follows from it (Shazeer & Stern 2018).

    State: ``exp_avg_sq_row``, ``exp_avg_sq_col``; tensors of more than two dimensions are taken as
    (first dimension)×(the rest). Vectors keep V̂ in full, ``exp_avg_sq_full``.

    Attributes:
        eps1: ε₁, added to the squares, which are cut at 1e30, so that their sums stay finite.
        eps2: ε₂, least scale of a parameter.
        clip: d, largest rms of an update.
        decay_rate: γ < 0 of ``β̂ = 1 − t^γ``.
        scale_parameter: whether :meth:`step_scale` says anything.
    """

    eps1: float = 1e-30
    eps2: float = 1e-3
    clip: float = 1.0
    decay_rate: float = -0.8
    scale_parameter: bool = False

    def __post_init__(self) -> None:
        positive("eps1", self.eps1)
        number("eps2", self.eps2, least=0)
        positive("clip", self.clip)
        positive("-decay_rate", -number("decay_rate", self.decay_rate))
        object.__setattr__(self, "scale_parameter", flag("scale_parameter", self.scale_parameter))

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        """Zeros for one parameter."""
        if len(shape) < 2:
            return {"exp_avg_sq_full": torch.zeros(shape, device=device, dtype=dtype)}
        rows, columns = matrix_shape(shape)
        return {
            "exp_avg_sq_row": torch.zeros(rows, device=device, dtype=dtype),
            "exp_avg_sq_col": torch.zeros(columns, device=device, dtype=dtype),
        }

    def divided(
        self, gradients: Sequence[Float[Tensor, "*shape"]], states: Sequence[State], *, step: Step
    ) -> Float[Tensor, "n *shape"]:
        """``U = G/√V̂``, after G² went into the factors of V̂ in the states."""
        G = together(gradients)
        G = G.to(adam.moment_dtype(G.dtype)).contiguous()
        squares = (G.square() + self.eps1).clamp_(max=_LARGEST_SQUARE)
        beta = 1 - math.pow(step.number, self.decay_rate)
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

    def clipped(self, U: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """``U / max(1, rms(U)/d)`` of each, rms over the parameter; in place."""
        rms = (energies(U.unbind()) / U[0].numel()).sqrt_()
        factor = (rms / self.clip).clamp_(min=1).reciprocal_().to(U.dtype)
        return U.mul_(factor.view(-1, *(1,) * (U.ndim - 1)))

    def step_scale(self, weights: Sequence[Tensor]) -> Float[Tensor, " n"] | None:
        """``max(ε₂, rms(W))`` of each parameter in float64, if it is to count."""
        if not self.scale_parameter:
            return None
        return (energies(weights) / weights[0].numel()).sqrt_().clamp_(min=self.eps2)
