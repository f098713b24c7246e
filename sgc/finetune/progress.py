"""The bar of a running training."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(
    console: Console, *, title: str, steps: int
) -> Iterator[Callable[[int, float], None]]:
    """Show a bar with loss and remaining time; yields what is to be told steps done and loss."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        bar = progress.add_task(title, total=steps, loss="")

        def show(step: int, loss: float) -> None:
            told = "" if math.isnan(loss) else f"loss {loss:.3f}"
            progress.update(bar, completed=step, loss=told)

        yield show
