"""Timing on a shared machine: one thread, warm, interleaved, medians with their spread."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import threadpoolctl
import torch

__all__ = ["Timing", "interleaved", "single_thread", "timed"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs of one thing, in the order they were taken.

    Raises:
        ValueError: no sample.
    """

    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("a timing needs at least one sample, got none")

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        """The fastest sample."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The slowest sample."""
        return max(self.samples)

    def over(self, other: "Timing") -> "Timing":
        """Ratios ``self/other`` of the samples taken in the same round.

        Noise that lasts longer than a round divides out.

        Raises:
            ValueError: the two were not taken in the same rounds.
        """
        pairs = zip(self.samples, other.samples, strict=True)
        return Timing(tuple(mine / theirs for mine, theirs in pairs))


def interleaved(
    contestants: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    progress: Callable[[], Any] = lambda: None,
) -> dict[str, Timing]:
    """Time every contestant once a round, after one round that does not count.

    The order turns by one place a round, so that nobody always runs after the same rival.

    Args:
        contestants: what to run, by name.
        repeats: rounds that count, at least 1.
        progress: called after every run.

    Raises:
        ValueError: repeats below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(repeats + 1):
        turn = round_ % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            contestants[name]()
            taken = time.perf_counter() - start
            if round_ > 0:
                seconds[name].append(taken)
            progress()
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def timed(function: Callable[[], T], *, repeats: int, budget: float) -> tuple[T, float]:
    """What a function returns, and its median seconds over ``repeats`` runs.

    It is run again only while all runs together stay below ``budget`` seconds, so what is slow is
    timed once. Warm up before.
    """
    taken: list[float] = []
    while not taken or (len(taken) < repeats and sum(taken) < budget):
        start = time.perf_counter()
        answer = function()
        taken.append(time.perf_counter() - start)
    return answer, statistics.median(taken)


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """One thread for torch and for the BLAS under NumPy; both as before afterwards."""
    before = torch.get_num_threads()
    with threadpoolctl.threadpool_limits(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
