"""What goes wrong in other solvers, tried on every one of ours: DESIGN's rules for hard inputs.

A check returns None when the rule holds, or one sentence that says how it was broken.
"""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from projections import Projection, as_projection
from recovery import RecoveryResult, Solver, Status
from recovery.base import rounding_level
from sgc.problems import SparseProblem, sparse_problem
from sgc.validate.agreement import COEFFICIENT_LIMITS, Size, same_support

__all__ = ["CHECKS", "StressCheck", "StressSubject", "breach"]

_SIZE = Size(256, 128, 4)  # deep inside the exact regime: what fails here fails by its own fault
_SIGNALS = 16
_ROW = 3  # the row that is spoiled
_SLACK = 64  # multiples of rounding level that still count as rounding


@dataclasses.dataclass(frozen=True)
class StressSubject:
    """A solver and the easy problem that the checks make hard.

    Attributes:
        exact: the solver claims to give orthogonal matching pursuit's answer, so it owes the true
            support and not only an honest status.
        plain: its answer to the problem as it is.
    """

    solver: Solver
    exact: bool
    problem: SparseProblem
    plain: RecoveryResult

    @classmethod
    def of(
        cls, solver: Solver, *, exact: bool, projection: str, seed: int, dtype: torch.dtype
    ) -> "StressSubject":
        """Draw the problem and solve it once."""
        problem = sparse_problem(
            *(_SIZE.d, _SIZE.k, _SIZE.sparsity),
            signals=_SIGNALS,
            projection=projection,
            seed=seed,
            dtype=dtype,
        )
        plain = solver.solve(problem.A, problem.y, sparsity=problem.sparsity)
        return cls(solver, exact, problem, plain)


StressCheck = Callable[[StressSubject], str | None]


def breach(
    solver: Solver,
    result: RecoveryResult,
    A: Projection,
    y: Float[Tensor, "batch k"],
    *,
    sparsity: int,
) -> str | None:
    """How an answer breaks the contract by itself, whether or not it is the right answer.

    Finite values, unused slots marked, no atom twice, statuses that belong to the row, a residual
    that is the residual, and CONVERGED only where the measurements are explained.
    """
    return (
        _malformed(result, A.shape[1], batch=y.shape[0], sparsity=sparsity)
        or _mislabelled(result, y)
        or _untrue(solver, result, A, y)
    )


def _malformed(result: RecoveryResult, d: int, *, batch: int, sparsity: int) -> str | None:
    support, values = result.support, result.values
    if not support.shape == values.shape == (batch, sparsity):
        return f"support {tuple(support.shape)} or values {tuple(values.shape)} have a wrong shape"
    ordered = support.sort(1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    faults = {
        "values are not finite": ~torch.isfinite(values),
        f"the support leaves [-1, {d})": (support < -1) | (support >= d),
        "an unused slot holds a value": (support < 0) & (values != 0),
        "an atom is used twice": twice,
    }
    return next((fault for fault, where in faults.items() if where.any()), None)


def _mislabelled(result: RecoveryResult, y: Float[Tensor, "batch k"]) -> str | None:
    if not torch.equal(result.status == Status.NON_FINITE, ~torch.isfinite(y).all(1)):
        return "NON_FINITE does not mark exactly the rows with NaN or infinity"
    if not torch.equal(result.status == Status.ZERO_SIGNAL, (y == 0).all(1)):
        return "ZERO_SIGNAL does not mark exactly the zero rows"
    return None


def _untrue(
    solver: Solver, result: RecoveryResult, A: Projection, y: Float[Tensor, "batch k"]
) -> str | None:
    finite = torch.isfinite(y).all(1)
    norm = torch.linalg.vector_norm(y, dim=1)
    rounding = _SLACK * rounding_level(A.shape[0], y.dtype)
    left = torch.linalg.vector_norm(y - A.matvec(result.to_dense(A.shape[1])), dim=1)
    right = (left - result.residual_norm).abs() <= rounding * norm  # false for NaN
    if not right[finite].all():
        return "residual_norm is not the norm of y − A x"
    allowed = max(rounding, getattr(solver, "tolerance", None) or 0.0)
    if ((result.status == Status.CONVERGED) & (left > allowed * norm)).any():
        return "CONVERGED, but y − A x is not small"
    return None


def _over_iteration(subject: StressSubject) -> str | None:
    """Sparsity asked for is twice the truth."""
    problem, s = subject.problem, 2 * subject.problem.sparsity
    result = subject.solver.solve(problem.A, problem.y, sparsity=s)
    wrong = breach(subject.solver, result, problem.A, problem.y, sparsity=s)
    if wrong or not subject.exact:
        return wrong
    truth = torch.nn.functional.pad(problem.support, (0, s - problem.sparsity), value=-1)
    if not same_support(result.support, truth).all():
        return "more than the true atoms were used, or others"
    return None if (result.status == Status.CONVERGED).all() else "not CONVERGED on exact data"


def _zero_row(subject: StressSubject) -> str | None:
    """A row of zeros."""
    return _spoiled_row(subject, torch.zeros(()))


def _nan_row(subject: StressSubject) -> str | None:
    """A row with NaN."""
    return _spoiled_row(subject, torch.tensor(torch.nan))


def _infinite_row(subject: StressSubject) -> str | None:
    """A row with infinity."""
    return _spoiled_row(subject, torch.tensor(torch.inf))


def _spoiled_row(subject: StressSubject, value: Tensor) -> str | None:
    problem = subject.problem
    y = problem.y.clone()
    y[_ROW, slice(None) if value == 0 else 0] = value.to(y.dtype)
    result = subject.solver.solve(problem.A, y, sparsity=problem.sparsity)
    wrong = breach(subject.solver, result, problem.A, y, sparsity=problem.sparsity)
    if wrong:
        return wrong
    if (result.support[_ROW] >= 0).any():
        return "atoms were chosen for the spoiled row"
    others = torch.arange(y.shape[0]) != _ROW
    return _differs(subject, result, others=others, said="another row changed")


def _duplicate_columns(subject: StressSubject) -> str | None:
    """Every column twice, and s twice the truth."""
    problem, s = subject.problem, 2 * subject.problem.sparsity
    dense = problem.A.to_dense()
    A = torch.cat([dense, dense], dim=1)
    result = subject.solver.solve(A, problem.y, sparsity=s)
    wrong = breach(subject.solver, result, as_projection(A), problem.y, sparsity=s)
    if wrong or not subject.exact:
        return wrong
    found = torch.where(result.support < 0, -1, result.support % dense.shape[1])
    truth = torch.nn.functional.pad(problem.support, (0, s - problem.sparsity), value=-1)
    return None if same_support(found, truth).all() else "a copy was taken beside its original"


def _small_signals(subject: StressSubject) -> str | None:
    """y·1e-6."""
    problem, factor = subject.problem, 1e-6
    y = problem.y * factor
    result = subject.solver.solve(problem.A, y, sparsity=problem.sparsity)
    wrong = breach(subject.solver, result, problem.A, y, sparsity=problem.sparsity)
    return wrong or _differs(subject, result, value_scale=1 / factor)


def _long_columns(subject: StressSubject) -> str | None:
    """Every other column 100 times as long, x there a hundredth: the same y."""
    problem = subject.problem
    dense = problem.A.to_dense()
    length = torch.ones(dense.shape[1], dtype=dense.dtype)
    length[::2] = 100
    A = dense * length
    result = subject.solver.solve(A, problem.y, sparsity=problem.sparsity)
    wrong = breach(subject.solver, result, as_projection(A), problem.y, sparsity=problem.sparsity)
    return wrong or _differs(subject, result, value_scale=length[result.support.clamp(min=0)])


def _orthonormal(subject: StressSubject) -> str | None:
    """A = I, whose restricted isometry constants are 0: every method's theorem promises x."""
    x = subject.problem.x()
    A, s = torch.eye(x.shape[1], dtype=x.dtype), subject.problem.sparsity
    result = subject.solver.solve(A, x, sparsity=s)
    wrong = breach(subject.solver, result, as_projection(A), x, sparsity=s)
    if wrong:
        return wrong
    error = (result.to_dense(x.shape[1]) - x).abs().amax()
    return None if error <= COEFFICIENT_LIMITS[x.dtype] * x.abs().amax() else f"x is off by {error}"


def _differs(
    subject: StressSubject,
    result: RecoveryResult,
    *,
    others: Tensor | slice = slice(None),
    value_scale: float | Tensor = 1.0,
    said: str = "the answer changed",
) -> str | None:
    """Compare with the plain answer on some rows, values multiplied by ``value_scale`` first."""
    plain = subject.plain
    if not same_support(result.support[others], plain.support[others]).all():
        return f"{said}: another support"
    mine = (result.values * value_scale).gather(1, result.support.argsort(1))
    before = plain.values.gather(1, plain.support.argsort(1))
    limit = COEFFICIENT_LIMITS[before.dtype] * before.abs().amax(1, keepdim=True)
    return None if ((mine - before).abs() <= limit)[others].all() else f"{said}: other values"


#: Hard inputs by the name that the table shows.
CHECKS: dict[str, StressCheck] = {
    "s twice the truth": _over_iteration,
    "zero row": _zero_row,
    "NaN row": _nan_row,
    "inf row": _infinite_row,
    "duplicate columns": _duplicate_columns,
    "y·1e-6": _small_signals,
    "columns of norm 100": _long_columns,
    "orthonormal A": _orthonormal,
}
