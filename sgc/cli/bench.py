"""``sgc bench``: speed against rivals and floors."""

import contextlib
import enum
import json
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from sgc.bench import cpu as bench
from sgc.bench import gpu as gpu_bench
from sgc.bench.files import write_json
from sgc.bench.step_work import Workload
from sgc.bench.tables import empty_table, show_gpu, spread, verdict
from sgc.cli.errors import clean_errors

EXAMPLE = "Example: sgc bench cpu --repeats 15 --out runs/bench-cpu.json"
GPU_EXAMPLE = "Example: sgc bench gpu --plot docs/roofline.png"
PLOT_EXAMPLE = "Example: sgc bench plot results/bench-gpu-nvidia-h200.json docs/roofline.png"

_WIDE = 180
app = typer.Typer(
    help="Measure speed against rivals and floors, in one run.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


class Only(enum.StrEnum):
    """One part of the GPU benchmark."""

    STEPS = gpu_bench.STEPS
    SOLVERS = gpu_bench.SOLVERS


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
    with clean_errors(), _progress() as progress:
        report = bench.run(repeats=repeats, seed=seed, progress=progress)
    _show(report, console=console)
    if out is not None:
        with _writing(out):
            bench.write(report, out)
        console.print(f"written to {out}")


@app.command(epilog=GPU_EXAMPLE)
def gpu(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved rounds that count.")] = 30,
    seed: Annotated[int, typer.Option(help="Of weights, gradients, A and signals.")] = 0,
    only: Annotated[Only | None, typer.Option(help="Measure only steps, or only solvers.")] = None,
    matrices: Annotated[int, typer.Option(min=1, help="That a step updates.")] = 64,
    side: Annotated[int, typer.Option(min=1, help="Rows and columns of a matrix.")] = 4096,
    out: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="JSON file for everything.",
            show_default="results/bench-gpu-<device>.json",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Also draw the report to this PNG file.")
    ] = None,
) -> None:
    """Optimizer steps and solvers on one NVIDIA GPU, against rivals and the floors of this run.

    A step updates matrices of the shapes of LLaMA2-7B's query and value projections, bf16, by each
    method; torch's fused AdamW is the reference. The least bytes and flops of a step, at the
    bandwidth and rates measured first, are its floor. Rivals of the solvers are omp in plain torch
    (also with TF32 products), orthogonal-matching-pursuit-gpu from PyPI (on the GPU and the CPU;
    left out where it is not installed) and scikit-learn on the CPU.

    Needs about 25 GB of GPU memory and one to two minutes.
    """
    console = Console()
    parts = gpu_bench.PARTS if only is None else (only.value,)
    load = Workload(matrices=matrices, side=side)
    try:
        device = gpu_bench.find_device(load if gpu_bench.STEPS in parts else None)
    except gpu_bench.DeviceError as error:
        raise _failed(str(error)) from error
    with clean_errors(), _progress() as progress:
        report = gpu_bench.run(
            device, parts=parts, load=load, repeats=repeats, seed=seed, progress=progress
        )
    if not console.is_terminal:
        console = Console(width=_WIDE)  # eighty columns, rich's guess for a file, hold no table
    values = report.to_dict()
    out = out or Path("results", report.file_name())
    with _writing(out):  # before anything else can fail
        write_json(values, out)
    show_gpu(report, console=console)
    console.print(f"written to {out}")
    if plot is not None:
        _draw(values, plot, console)


@app.command(epilog=PLOT_EXAMPLE)
def plot(
    report: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="JSON file of sgc bench gpu.")
    ],
    picture: Annotated[Path, typer.Argument(dir_okay=False, help="PNG file to be written.")],
) -> None:
    """Draw a report of 'sgc bench gpu' again."""
    try:
        values = json.loads(report.read_text(encoding="utf-8"))
        _draw(values, picture, Console())
    except (ValueError, KeyError, TypeError) as error:
        raise _failed(f"{report} is no report of 'sgc bench gpu' ({error!r})") from error


def _draw(values: dict[str, Any], path: Path, console: Console) -> None:
    from sgc.bench.roofline import figure, save  # noqa: PLC0415 - matplotlib takes its time

    with _writing(path):
        save(figure(values), path)
    console.print(f"drawn to {path}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total
        )


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(
            f"cannot write {path} ({error.strerror or error}): give a place that you may write to"
        ) from error


def _failed(message: str) -> typer.Exit:
    Console(stderr=True).print(f"[red]error:[/red] {message}", soft_wrap=True)
    return typer.Exit(1)


def _show(report: bench.BenchReport, *, console: Console) -> None:
    console.print(f"{report.environment['cpu']}, one thread, {report.repeats} rounds")
    for size, rows in groupby(report.rows, key=lambda row: row.size):
        shown = empty_table(
            str(size), "what", "µs a signal", "× floor", "× faster than scikit-learn"
        )
        for row in rows:
            shown.add_row(
                row.name,
                spread(row.timing, 1e6 / size.batch, "{:.0f}"),
                spread(row.over_floor, 1, "{:.2f}"),
                spread(row.speedup, 1, "{:.1f}"),
            )
        console.print(shown)
    for target in report.targets:
        said = f"{target.size}: omp {target.what}: {target.value:.2f}, {verdict(target.met)}"
        console.print(said, soft_wrap=True)
