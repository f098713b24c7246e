"""The identity: no compression at all, for limits and for looking at the rest alone."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from projections.base import BaseProjection


class Identity(BaseProjection):
    """``A = I``; needs k = d. Stores nothing.

    Raises:
        ValueError: k differs from d.
    """

    square = True
    orthogonal = True
    structured = True

    def __init__(
        self,
        k: int,
        d: int,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(k, d, seed=seed, device=device, dtype=dtype)
        if k != d:
            raise ValueError(
                f"the identity needs k = d, got k={k}, d={d}; in a compressor set kappa so that "
                f"kappa·sparsity/chunks is the chunk length, or choose another projection"
            )

    def matvec(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        self._check(x, self.shape[1], "x")
        return x.to(self.dtype)

    def rmatvec(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:
        self._check(y, self.shape[0], "y")
        return y.to(self.dtype)

    def columns(self, index: Int[Tensor, "*batch s"]) -> Float[Tensor, "*batch k s"]:
        row = torch.arange(self.shape[0], device=self.device)
        return (row[:, None] == index[..., None, :]).to(self.dtype)

    def column_norms(self) -> Float[Tensor, " d"]:
        return torch.ones(self.shape[1], device=self.device, dtype=self.dtype)
