"""Results of one task, put together by method: what the table and the plot show."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median, stdev

from sgc.finetune.config import FinetuneConfig
from sgc.finetune.defaults import short_label
from sgc.results import Result

__all__ = ["Row", "same_task", "summarise"]


_SHOWN = {
    *("test_accuracy", "test_examples", "states", "states_percent"),
    *("state_bytes", "shared_bytes"),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method over its seeds.

    Args:
        label: short method spec.
        runs: how many seeds.
        diverged: how many of them diverged; then there is no accuracy.
        accuracy: mean test accuracy, in [0, 1].
        error: its standard error: over the seeds, or binomial where there is one seed.
        states: numbers of optimizer state of the targets.
        percent: ``states`` in per cent of plain AdamW's.
        bytes: all that the optimizer keeps for the targets, A and the subspaces included.
        ms_per_step: median over a run's steps, then over the seeds.
        earlier: read from another results file, to be shown beside today's.
    """

    label: str
    runs: int
    diverged: int
    accuracy: float | None
    error: float | None
    states: int
    percent: float
    bytes: int
    ms_per_step: float | None
    earlier: bool = False


def same_task(results: Iterable[Result], like: Result) -> list[Result]:
    """Those of ``results`` that differ from ``like`` in method, learning rate and seed at most."""
    return [r for r in results if r.kind == like.kind and _task_id(r) == _task_id(like)]


def summarise(results: Iterable[Result]) -> list[Row]:
    """One row for each method and learning rate, in the order of first appearance."""
    groups: dict[tuple[str, float], dict[str, Result]] = {}
    for result in filter(is_whole, results):
        key = (result.config["method"], result.config["lr"])
        groups.setdefault(key, {})[result.run_id] = result
    return [
        _row(short_label(method, lr=lr), list(runs.values()))
        for (method, lr), runs in groups.items()
    ]


def is_whole(result: Result) -> bool:
    """Whether a result has what the table shows; one written by another version may not."""
    return set(result.metrics) >= _SHOWN and {"method", "lr"} <= set(result.config)


def _task_id(result: Result) -> str | None:
    try:
        return FinetuneConfig.from_dict(result.config).task_id
    except (TypeError, ValueError):  # written by another version
        return None


def _row(label: str, results: list[Result]) -> Row:
    metrics = [result.metrics for result in results]
    scores = [m["test_accuracy"] for m in metrics if m["test_accuracy"] is not None]
    times = [m["ms_per_step"] for m in metrics if "ms_per_step" in m]
    whole = len(scores) == len(metrics)
    return Row(
        label=label,
        runs=len(metrics),
        diverged=len(metrics) - len(scores),
        accuracy=fmean(scores) if whole else None,
        error=_standard_error(scores, metrics[0]["test_examples"]) if whole else None,
        states=metrics[0]["states"],
        percent=metrics[0]["states_percent"],
        bytes=metrics[0]["state_bytes"] + metrics[0]["shared_bytes"],
        ms_per_step=median(times) if times else None,
    )


def _standard_error(scores: list[float], examples: int) -> float:
    if len(scores) == 1:
        return math.sqrt(scores[0] * (1 - scores[0]) / examples)
    return stdev(scores) / math.sqrt(len(scores))
