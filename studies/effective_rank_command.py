"""``python -m studies effective-rank``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sgc.cli.errors import clean_errors
from sgc.files import replacing
from sgc.finetune.config import ConfigError
from sgc.registry import did_you_mean
from sgc.results import Result, ResultStore, environment
from studies import effective_rank as study
from studies import effective_rank_figure as pictures
from studies.rows import finished, row, run_id

EXAMPLE = "Example: python -m studies effective-rank --preset smoke"
_WIDTH = 140  # of a table in a pipe or file, where no terminal has one
_METHODS = dict.fromkeys(c.method for configs in study.PRESETS.values() for c in configs)


def effective_rank(
    *,
    preset: Annotated[
        str,
        typer.Option(
            help="smoke: a few steps. default: part of one pass over the data. epochs: nine "
            "passes over 480 examples."
        ),
    ] = "default",
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help=f"Train only this method; may be repeated. {', '.join(_METHODS)}",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="JSON lines, one a trial.",
            show_default="results/effective-rank-cpu.jsonl",
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="The picture.", show_default="docs/effective_rank.png"),
    ] = None,
    draw_only: Annotated[
        bool,
        typer.Option("--draw-only", help="Train nothing: show what --out has, of any revision."),
    ] = False,
) -> None:
    """Follow the rank that gradients need while MiniLM is fine-tuned (AdaRankGrad's Figures 3, 4).

    Trials that --out has with equal settings and revision are not repeated; an interrupted one
    starts again from its first step. Code with changes that are not committed is always run.
    """
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    with clean_errors():
        configs = study.PRESETS.get(preset, ())
        _known("preset", preset, list(study.PRESETS))
        for name in method or []:
            _known("method", name, list(dict.fromkeys(c.method for c in configs)))
        name = study.KIND if preset == "default" else f"{study.KIND}-{preset}"
        smoke = preset == "smoke"
        out = out or Path("runs" if smoke else "results", f"{name}-cpu.jsonl")
        place = Path("docs", f"{name.replace('-', '_')}.png")
        figure = figure or (out.with_suffix(".png") if smoke else place)
        store, here = ResultStore(out), environment()
        if draw_only:
            latest = {found.run_id: found for found in store.load() if found.kind == study.KIND}
            found = [latest.get(run_id(config)) for config in configs]
        else:
            store.prepare()
            asked = [c for c in configs if not method or c.method in method]
            new = _measure(asked, store, console, here=here)
            found = [new.get(c) or finished(store, study.KIND, c, here=here) for c in configs]
        rows = [result for result in found if result]  # in the preset's order
        if not rows:
            console.print(f"{out} has no trial of the preset {preset}", soft_wrap=True)
            raise typer.Exit(1)
        console.print(_table(rows))
        with replacing(figure) as file:
            pictures.figure(rows).savefig(file, format="png")
        console.print(f"figure: {figure}\nresults: {out}", highlight=False, soft_wrap=True)


def _known(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(f"unknown {what} {name!r}{hint}; there are: {', '.join(known)}")


def _measure(
    configs: Sequence[study.Config], store: ResultStore, console: Console, *, here: dict[str, Any]
) -> dict[study.Config, Result]:
    """The rows of those that are not in the store, each there as soon as its trial is over."""
    new: dict[study.Config, Result] = {}
    todo = [c for c in configs if not finished(store, study.KIND, c, here=here)]
    for config in (c for c in configs if c not in todo):
        console.print(
            f"{config.method}, seed {config.seed}: already in {store.path}, not run again",
            soft_wrap=True,
        )
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=sum(config.steps for config in todo))
        for config in todo:
            bar.update(task, description=f"{config.method}, seed {config.seed}")
            metrics = study.trial(config, on_step=lambda: bar.advance(task))
            new[config] = row(study.KIND, config, metrics, here=here)
            store.append(new[config])
    return new


def _table(rows: Sequence[Result]) -> Table:
    """Means over matrices and seeds, at the start, in the middle and at the end."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.caption_justify = "left"
    table.caption = (
        "Means over matrices and seeds, start → middle → end, each of a tenth of the measurements "
        "(± standard error over seeds). needed: by the gradient of the step; of the probe: by the "
        "mean gradient of a fixed set without dropout. memory: numbers in use in % of those held, "
        "which are GaLore's of the largest rank."
    )
    for name in ("method", "η", "accuracy", "live rank", "needed", "of the probe", "memory"):
        table.add_column(name, no_wrap=name == "method")
    for line in pictures.summaries(rows):
        table.add_row(*line)
    return table
