"""Seconds of training iterations, without holding up a GPU."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sgc.bench.timing import Timing

__all__ = ["Stamp", "pooled", "stamp", "timed_iterations"]


@dataclass(frozen=True)
class Stamp:
    """A point in the device's stream of work; made by :func:`stamp`."""

    at: float | torch.cuda.Event

    def until(self, later: "Stamp") -> float:
        """Seconds from here to ``later``; synchronise the device first."""
        match self.at, later.at:
            case torch.cuda.Event() as start, torch.cuda.Event() as end:
                return float(start.elapsed_time(end)) / 1000
            case float(start), float(end):
                return end - start
        raise TypeError("the two stamps are of different devices")


def stamp(device: torch.device) -> Stamp:
    """Now: on CUDA when the work queued so far is done, elsewhere on the host's clock."""
    if device.type != "cuda":
        return Stamp(time.perf_counter())
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return Stamp(event)


def timed_iterations(
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    warmup: int,
    repeats: int,
    device: torch.device,
) -> dict[str, Any]:
    """Forward, backward and step, ``warmup + repeats + 1`` times in a row.

    The host waits for the device once, at the end.

    Returns:
        In seconds, samples of the ``repeats``: ``iteration``, and ``optimizer``, the step in it. In
        seconds: the optimizer's ``first_step`` and ``last_step``. The last ``loss``.

    Raises:
        FloatingPointError: the loss is no longer finite, so the times mean nothing.
    """
    stamps = []
    for _ in range(warmup + repeats + 1):
        start = stamp(device)
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        ready = stamp(device)
        optimizer.step()
        stamps.append((start, ready, stamp(device)))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if not value.isfinite():
        raise FloatingPointError(f"the loss became {value.item()}, so the times mean nothing")
    steps = [ready.until(end) for _, ready, end in stamps]
    return {
        "iteration": [start.until(end) for start, _, end in stamps[warmup:-1]],
        "optimizer": steps[warmup:-1],
        "first_step": steps[0],
        "last_step": steps[-1],
        "loss": value.item(),
    }


def pooled(passes: Sequence[Mapping[str, Any]], *, refresh_every: int | None) -> dict[str, Any]:
    """Metrics of a row from what :func:`timed_iterations` returned in each pass.

    ``iteration_s``, ``optimizer_s`` and ``forward_backward_s``, the difference, are medians with
    low, high and samples. ``first_step_s`` is of the last pass, when all libraries are loaded.
    ``refresh_s`` is what the last steps take longer than the median one, ``amortised_s`` the
    median iteration and a share of that.

    Args:
        passes: at least one.
        refresh_every: iterations that share ``refresh_s``; None where the last step is like all.
    """
    iteration = [seconds for one in passes for seconds in one["iteration"]]
    optimizer = [seconds for one in passes for seconds in one["optimizer"]]
    rest = [whole - step for whole, step in zip(iteration, optimizer, strict=True)]
    refresh = None
    if refresh_every is not None:
        refresh = max(0.0, median(one["last_step"] for one in passes) - median(optimizer))
    return {
        "iteration_s": _spread(iteration),
        "forward_backward_s": _spread(rest),
        "optimizer_s": _spread(optimizer),
        "first_step_s": passes[-1]["first_step"],
        "refresh_s": refresh,
        "amortised_s": median(iteration) + (refresh or 0.0) / (refresh_every or 1),
        "loss": passes[-1]["loss"],
    }


def _spread(samples: list[float]) -> dict[str, float | list[float]]:
    timing = Timing(tuple(samples))
    return {"median": timing.median, "low": timing.low, "high": timing.high, "samples": samples}
