"""A package of somebody else: one projection and one solver, found through entry points."""

import math
from typing import Any

import torch
from torch import Tensor

from projections.base import BaseProjection, DenseOperator
from projections.seeding import stream
from recovery.base import Recovered, Solver
from recovery.dictionary import Dictionary
from recovery.least_squares import debias


class SparseSigns(DenseOperator):
    """Achlioptas' sparse ensemble: entries ``±√(3/k)`` with probability 1/6 each, else 0."""

    def __init__(
        self,
        k: int,
        d: int,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        BaseProjection.__init__(self, k, d, seed=seed, device=device, dtype=dtype)
        draw = stream(seed, "sparse-signs", k, d).integers(0, 6, (d, k))
        signs = torch.from_numpy((draw == 0).astype("float32") - (draw == 1).astype("float32"))
        self.atoms = signs.to(self.device, dtype).mul_(math.sqrt(3 / k))


class MatchedFilter(Solver):
    """One look: the s atoms that correlate best with y, then least squares."""

    def recover(
        self, dictionary: Dictionary, extra: Any, y: Tensor, *, sparsity: int, tolerance: float
    ) -> Recovered:
        support = dictionary.correlate(y).abs_().topk(sparsity, dim=1).indices
        once = torch.ones(y.shape[0], dtype=torch.int64, device=y.device)
        return debias(
            dictionary, support, y, iterations=once, settled=once > 0, tolerance=tolerance
        )
