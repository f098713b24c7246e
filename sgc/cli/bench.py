"""``sgc bench``: speed against rivals and floors."""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sgc.bench import cpu as bench
from sgc.bench.timing import Timing
from sgc.cli.errors import clean_errors

EXAMPLE = "Example: sgc bench cpu --repeats 15 --out runs/bench-cpu.json"

app = typer.Typer(help="Measure speed against rivals and floors, in one run.", no_args_is_help=True)


@app.command(epilog=EXAMPLE)
def cpu(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved rounds that count.")] = 7,
    seed: Annotated[int, typer.Option(help="Of A and the signals.")] = 0,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Also write everything to this JSON file.")
    ] = None,
) -> None:
    """OMP against scikit-learn and against the floor, on one CPU thread in float32.

    The floor is a bare torch loop, s times (R @ A).abs().argmax(1). Ratios are taken within each
    round and given as the median with the smallest and largest.
    """
    console = Console()
    with clean_errors(), Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        report = bench.run(
            repeats=repeats,
            seed=seed,
            progress=lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            ),
        )
    _show(report, console=console)
    if out is not None:
        try:
            bench.write(report, out)
        except OSError as error:
            Console(stderr=True).print(
                f"[red]error:[/red] cannot write {out} ({error.strerror or error}): "
                "give a place that you may write to"
            )
            raise typer.Exit(1) from error
        console.print(f"written to {out}")


def _show(report: bench.BenchReport, *, console: Console) -> None:
    console.print(f"{report.environment['cpu']}, one thread, {report.repeats} rounds")
    for size, rows in groupby(report.rows, key=lambda row: row.size):
        table = Table(title=str(size), title_justify="left", title_style="bold")
        table.add_column("what", no_wrap=True)
        for name in ("µs a signal", "× floor", "× faster than scikit-learn"):
            table.add_column(name, justify="right")  # a narrow terminal puts the spread below
        for row in rows:
            table.add_row(
                row.name,
                _spread(row.timing, 1e6 / size.batch, "{:.0f}"),
                _spread(row.over_floor, 1, "{:.2f}"),
                _spread(row.speedup, 1, "{:.1f}"),
            )
        console.print(table)
    for target in report.targets:
        verdict = "[green]met[/]" if target.met else "[red]not met[/]"
        said = f"{target.size}: omp {target.what}: {target.value:.2f}, {verdict}"
        console.print(said, soft_wrap=True)


def _spread(timing: Timing, factor: float, form: str) -> str:
    middle, low, high = (
        form.format(factor * number) for number in (timing.median, timing.low, timing.high)
    )
    return f"{middle} ({low}–{high})"
