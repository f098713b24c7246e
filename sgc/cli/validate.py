"""``sgc validate``: solvers against an oracle."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sgc.cli.errors import clean_errors
from sgc.results import ResultStore
from sgc.validate import run
from sgc.validate.table import show

EXAMPLE = "Example: sgc validate --solver omp --solver omp-inverse-cholesky:precompute_gram=false"


def validate(
    *,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="NAME or NAME:OPTION=VALUE,… of a solver; may be given several times.",
            show_default="every one",
        ),
    ] = None,
    projection: Annotated[str, typer.Option(help="The ensemble of A.")] = "gaussian",
    signals: Annotated[int, typer.Option(min=1, help="Signals of each size and law.")] = 64,
    seed: Annotated[int, typer.Option(help="Of A and the signals.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two sizes, at most 16 signals each.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Also add the report as one line to this JSONL file."),
    ] = None,
) -> None:
    """Hold every solver against scikit-learn's orthogonal_mp in float64, and against hard inputs.

    Solvers that claim OMP's answer owe the oracle's support and coefficients wherever the oracle
    finds the truth; all owe an honest status. Exit code 1 when one does not give what it owes.
    """
    console = Console()
    store = ResultStore(out) if out is not None else None
    with clean_errors():
        if store is not None:
            store.prepare()
        with _progress() as bar:
            task = bar.add_task("", total=1.0)
            try:
                report = run(
                    solver or (),
                    projection=projection,
                    signals=signals,
                    seed=seed,
                    quick=quick,
                    progress=lambda share, what: bar.update(
                        task, completed=share, description=what
                    ),
                )
            except ValueError as error:  # sizes that the projection cannot have
                raise typer.BadParameter(str(error)) from error
        show(report, console=console)
        if store is not None:
            store.append(report.result())
            console.print(f"added to {store.path}")
    if not report.passed:
        raise typer.Exit(1)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
