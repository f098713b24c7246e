"""Batched OMP on the CPU against scikit-learn and against its own floor, in one run."""

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import orthogonal_mp
from torch import Tensor

from recovery import Solver
from sgc.bench.files import write_json
from sgc.bench.timing import Timing, interleaved, single_thread
from sgc.problems import sparse_problem
from sgc.registry import MissingDependencyError, available, create
from sgc.results import environment
from sgc.validate.report import reproduces_omp, runs_on_cpu

__all__ = ["FLOOR", "SIZES", "BenchReport", "BenchRow", "BenchSize", "Target", "run", "write"]

FLOOR = "floor"
SCIKIT_LEARN = "scikit-learn"
#: The solver that the targets are about.
SUBJECT = "omp"
_FLOOR_LIMIT = 1.5
_LARGE = 1e4


@dataclasses.dataclass(frozen=True)
class BenchSize:
    """A size to be measured: signal length d, measurements k, nonzeros s, signals in the batch.

    ``speedup`` is how many times faster than scikit-learn a signal should be.
    """

    d: int
    k: int
    sparsity: int
    batch: int
    speedup: float

    def __str__(self) -> str:
        return f"d {self.d}, k {self.k}, s {self.sparsity}, batch {self.batch}"


#: The paper's sizes.
SIZES = (BenchSize(2048, 217, 31, 256, 10), BenchSize(4096, 56, 8, 512, 4))


@dataclasses.dataclass(frozen=True)
class BenchRow:
    """One contestant at one size.

    Attributes:
        timing: seconds for the whole batch.
        over_floor: its time over the floor's, round by round.
        speedup: scikit-learn's time over its own, round by round.
    """

    size: BenchSize
    name: str
    timing: Timing
    over_floor: Timing
    speedup: Timing

    @property
    def microseconds(self) -> float:
        """Median time of one signal."""
        return 1e6 * self.timing.median / self.size.batch


@dataclasses.dataclass(frozen=True)
class Target:
    """A number that should be reached at a size, judged by the median over the rounds."""

    size: BenchSize
    what: str
    value: float
    met: bool


@dataclasses.dataclass(frozen=True)
class BenchReport:
    """Rows and targets of one run; ``environment`` says where it ran."""

    rows: tuple[BenchRow, ...]
    targets: tuple[Target, ...]
    repeats: int
    seed: int
    environment: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values, with every sample."""
        return dataclasses.asdict(self)


def floor(
    y: Float[Tensor, "batch k"], A: Float[Tensor, "k d"], *, sparsity: int
) -> Float[Tensor, " batch"]:
    """The least that s greedy choices cost in plain torch: correlate, magnitude, argmax, s times.

    Nothing is removed from the residual, so this recovers nothing.
    """
    for _ in range(sparsity):
        best = (y @ A).abs().argmax(1)
    return best


@single_thread()
def run(
    sizes: Sequence[BenchSize] = SIZES,
    *,
    repeats: int = 7,
    seed: int = 0,
    progress: Callable[[str, int, int], Any] = lambda _what, _done, _total: None,
) -> BenchReport:
    """Measure every OMP variant, scikit-learn and the floor: float32, one thread.

    Rounds are interleaved, so that noise hits all alike. Whatever a solver computes once per A is
    done in a round that does not count; the sparse signals have Gaussian coefficients.

    Args:
        sizes: what to measure.
        repeats: rounds that count.
        seed: of A and the signals.
        progress: called with a size and the runs done there, of how many.

    Raises:
        ValueError: repeats below 1.
    """
    solvers = _omp_variants()
    rows: list[BenchRow] = []
    for size in sizes:
        total = (repeats + 1) * (len(solvers) + 3)
        step = functools.partial(_step, progress, str(size), itertools.count(1), total)
        rows += _measure(size, solvers, repeats=repeats, seed=seed, progress=step)
    targets = [target for row in rows if row.name == SUBJECT for target in _targets(row)]
    here = {**environment(), "cpu_threads": 1}
    return BenchReport(tuple(rows), tuple(targets), repeats, seed, here)


def write(report: BenchReport, path: Path) -> None:
    """Write a report as JSON: the file is the old one or the whole new one, never a part.

    Raises:
        OSError: the folder cannot be written.
    """
    write_json(report.to_dict(), path)


def _step(progress: Callable[..., Any], what: str, done: Iterator[int], total: int) -> None:
    progress(what, next(done), total)


def _omp_variants() -> dict[str, Solver]:
    found = {}
    for name in available("recovery"):
        try:
            solver = create("recovery", name)
        except MissingDependencyError:
            continue
        if getattr(solver, "described_as", None):  # another under a second name: not run twice
            continue
        if runs_on_cpu(solver) and (name == SUBJECT or reproduces_omp(solver)):
            found[name] = solver
    return found


def _measure(
    size: BenchSize,
    solvers: dict[str, Solver],
    *,
    repeats: int,
    seed: int,
    progress: Callable[[], Any],
) -> list[BenchRow]:
    problem = sparse_problem(
        *(size.d, size.k, size.sparsity), signals=size.batch, seed=seed, dtype=torch.float32
    )
    A, y = problem.A, problem.y
    dense = A.to_dense().contiguous()
    # scikit-learn is given the unit columns it assumes, in the order it wants, and signals so large
    # that its absolute stopping test (correlation² < eps) does not end it before s atoms.
    columns = np.asfortranarray((dense / A.column_norms()).numpy())
    large = (_LARGE * y / torch.linalg.vector_norm(y, dim=1, keepdim=True)).numpy().T
    contestants: dict[str, Callable[[], Any]] = {
        FLOOR: lambda: floor(y, dense, sparsity=size.sparsity),
        SCIKIT_LEARN: lambda: orthogonal_mp(columns, large, n_nonzero_coefs=size.sparsity),
        f"{SCIKIT_LEARN}, one call a signal": lambda: [
            orthogonal_mp(columns, signal, n_nonzero_coefs=size.sparsity) for signal in large.T
        ],
    }
    for name, solver in solvers.items():
        contestants[name] = functools.partial(solver.solve, A, y, sparsity=size.sparsity)
    with warnings.catch_warnings():
        # Said of a signal that is explained before s atoms are used, to rounding.
        warnings.filterwarnings("ignore", "Orthogonal matching pursuit ended", RuntimeWarning)
        timings = interleaved(contestants, repeats=repeats, progress=progress)
    floor_timing, rival = timings[FLOOR], timings[SCIKIT_LEARN]
    return [
        BenchRow(size, name, timing, timing.over(floor_timing), rival.over(timing))
        for name, timing in timings.items()
    ]


def _targets(row: BenchRow) -> list[Target]:
    over, speedup = row.over_floor.median, row.speedup.median
    wanted = row.size.speedup
    return [
        Target(row.size, f"at most {_FLOOR_LIMIT}× the floor", over, over <= _FLOOR_LIMIT),
        Target(
            row.size,
            f"at least {wanted:g}× faster than scikit-learn",
            speedup,
            speedup >= wanted,
        ),
    ]
