"""Algorithm 3 as it is printed."""

import torch
from torch import Tensor

from projections import Projection
from recovery import Solver
from recovery.result import Status
from sgc import adam
from sgc.decodes.base import Decode, mark_broken


class Literal(Decode):
    """``N = OMP_A(M̂) / √(OMP_A(V̂) + ε)`` (eq. 7, Algorithm 3 line 7): two separate recoveries.

    The paper takes the two supports to be the same. They are not once the moment is denser than the
    recovery can carry: where V's support misses an atom of M's, V reads 0 and the update is
    ``M/√ε``, up to 10⁴ times the gradient; this diverges unless gradients are so small that ε
    hides it. Kept as printed, as an object of study. A negative recovered V, of which the paper
    says nothing, is read as 0.
    """

    def __call__(
        self,
        solver: Solver,
        A: Projection,
        first: Tensor,
        second: Tensor | None,
        *,
        sparsity: int,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        m = solver.solve(A, first, sparsity=sparsity)
        if second is None:
            return mark_broken(m.support, m.values, m.status == Status.NON_FINITE)
        v = solver.solve(A, second, sparsity=sparsity)
        same = m.support[:, :, None] == v.support[:, None, :]
        v_there = (same * v.values[:, None, :]).sum(2).clamp(min=0)
        n = adam.direction(m.values, v_there, eps=eps, eps_under_root=True)
        broken = (m.status == Status.NON_FINITE) | (v.status == Status.NON_FINITE)
        # All of a broken row, not one slot: the marked place 0 may be in the support already.
        n = n.masked_fill(broken[:, None] & (m.support >= 0), torch.nan)
        return mark_broken(m.support, n, broken)
