"""Timing of work that is handed to an accelerator: by events on its queue, and by the host's clock.

On a CPU, where a call returns when its work is done, all the times are the host's.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from sgc.bench.timing import Timing

__all__ = ["DeviceTiming", "free_bytes", "interleaved_on_device", "once", "released", "wait"]


@dataclasses.dataclass(frozen=True)
class DeviceTiming:
    """Seconds of one thing, seen from three sides.

    Attributes:
        device: between two events on the queue, with other work before and after: what it costs in
            a busy training loop. Where the host hands kernels over more slowly than they run,
            the queue runs dry and this shows the host's pace.
        host: of the call alone, started with an empty queue: what the launches cost.
        latency: from the call with an empty queue to the end of its work.
    """

    device: Timing
    host: Timing
    latency: Timing


def interleaved_on_device(
    contestants: Mapping[str, Callable[[], Any]],
    *,
    device: torch.device,
    repeats: int,
    warmup: int = 3,
    before: Callable[[str], Any] = lambda _name: None,
    progress: Callable[[], Any] = lambda: None,
) -> dict[str, DeviceTiming]:
    """Time every contestant once a round, on the device, after ``warmup`` rounds that do not count.

    All rounds are enqueued without waiting, an event before and after each run; then as many rounds
    in which the host waits for the device before and after each run. The order turns by one place a
    round, so that nobody always runs after the same rival.

    Args:
        contestants: what to run, by name.
        device: where the work goes.
        repeats: rounds that count, at least 1.
        warmup: rounds that do not, at least 1.
        before: called with the name before every run, outside the times.
        progress: called after every run.

    Raises:
        ValueError: repeats or warmup below 1.
    """
    if repeats < 1 or warmup < 1:
        raise ValueError(f"repeats and warmup must be at least 1, got {repeats} and {warmup}")
    for name in _turns(list(contestants), warmup):
        before(name)
        contestants[name]()
        progress()
    wait(device)
    spans: dict[str, list[Callable[[], float]]] = {name: [] for name in contestants}
    for name in _turns(list(contestants), repeats):
        before(name)
        with _span(device) as seconds:
            contestants[name]()
        spans[name].append(seconds)
        progress()
    wait(device)
    queued = {name: Timing(tuple(span() for span in taken)) for name, taken in spans.items()}

    host: dict[str, list[float]] = {name: [] for name in contestants}
    latency: dict[str, list[float]] = {name: [] for name in contestants}
    for name in _turns(list(contestants), repeats):
        before(name)
        start = time.perf_counter()
        contestants[name]()
        host[name].append(time.perf_counter() - start)
        wait(device)
        latency[name].append(time.perf_counter() - start)
        progress()
    return {
        name: DeviceTiming(queued[name], Timing(tuple(host[name])), Timing(tuple(latency[name])))
        for name in contestants
    }


def once(function: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What a function returns, and the seconds until its work on the device is done."""
    wait(device)
    start = time.perf_counter()
    answer = function()
    wait(device)
    return answer, time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_bytes(device: torch.device) -> int | None:
    """Memory that could be taken on the device now; None where nobody knows."""
    if device.type != "cuda":
        return None
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


@contextlib.contextmanager
def released(device: torch.device) -> Iterator[None]:
    """Give the allocator's cache back afterwards."""
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _turns(names: list[str], rounds: int) -> Iterator[str]:
    for round_ in range(rounds):
        turn = round_ % max(len(names), 1)
        yield from names[turn:] + names[:turn]


@contextlib.contextmanager
def _span(device: torch.device) -> Iterator[Callable[[], float]]:
    """Time a block: the function that it gives returns the seconds, after a :func:`wait`."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield lambda: start.elapsed_time(end) / 1e3
            end.record()
        return
    marks = [time.perf_counter()]
    yield lambda: marks[1] - marks[0]
    marks.append(time.perf_counter())
