"""One support for both moments."""

from torch import Tensor

from projections import Projection
from recovery import Solver
from recovery.result import Status
from sgc import adam
from sgc.decodes.base import Decode, mark_broken


class Joint(Decode):
    """Recover the support from M̂, read both moments on it, and keep ``V ≥ M²``.

    The recovery of ``M̂ = A m`` gives the support Λ and m there; v on Λ is the least-squares fit of
    ``V̂ = A v`` on the same atoms, raised to at least m². So ``|N| = |m|/√(v + ε) ≤ 1``, the size
    of an Adam step at its first iteration, whatever the recovery got wrong (in
    :class:`sgc.decodes.literal.Literal` a miss of V's support costs a factor ``√(v/ε)``).
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
        m = solver.solve(A, first, sparsity=sparsity, companion=second)
        if second is None:
            return mark_broken(m.support, m.values, m.status == Status.NON_FINITE)
        assert m.companion is not None
        v = m.companion.maximum(m.values.square())  # of NaN and a number, NaN
        n = adam.direction(m.values, v, eps=eps, eps_under_root=True)
        broken = (m.status == Status.NON_FINITE) | m.companion[
            :, 0
        ].isnan()  # a row of NaN, or none
        return mark_broken(m.support, n, broken)
