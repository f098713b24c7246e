"""``sgc study`` and ``python -m studies``: run a study, draw it again, list them all."""

import itertools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sgc.cli.errors import clean_errors
from sgc.finetune.config import ConfigError
from sgc.finetune.job import RunBusyError
from sgc.results import ResultStore
from studies import plugins
from studies.capture import EXAMPLE, capture
from studies.measures import captured
from studies.measures.checks import check_known
from studies.runner.grid import TrialsFailed, points
from studies.runner.job import carry_out, draw, say
from studies.runner.show import WIDTH, Format, Place
from studies.runner.workers import leave_if_a_worker_starts
from studies.study import PRESETS, STUDIES, Study, find

__all__ = ["app", "main"]

OUT = Path("runs/studies")


app = typer.Typer(
    help="Measure what the papers claim, one study per question.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command("capture", epilog=EXAMPLE)(capture)

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME...", help="Studies, or all that have the preset.", show_default=False
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        help="smoke: seconds. default: what REPORT.md shows. paper: larger. Some studies have "
        "others: see list."
    ),
]
Folder = Annotated[
    Path,
    typer.Option(
        file_okay=False, help="Folder of NAME.jsonl (rows), NAME.png (picture), NAME.txt (tables)."
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="Of the picture.")]
Gradients = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False,
        help="File of sgc study capture that studies of real gradients read.",
        show_default="results/studies/gradients.npz",
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE.py",
        help="Import this first, here and in every process: it calls sgc.register, or adds a "
        "preset. May be repeated.",
    ),
]


@app.command("list")
def list_studies() -> None:
    """Every study, its question, and the presets that others do not have."""
    for name in STUDIES:
        study = find(name)
        own = [preset for preset in study.module.PRESETS if preset not in PRESETS]
        also = f" (presets besides: {', '.join(own)})" if own else ""
        print(f"{name:<16} {study.question}{also}")


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
    gradients: Gradients = None,
    plugin: Plugins = None,
    picture: FormatOption = Format.PNG,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run trials again that --out already has.")
    ] = False,
) -> None:
    """Run studies; trials that --out already has are not repeated.

    Unless they name a part of a --plugin file that has changed since. After Ctrl-C or worse the
    same command goes on where it stopped, and ends with the same rows. Tables of several studies go
    to their files only.
    """
    console = _console()
    with clean_errors(), captured.using(gradients):
        for file in plugin or []:
            plugins.load(file)
        wanted = _chosen(names, preset, console)
        broken = []
        for name in wanted:
            if len(wanted) > 1:
                console.rule(name)
            try:
                carry_out(
                    find(name),
                    preset=preset,
                    place=Place(out, name, preset, picture),
                    jobs=jobs,
                    seeds=seeds,
                    device=device,
                    fresh=fresh,
                    tables=len(wanted) == 1,
                    console=console,
                )
            except (ConfigError, RunBusyError, TrialsFailed) as error:
                if len(wanted) == 1 and not isinstance(error, TrialsFailed):
                    raise
                say(console, f"{name}: {error}")
                broken.append(name)
        if broken:
            say(console, f"not whole: {', '.join(broken)}")
            raise typer.Exit(1)


@app.command("figure", epilog="Example: sgc study figure kappa --out results/studies")
def draw_studies(
    names: Names,
    *,
    preset: PresetOption = "default",
    out: Folder = OUT,
    device: Annotated[
        str | None,
        typer.Option(help="Only rows computed there.", show_default="any, each trial once"),
    ] = None,
    gradients: Gradients = None,
    plugin: Plugins = None,
    picture: FormatOption = Format.PNG,
) -> None:
    """Draw studies again from all rows of their files; nothing is computed."""
    console = _console()
    with clean_errors(), captured.using(gradients):
        for file in plugin or []:
            plugins.load(file)
        without, beside = [], False
        wanted = _chosen(names, preset, console)
        for name in wanted:
            study, place = find(name), Place(out, name, preset, picture)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="no captured gradients")
                grid = points(study, preset, device=device)
            rows = ResultStore(place.rows).load()
            if not draw(study, rows, grid, place, console, tables=len(wanted) == 1, device=device):
                where = f" and the device {device!r}" if device else ""
                without.append(f"{place.rows} has no row of the preset {preset!r}{where}")
                if others := _with_rows(study, out, preset):
                    without[-1] += f" (the folder has rows of {', '.join(others)})"
                    beside = True
        if without:
            or_these = ", or choose with --preset" if beside else ""
            raise ConfigError(f"{'; '.join(without)}: first sgc study run{or_these}")


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m studies") -> None:
    """``python -m studies NAME …`` is ``… run NAME …``.

    Args:
        arguments: of the command line; the process's own ones by default.
        program: how help calls it.
    """
    leave_if_a_worker_starts()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in STUDIES:
        given.insert(0, "run")
    elif given and not given[0].startswith("-"):
        commands = [command.name or "" for command in app.registered_commands]
        try:
            with clean_errors():
                check_known("command or study", given[0], [*commands, *STUDIES])
        except typer.Exit as leave:
            raise SystemExit(leave.exit_code) from leave
    app(given, prog_name=program)


def _chosen(given: Sequence[str], preset: str, console: Console) -> list[str]:
    """Names of studies, each once; of ``all`` those that have the preset, and says which lack it.

    Raises:
        ConfigError: no such study, or none that was asked for has such a preset.
    """
    if "all" not in given:
        for name in given:
            find(name).preset(preset)  # an unknown one is refused before any work
        return list(dict.fromkeys(given))
    presets = {name: list(find(name).module.PRESETS) for name in STUDIES}
    check_known("preset", preset, dict.fromkeys(itertools.chain(*presets.values())))
    lack = [name for name in presets if preset not in presets[name]]
    if lack:
        say(console, f"skipped, without a preset {preset!r}: {', '.join(lack)}")
    return [name for name in presets if name not in lack]


def _with_rows(study: Study, folder: Path, preset: str) -> list[str]:
    """Other presets of a study whose rows are in a folder."""
    files = {name: Place(folder, study.name, name).rows for name in study.module.PRESETS}
    return [
        name
        for name, file in files.items()
        if name != preset and file.is_file() and file.stat().st_size
    ]


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)
