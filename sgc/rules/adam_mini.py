"""Adam-mini: one second moment for a block of coordinates."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import adam
from sgc.blocks import State, block
from sgc.options import whole
from sgc.rules.base import Moments, Rule, Shape, Step


class AdamMini(Rule):
    """``V_b ← β₂ V_b + (1 − β₂) mean_{i∈b} p_i²`` for each block b (Zhang et al. 2024, Alg. 1).

    A block is ``block_rows`` rows of p taken as (first dimension)×(the rest): one neuron by
    default; the authors take the rows of a head for queries and keys. A vector is one block, as
    their norms are; their biases get Adam (``compressor=None`` here). M is Adam's.

    Args:
        block_rows: rows of a block; the last one may be shorter.
    """

    elementwise = False

    def __init__(self, *, block_rows: int = 1) -> None:
        self.block_rows = whole("block_rows", block_rows, least=1)

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        blocks = math.ceil(_rows(shape) / self.block_rows)
        return {
            "exp_avg": torch.zeros(shape, dtype=dtype, device=device),
            "exp_avg_sq": torch.zeros((shape[0], blocks), dtype=dtype, device=device),
        }

    def accumulate(
        self, states: Sequence[State], p: Tensor, q: Tensor | None, *, step: Step
    ) -> Moments:
        first, keep_first = block(states, "exp_avg")
        second, keep_second = block(states, "exp_avg_sq")
        rows = _rows(tuple(p.shape))
        adam.blend(first, p, beta=step.betas[0])
        of_rows = _mean_squares(p if q is None else q, rows, first.dtype, squared=q is not None)
        adam.blend(second, self._of_blocks(of_rows), beta=step.betas[1])
        keep_first()
        keep_second()
        unbias1, unbias2 = step.corrections()
        height = min(self.block_rows, rows)
        of_rows = second.repeat_interleave(height, dim=1)[:, :rows] / unbias2
        shape = (len(p), rows, *(1 for _ in p.shape[2:]))[: p.ndim]
        return Moments(first / unbias1, of_rows.reshape(shape))

    def _of_blocks(self, of_rows: Float[Tensor, "n rows"]) -> Float[Tensor, "n blocks"]:
        if self.block_rows == 1:
            return of_rows
        return torch.stack([b.mean(1) for b in of_rows.split(self.block_rows, dim=1)], dim=1)


def _rows(shape: Shape) -> int:
    """Of p of shape ``(n, *moment)``: a vector, or a number, is one."""
    return shape[1] if len(shape) > 2 else 1


def _mean_squares(
    x: Tensor, rows: int, dtype: torch.dtype, *, squared: bool
) -> Float[Tensor, "n rows"]:
    """Half precision is read as it is: its own squares would vanish (1e-4² is 0 in float16)."""
    flat = x.reshape(len(x), rows, x[0].numel() // max(1, rows))
    if squared:
        return flat.mean(2, dtype=dtype)
    return torch.linalg.vector_norm(flat, dim=2, dtype=dtype).square() / flat.shape[2]
