"""What the ablation measured, as lines and as tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from statistics import fmean, stdev
from typing import Any

from rich import box
from rich.table import Table

from sgc.results import Result

__all__ = ["AXES", "Axis", "Lines", "error", "lines_of", "of_one_setting", "table_of"]


@dataclass(frozen=True)
class Axis:
    """How an axis is drawn.

    Attributes:
        asked: what its panel is about.
        label: of the axis.
        paper: where the paper has it.
        logarithmic: whether in logarithms.
        beside: whether AdamW's line lies beside it.
        sized: whether what a method keeps depends on the place.
    """

    asked: str
    label: str
    paper: str = "not in the paper"
    logarithmic: bool = True
    beside: bool = True
    sized: bool = False


AXES: Mapping[str, Axis] = {
    "examples": Axis("little data", "training examples", "Figure 2(a)", beside=False),
    "batch": Axis("large batches", "batch size, at equal numbers of examples seen", beside=False),
    "states": Axis(
        "little state", "numbers of optimizer state a matrix", "Figure 2(b), Table 5", sized=True
    ),
    "residual": Axis("rest of the gradient", "ρ, weight of the rest of the gradient"),
    "chunks": Axis("number of chunks", "chunks c, at equal s", "Figure 3(a)", sized=True),
    "sparsity": Axis("sparsity", "sparsity s, at equal c", "Figure 3(b)", sized=True),
    "kappa": Axis(
        "measurements a nonzero",
        "κ = k/s, at equal s",
        "Figure 3(c)",
        logarithmic=False,
        sized=True,
    ),
}
#: Name, factor and digits of what a table shows.
_UNITS: Mapping[str, tuple[str, float, int]] = {
    "accuracy": ("test accuracy, %", 100, 1),
    "test_loss": ("test loss, nats", 1, 3),
    "bytes": ("kB kept for all targets", 1e-3, 1),
}

#: Line → x → what was measured with the seeds.
Lines = Mapping[str, Mapping[float, Sequence[float]]]


def of_one_setting(rows: Iterable[Result]) -> list[Result]:
    """Rows without those of another task than the first has, or that trained a point in another way
    than its first row did.
    """
    first: dict[tuple[str, str, float], dict[str, Any]] = {}
    kept: list[Result] = []
    for row in rows:
        if kept and any(row.config[name] != kept[0].config[name] for name in ("model", "data")):
            continue
        place = row.config["axis"], row.config["label"], row.config["x"]
        settings = {name: value for name, value in row.config.items() if name != "device"}
        if first.setdefault(place, settings) == settings:
            kept.append(row)
    return kept


def lines_of(axis: str, rows: Iterable[Result], what: str = "accuracy") -> Lines:
    """The finished trials of an axis.

    Args:
        axis: of ``studies.ablation.AXES``.
        rows: of the study.
        what: ``accuracy``, in which a diverged run counts as the majority class; ``test_loss``,
            infinite where it diverged; or ``bytes`` that the method keeps.
    """
    found: dict[str, dict[float, list[float]]] = {}
    for row in of_one_setting(rows):
        if row.config["axis"] == axis:
            failed = row.metrics["majority"] if what == "accuracy" else inf
            measured = row.metrics[what]
            values = measured if isinstance(measured, list) else [measured]
            place = found.setdefault(row.config["label"], {})
            place.setdefault(row.config["x"], []).extend(
                failed if value is None else value for value in values
            )
    return found


def table_of(axis: str, rows: Sequence[Result], what: str = "accuracy") -> Table:
    """Lines against places on an axis; ``what`` as :func:`lines_of` takes it."""
    lines = lines_of(axis, rows, what)
    places = sorted({x for line in lines.values() for x in line})
    unit, factor, digits = _UNITS[what]
    made = Table(
        box=box.SIMPLE_HEAD,
        title=f"{unit}: {AXES[axis].label}",
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    made.add_column("", no_wrap=True)
    for x in places:
        made.add_column(f"{x:,g}", justify="right", no_wrap=True)
    for label, line in lines.items():
        cells: Iterable[list[float]]
        cells = ([factor * value for value in line.get(x, ())] for x in places)
        made.add_row(label, *(_cell(values, digits, exact=what == "bytes") for values in cells))
    return made


def error(values: Sequence[float]) -> float:
    """Standard error of a mean; 0 for one value."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _cell(values: Sequence[float], digits: int, *, exact: bool) -> str:
    """Mean ± standard error, without zeros before the points; what is exact has no error."""
    if not values:
        return ""
    if not all(map(isfinite, values)):
        return "diverged"
    mean, spread = (f"{number:.{digits}f}" for number in (fmean(values), error(values)))
    return mean if exact else f"{mean.removeprefix('0')}±{spread.removeprefix('0')}"
