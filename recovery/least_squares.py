"""Batched least squares on chosen atoms, shared by the solvers that re-fit."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recovery.dictionary import Dictionary
from recovery.result import Recovered, Status
from recovery.scaling import rounding_level


def fit(
    atoms: Float[Tensor, "batch m k"], y: Float[Tensor, "batch k"]
) -> tuple[Float[Tensor, "batch m"], Float[Tensor, "batch k"]]:
    """Coefficients x that minimise ``‖y − atomsᵀ x‖``, and the residual.

    Normal equations with a ridge at rounding level, so repeated or dependent atoms give a finite
    answer (the least-norm one, nearly), then two steps of iterative refinement, which bring the
    error back to rounding level when the atoms are well conditioned.
    """
    m = atoms.shape[1]
    eps = torch.finfo(atoms.dtype).eps
    gram = atoms @ atoms.mT
    ridge = 8 * m * eps * torch.eye(m, dtype=atoms.dtype, device=atoms.device)
    factor, _ = torch.linalg.cholesky_ex(gram + ridge)
    x = y.new_zeros(y.shape[0], m)
    residual = y
    for _ in range(3):
        step = torch.cholesky_solve((atoms @ residual[..., None]), factor)[..., 0]
        x = x + step
        residual = y - (x[:, None] @ atoms)[:, 0]
    return x, residual


def debias(
    dictionary: Dictionary,
    support: Int[Tensor, "batch s"],
    y: Float[Tensor, "batch k"],
    *,
    iterations: Int[Tensor, " batch"],
    settled: Tensor,
    tolerance: float,
) -> Recovered:
    """Re-fit the values on a final support and say how each row ended.

    Atoms that a row does not need (s was larger than the true sparsity, or a column is zero) come
    out with a value at rounding level and are dropped.

    Args:
        support: a full support, no unused slots.
        settled: ``(batch,)`` rows whose iteration came to rest by itself.
        tolerance: residual norm at which a row counts as converged.
    """
    values, residual = fit(dictionary.atoms(support), y)
    converged = torch.linalg.vector_norm(residual, dim=1) <= tolerance
    status = torch.where(settled, int(Status.SPARSITY_REACHED), int(Status.MAX_ITERATIONS))
    status = status.masked_fill(converged, Status.CONVERGED)
    unused = values.abs() <= rounding_level(y.shape[1], y.dtype)
    if support.shape[1] >= y.shape[1]:
        full = (~unused).sum(1) >= y.shape[1]
        status = status.masked_fill(full, Status.SATURATED)
    return Recovered(
        support.masked_fill(unused, -1),
        values.masked_fill(unused, 0),
        residual,
        iterations,
        status,
    )
