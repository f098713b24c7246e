"""How far a solver agrees with the oracle and with the truth on random problems."""

import dataclasses

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from recovery import RecoveryResult, Solver
from recovery.base import rounding_level
from sgc.bench.timing import timed
from sgc.problems import SparseProblem, sparse_problem
from sgc.validate.oracle import OracleAnswer, ask_oracle

__all__ = ["COEFFICIENT_LIMITS", "Agreement", "Case", "Size", "measure", "same_support"]

#: Largest relative coefficient error that rounding explains.
COEFFICIENT_LIMITS = {torch.float64: 1e-10, torch.float32: 1e-4}


@dataclasses.dataclass(frozen=True)
class Size:
    """A problem size: signal length d, measurements k, nonzeros s."""

    d: int
    k: int
    sparsity: int

    def __str__(self) -> str:
        return f"{self.d}, {self.k}, {self.sparsity}"


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One solver on one size, law and dtype.

    Attributes:
        agree: share of signals whose support is the oracle's.
        agree_inside: the same among the signals inside the exact regime; None where there are none.
        inside: how many signals lie inside it.
        error: largest coefficient error relative to the oracle's largest coefficient, over signals
            with equal supports; None where there are none.
        error_inside: the same inside the exact regime.
        exact: share of signals whose support is the true one.
        oracle_exact: that share for the oracle.
        microseconds: a signal, median over repeats of the whole batch.
    """

    solver: str
    size: Size
    law: str
    dtype: str
    agree: float
    agree_inside: float | None
    inside: int
    error: float | None
    error_inside: float | None
    exact: float
    oracle_exact: float
    microseconds: float


@dataclasses.dataclass(frozen=True)
class Case:
    """One size and law: the problems in both precisions and the oracle's answer to them.

    Attributes:
        problems: the same problem by dtype; the oracle answers the float64 one.
        inside: by dtype, the signals of the exact regime: the oracle finds the truth, and no
            coefficient is so small that it drowns in the rounding of that dtype.
    """

    size: Size
    law: str
    problems: dict[torch.dtype, SparseProblem]
    oracle: OracleAnswer
    inside: dict[torch.dtype, Bool[Tensor, " signals"]]

    @classmethod
    def draw(cls, size: Size, law: str, *, signals: int, projection: str, seed: int) -> "Case":
        """Draw the problem and ask the oracle."""
        problems = {
            dtype: sparse_problem(
                *(size.d, size.k, size.sparsity),
                signals=signals,
                law=law,
                projection=projection,
                seed=seed,
                dtype=dtype,
            )
            for dtype in COEFFICIENT_LIMITS
        }
        wide = problems[torch.float64]
        oracle = ask_oracle(wide.A, wide.y, sparsity=size.sparsity)
        found = same_support(oracle.support, wide.support)
        length = wide.A.column_norms()[wide.support]
        smallest = (wide.values.abs() * length).amin(1) / torch.linalg.vector_norm(wide.y, dim=1)
        inside = {
            dtype: found & (smallest > 4 * rounding_level(size.k, dtype)) for dtype in problems
        }
        return cls(size, law, problems, oracle, inside)

    @property
    def oracle_exact(self) -> float:
        """Share of signals whose true support the oracle finds."""
        truth = self.problems[torch.float64].support
        return _share(same_support(self.oracle.support, truth))


def measure(
    name: str, solver: Solver, case: Case, *, dtype: torch.dtype, repeats: int
) -> Agreement:
    """Run one solver on one case. Whatever the solver raises comes through."""
    problem, oracle, inside = case.problems[dtype], case.oracle, case.inside[dtype]
    sparsity = case.size.sparsity
    solver.solve(problem.A, problem.y[:1], sparsity=sparsity)  # what is done once per A
    result, seconds = timed(
        lambda: solver.solve(problem.A, problem.y, sparsity=sparsity), repeats=repeats, budget=0.3
    )
    agree = same_support(result.support, oracle.support)
    error = _coefficient_errors(result, oracle)
    return Agreement(
        solver=name,
        size=case.size,
        law=case.law,
        dtype=str(dtype).removeprefix("torch."),
        agree=_share(agree),
        agree_inside=_share(agree[inside]) if inside.any() else None,
        inside=int(inside.sum()),
        error=_largest(error[agree]),
        error_inside=_largest(error[agree & inside]),
        exact=_share(same_support(result.support, problem.support)),
        oracle_exact=case.oracle_exact,
        microseconds=1e6 * seconds / problem.y.shape[0],
    )


def same_support(
    one: Int[Tensor, "signals s"], other: Int[Tensor, "signals s"]
) -> Bool[Tensor, " signals"]:
    """Which rows name the same set of columns; unused slots (-1) must match in number."""
    return (one.sort(1).values == other.sort(1).values).all(1)


def _coefficient_errors(result: RecoveryResult, oracle: OracleAnswer) -> Tensor:
    """Largest error of each signal relative to the oracle's largest coefficient there.

    Slots are paired by sorting the supports, so it means nothing where supports differ.
    """
    mine = result.values.double().gather(1, result.support.argsort(1))
    theirs = oracle.values.gather(1, oracle.support.argsort(1))
    return (mine - theirs).abs().amax(1) / theirs.abs().amax(1)


def _share(which: Bool[Tensor, " n"]) -> float:
    return float(which.double().mean())


def _largest(errors: Tensor) -> float | None:
    return float(errors.max()) if errors.numel() else None
