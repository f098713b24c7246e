"""The whole validation: which solvers, which problems, and the verdict."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from recovery import Solver
from sgc.bench.timing import single_thread
from sgc.problems import LAWS
from sgc.registry import MissingDependencyError, available, create
from sgc.results import Result
from sgc.specs import Spec
from sgc.validate.agreement import COEFFICIENT_LIMITS, Agreement, Case, Size, measure
from sgc.validate.stress import CHECKS, StressSubject

__all__ = ["QUICK_SIZES", "SIZES", "Report", "reproduces_omp", "run", "runs_on_cpu"]

#: Two comfortable sizes for orthogonal matching pursuit, then the paper's two, which are thin.
SIZES = (Size(256, 128, 4), Size(1024, 256, 8), Size(2048, 217, 31), Size(4096, 56, 8))
QUICK_SIZES = (SIZES[0], SIZES[3])
_QUICK_SIGNALS = 16


def reproduces_omp(solver: Solver) -> bool:
    """Whether a solver declares, by ``oracle = "omp"``, that it gives OMP's answer."""
    return getattr(solver, "oracle", None) == "omp"


def runs_on_cpu(solver: Solver) -> bool:
    """Whether a solver takes CPU tensors; one that declares no devices takes all."""
    devices: frozenset[str] = getattr(solver, "devices", frozenset())
    return not devices or "cpu" in devices


@dataclasses.dataclass(frozen=True)
class Report:
    """What a validation found.

    Attributes:
        agreements: rows of solvers on random problems.
        stress: ``solver → check → reason``, the reason None where the rule holds.
        unavailable: ``solver → why it cannot run here``.
        failures: one sentence for everything that must not be; empty means passed.
        oracle_microseconds: time of one signal by size and law.
        config: what was asked, as JSON values.
    """

    agreements: tuple[Agreement, ...]
    stress: dict[str, dict[str, str | None]]
    unavailable: dict[str, str]
    failures: tuple[str, ...]
    oracle_microseconds: dict[tuple[Size, str], float]
    config: dict[str, Any]

    @property
    def passed(self) -> bool:
        """The verdict."""
        return not self.failures

    def result(self) -> Result:
        """The report as one line of a :class:`sgc.results.ResultStore`."""
        text = json.dumps(self.config, sort_keys=True)
        return Result(
            run_id=hashlib.sha256(text.encode()).hexdigest()[:12],
            kind="validate",
            config=self.config,
            seed=self.config["seed"],
            metrics={
                "passed": self.passed,
                "failures": list(self.failures),
                "agreements": [_json(dataclasses.asdict(row)) for row in self.agreements],
                "stress": self.stress,
                "unavailable": self.unavailable,
                "oracle_microseconds": [
                    {"size": dataclasses.asdict(size), "law": law, "microseconds": taken}
                    for (size, law), taken in self.oracle_microseconds.items()
                ],
            },
        )


@single_thread()
def run(
    solvers: Sequence[str] = (),
    *,
    projection: str = "gaussian",
    signals: int = 64,
    seed: int = 0,
    quick: bool = False,
    sizes: Sequence[Size] | None = None,
    laws: Sequence[str] = tuple(LAWS),
    progress: Callable[[float, str], Any] = lambda _share, _what: None,
) -> Report:
    """Validate solvers on the CPU, in one thread: on a shared machine, two are slower than one.

    Args:
        solvers: specs, ``NAME`` or ``NAME:OPTION=VALUE``; none means every registered one.
        projection: the ensemble of A.
        signals: signals of each size and law.
        seed: of A and the signals.
        quick: one comfortable and one thin size, at most 16 signals each.
        sizes: instead of the usual ones.
        laws: names of :data:`sgc.problems.LAWS`.
        progress: called with the share that is done and what comes next.

    Raises:
        UnknownPluginError: no such solver or projection.
        UnknownOptionError: a spec names an option that its solver lacks.
        ValueError: the projection does not exist in these sizes, unknown law, no signal.
    """
    sizes = tuple(sizes or (QUICK_SIZES if quick else SIZES))
    signals = min(signals, _QUICK_SIGNALS) if quick else signals
    usable, unavailable = _create(solvers)
    failures: list[str] = []
    rows: list[Agreement] = []
    oracle_microseconds = {}
    total, done = len(sizes) * len(laws) * max(len(usable), 1), 0
    for size in sizes:
        for law in laws:
            progress(done / total, f"oracle, {size}, {law}")
            case = Case.draw(size, law, signals=signals, projection=projection, seed=seed)
            oracle_microseconds[size, law] = 1e6 * case.oracle.seconds / signals
            for name, solver in usable.items():
                progress(done / total, f"{name}, {size}, {law}")
                for dtype in COEFFICIENT_LIMITS:
                    try:
                        row = measure(name, solver, case, dtype=dtype, repeats=1 if quick else 3)
                    except Exception as error:  # a plug-in may raise anything; the others go on
                        failures.append(f"{name} ({dtype}, size {size}, {law}): {_raised(error)}")
                        continue
                    rows.append(row)
                done += 1
    for row in rows:
        if reproduces_omp(usable[row.solver]):
            failures += judge(row)
    stress = {
        name: _stressed(name, solver, projection, seed, failures) for name, solver in usable.items()
    }
    if not solvers and not any(map(reproduces_omp, usable.values())):
        failures.append('no registered solver declares oracle = "omp": nothing was held against it')
    config = {
        "solvers": sorted(usable),
        "projection": projection,
        "signals": signals,
        "seed": seed,
        "sizes": [dataclasses.asdict(size) for size in sizes],
        "laws": list(laws),
    }
    return Report(tuple(rows), stress, unavailable, tuple(failures), oracle_microseconds, config)


def judge(row: Agreement) -> list[str]:
    """What an OMP variant owes on a row, and does not give."""
    where = f"{row.solver} ({row.dtype}, size {row.size}, {row.law})"
    failures = []
    if row.agree_inside is not None and row.agree_inside < 1:
        missed = round(row.inside * (1 - row.agree_inside))
        failures.append(
            f"{where}: another support than the oracle's on {missed} of {row.inside} signals "
            f"inside the exact regime"
        )
    limit = COEFFICIENT_LIMITS[getattr(torch, row.dtype)]
    if row.error_inside is not None and not row.error_inside <= limit:  # NaN fails too
        failures.append(f"{where}: coefficients off by {row.error_inside:.1e}, limit {limit:.0e}")
    return failures


def _create(specs: Sequence[str]) -> tuple[dict[str, Solver], dict[str, str]]:
    usable: dict[str, Solver] = {}
    unavailable: dict[str, str] = {}
    for text in specs or available("recovery"):
        spec = Spec.parse(text)
        try:
            solver = create("recovery", spec.name, **spec.options)
        except MissingDependencyError as error:
            unavailable[spec.format()] = str(error)
            continue
        if runs_on_cpu(solver):
            usable[spec.format()] = solver
        else:
            unavailable[spec.format()] = f"runs on {', '.join(sorted(solver.devices))}, not the CPU"
    return usable, unavailable


def _stressed(
    name: str, solver: Solver, projection: str, seed: int, failures: list[str]
) -> dict[str, str | None]:
    verdicts: dict[str, str | None] = {}
    for dtype in COEFFICIENT_LIMITS:
        subject = functools.partial(
            StressSubject.of,
            solver,
            exact=reproduces_omp(solver),
            projection=projection,
            seed=seed,
            dtype=dtype,
        )
        for check, holds in CHECKS.items():
            try:
                reason = holds(subject())
            except Exception as error:  # as in run()
                reason = _raised(error)
            if reason is not None:
                failures.append(f"{name}, {check} ({dtype}): {reason}")
            verdicts[check] = verdicts.get(check) or reason
    return verdicts


def _raised(error: Exception) -> str:
    return f"raised {type(error).__name__}: {error}"


def _json(values: dict[str, Any]) -> dict[str, Any]:
    """Not-a-number has no JSON: it goes as its name."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
