"""OMP by inverse Cholesky factorisation: the paper's Algorithm 2."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from recovery.base import Recovered, Solver, Status, rounding_level
from recovery.dictionary import Dictionary
from recovery.select import argmax_excluding

#: A Gram matrix beyond this many bytes is not precomputed by default.
_GRAM_LIMIT = 64 * 2**20


class InverseCholeskyOMP(Solver):
    """The paper's Algorithm 2 (after Zhu, Chen & Wu, *Electronics* 9(9):1507, 2020).

    Correlations are updated instead of recomputed, ``p ← p − a_i b_i``, where ``b_i`` holds the
    inner products of every atom with the i-th orthonormal direction, and ``F = R⁻¹`` grows by one
    column an iteration, so that ``x = F a`` needs no triangular solve. Two forms:

    * with the Gram matrix ``G = ΦᵀΦ`` (d² numbers, computed once per A):
      ``b_i = γ (g_λ − B c)``. Storage d·s a signal for B; 2·d·i operations an iteration, at half an
      operation a byte, so it runs at memory speed.
    * without it (the memory-saving form): ``b_i = Φᵀ γ (φ_λ − Φ_Λ F c)``: one product with A an
      iteration, as in plain OMP, and only k·s a signal is stored.

    Both choose the same atoms as :class:`recovery.omp.OMP` up to rounding; since p is never
    recomputed, its rounding errors add up, and the coefficients are refined once at the end.

    Memory: G is kept as long as A lives. By default that may be 64 MiB for each A (d ≤ 4096 in
    float32, d ≤ 2896 in float64) and up to d/k times A itself: as the solver of a compressor it
    counts as shared bytes, which may be more than the moments it serves, or than AdamW's of small
    matrices. With ``precompute_gram=False`` no more is kept than by :class:`recovery.omp.OMP`.

    Args:
        precompute_gram: True, False, or None to precompute G when it fits 64 MiB.
        tolerance: see :class:`recovery.base.Solver`.
    """

    oracle = "omp"

    def __init__(
        self, *, precompute_gram: bool | None = None, tolerance: float | None = None
    ) -> None:
        super().__init__(tolerance=tolerance)
        self.precompute_gram = precompute_gram

    def prepare(self, dictionary: Dictionary) -> Float[Tensor, "d d"] | None:
        d = dictionary.shape[1]
        wanted = self.precompute_gram
        if wanted is None:
            bits = torch.finfo(dictionary.operator.dtype).bits
            wanted = d * d * bits // 8 <= _GRAM_LIMIT
        return dictionary.gram() if wanted else None

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
        steps = min(sparsity, k)
        rounding = rounding_level(k, y.dtype)
        row = torch.arange(batch, device=y.device)
        support = torch.full((batch, sparsity), -1, dtype=torch.int64, device=y.device)
        status = torch.full((batch,), int(Status.SPARSITY_REACHED), device=y.device)
        active = torch.ones(batch, dtype=torch.bool, device=y.device)
        atoms = y.new_zeros(batch, steps, k)
        inverse = torch.eye(steps, dtype=y.dtype, device=y.device).repeat(batch, 1, 1)  # F
        weights = y.new_zeros(batch, steps)  # a
        directions = y.new_zeros(batch, steps, d) if extra is not None else None  # Bᵀ
        correlation = dictionary.correlate(y)  # p
        residual = y

        for i in range(steps):
            best = argmax_excluding(correlation.clone(), support[:, :i].clamp(min=0))
            atom = dictionary.atoms(best[:, None])[:, 0]
            if directions is None:
                c = ((atom[:, None] @ atoms[:, :i].mT) @ inverse[:, :i, :i])[:, 0]
            else:
                c = directions[row, :i, best]
            spread = (c[:, None] @ inverse[:, :i, :i].mT)[:, 0]  # F c
            rest = atom - (spread[:, None] @ atoms[:, :i])[:, 0]
            # 1/γ, without the cancellation of 1 − ‖c‖².
            length = torch.linalg.vector_norm(rest, dim=1)

            dependent = active & (length <= rounding)
            status = status.masked_fill(dependent, Status.DEPENDENT_ATOMS)
            active = active & ~dependent
            gamma = active / length.clamp(min=rounding)
            if directions is None:
                direction = dictionary.correlate(rest * gamma[:, None])  # b
            else:
                direction = extra[best] - (c[:, None] @ directions[:, :i])[:, 0]
                direction = direction * gamma[:, None]
                directions[:, i] = direction
            weight = gamma * correlation[row, best]
            correlation = correlation - weight[:, None] * direction
            residual = residual - (weight * gamma)[:, None] * rest

            atoms[:, i] = atom * active[:, None]
            weights[:, i] = weight
            inverse[:, :i, i] = -gamma[:, None] * spread
            inverse[:, i, i] = gamma
            support[:, i] = torch.where(active, best, -1)
            converged = active & (torch.linalg.vector_norm(residual, dim=1) <= tolerance)
            status = status.masked_fill(converged, Status.CONVERGED)
            active = active & ~converged
            if y.device.type == "cpu" and not active.any():
                break

        x = (inverse @ weights[..., None])[..., 0]
        residual = y - (x[:, None] @ atoms)[:, 0]
        # F Fᵀ = (Φ_Λᵀ Φ_Λ)⁻¹: one step of refinement costs two small products.
        x = x + (inverse @ (inverse.mT @ (atoms @ residual[..., None])))[..., 0]
        residual = y - (x[:, None] @ atoms)[:, 0]

        values = y.new_zeros(batch, sparsity)
        values[:, :steps] = x
        iterations = (support >= 0).sum(1)
        if steps == k:
            status = status.masked_fill(iterations == k, Status.SATURATED)
        return Recovered(support, values, residual, iterations, status)
