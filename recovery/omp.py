"""Orthogonal matching pursuit, batched: the readable reference."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recovery.base import Recovered, Solver, Status, rounding_level
from recovery.dictionary import Dictionary
from recovery.select import argmax_excluding


class OMP(Solver):
    """Orthogonal matching pursuit (Pati, Rezaiifar & Krishnaprasad 1993), a batch at a time.

    Each iteration takes the atom that correlates best with the residual,
    ``λ_i = argmax_j |φ_jᵀ r| / ‖φ_j‖`` over the atoms not yet taken, and removes its part from the
    residual. An orthonormal basis Q of the chosen atoms is grown by one vector (Gram–Schmidt, run
    twice), so ``A_Λ = Q R`` is never factorised again; the coefficients follow from ``R x = Qᵀ y``.

    Cost a signal: s·(2·k·d) for the correlations and 4·k·s² for the factorisation; memory k·s.
    A row stops early when its residual reaches ``tolerance``, or when the best atom is a
    combination of those it has.
    """

    oracle = "omp"

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
        steps = min(sparsity, k)
        dependence = rounding_level(k, y.dtype)
        support = torch.full((batch, sparsity), -1, dtype=torch.int64, device=y.device)
        basis = y.new_empty(steps, batch, k)
        triangle = torch.eye(steps, dtype=y.dtype, device=y.device).repeat(batch, 1, 1)
        weights = y.new_zeros(batch, steps)  # Qᵀ y
        residual = y.clone()
        status = torch.full((batch,), int(Status.SPARSITY_REACHED), device=y.device)
        active = torch.ones(batch, dtype=torch.bool, device=y.device)
        correlation = None

        for i in range(steps):
            correlation = dictionary.correlate(residual, out=correlation)
            best = self.select(correlation, support[:, :i].clamp(min=0))
            # Worked on where it will stay: an atom, then its rest, then the i-th basis vector.
            rest = dictionary.atoms(best, out=basis[i])
            overlap, length = _orthogonalise(rest[:, None], basis[:i].transpose(0, 1))

            dependent = active & (length <= dependence)
            status = status.masked_fill(dependent, Status.DEPENDENT_ATOMS)
            active = active & ~dependent
            # Rows that are done get a zero vector: nothing of theirs changes any more.
            rest.mul_((active / length.clamp(min=dependence))[:, None])
            weight = (rest * residual).sum(1)
            residual.addcmul_(rest, weight[:, None], value=-1)

            weights[:, i] = weight
            triangle[:, :i, i] = overlap * active[:, None]
            triangle[:, i, i] = torch.where(active, length, 1)
            support[:, i] = torch.where(active, best, -1)
            converged = active & (torch.linalg.vector_norm(residual, dim=1) <= tolerance)
            status = status.masked_fill(converged, Status.CONVERGED)
            active = active & ~converged
            # Looking costs a GPU a synchronisation; there the loop runs to its end.
            if y.device.type == "cpu" and not active.any():
                break

        values = y.new_zeros(batch, sparsity)
        values[:, :steps] = torch.linalg.solve_triangular(triangle, weights[..., None], upper=True)[
            ..., 0
        ]
        iterations = (support >= 0).sum(1)
        if steps == k:
            status = status.masked_fill(iterations == k, Status.SATURATED)
        return Recovered(support, values, residual, iterations, status)

    def select(
        self, correlation: Float[Tensor, "batch d"], taken: Int[Tensor, "batch i"]
    ) -> Int[Tensor, " batch"]:
        """The best atom of each row: largest magnitude among those not taken. May overwrite."""
        return argmax_excluding(correlation, taken)


def _orthogonalise(
    atom: Float[Tensor, "batch 1 k"], basis: Float[Tensor, "batch i k"]
) -> tuple[Float[Tensor, "batch i"], Float[Tensor, " batch"]]:
    """Take from a unit atom, in place, what lies in the span of the basis.

    Returns:
        The atom's coordinates in the basis, and the length of what is left of it.
    """
    overlap = atom @ basis.mT
    atom.baddbmm_(overlap, basis, alpha=-1)
    length = torch.linalg.vector_norm(atom, dim=2)
    # A pass that leaves less than 1/√2 of an atom loses orthogonality to cancellation, and a second
    # one restores it. Asking costs a GPU a synchronisation; there the second always runs.
    if atom.device.type != "cpu" or bool((length < 0.7).any()):
        again = atom @ basis.mT
        atom.baddbmm_(again, basis, alpha=-1)
        overlap += again
        length = torch.linalg.vector_norm(atom, dim=2)
    return overlap[:, 0], length[:, 0]
