"""Gaussian ensemble: independent entries N(0, 1/k)."""

import math

import numpy as np
import torch

from projections.base import BaseProjection, DenseOperator
from projections.seeding import stream


class Gaussian(DenseOperator):
    """``A_ij ~ N(0, 1/k)``, independent.

    The paper writes "N(0, 1/√k)"; read as the standard deviation, so that ``E‖A x‖² = ‖x‖²``.
    Stores k·d numbers. See :class:`projections.base.BaseProjection` for the arguments and errors.
    """

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
        drawn = stream(seed, "gaussian", k, d).standard_normal((d, k), dtype=np.float32)
        # Scaled in the target dtype: float64 operators have columns scaled to float64 accuracy.
        self.atoms = torch.from_numpy(drawn).to(self.device, dtype).mul_(1 / math.sqrt(k))
