"""Uniform spherical ensemble: columns of norm one in random directions."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from projections.base import BaseProjection, DenseOperator
from projections.seeding import stream


class Spherical(DenseOperator):
    """Columns independent and uniform on the unit sphere: those of a Gaussian A over their norms.

    The "uniform spherical ensemble" of Tsaig & Donoho, *Extensions of compressed sensing* (2006).
    They are the columns that a solver makes of :class:`projections.gaussian.Gaussian` with the same
    seed, so that it needs no second copy of A. Stores k·d numbers.
    See :class:`projections.base.BaseProjection` for the arguments and errors.
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
        drawn[~drawn.any(1), 0] = 1  # a float32 draw may be 0: a direction all the same
        atoms = torch.from_numpy(drawn).to(torch.promote_types(dtype, torch.float32))
        norms = torch.linalg.vector_norm(atoms, dim=1, keepdim=True, dtype=torch.float64)
        self.atoms = atoms.div_(norms.to(atoms.dtype)).to(self.device, dtype)

    def column_norms(self) -> Float[Tensor, " d"]:
        """One, to rounding."""
        return torch.ones(self.shape[1], device=self.device, dtype=self.dtype)
