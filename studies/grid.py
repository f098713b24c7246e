"""Trials of a study, into a file: what is there is not run again."""

import importlib
import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from sgc.finetune.config import ConfigError
from sgc.finetune.runner import worker_pool
from sgc.finetune.train import Interrupted
from sgc.results import Result, ResultStore
from studies.study import Study

__all__ = ["Point", "TrialsFailed", "check_devices", "missing", "points", "run", "select"]


class TrialsFailed(RuntimeError):  # noqa: N818
    """Some trials have no row; the others have."""


@dataclass(frozen=True)
class Point:
    """One trial: a config and a seed."""

    config: Any
    seed: int


def points(
    study: Study, preset: str, *, device: str | None = None, seeds: int | None = None
) -> list[Point]:
    """The trials of a preset, a seed after the other, so that an early stop leaves whole grids.

    Args:
        study: whose.
        preset: its name.
        device: where they compute, for configs that say so; see :func:`check_devices`.
        seeds: instead of the preset's number.

    Raises:
        ConfigError: no such preset, or no choice of a device.
    """
    grid = study.preset(preset)
    configs = list(grid.configs())
    if device is not None:
        fields = study.module.Config.__dataclass_fields__
        if "device" not in fields:
            raise ConfigError(f"the study {study.name} takes no device: leave --device out")
        configs = [replace(c, device=device) for c in configs]
    return [Point(c, seed) for seed in range(seeds or grid.seeds) for c in configs]


def check_devices(wanted: Sequence[Point]) -> None:
    """Try the devices of these trials before the first one starts.

    Raises:
        ConfigError: one cannot be used here.
    """
    for device in {getattr(point.config, "device", "cpu") for point in wanted}:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            first = str(error).splitlines()[0]
            raise ConfigError(
                f"device {device!r} cannot be used ({first}): choose another with --device, or "
                "take --preset smoke"
            ) from error


def select(study: Study, rows: Sequence[Result], wanted: Sequence[Point]) -> list[Result]:
    """The latest row of each of these trials that has one, in their order."""
    latest = {row.run_id: row for row in rows if row.kind == study.kind}
    ids = [study.run_id(point.config, point.seed) for point in wanted]
    return [latest[i] for i in ids if i in latest]


def missing(study: Study, rows: Sequence[Result], wanted: Sequence[Point]) -> list[Point]:
    """Those of the trials that have no row."""
    there = {row.run_id for row in rows if row.kind == study.kind}
    return [p for p in wanted if study.run_id(p.config, p.seed) not in there]


def run(
    study: Study,
    todo: Sequence[Point],
    store: ResultStore,
    *,
    here: dict[str, Any],
    jobs: int = 1,
    on_trial: Callable[[Point], object] = lambda point: None,
) -> dict[Point, str]:
    """Carry out trials; each has its line in the store as soon as it is over.

    Args:
        study: whose.
        todo: the trials.
        store: where the lines go.
        here: :func:`sgc.results.environment` of the process's start.
        jobs: trials at a time; beyond one each has a process of its own, with one thread. Those of
            a study that is ``alone`` run one by one all the same.
        on_trial: called after each.

    Returns:
        Trials that failed, with their errors; the others were done all the same.

    Raises:
        KeyboardInterrupt: what was finished is in the store.
        TrialsFailed: a process died.
        ResultStoreError: the store cannot be written.
    """
    failed: dict[Point, str] = {}
    for point, outcome in _outcomes(study, todo, 1 if study.alone else jobs):
        try:
            metrics, seconds = outcome()
            json.dumps(metrics, allow_nan=False)
        except BrokenProcessPool as error:
            raise TrialsFailed(
                "a process of the run has died (out of memory?); what was finished is kept, and "
                "the same command goes on, with fewer --jobs if need be"
            ) from error
        except Interrupted as stop:  # Ctrl-C within a training is meant for all trials
            raise KeyboardInterrupt from stop
        except Exception as error:  # a plug-in may raise anything; the others go on
            failed[point] = f"{type(error).__name__}: {error}"
        else:
            store.append(
                Result(
                    run_id=study.run_id(point.config, point.seed),
                    kind=study.kind,
                    config=asdict(point.config),
                    seed=point.seed,
                    metrics={**metrics, "trial_s": seconds},
                    environment=here,
                )
            )
        on_trial(point)
    return failed


def _outcomes(
    study: Study, todo: Sequence[Point], jobs: int
) -> Iterator[tuple[Point, Callable[[], tuple[dict[str, Any], float]]]]:
    if jobs == 1 or len(todo) < 2:
        for point in todo:
            yield point, lambda point=point: _timed(study, point)  # type: ignore[misc]
        return
    rest = iter(todo)
    with worker_pool(min(jobs, len(todo))) as pool:
        going: dict[Future[tuple[dict[str, Any], float]], Point] = {}
        try:
            while True:
                for point in itertools.islice(rest, 2 * jobs - len(going)):
                    going[pool.submit(_in_worker, study.name, study.module.__name__, point)] = point
                if not going:
                    return
                for future in wait(going, return_when=FIRST_COMPLETED).done:
                    yield going.pop(future), future.result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_worker(name: str, module: str, point: Point) -> tuple[dict[str, Any], float]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    return _timed(Study(name, importlib.import_module(module)), point)


def _timed(study: Study, point: Point) -> tuple[dict[str, Any], float]:
    began = time.perf_counter()
    metrics = study.trial(point.config, point.seed)
    return metrics, time.perf_counter() - began
