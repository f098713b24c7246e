"""A random subspace, drawn again whenever it is needed."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from projections.seeding import stream
from sgc import adam
from sgc.blocks import State
from sgc.options import flag, whole
from sgc.sources.base import Source


class Random(Source):
    """Gaussian columns, one draw for all parameters of a shape and each refresh: nothing is stored.

    As they are, with variance 1/r, ``E[B Bᵀ] = I`` (FLoRA, Hao et al. 2024; APOLLO, Zhu et al.
    2024); made orthonormal, B Bᵀ is a projection, r/side of the identity on average.

    Args:
        orthonormal: which of the two.
        seed: the draw is a function of seed, size and the step of the refresh.
    """

    stored = False

    def __init__(self, *, orthonormal: bool = True, seed: int = 0) -> None:
        self.orthonormal, self.seed = flag("orthonormal", orthonormal), whole("seed", seed)
        self._latest: dict[tuple[object, ...], tuple[int, Tensor]] = {}

    def find(
        self,
        matrices: Sequence[Tensor],
        rank: int,
        *,
        start: Tensor | None,
        states: Sequence[State],
        turn: int,
    ) -> Tensor:
        first = matrices[0]
        dtype = adam.moment_dtype(first.dtype)
        key = (min(first.shape), rank, first.device, dtype)
        known = self._latest.get(key)
        if known is None or known[0] != turn:
            if first.device.type == "meta":  # to be counted
                basis = torch.empty(min(first.shape), rank, device="meta", dtype=dtype)
            else:
                basis = self._draw(min(first.shape), rank, turn).to(first.device, dtype)
            self._latest[key] = known = (turn, basis)
        return known[1].expand(len(matrices), -1, -1)

    def _draw(self, side: int, rank: int, turn: int) -> Float[Tensor, "side r"]:
        gaussian = stream(self.seed, "random subspace", side, rank, turn).standard_normal(
            (side, rank)
        )
        if self.orthonormal:
            return torch.from_numpy(np.linalg.qr(gaussian)[0])
        return torch.from_numpy(gaussian / math.sqrt(rank))

    def shared_tensors(self) -> dict[str, int]:
        return {
            f"random basis {side}×{rank} {dtype} on {device}".replace("torch.", ""): basis.nbytes
            for (side, rank, device, dtype), (_, basis) in self._latest.items()
        }
