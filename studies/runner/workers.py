"""Trials in processes of their own: what those must know, and what they must not do."""

import ast
import importlib
import itertools
import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sgc.finetune.config import ConfigError
from sgc.finetune.runner import worker_pool
from studies.plugins import (
    Handover,
    NotForWorkersError,
    adopt,
    handover,
    main_script,
    read_by,
)
from studies.runner.parts import Parts
from studies.study import Study

__all__ = ["Outcome", "Point", "guard_hint", "leave_if_a_worker_starts", "outcomes"]


@dataclass(frozen=True)
class Point:
    """One trial: a config and a seed."""

    config: Any
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a trial gave: its metrics, its seconds, and the digest of the files it read."""

    metrics: dict[str, Any]
    seconds: float
    inputs: str


def outcomes(
    study: Study, todo: Sequence[Point], jobs: int, parts: Parts
) -> Iterator[tuple[Point, Callable[[], Outcome]]]:
    """Each trial, and what carries it out or says how it ended.

    Args:
        study: whose.
        todo: the trials.
        jobs: at a time.
        parts: what trials keep that were stopped.

    Raises:
        ConfigError: workers would run a script again that does not expect it.

    Warns:
        UserWarning: a part is known to this process alone, which then does all the work.
    """
    if jobs > 1 and len(todo) > 1:
        try:
            given = handover()
        except NotForWorkersError as reason:
            warnings.warn(f"one trial runs at a time: {reason}", stacklevel=2)
        else:
            _check_guard()
            yield from _from_workers(study, todo, jobs, parts, given)
            return
    for point in todo:
        yield point, lambda point=point: _measured(study, point, parts)  # type: ignore[misc]


def leave_if_a_worker_starts() -> None:
    """End a worker that, at its start, runs the script again that asked for it.

    Raises:
        SystemExit: it is one; :func:`guard_hint` tells the process that asked.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)


def guard_hint() -> str:
    """What else may be wrong when a worker dies, where a script started it."""
    script = main_script()
    if script is None:
        return ""
    return f', or does {script} run studies outside of its if __name__ == "__main__":'


def _from_workers(
    study: Study, todo: Sequence[Point], jobs: int, parts: Parts, given: Handover
) -> Iterator[tuple[Point, Callable[[], Outcome]]]:
    rest, module = iter(todo), study.module.__name__
    with worker_pool(min(jobs, len(todo))) as pool:
        going: dict[Future[Outcome], Point] = {}
        try:
            while True:
                with _interrupts_held():  # processes start here, and inherit it
                    for point in itertools.islice(rest, 2 * jobs - len(going)):
                        future = pool.submit(_in_worker, study.name, module, point, parts, given)
                        going[future] = point
                if not going:
                    return
                for future in wait(going, return_when=FIRST_COMPLETED).done:
                    yield going.pop(future), future.result
        except BaseException:  # Ctrl-C, say: what runs is not waited for
            for process in list(pool._processes.values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_worker(name: str, module: str, point: Point, parts: Parts, given: Handover) -> Outcome:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    _mask("SIG_UNBLOCK")  # a training listens to it, and ends
    adopt(given)
    return _measured(Study(name, importlib.import_module(module)), point, parts)


def _measured(study: Study, point: Point, parts: Parts) -> Outcome:
    scratch = None
    if study.keeps_parts:
        plugins = sorted(read_by(asdict(point.config)).values())
        scratch = parts.of(study.run_id(point.config, point.seed), *plugins)
    began = time.perf_counter()
    metrics = study.trial(point.config, point.seed, scratch)
    return Outcome(metrics, time.perf_counter() - began, study.inputs(point.config))


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes started in it do not hear it yet."""
    _mask("SIG_BLOCK")
    try:
        yield
    finally:
        _mask("SIG_UNBLOCK")


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), {signal.SIGINT})


def _check_guard() -> None:
    """Workers import the main script again; without the guard each would start the study."""
    script = main_script()
    if script is None:
        return
    try:
        tree = ast.parse(script.read_bytes())
    except (SyntaxError, ValueError):  # no Python that we can read
        return
    if not any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(tree)):
        raise ConfigError(
            f"every worker process would run {script} again: start the study under "
            'if __name__ == "__main__":, or take one process (--jobs 1)'
        )
