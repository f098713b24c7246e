"""The table at the end."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from sgc.finetune.summary import Row

__all__ = ["make_table"]


def make_table(rows: Sequence[Row], *, highlight: str | None = None) -> Table:
    """A rich table of ``rows``; the row whose label is ``highlight`` stands out."""
    kinds = {
        "sampling error of the test set" if row.runs == 1 else "standard error over the seeds"
        for row in rows
    }
    spread = "± " + ", or for one run ".join(sorted(kinds, reverse=True))
    if any(row.earlier for row in rows):
        spread += "; earlier runs were timed where they ran"
    table = Table(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        caption=f"{spread}. Of the target matrices: states are M and V, bytes are all that is "
        "kept. ms: of a step.",
        caption_justify="left",
    )
    table.add_column("method", overflow="fold")
    for name in ("runs", "test accuracy", "states", "% full", "bytes", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        style = "dim" if row.earlier else "bold" if row.label == highlight else None
        table.add_row(*_cells(row), style=style)
    return table


def _cells(row: Row) -> tuple[str, ...]:
    score = f"diverged {row.diverged}/{row.runs}"
    if row.accuracy is not None and row.error is not None:
        score = f"{row.accuracy:.3f} ± {row.error:.3f}"
    speed = "–" if row.ms_per_step is None else f"{row.ms_per_step:.0f}"
    counts = (f"{row.states:,}", f"{row.percent:.3g}", f"{row.bytes:,}")
    label = f"{row.label} (earlier)" if row.earlier else row.label
    return (label, str(row.runs), score, *counts, speed)
