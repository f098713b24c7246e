"""Many runs: one after the other, or several at once in processes of their own."""

import heapq
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from sgc.finetune.checkpoint import CheckpointError
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.job import run, store_in
from sgc.finetune.summary import is_whole
from sgc.finetune.train import Interrupted
from sgc.results import Result, ResultStoreError

__all__ = ["Course", "Runner", "gpu_count", "worker_pool"]

_T = TypeVar("_T")
_LOOK = 1.0  # seconds between a worker's looks for its parent

#: Wants runs, is sent their results by run id, and so on until it returns.
Course = Generator[Sequence[FinetuneConfig], Mapping[str, Result], _T]

#: What is wrong with the folder, or with all runs, and not with one method.
_STOPS_ALL = (Interrupted, ResultStoreError, CheckpointError, BrokenProcessPool)


class Runner:
    """Carries out runs and keeps their results in a folder; what is there is not run again.

    Args:
        folder: holds ``results.jsonl`` and the checkpoints.
        jobs: runs at a time. Beyond one, every run has a process (and on a machine with several
            GPUs the processes take them in turn), and shares its device: its time per step is then
            not that of a run alone.
        console: for the progress bar and messages.
    """

    def __init__(self, folder: Path, *, jobs: int = 1, console: Console) -> None:
        self.folder, self.jobs, self.console = folder, jobs, console
        self.failed: dict[str, str] = {}  # by run id, why
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Runner":
        store_in(self.folder).prepare()
        if self.jobs > 1:
            self._pool = worker_pool(self.jobs)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def follow(
        self,
        courses: Sequence[Course[_T]],
        *,
        title: str,
        rank: Callable[[FinetuneConfig], Any],
    ) -> list[_T]:
        """Carry out what several courses ask for, each at its own pace; what they return.

        A course is a generator: it yields the configs that it wants, is sent their results by run
        id (those from earlier included), and may then want more, or return. None waits for another.

        A run that fails does not keep the others from being done; it is missing in the answer and
        its error stands in :attr:`failed`.

        Args:
            courses: not yet begun.
            title: of the progress bar.
            rank: of the runs that wait, the one of the smallest rank is next.

        Raises:
            as :func:`sgc.finetune.run`: what would stop the others, too (runs that go on at that
                moment are finished first), and the first error if all runs failed.
        """
        desk = _Desk(courses, self._stored(), rank)
        errors: list[Exception] = []
        if desk.done:
            text = f"{title}: {len(desk.done)} of the runs are in {self.folder} already"
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        with self._progress(title) as show:
            show(desk, None)
            for config, outcome in self._outcomes(desk):
                try:
                    result = outcome()
                except _STOPS_ALL:
                    raise
                except Exception as error:
                    name = f"{config.method}, lr {config.lr:g}, seed {config.seed}"
                    text = f"{name} failed: {type(error).__name__}: {error}"
                    self.console.print(text, highlight=False, markup=False)
                    self.failed[config.run_id] = f"{type(error).__name__}: {error}"
                    errors.append(error)
                    desk.settle(config, None)
                else:
                    desk.settle(config, result)
                show(desk, config)
        if errors and not desk.done:
            raise errors[0]
        return desk.answers()

    def _stored(self) -> dict[str, Result]:
        return {r.run_id: r for r in store_in(self.folder).load() if is_whole(r)}

    def _outcomes(
        self, desk: "_Desk[Any]"
    ) -> Iterator[tuple[FinetuneConfig, Callable[[], Result]]]:
        """Each run, and what carries it out or says how it ended."""
        if self._pool is None:
            quiet = Console(quiet=True)
            while (config := desk.next()) is not None:
                yield config, partial(run, config, folder=self.folder, console=quiet)
            return
        going: dict[Future[dict[str, Any]], FinetuneConfig] = {}
        while True:
            # No more than can go on at once: who comes next is decided as late as possible.
            while len(going) < self.jobs and (config := desk.next()) is not None:
                going[self._pool.submit(_run, config.to_dict(), str(self.folder))] = config
            if not going:
                return
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                yield going.pop(future), partial(_result, future)

    @contextmanager
    def _progress(self, title: str) -> Iterator[Callable[..., None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=None)

            def show(desk: _Desk[Any], last: FinetuneConfig | None) -> None:
                name = f", {last.evaluate}: {last.method[:24]}, lr {last.lr:g}" if last else ""
                settled, known = desk.counts()
                progress.update(task, completed=settled, total=known, description=title + name)

            yield show


class _Desk(Generic[_T]):
    """Which runs wait, and who is told of which result."""

    def __init__(
        self,
        courses: Sequence[Course[_T]],
        stored: Mapping[str, Result],
        rank: Callable[[FinetuneConfig], Any],
    ) -> None:
        self.done: dict[str, Result] = {}
        self._courses, self._stored, self._rank = courses, stored, rank
        self._broken: set[str] = set()
        self._queue: list[tuple[Any, int, FinetuneConfig]] = []
        self._known: set[str] = set()
        self._wanted: list[list[str]] = [[] for _ in courses]
        self._answers: dict[int, _T] = {}
        for i in range(len(courses)):
            self._send(i, None)
            self._advance(i)

    def next(self) -> FinetuneConfig | None:
        """A run to be carried out, or None if all that is wanted so far has been handed out."""
        return heapq.heappop(self._queue)[2] if self._queue else None

    def settle(self, config: FinetuneConfig, result: Result | None) -> None:
        """How a run ended; None if it failed."""
        if result is None:
            self._broken.add(config.run_id)
        else:
            self.done[config.run_id] = result
        for i, wanted in enumerate(self._wanted):
            if config.run_id in wanted:
                self._advance(i)

    def counts(self) -> tuple[int, int]:
        """Runs that are settled, and all that were wanted so far."""
        return len(self.done) + len(self._broken), len(self._known)

    def answers(self) -> list[_T]:
        """What the courses returned."""
        return [self._answers[i] for i in range(len(self._courses))]

    def _advance(self, i: int) -> None:
        """Send a course its results as long as it has all that it wants."""
        while i not in self._answers:
            if not all(run in self.done or run in self._broken for run in self._wanted[i]):
                return
            self._send(i, {run: self.done[run] for run in self._wanted[i] if run in self.done})

    def _send(self, i: int, found: Any) -> None:
        """None begins a course."""
        try:
            configs = self._courses[i].send(found)
        except StopIteration as end:
            self._answers[i], self._wanted[i] = end.value, []
            return
        self._wanted[i] = [config.run_id for config in configs]
        for config in configs:
            if config.run_id in self._known:
                continue
            if config.run_id in self._stored:
                self.done[config.run_id] = self._stored[config.run_id]
            else:
                heapq.heappush(self._queue, (self._rank(config), len(self._known), config))
            self._known.add(config.run_id)


def worker_pool(jobs: int) -> ProcessPoolExecutor:
    """Processes with one thread each, that take the GPUs in turn."""
    context = multiprocessing.get_context("spawn")
    places: Any = context.Queue()
    for worker in range(jobs):
        places.put(worker)
    own = (places, os.getpid())
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_settle, initargs=own)


def gpu_count() -> int:
    """GPUs that this process may use; asking does not start CUDA, which would fix what it sees."""
    import torch  # noqa: PLC0415

    return torch.cuda.device_count() if torch.version.cuda else 0


def _result(future: Future[dict[str, Any]]) -> Result:
    return Result.from_dict(future.result())


def _settle(places: Any, parent: int) -> None:
    """In a new worker, before it touches a device: its GPU, one thread, and an end with its parent.

    A parent that is killed cannot end its workers; it may be while they start.
    """
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    worker = places.get()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = [gpu for gpu in visible.split(",") if gpu] or [str(i) for i in range(gpu_count())]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[worker % len(gpus)]
    import torch  # noqa: PLC0415 — after the choice of the GPU

    torch.set_num_threads(1)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _run(config: dict[str, Any], folder: str) -> dict[str, Any]:
    quiet, own = Console(quiet=True), FinetuneConfig.from_dict(config)
    result = run(own, folder=Path(folder), console=quiet, alone=False)
    return {name: getattr(result, name) for name in result.__dataclass_fields__}
