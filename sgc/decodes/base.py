"""The contract of a decode."""

import abc
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from projections import Projection
from recovery import Solver


class Decode(abc.ABC):
    """Turn the compressed moments of many chunks into a sparse Adam direction for each.

    Args:
        residual: ρ ≥ 0. Off the recovered support the weights move along ``ρ·G/rms(G)``, rms over
            the whole matrix; that needs no state. 0 is the paper, which drops the rest of G.
    """

    def __init__(self, *, residual: float = 0.0) -> None:
        if isinstance(residual, str) or not 0 <= residual < math.inf:
            raise ValueError(f"residual (ρ) must be finite and at least 0, got {residual}")
        self.residual = float(residual)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(residual={self.residual})"

    @abc.abstractmethod
    def __call__(
        self,
        solver: Solver,
        A: Projection,
        first: Float[Tensor, "chunks k"],
        second: Float[Tensor, "chunks k"],
        *,
        sparsity: int,
        eps: float,
    ) -> tuple[Int[Tensor, "chunks s"], Float[Tensor, "chunks s"]]:
        """Support and values of N for each chunk.

        Args:
            solver: recovers sparse vectors from their images under A.
            A: the projection that made the moments.
            first: bias-corrected ``M̂ = A m``.
            second: bias-corrected ``V̂ = A v``.
            sparsity: atoms a chunk.
            eps: ε of Adam, under the root as in Algorithm 3.

        Returns:
            Support (−1 where unused) and values (0 there). Chunks whose moments are not finite
            have NaN values, so that the damage shows in the weights as it does with AdamW.
        """


def mark_broken(
    support: Int[Tensor, "chunks s"],
    values: Float[Tensor, "chunks s"],
    broken: Bool[Tensor, " chunks"],
) -> tuple[Int[Tensor, "chunks s"], Float[Tensor, "chunks s"]]:
    """Give broken rows one NaN, at place 0 of the chunk, in place."""
    support[:, 0].masked_fill_(broken, 0)
    values[:, 0].masked_fill_(broken, torch.nan)
    return support, values
