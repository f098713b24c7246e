"""``sgc races``: tables and one picture of races that were run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sgc.cli.errors import clean_errors
from sgc.finetune.config import ConfigError
from sgc.finetune.pareto import plot_races
from sgc.finetune.race_markdown import markdown_table
from sgc.finetune.race_report import RaceReport, budget_table, specs_table

EXAMPLE = "Example: sgc races results/race-*.json --specs --plot docs/races.png"


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
    specs: Annotated[
        bool,
        typer.Option("--specs", help="What each label stands for, too: the spec of each size."),
    ] = False,
    markdown: Annotated[
        bool,
        typer.Option(
            "--markdown",
            help="One table in Markdown instead: a row a method, a column a race and budget.",
        ),
    ] = False,
    loss: Annotated[
        bool, typer.Option("--loss", help="With --markdown: the test loss in place of accuracy.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw them all into this PNG, too.")
    ] = None,
) -> None:
    """Show races at equal bytes again: a table for each budget, and a picture."""
    console = Console()
    with clean_errors():
        if loss and not markdown:
            raise ConfigError("--loss goes with --markdown: the other tables have a column for it")
        loaded = [RaceReport.load(path) for path in reports]
        if markdown:
            typer.echo(markdown_table(loaded, loss=loss))
        for report in loaded:
            for budget in () if markdown else report.budgets:
                console.print(budget_table(report, budget))
            if specs:
                console.print(specs_table(report))
        if plot is not None:
            plot_races(loaded, plot)
            console.print(f"plot: {plot}", markup=False, highlight=False, soft_wrap=True)
