"""What is shown of a running training."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["progress_bar", "tell_compiling"]

_TOLD: WeakSet[Console] = WeakSet()


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


def tell_compiling(console: Console) -> None:
    """Say why the first step takes so long: once on a console, as later runs share what is made."""
    if console not in _TOLD:
        _TOLD.add(console)
        console.print(
            "compiling the model's layers: the first step may take a minute",
            highlight=False,
            soft_wrap=True,
        )
