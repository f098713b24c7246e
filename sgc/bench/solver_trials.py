"""One call of a contestant, judged by what it answers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sgc.bench.contestants import Contestant, UnavailableError
from sgc.bench.device_timing import free_bytes, once, released
from sgc.bench.solver_problem import Problem, SolverSize
from sgc.registry import MissingDependencyError, create

__all__ = ["CPU", "SUBJECT", "Trial", "attempt", "reference_support"]

#: Whose choices in float64 are taken for right, and whose time others are compared with.
SUBJECT = "omp"
CPU = torch.device("cpu")
_HOST_BYTES = 10 * 2**30


@dataclasses.dataclass
class Trial:
    """How it went.

    Attributes:
        size: of what it solved: fewer signals on the CPU.
        outcome: ``ok``, or what went wrong, or why it was not tried.
        call: to be timed; None where there was no answer.
        seconds: of a second call.
        agreement: share of signals whose support is the reference's.
        broken: share of signals whose answer holds NaN.
    """

    contestant: Contestant
    size: SolverSize
    outcome: str = "ok"
    call: Callable[[], Any] | None = None
    seconds: float = 0.0
    agreement: float | None = None
    broken: float | None = None


def reference_support(problem: Problem) -> Int[Tensor, "signals s"]:
    """What ``omp`` chooses in float64, in ascending order."""
    solver = create("recovery", SUBJECT, tolerance=0.0)
    found = solver.solve(problem.exact, problem.y, sparsity=problem.size.sparsity)
    return found.support.sort(1).values.cpu()


def attempt(
    contestant: Contestant, problem: Problem, reference: Tensor, device: torch.device
) -> Trial:
    """One call that is judged by its answer, and a second that is timed."""
    room = free_bytes(device)
    if contestant.host_signals is not None:
        problem, device, room = problem.first(contestant.host_signals, CPU), CPU, _HOST_BYTES
    trial = Trial(contestant, problem.size)
    needed = contestant.memory(problem.size)
    if room is not None and needed > room:
        gib = 2**30
        trial.outcome = f"not tried: needs about {needed / gib:.0f} of {room / gib:.0f} GiB"
        return trial
    try:
        with released(device):
            call = contestant.make(problem)
            answer, _ = once(call, device)
            support = contestant.support(answer, problem.size.sparsity).cpu()
            del answer
            _, trial.seconds = once(call, device)
    # Another's code may raise anything, and that is then its outcome.
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        known = isinstance(error, UnavailableError | MissingDependencyError)
        trial.outcome = reason[0] if known else f"{type(error).__name__}: {reason[0]}"
        return trial
    trial.call = call
    same = (support.sort(1).values == reference[: len(support)]).all(1)
    trial.agreement = float(same.double().mean())
    trial.broken = float((support == -2).any(1).double().mean())
    return trial
