"""Compressive sampling matching pursuit, batched."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from recovery.base import Recovered, Solver
from recovery.dictionary import Dictionary
from recovery.least_squares import debias, fit


class CoSaMP(Solver):
    """CoSaMP (Needell & Tropp 2009, Algorithm 1), a batch at a time.

    Each iteration joins the support with the 2s atoms that correlate best with the residual, fits
    by least squares on all of them, and keeps the s largest values. Exact for every s-sparse signal
    when ``δ_4s ≤ 0.1``. The fit uses up to 3s atoms, so k ≥ 3s is wanted; with fewer measurements,
    fewer candidates are joined. The values are re-fitted on the final support.

    Args:
        max_iterations: a row stops earlier when its residual no longer falls.
        tolerance: see :class:`recovery.base.Solver`.
    """

    def __init__(self, *, max_iterations: int = 50, tolerance: float | None = None) -> None:
        super().__init__(tolerance=tolerance)
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
        self.max_iterations = max_iterations

    def recover(
        self,
        dictionary: Dictionary,
        extra: Any,
        y: Float[Tensor, "batch k"],
        *,
        sparsity: int,
        tolerance: float,
    ) -> Recovered:
        batch, k = y.shape
        d = dictionary.shape[1]
        width = max(sparsity, min(3 * sparsity, k, d))
        support = torch.empty((batch, 0), dtype=torch.int64, device=y.device)
        residual, norm = y, torch.full((batch,), torch.inf, dtype=y.dtype, device=y.device)
        active = torch.ones(batch, dtype=torch.bool, device=y.device)
        iterations = torch.zeros(batch, dtype=torch.int64, device=y.device)

        for _ in range(self.max_iterations):
            proxy = dictionary.correlate(residual).abs_().scatter_(1, support, torch.inf)
            joined = proxy.topk(width, dim=1).indices
            values, _ = fit(dictionary.atoms(joined), y)
            kept = values.abs().topk(sparsity, dim=1).indices
            pruned, values = joined.gather(1, kept), values.gather(1, kept)
            left = y - (values[:, None] @ dictionary.atoms(pruned))[:, 0]
            left_norm = torch.linalg.vector_norm(left, dim=1)

            better = active & (left_norm < norm)
            if support.shape[1] == 0:
                support = pruned
            support = torch.where(better[:, None], pruned, support)
            residual = torch.where(better[:, None], left, residual)
            norm = torch.where(better, left_norm, norm)
            iterations = iterations + active
            active = better & (norm > tolerance)
            if y.device.type == "cpu" and not active.any():
                break

        return debias(
            dictionary,
            support,
            y,
            iterations=iterations,
            settled=~active,
            tolerance=tolerance,
        )
