"""Iterative hard thresholding with a step that cannot diverge, batched."""

import dataclasses
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recovery.base import Recovered, Solver
from recovery.dictionary import Dictionary
from recovery.least_squares import debias

#: An iterate that moves by less than this share of its norm has settled.
_SETTLED = 1e-4


class IHT(Solver):
    """Iterative hard thresholding (Blumensath & Davies 2009), a batch at a time.

    ``x ← H_s(x + μ Φᵀ(y − Φ x))`` with ``H_s`` keeping the s largest magnitudes and the safe step
    ``μ = 0.99/‖Φ‖₂²``: the residual never grows, whatever the scale of A. (The step μ = 1 of the
    original needs ``‖Φ‖₂ < 1``, which a matrix with unit columns and k < d never has.) The price of
    safety is speed and a smaller exact-recovery region than :class:`recovery.niht.NIHT` has: when k
    is a small part of d, ``‖Φ‖₂² ≈ d/k`` is large, the step tiny, and little is recovered.
    The values are re-fitted by least squares on the final support.

    Args:
        max_iterations: a row stops earlier when it settles.
        tolerance: see :class:`recovery.base.Solver`.
    """

    def __init__(self, *, max_iterations: int = 300, tolerance: float | None = None) -> None:
        super().__init__(tolerance=tolerance)
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
        self.max_iterations = max_iterations

    def prepare(self, dictionary: Dictionary) -> float | None:
        """The safe step μ; 0 for an operator that is zero."""
        squared = dictionary.spectral_norm_squared()
        return 0.99 / squared if squared > 0 else 0.0

    def recover(
        self,
        dictionary: Dictionary,
        extra: Any,
        y: Float[Tensor, "batch k"],
        *,
        sparsity: int,
        tolerance: float,
    ) -> Recovered:
        x = Iterate(
            support=dictionary.correlate(y).abs_().topk(sparsity, dim=1).indices,
            values=y.new_zeros(y.shape[0], sparsity),
            residual=y,
        )
        active = torch.ones(y.shape[0], dtype=torch.bool, device=y.device)
        iterations = torch.zeros(y.shape[0], dtype=torch.int64, device=y.device)

        for _ in range(self.max_iterations):
            new, change = self.step(dictionary, extra, y, x)
            x = new.where(active, x)
            iterations = iterations + active
            active = active & (change > _SETTLED * torch.linalg.vector_norm(x.values, dim=1))
            active = active & (torch.linalg.vector_norm(x.residual, dim=1) > tolerance)
            if y.device.type == "cpu" and not active.any():
                break

        return debias(
            dictionary,
            x.support,
            y,
            iterations=iterations,
            settled=~active,
            tolerance=tolerance,
        )

    def step(
        self, dictionary: Dictionary, extra: Any, y: Float[Tensor, "batch k"], x: "Iterate"
    ) -> "tuple[Iterate, Float[Tensor, ' batch']]":
        """One thresholded gradient step, and the length it moved."""
        gradient = dictionary.correlate(x.residual)
        return threshold(dictionary, y, x, gradient * extra)


@dataclasses.dataclass(frozen=True)
class Iterate:
    """A sparse x for each row, and what it leaves of y."""

    support: Int[Tensor, "batch s"]
    values: Float[Tensor, "batch s"]
    residual: Float[Tensor, "batch k"]

    def where(self, rows: Bool[Tensor, " batch"], other: "Iterate") -> "Iterate":
        """Take self in the given rows and the other iterate elsewhere."""
        return Iterate(
            torch.where(rows[:, None], self.support, other.support),
            torch.where(rows[:, None], self.values, other.values),
            torch.where(rows[:, None], self.residual, other.residual),
        )


def threshold(
    dictionary: Dictionary,
    y: Float[Tensor, "batch k"],
    x: Iterate,
    move: Float[Tensor, "batch d"],
) -> tuple[Iterate, Float[Tensor, " batch"]]:
    """``H_s(x + move)`` and ``‖x_new − x‖``."""
    old = torch.zeros_like(move).scatter_(1, x.support, x.values)
    moved = move + old
    kept = moved.abs().topk(x.support.shape[1], dim=1).indices
    values = moved.gather(1, kept)
    # ‖x_new‖² + ‖x‖² − 2⟨x_new, x⟩ would cancel: subtract entry by entry instead.
    new = torch.zeros_like(move).scatter_(1, kept, values)
    change = torch.linalg.vector_norm(new - old, dim=1)
    residual = y - (values[:, None] @ dictionary.atoms(kept))[:, 0]
    return Iterate(kept, values, residual), change
