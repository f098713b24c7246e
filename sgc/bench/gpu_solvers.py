"""Sparse-recovery solvers on one device, against each other, what pip installs, and their floor."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from sgc.bench.contestants import CONTESTANTS, PLAIN, Contestant
from sgc.bench.device_timing import DeviceTiming, interleaved_on_device, released
from sgc.bench.solver_problem import SolverSize, draw_problem
from sgc.bench.solver_trials import CPU, SUBJECT, Trial, attempt, reference_support
from sgc.bench.timing import Timing
from sgc.bench.work import Floors, Work

__all__ = ["SIZES", "SolverRow", "measure_solvers"]

#: CESGC, MESGC with 256 and 64 chunks, and the paper's other size.
SIZES = (
    SolverSize(2048, 217, 31, 4096),
    SolverSize(65536, 8, 1, 16384),
    SolverSize(262144, 7, 1, 4096),
    SolverSize(4096, 56, 8, 8192),
)
#: Whoever needs more seconds for a call is not called again.
_SLOW = 1.0
#: Seconds for the rounds of one size.
_BUDGET = 10.0
_HOST_REPEATS = 5


@dataclasses.dataclass(frozen=True)
class SolverRow:
    """One contestant at one size. What needs an answer is None where there is none.

    Attributes:
        outcome: ``ok``, or what went wrong, or why it was not tried.
        signals: that it solved in a call.
        timing: seconds of a call; one sample for the slow.
        microseconds: device time of a signal, median.
        speedup: time of ``omp`` over its own, a signal: within rounds where both ran in them.
        speedup_over_plain: the same of the faster one of ``omp`` and ``omp`` with TF32 products.
        speedup_over_cpu: the fastest installable CPU row's time over its own, a signal.
        agreement: share of signals whose support is that of ``omp`` in float64.
        broken: share of signals whose answer holds NaN.
        work: the least for these signals.
        floor: seconds that this needs at the measured rates; None on the CPU.
        over_floor: median device time over it.
        rate: flops over the median device time.
    """

    size: SolverSize
    name: str
    on_cpu: bool
    installable: bool
    outcome: str
    signals: int
    work: Work
    intensity: float
    timing: DeviceTiming | None = None
    microseconds: float | None = None
    speedup: Timing | None = None
    speedup_over_plain: Timing | None = None
    speedup_over_cpu: float | None = None
    agreement: float | None = None
    broken: float | None = None
    floor: float | None = None
    over_floor: float | None = None
    rate: float | None = None


def measure_solvers(
    floors: Floors,
    *,
    device: torch.device,
    sizes: Sequence[SolverSize] = SIZES,
    contestants: Sequence[Contestant] = CONTESTANTS,
    repeats: int = 30,
    seed: int = 0,
    progress: Callable[[str, int, int], Any] = lambda _what, _done, _total: None,
) -> list[SolverRow]:
    """Let every contestant solve every size once, compare the answers, then time in rounds.

    Args:
        floors: rates of the device.
        device: of the contestants that do not name the CPU as their place.
        sizes: what to solve.
        repeats: interleaved rounds that count.
        seed: of A and the signals.
        progress: called with what is being done and how much of it is.
    """
    rows = []
    for number, size in enumerate(sizes):
        progress(f"solvers, {size}", number, len(sizes))
        with released(device):
            rows += _measure(size, floors, device, contestants, repeats=repeats, seed=seed)
    progress("solvers", len(sizes), len(sizes))
    return rows


def _measure(
    size: SolverSize,
    floors: Floors,
    device: torch.device,
    contestants: Sequence[Contestant],
    *,
    repeats: int,
    seed: int,
) -> list[SolverRow]:
    problem = draw_problem(size, device=device, seed=seed)
    reference = reference_support(problem)
    trials = [attempt(contestant, problem, reference, device) for contestant in contestants]
    timings = {
        **_timings(trials, device, on_cpu=False, repeats=repeats),
        **_timings(trials, CPU, on_cpu=True, repeats=min(repeats, _HOST_REPEATS)),
    }
    return list(_rows(trials, timings, floors))


def _timings(
    trials: Sequence[Trial], device: torch.device, *, on_cpu: bool, repeats: int
) -> dict[str, DeviceTiming]:
    """Rounds of all that answered quickly, as many as the budget allows; else the one call."""
    calls, timings, round_seconds = {}, {}, 0.0
    for trial in trials:
        if trial.call is None or trial.contestant.on_cpu != on_cpu:
            continue
        if trial.seconds > _SLOW:
            only = Timing((trial.seconds,))
            timings[trial.contestant.name] = DeviceTiming(only, only, only)
        else:
            calls[trial.contestant.name] = trial.call
            round_seconds += trial.seconds
    if round_seconds:
        repeats = max(1, min(repeats, int(_BUDGET / (2 * round_seconds))))
    return timings | interleaved_on_device(calls, device=device, repeats=repeats)


def _rows(
    trials: Sequence[Trial], timings: dict[str, DeviceTiming], floors: Floors
) -> Iterator[SolverRow]:
    each, host = {}, []  # seconds of a signal; the medians of the CPU's
    for trial in trials:
        name = trial.contestant.name
        if name in timings:
            samples = timings[name].device.samples
            each[name] = Timing(tuple(seconds / trial.size.signals for seconds in samples))
            if trial.contestant.on_cpu and trial.contestant.installable:
                host.append(each[name].median)
    plain = [each[name] for name in PLAIN if name in each]
    fastest = min(plain, key=lambda timing: timing.median, default=None)
    for trial in trials:
        name, on_cpu = trial.contestant.name, trial.contestant.on_cpu
        work = trial.size.work(trial.contestant.unit)
        row = SolverRow(
            size=trial.size,
            name=name,
            on_cpu=on_cpu,
            installable=trial.contestant.installable,
            outcome=trial.outcome,
            signals=trial.size.signals,
            work=work,
            intensity=work.intensity,
        )
        if name in each:
            seconds, floor = timings[name].device.median, work.floor(floors)
            row = dataclasses.replace(
                row,
                timing=timings[name],
                microseconds=1e6 * each[name].median,
                speedup=_speedup(each.get(SUBJECT), each[name]),
                speedup_over_plain=_speedup(fastest, each[name]),
                speedup_over_cpu=min(host) / each[name].median if host else None,
                agreement=trial.agreement,
                broken=trial.broken,
                floor=None if on_cpu else floor,
                over_floor=None if on_cpu else seconds / floor,
                rate=work.flops / seconds,
            )
        yield row


def _speedup(subject: Timing | None, own: Timing) -> Timing | None:
    """Within rounds where there are as many of both, else of medians."""
    if subject is None:
        return None
    if len(subject.samples) == len(own.samples):
        return subject.over(own)
    return Timing((subject.median / own.median,))
