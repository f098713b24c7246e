"""The contract of a decode."""

import abc

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from projections import Projection
from recovery import Solver
from sgc.residuals.base import Residual, residual_of


class Decode(abc.ABC):
    """Turn the compressed moments of many chunks into a sparse Adam direction for each.

    Args:
        residual: what the weights do off the recovered support: ρ ≥ 0 of ``ρ·G/rms(G)``, rms over
            the whole matrix, which needs no state (0 is the paper, which drops the rest of G); or
            another residual rule, or its name.
    """

    def __init__(self, *, residual: float | str | Residual = 0.0) -> None:
        residual_of(residual)
        self.residual = residual

    def __repr__(self) -> str:
        return f"{type(self).__name__}(residual={self.residual})"

    @abc.abstractmethod
    def __call__(
        self,
        solver: Solver,
        A: Projection,
        first: Float[Tensor, "chunks k"],
        second: Float[Tensor, "chunks k"] | None,
        *,
        sparsity: int,
        eps: float,
    ) -> tuple[Int[Tensor, "chunks s"], Float[Tensor, "chunks s"]]:
        """Support and values of N for each chunk.

        Args:
            solver: recovers sparse vectors from their images under A.
            A: the projection that made the moments.
            first: bias-corrected ``M̂ = A m``.
            second: bias-corrected ``V̂ = A v``; None under a rule that has no second moment, where
                N is the first.
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
