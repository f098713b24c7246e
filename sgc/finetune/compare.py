"""Several methods and seeds on one task."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sgc.finetune.config import FinetuneConfig
from sgc.finetune.defaults import Method
from sgc.finetune.job import run, store_in
from sgc.finetune.optimizer import check_shapes
from sgc.finetune.plot import plot_rows
from sgc.finetune.summary import same_task, summarise
from sgc.finetune.table import make_table
from sgc.finetune.targets import target_parameters
from sgc.finetune.task import load_task, locate
from sgc.results import Result, ResultStore

__all__ = ["DEFAULT_METHODS", "compare", "runs_like", "show"]

DEFAULT_METHODS = (
    "frozen",
    "adamw",
    "sign-sgd",
    "galore:rank=1",
    "mesgc",
    "mesgc:residual=0.1",
    "cesgc",
)
PLOT = "accuracy_vs_states.png"


def compare(
    config: FinetuneConfig,
    methods: Sequence[Method],
    *,
    seeds: int,
    folder: Path,
    console: Console,
) -> list[Result]:
    """Run every method with the seeds ``config.seed``, ``config.seed + 1``, …

    All methods go through one seed before the next begins, so that an early stop leaves a fair
    picture. Finished runs are taken from ``folder``.

    Raises:
        as :func:`sgc.finetune.run`.
    """
    store_in(folder).prepare()
    _check_methods(locate(config), methods)
    jobs = [
        config.replace(method=method.spec, lr=method.lr, seed=config.seed + seed)
        for seed in range(seeds)
        for method in methods
    ]
    return [
        run(
            job,
            folder=folder,
            console=console,
            title=f"{number}/{len(jobs)} {job.method.partition(':')[0]}, seed {job.seed}",
        )
        for number, job in enumerate(jobs, start=1)
    ]


def _check_methods(config: FinetuneConfig, methods: Sequence[Method]) -> None:
    """Refuse now what would be refused in the middle of an hour's work."""
    targets = target_parameters(load_task(config).model(config), config.targets)
    for method in methods:
        check_shapes(method, targets)


def show(
    results: Sequence[Result],
    *,
    folder: Path,
    console: Console,
    highlight: str | None = None,
    beside: Path | None = None,
) -> Path:
    """Print the table of ``results`` and draw it; returns the path of the picture.

    Args:
        results: at least one.
        folder: where the picture goes.
        console: where the table goes.
        highlight: label of the row that stands out.
        beside: a results file whose fine-tuning runs are shown too, marked as earlier ones, also
            where they are of another task.
    """
    rows = summarise(results)
    if beside is not None:
        earlier = [r for r in ResultStore(beside).load() if r.kind == results[-1].kind]
        rows += [replace(row, earlier=True) for row in summarise(earlier)]
    console.print(make_table(rows, highlight=highlight))
    config = results[-1].config
    names = (Path(config["model"]).name, Path(config["data"]).name)
    path = folder / PLOT
    where = f"plot: {path}\nresults: {store_in(folder).path}"
    try:
        plot_rows(rows, path, title=f"{names[0]} on {names[1]}, {config['steps']} steps")
    except OSError as error:  # the results are safe, and the same command draws again
        where = f"no plot ({error})\nresults: {store_in(folder).path}"
    console.print(where, markup=False, highlight=False, soft_wrap=True)
    return path


def runs_like(result: Result, *, folder: Path) -> list[Result]:
    """Every run in ``folder`` on the task of ``result``: a new one joins the earlier ones."""
    return same_task(store_in(folder).load(), result)
