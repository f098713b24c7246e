"""``sgc races``: tables and one picture of races that were run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sgc.cli.errors import clean_errors
from sgc.finetune.pareto import plot_races
from sgc.finetune.race_report import RaceReport, budget_table

EXAMPLE = "Example: sgc races results/race-*.json --plot docs/races.png"


def races(
    reports: Annotated[
        list[Path],
        typer.Argument(
            exists=True,
            dir_okay=False,
            metavar="REPORT...",
            help="What 'sgc compare --budget' wrote, a file for each race.",
            show_default=False,
        ),
    ],
    *,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw them all into this PNG, too.")
    ] = None,
) -> None:
    """Show races at equal bytes again: a table for each budget, and a picture."""
    console = Console()
    with clean_errors():
        loaded = [RaceReport.load(path) for path in reports]
        for report in loaded:
            for budget in report.budgets:
                console.print(budget_table(report, budget))
        if plot is not None:
            plot_races(loaded, plot)
            console.print(f"plot: {plot}", markup=False, highlight=False, soft_wrap=True)
