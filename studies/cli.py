"""``sgc study`` and ``python -m studies``: run a study, draw it again, list them all."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sgc.cli.errors import clean_errors
from sgc.files import check_writable, replacing
from sgc.finetune.config import ConfigError
from sgc.results import Result, ResultStore, environment
from studies.capture import EXAMPLE, capture
from studies.grid import TrialsFailed, check_devices, missing, points, run, select
from studies.study import STUDIES, Study, find

__all__ = ["app", "main"]

OUT = Path("runs/studies")
_WIDTH = 140  # of a table in a pipe or file, where no terminal has one


app = typer.Typer(
    help="Measure what the papers claim, one study per question.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command("capture", epilog=EXAMPLE)(capture)

Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="Studies, or all.", show_default=False),
]
PresetOption = Annotated[
    str, typer.Option(help="smoke: seconds. default: what REPORT.md shows. paper: larger.")
]
Folder = Annotated[
    Path,
    typer.Option(file_okay=False, help="Folder of NAME.jsonl (rows) and NAME.png (the picture)."),
]


@app.command("list")
def list_studies() -> None:
    """Every study and its question."""
    for name in STUDIES:
        print(f"{name:<16} {find(name).question}")


@app.command("run", epilog="Example: sgc study run kappa --preset smoke --jobs 2")
def run_studies(
    names: Names,
    *,
    preset: PresetOption = "default",
    out: Folder = OUT,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trials at a time; always 1 for a study of times.",
            show_default="a process a core; 1 on a GPU",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trials a point.", show_default="the preset's")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where trials compute.", show_default="the preset's")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run trials again that --out already has.")
    ] = False,
) -> None:
    """Run studies; trials that --out already has are not repeated.

    After Ctrl-C or worse the same command goes on where it stopped, and ends with the same rows.
    """
    console = _console()
    with clean_errors():
        wanted = _names(names)
        broken = []
        for name in wanted:
            if len(wanted) > 1:
                console.rule(name)
            try:
                _run(
                    find(name),
                    preset=preset,
                    folder=out,
                    jobs=jobs,
                    seeds=seeds,
                    device=device,
                    fresh=fresh,
                    console=console,
                )
            except (ConfigError, TrialsFailed) as error:
                if len(wanted) == 1 and isinstance(error, ConfigError):
                    raise
                console.print(f"{name}: {error}", markup=False, soft_wrap=True)
                broken.append(name)
        if broken:
            console.print(f"not whole: {', '.join(broken)}", markup=False, soft_wrap=True)
            raise typer.Exit(1)


@app.command("figure", epilog="Example: sgc study figure kappa --out results/studies")
def draw_studies(
    names: Names,
    *,
    preset: PresetOption = "default",
    out: Folder = OUT,
) -> None:
    """Draw studies again from their rows; nothing is computed."""
    console = _console()
    with clean_errors():
        without = []
        for name in _names(names):
            study = find(name)
            path = _place(out, name, preset, ".jsonl")
            rows = select(study, ResultStore(path).load(), points(study, preset))
            if rows:
                _show(study, rows, _place(out, name, preset, ".png"), console)
            else:
                without.append(f"{path} has no row of the preset {preset!r}")
        if without:
            raise ConfigError(f"{'; '.join(without)}: first sgc study run")


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m studies NAME …`` is ``… run NAME …``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in STUDIES:
        given.insert(0, "run")
    app(given, prog_name="python -m studies")


def _run(
    study: Study,
    *,
    preset: str,
    folder: Path,
    jobs: int | None,
    seeds: int | None,
    device: str | None,
    fresh: bool,
    console: Console,
) -> None:
    store, here = ResultStore(_place(folder, study.name, preset, ".jsonl")), environment()
    picture = _place(folder, study.name, preset, ".png")
    wanted = points(study, preset, device=device, seeds=seeds)
    there = [] if fresh else [row for row in store.load() if _counts(study, row, here)]
    todo = missing(study, there, wanted)
    check_devices(todo)
    store.prepare()
    check_writable(picture)
    _say_what_is_there(study, select(study, there, wanted), store, here, console)
    on_gpu = any(str(getattr(p.config, "device", "cpu")).startswith("cuda") for p in wanted)
    at_once = jobs or (1 if on_gpu else os.cpu_count() or 1)
    if study.alone and jobs not in (None, 1):
        console.print(f"{study.name} measures times: one trial runs at a time", markup=False)
    with _progress(console) as bar:
        task = bar.add_task(study.name, total=len(wanted), completed=len(wanted) - len(todo))
        failed = run(
            study,
            todo,
            store,
            here=here,
            jobs=at_once,
            on_trial=lambda point: bar.advance(task),
        )
    rows = select(study, store.load(), wanted)
    if rows:
        _show(study, rows, picture, console)
    console.print(f"results: {store.path}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        point, reason = next(iter(failed.items()))
        raise TrialsFailed(
            f"{len(failed)} of {len(wanted)} trials failed, the first with {reason} "
            f"({point.config}, seed {point.seed})"
        )


def _counts(study: Study, row: Result, here: dict[str, Any]) -> bool:
    """Whether a row is of this machine, where that matters."""
    return not study.alone or all(row.environment.get(k) == here[k] for k in ("cpu", "gpu"))


def _say_what_is_there(
    study: Study, rows: Sequence[Result], store: ResultStore, here: dict[str, Any], console: Console
) -> None:
    if not rows:
        return
    others = {str(row.environment.get("git")) for row in rows} - {str(here["git"])}
    made = f", some with revision {', '.join(sorted(others))}" if others else ""
    console.print(
        f"{study.name}: {len(rows)} trials are already in {store.path}{made} (or: --fresh)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _show(study: Study, rows: Sequence[Result], picture: Path, console: Console) -> None:
    if hasattr(study.module, "table"):
        found = study.module.table(rows)
        for table in found if isinstance(found, list | tuple) else [found]:
            console.print(table)
    with replacing(picture) as file:
        study.module.figure(rows).savefig(file, format="png")
    console.print(f"figure: {picture}", markup=False, highlight=False, soft_wrap=True)


def _names(given: Sequence[str]) -> list[str]:
    if "all" in given:
        return list(STUDIES)
    for name in given:
        find(name)  # an unknown one is refused before any work
    return list(dict.fromkeys(given))


def _place(folder: Path, name: str, preset: str, suffix: str) -> Path:
    return folder / f"{name if preset == 'default' else f'{name}-{preset}'}{suffix}"


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True) if not console.is_terminal else console,
    )
