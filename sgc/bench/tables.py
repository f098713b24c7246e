"""Benchmarks on the screen."""

from itertools import groupby

from rich.console import Console
from rich.table import Table

from sgc.bench.gpu import GpuReport
from sgc.bench.gpu_solvers import SolverRow
from sgc.bench.gpu_steps import StepRow
from sgc.bench.step_work import Workload
from sgc.bench.timing import Timing

__all__ = ["empty_table", "number", "show_gpu", "spread", "verdict"]


def show_gpu(report: GpuReport, *, console: Console) -> None:
    """Print all of a GPU report: floors, steps, solvers, targets."""
    floors = report.floors
    rates = ", ".join(f"{unit} {rate / 1e12:.3g}" for unit, rate in floors.rates.items())
    console.print(
        f"{report.device}, {report.repeats} rounds; copy {floors.copy / 1e12:.2f} TB/s, "
        f"read {floors.read / 1e12:.2f} TB/s, products in Tflop/s: {rates}",
        soft_wrap=True,
    )
    if report.workload is not None:
        console.print(_step_table(report.workload, report.steps, report.refresh_every))
    for name, reason in report.left_out.items():
        console.print(f"{name} left out: {reason}", soft_wrap=True, markup=False)
    for (d, k, sparsity), rows in groupby(
        report.solvers, key=lambda row: (row.size.d, row.size.k, row.size.sparsity)
    ):
        solved = list(rows)
        console.print(_solver_table(f"d {d}, k {k}, s {sparsity}", solved))
        for row in solved:
            if row.timing is None:
                console.print(f"{row.name}: {row.outcome}", soft_wrap=True, markup=False)
    for target in report.targets:
        value = "nothing measured" if target.value is None else f"{target.value:.3g}"
        said = f"{target.row}, {target.what}: {value}, {verdict(target.met)}"
        console.print(said, soft_wrap=True)


def _step_table(load: Workload, rows: tuple[StepRow, ...], period: int) -> Table:
    shown = empty_table(
        f"a step of {load.matrices} matrices {load.side}×{load.side}, bf16",
        *("method", "ms", "× reference", "floor ms", "× floor", "TB/s", "launches ms"),
        *(
            "alone ms",
            "alone × reference",
            "refresh ms",
            f"with it, 1 in {period}",
            "extra GiB",
            "state MiB",
        ),
    )
    for row in rows:
        shown.add_row(
            row.name,
            spread(row.timing.device, 1e3, "{:.2f}"),
            spread(row.over_reference, 1, "{:.2f}"),
            f"{1e3 * row.floor:.2f}",
            f"{row.over_floor:.2f}",
            f"{row.bandwidth / 1e12:.2f}",
            f"{1e3 * row.timing.host.median:.2f}",
            f"{1e3 * row.timing.latency.median:.2f}",
            f"{row.latency_over_reference.median:.2f}",
            "–" if row.refresh is None else f"{1e3 * row.refresh.warm.median:.0f}",
            f"{row.amortised_over_reference:.2f} ×",
            f"{row.peak_extra_bytes / 2**30:.2f}",
            f"{(row.state_bytes + row.shared_bytes) / 2**20:.1f}",
        )
    return shown


def _solver_table(title: str, rows: list[SolverRow]) -> Table:
    columns = (
        "ms",
        "signals",
        "µs a signal",
        "× omp",
        "× faster plain torch",
        "× best pip on CPU",
        "agrees",
        "NaN",
        "× floor",
    )
    shown = empty_table(title, "solver", *columns)
    for row in rows:
        if row.timing is None:
            continue
        shown.add_row(
            row.name,
            spread(row.timing.device, 1e3, "{:.3g}"),
            str(row.signals),
            number(row.microseconds),
            *(
                number(ratio.median if ratio else None)
                for ratio in (row.speedup, row.speedup_over_plain)
            ),
            *(number(row.speedup_over_cpu), number(row.agreement, "{:.4f}")),
            *(number(row.broken), number(row.over_floor)),
        )
    return shown


def empty_table(title: str, first: str, *others: str) -> Table:
    """Columns only: the first for names, the others for numbers."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    shown.add_column(first, no_wrap=True)
    for name in others:
        shown.add_column(name, justify="right")  # a narrow terminal puts the spread below
    return shown


def verdict(met: bool) -> str:
    """A word with its colour."""
    return "[green]met[/]" if met else "[red]not met[/]"


def number(value: float | None, form: str = "{:.3g}") -> str:
    """A number that may be missing."""
    return "–" if value is None else form.format(value)


def spread(timing: Timing, factor: float, form: str) -> str:
    """``median (low–high)`` of the samples, each times the factor."""
    middle, low, high = (
        form.format(factor * number) for number in (timing.median, timing.low, timing.high)
    )
    return f"{middle} ({low}–{high})"
