"""Rademacher ensemble: independent entries ±1/√k."""

import math

import numpy as np
import torch

from projections.base import BaseProjection, DenseOperator
from projections.seeding import stream


class Rademacher(DenseOperator):
    """``A_ij = ±1/√k`` with equal probability, independent: every column has norm 1.

    Achlioptas, *Database-friendly random projections* (2003). Stores k·d numbers.
    See :class:`projections.base.BaseProjection` for the arguments and errors.
    """

    signs = True

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
        bits = stream(seed, "rademacher", k, d).integers(0, 2, (d, k), dtype=np.int8)
        signs = torch.from_numpy(2 * bits - 1)
        self.atoms = signs.to(self.device, dtype).mul_(1 / math.sqrt(k))
