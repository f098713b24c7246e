"""Many runs: one after the other, or several at once in processes of their own."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sgc.finetune.checkpoint import CheckpointError
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.job import run, store_in
from sgc.finetune.summary import is_whole
from sgc.finetune.train import Interrupted
from sgc.results import Result, ResultStoreError

__all__ = ["Runner", "gpu_count", "worker_pool"]

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

    def run(self, configs: Sequence[FinetuneConfig], *, title: str) -> dict[str, Result]:
        """Results of all configs, by run id, those from earlier included.

        A run that fails does not keep the others from being done; it is missing in the answer and
        its error stands in :attr:`failed`.

        Raises:
            as :func:`sgc.finetune.run`: what would stop the others, too (runs that go on at that
                moment are finished first), and the first error if all runs failed.
        """
        wanted = {config.run_id: config for config in configs}
        done = {
            result.run_id: result
            for result in store_in(self.folder).load()
            if result.run_id in wanted and is_whole(result)
        }
        rest = [config for run_id, config in wanted.items() if run_id not in done]
        with self._progress(title, len(wanted), len(done)) as step:
            for result in self._results(rest):
                done[result.run_id] = result
                step(result)
        return done

    def _results(self, configs: Sequence[FinetuneConfig]) -> Iterator[Result]:
        errors: list[Exception] = []
        for config, outcome in self._outcomes(configs):
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
            else:
                yield result
        if errors and len(errors) == len(configs):
            raise errors[0]

    def _outcomes(
        self, configs: Sequence[FinetuneConfig]
    ) -> Iterator[tuple[FinetuneConfig, Callable[[], Result]]]:
        """Each run, and what carries it out or says how it ended."""
        if self._pool is None:
            quiet = Console(quiet=True)
            for config in configs:
                yield config, partial(run, config, folder=self.folder, console=quiet)
            return
        futures = {
            self._pool.submit(_run, config.to_dict(), str(self.folder)): config
            for config in configs
        }
        for future in as_completed(futures):
            yield futures[future], partial(_result, future)

    @contextmanager
    def _progress(self, title: str, total: int, done: int) -> Iterator[Any]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=total, completed=done)

            def step(result: Result) -> None:
                method = result.config["method"].partition(":")[0]
                progress.update(task, advance=1, description=f"{title}: {method}")

            yield step


def worker_pool(jobs: int) -> ProcessPoolExecutor:
    """Processes with one thread each, that take the GPUs in turn."""
    context = multiprocessing.get_context("spawn")
    places: Any = context.Queue()
    for worker in range(jobs):
        places.put(worker)
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_settle, initargs=(places,))


def gpu_count() -> int:
    """GPUs that this process may use; asking does not start CUDA, which would fix what it sees."""
    import torch  # noqa: PLC0415

    return torch.cuda.device_count() if torch.version.cuda else 0


def _result(future: Future[dict[str, Any]]) -> Result:
    return Result.from_dict(future.result())


def _settle(places: Any) -> None:
    """In a new worker, before it touches a device: its GPU, and one thread."""
    worker = places.get()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = [gpu for gpu in visible.split(",") if gpu] or [str(i) for i in range(gpu_count())]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[worker % len(gpus)]
    import torch  # noqa: PLC0415 — after the choice of the GPU

    torch.set_num_threads(1)


def _run(config: dict[str, Any], folder: str) -> dict[str, Any]:
    quiet = Console(quiet=True)
    result = run(FinetuneConfig.from_dict(config), folder=Path(folder), console=quiet)
    return {name: getattr(result, name) for name in result.__dataclass_fields__}
