"""Uniform spherical ensemble: columns of norm one in random directions."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from projections.base import BaseProjection, DenseOperator
from projections.seeding import stream

_SLICE = 2**20  # numbers that are brought to norm one at a time


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
        for part in atoms.split(max(1, _SLICE // k)):
            norms = torch.linalg.vector_norm(part, dim=1, keepdim=True, dtype=torch.float64)
            part.div_(norms.to(part.dtype))
        self.atoms = atoms.to(self.device, dtype)

    def column_norms(self) -> Float[Tensor, " d"]:
        """Exactly one where they are to rounding, so that solvers keep none and share A."""
        norms = super().column_norms()
        rounding = 4 * self.shape[0] ** 0.5 * torch.finfo(self.dtype).eps
        untouched = norms.is_meta or bool(((norms - 1).abs() <= rounding).all())
        return torch.ones_like(norms) if untouched else norms
