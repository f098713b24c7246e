"""What the GPU benchmark should reach, judged on its report."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sgc.bench.gpu_solvers import SolverRow
from sgc.bench.gpu_steps import StepRow
from sgc.bench.solver_problem import SolverSize

__all__ = ["SOLVER_TARGETS", "STEP_TARGETS", "Target", "Verdict", "judge"]

_GIB = 2**30
_CESGC_SIZE = SolverSize(2048, 217, 31, 4096)


@dataclasses.dataclass(frozen=True)
class Target:
    """A limit for one number of one row.

    Attributes:
        what: the limit in words.
        row: name of the row.
        value: the number, of the row; None where the row lacks it.
        limit: to be reached.
        at_most: whether the number must stay below the limit rather than above.
        size: of the row, where there are several of its name.
    """

    what: str
    row: str
    value: Callable[[Any], float | None]
    limit: float
    at_most: bool = True
    size: SolverSize | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a target ended; value None: nothing was measured, so it is not met."""

    what: str
    row: str
    value: float | None
    limit: float
    met: bool


STEP_TARGETS = (
    Target(
        "step at most 0.5 × fused AdamW", "MESGC, c 256", lambda r: r.over_reference.median, 0.5
    ),
    Target("step at most 0.5 × fused AdamW", "MESGC, c 64", lambda r: r.over_reference.median, 0.5),
    Target(
        "step at most 0.7 × fused AdamW",
        "MESGC, c 256, residual",
        lambda r: r.over_reference.median,
        0.7,
    ),
    Target(
        "step with its share of a refresh at most 1.5 × fused AdamW",
        "CESGC, rank 32",
        lambda r: r.amortised_over_reference,
        1.5,
    ),
    *(
        Target(
            "peak extra memory below 1 GiB, in GiB", name, lambda r: r.peak_extra_bytes / _GIB, 1
        )
        for name in ("MESGC, c 256", "MESGC, c 64", "MESGC, c 256, residual")
    ),
)
SOLVER_TARGETS = (
    Target(
        "at least 3 × faster than the faster plain torch form (omp, without or with TF32 products)",
        "omp-cupy",
        lambda r: r.speedup_over_plain and r.speedup_over_plain.median,
        3,
        at_most=False,
        size=_CESGC_SIZE,
    ),
    Target(
        "support as omp's in float64 for .999 of the signals",
        "omp-cupy",
        lambda r: r.agreement,
        0.999,
        at_most=False,
        size=_CESGC_SIZE,
    ),
    Target(
        "at least 100 × faster than the best from pip on the CPU",
        "omp-cupy",
        lambda r: r.speedup_over_cpu,
        100,
        at_most=False,
        size=_CESGC_SIZE,
    ),
)


def judge(targets: Sequence[Target], rows: Sequence[StepRow | SolverRow]) -> list[Verdict]:
    """Hold rows against targets."""
    verdicts = []
    for target in targets:
        row = next(
            (r for r in rows if r.name == target.row and getattr(r, "size", None) == target.size),
            None,
        )
        value = None if row is None else target.value(row)
        what = target.what if target.size is None else f"{target.size}: {target.what}"
        met = value is not None and (
            value <= target.limit if target.at_most else value >= target.limit
        )
        verdicts.append(Verdict(what, target.row, value, target.limit, met))
    return verdicts
