"""Adam-mini: one second moment for a block of coordinates."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sgc import adam
from sgc.blocks import State, block
from sgc.options import whole
from sgc.rules.base import Moments, Rule, Shape, Step


class AdamMini(Rule):
    """``V_b ← β₂ V_b + (1 − β₂) mean_{i∈b} p_i²`` for each block b (Zhang et al. 2024, Alg. 1).

    A block is ``block_rows`` rows of p taken as (first dimension)×(the rest): one neuron by
    default; the authors take the rows of a head for queries and keys. A vector is one block. M is
    Adam's.

    Args:
        block_rows: rows of a block; the last one may be shorter.
    """

    elementwise = False

    def __init__(self, *, block_rows: int = 1) -> None:
        self.block_rows = whole("block_rows", block_rows)
        if self.block_rows < 1:
            raise ValueError(f"block_rows must be at least 1, got {block_rows}")

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        n, rows = shape[0], shape[1] if len(shape) > 2 else 1
        blocks = math.ceil(rows / self.block_rows)
        return {
            "exp_avg": torch.zeros(shape, dtype=dtype, device=device),
            "exp_avg_sq": torch.zeros((n, blocks), dtype=dtype, device=device),
        }

    def accumulate(
        self, states: Sequence[State], p: Tensor, q: Tensor | None, *, step: Step
    ) -> Moments:
        first, keep_first = block(states, "exp_avg")
        second, keep_second = block(states, "exp_avg_sq")
        rows = p.shape[1] if p.ndim > 2 else 1
        squares = (p.square() if q is None else q).to(first.dtype).reshape(p.shape[0], rows, -1)
        adam.blend(first, p, beta=step.betas[0])
        adam.blend(second, self._block_means(squares.mean(2)), beta=step.betas[1])
        keep_first()
        keep_second()
        unbias1, unbias2 = step.corrections()
        of_rows = second.repeat_interleave(self.block_rows, dim=1)[:, :rows] / unbias2
        trailing = (1,) * (p.ndim - 2) if p.ndim > 2 else ()
        return Moments(first / unbias1, of_rows.reshape(p.shape[0], rows, *trailing))

    def _block_means(self, of_rows: Tensor) -> Tensor:
        if self.block_rows == 1:
            return of_rows
        return torch.stack([b.mean(1) for b in of_rows.split(self.block_rows, dim=1)], dim=1)
