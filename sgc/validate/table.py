"""The report as tables for a terminal."""

from collections.abc import Iterable
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sgc.validate.agreement import Agreement
from sgc.validate.report import Report

__all__ = ["show"]

_SHOWN_FAILURES = 20


def show(report: Report, *, console: Console) -> None:
    """Print both tables, what could not run, and the verdict."""
    console.print(_agreement_table(report))
    console.print(_stress_table(report))
    for name, reason in report.unavailable.items():
        console.print(f"[yellow]not available:[/yellow] {escape(name)}: {escape(reason)}")
    for failure in report.failures[:_SHOWN_FAILURES]:
        console.print(f"[red]fail:[/red] {escape(failure)}", soft_wrap=True)
    hidden = len(report.failures) - _SHOWN_FAILURES
    if hidden > 0:
        console.print(f"[red]and {hidden} more; --out writes them all[/red]")
    if report.passed:
        what = "who promises OMP's answer gives it, and all keep the contract on hard inputs"
        console.print(f"[green bold]passed[/]: {what}", soft_wrap=True)
    else:
        console.print("[red bold]failed[/]")


def _agreement_table(report: Report) -> Table:
    table = Table(
        title="Against scikit-learn's orthogonal_mp (float64); pairs are float64 / float32",
        caption="% of signals. agree: same support as the oracle; inside: that where the oracle "
        "finds the truth; exact: true support found. error: largest coefficient error where "
        "supports agree. µs: a signal, one thread, whole batch.",
    )
    table.add_column("d, k, s, law / solver", no_wrap=True)
    for name in ("agree", "inside", "error", "exact", "µs"):
        table.add_column(name, justify="right")  # in a narrow terminal a pair takes two lines
    for (size, law), group in groupby(report.agreements, key=lambda row: (row.size, row.law)):
        rows = list(group)
        oracle = report.oracle_microseconds[size, law]
        table.add_row(f"[bold]{size}, {law}[/]")
        exact = _percent(rows[0].oracle_exact)
        table.add_row("[dim]  scikit-learn[/]", "", "", "", exact, f"{oracle:.0f}")
        for solver, pair in groupby(rows, key=lambda row: row.solver):
            table.add_row(f"  {escape(solver)}", *_cells(list(pair)))
        table.add_section()
    return table


def _cells(rows: list[Agreement]) -> list[str]:
    return [
        _pair(_percent(row.agree) for row in rows),
        _pair(f"{_percent(row.agree_inside)} % of {row.inside}" for row in rows),
        _pair("–" if row.error is None else f"{row.error:.0e}" for row in rows),
        _pair(_percent(row.exact) for row in rows),
        _pair(f"{row.microseconds:.0f}" for row in rows),
    ]


def _stress_table(report: Report) -> Table:
    table = Table(title="Hard inputs, in float64 and float32")
    table.add_column("input", no_wrap=True)
    for name in report.stress:
        table.add_column(escape(name), justify="center")
    checks = next(iter(report.stress.values()), {})
    for check in checks:
        verdicts = (column[check] for column in report.stress.values())
        table.add_row(check, *("[green]pass[/]" if v is None else "[red]fail[/]" for v in verdicts))
    return table


def _pair(texts: Iterable[str]) -> str:
    both = list(texts)
    return both[0] if len(set(both)) == 1 else " / ".join(both)


def _percent(share: float | None) -> str:
    if share is None:
        return "–"
    # 99.96 must not read 100.
    return "100" if share == 1 else f"{min(100 * share, 99.9):.1f}"
