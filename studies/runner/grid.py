"""Trials of a study, into a file: what is there is not run again."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from sgc.finetune.checkpoint import CheckpointError
from sgc.finetune.config import ConfigError
from sgc.finetune.job import RunBusyError
from sgc.finetune.train import Interrupted
from sgc.results import Result, ResultStore, ResultStoreError
from studies.plugins import digests, outdated
from studies.runner.parts import Parts
from studies.runner.workers import Point, guard_hint, leave_if_a_worker_starts, outcomes
from studies.study import Study

__all__ = [
    "Point",
    "TrialsFailed",
    "check_devices",
    "is_whole",
    "missing",
    "only_one",
    "points",
    "run",
]


#: Metrics of a row that are not the trial's.
_OURS = {"inputs", "trial_s"}


class TrialsFailed(RuntimeError):  # noqa: N818
    """Some trials have no row; the others have."""


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


def missing(study: Study, rows: Sequence[Result], wanted: Sequence[Point]) -> list[Point]:
    """Those of the trials that have no row, or whose latest row is of another plug-in file.

    See :func:`studies.plugins.outdated`. A row whose config or seed is not what its name says was
    changed by hand, and is none.
    """
    latest = {row.run_id: row for row in rows if row.kind == study.kind and is_whole(study, row)}
    there = {i for i, row in latest.items() if not outdated(row.config, row.environment)}
    return [p for p in wanted if study.run_id(p.config, p.seed) not in there]


def is_whole(study: Study, row: Result) -> bool:
    """Whether the row's name is that of its config, seed and files."""
    return row.run_id == study.identity(row.config, row.seed, row.metrics.get("inputs", ""))


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Within the block no other process measures rows of this file: they would be there twice.

    Raises:
        RunBusyError: another one does.
        ResultStoreError: the folder cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.run.lock"), timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RunBusyError(
            f"another run is measuring rows of {path}: wait for it, or give another folder with "
            "--out"
        ) from error
    except OSError as error:
        raise ResultStoreError(
            f"results cannot be written to {path} ({error.strerror or error}): give a folder that "
            "you may write to, for example --out runs/mine"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check(metrics: Any) -> None:
    """Refuse what a line of the file cannot hold.

    Raises:
        TypeError, ValueError: it is no dict of names and JSON values; names the one that is wrong.
    """
    if not isinstance(metrics, dict) or not all(isinstance(name, str) for name in metrics):
        raise TypeError(
            f"a trial returns a dict of names and JSON values, this one {metrics!r:.80}"
        )
    for name in _OURS & set(metrics):
        raise ValueError(f"metric {name!r} is the runner's own: give it another name")
    for name, value in metrics.items():
        try:
            json.dumps(value, allow_nan=False, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise type(error)(f"metric {name!r}: {error}") from error


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
        here: :func:`sgc.results.environment` of the process's start; rows have the plug-in files
            that are loaded besides.
        jobs: trials at a time; beyond one each has a process of its own, with one thread, and what
            ``sgc.register`` added is known there, too. Those of a study that is ``alone`` run one
            by one all the same.
        on_trial: called after each.

    Returns:
        Trials that failed, with their errors; the others were done all the same.

    Raises:
        KeyboardInterrupt: what was finished is in the store.
        ConfigError: several jobs asked for by a script without ``if __name__ == "__main__":``.
        TrialsFailed: a process died.
        ResultStoreError, CheckpointError: the folder cannot be written.

    Warns:
        UserWarning: a part exists in this process alone, so that ``jobs`` is 1.
    """
    leave_if_a_worker_starts()
    failed: dict[Point, str] = {}
    if digests():
        here = {**here, "plugins": digests()}
    inputs = {point: study.inputs(point.config) for point in todo}
    parts = Parts(store.path, here["git"])
    for point, outcome in outcomes(study, todo, 1 if study.alone else jobs, parts):
        try:
            found = outcome()
            _check(found.metrics)
            if found.inputs != inputs[point]:
                raise RuntimeError("the files that it reads were replaced during the run")
        except BrokenProcessPool as error:
            raise TrialsFailed(
                f"a process of the run has died (out of memory?{guard_hint()}); what was finished "
                "is kept, and the same command goes on, with fewer --jobs if need be"
            ) from error
        except Interrupted as stop:  # Ctrl-C within a training is meant for all trials
            raise KeyboardInterrupt from stop
        except (CheckpointError, ResultStoreError):  # so is a full disk
            raise
        except Exception as error:  # a plug-in may raise anything; the others go on
            failed[point] = f"{type(error).__name__}: {error}"
        else:
            read = {"inputs": found.inputs} if found.inputs else {}
            config = asdict(point.config)
            run_id = study.identity(config, point.seed, found.inputs)
            store.append(
                Result(
                    run_id=run_id,
                    kind=study.kind,
                    config=config,
                    seed=point.seed,
                    metrics={**found.metrics, "trial_s": found.seconds, **read},
                    environment=here,
                )
            )
            parts.forget(run_id)
        on_trial(point)
    return failed
