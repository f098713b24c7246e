"""Picture and tables of the ablation."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from sgc.results import Result

__all__ = ["figure", "lines_of", "table_of"]

#: Axis → its label, and whether it is logarithmic.
_LABELS: Mapping[str, tuple[str, bool]] = {
    "examples": ("training examples", True),
    "states": ("numbers of optimizer state a matrix", True),
    "chunks": ("chunks c, at equal s", True),
    "sparsity": ("sparsity s, at equal c", True),
    "kappa": ("κ = k/s, at equal s", False),
    "residual": ("ρ, weight of the rest of the gradient", False),
    "batch": ("batch size, at equal examples seen", True),
}
# Okabe and Ito's colours; markers and dashes repeat what they say.
_COLOURS = ("#000000", "#999999", "#56B4E9", "#F0E442", "#D55E00", "#E69F00", "#CC79A7", "#009E73")
_MARKERS = "osD^vPX*<"
_DASHES = ("-", "--", "-.", ":")

#: Line → x → accuracies of the seeds.
Lines = Mapping[str, Mapping[float, Sequence[float]]]


def lines_of(axis: str, rows: Iterable[Result]) -> Lines:
    """The finished trials of an axis; a diverged one counts as the majority class."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        if row.config["axis"] == axis:
            accuracy = row.metrics["accuracy"]
            place = found.setdefault(row.config["label"], {})
            place.setdefault(row.config["x"], []).append(
                row.metrics["majority"] if accuracy is None else accuracy
            )
    return found


def figure(rows: Sequence[Result]) -> Figure:
    """A panel an axis, a line a method: mean over the seeds ± standard error."""
    axes = [axis for axis in _LABELS if any(row.config["axis"] == axis for row in rows)]
    across = min(2, len(axes))
    down = -(-len(axes) // across)
    made = Figure(figsize=(5.2 * across, 3.5 * down), layout="constrained", dpi=150)
    panels = made.subplots(down, across, squeeze=False).flatten()
    labels = list(dict.fromkeys(row.config["label"] for row in rows))
    for axis, panel in zip(axes, panels, strict=False):
        _panel(panel, axis, lines_of(axis, rows), labels)
    for panel in panels[len(axes) :]:
        panel.set_axis_off()
    handles = {h.get_label(): h for p in panels for h in p.get_legend_handles_labels()[0]}
    made.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=min(5, len(labels)),
        frameon=False,
    )
    first = rows[0].config
    made.suptitle(f"{first['model']}, {first['data']}: test accuracy, mean ± s.e. over seeds")
    return made


def table_of(axis: str, rows: Sequence[Result]) -> Table:
    """Lines against places on an axis."""
    lines = lines_of(axis, rows)
    places = sorted({x for line in lines.values() for x in line})
    made = Table(box=box.SIMPLE_HEAD, title=_LABELS[axis][0], pad_edge=False)
    made.add_column("", no_wrap=True)
    for x in places:
        made.add_column(f"{x:,g}", justify="right", no_wrap=True)
    for label, line in lines.items():
        made.add_row(label, *(_cell(line.get(x, ())) for x in places))
    return made


def _panel(panel: Axes, axis: str, lines: Lines, labels: Sequence[str]) -> None:
    name, logarithmic = _LABELS[axis]
    for label, line in lines.items():
        i = labels.index(label)
        places = sorted(line)
        panel.errorbar(
            places,
            [100 * fmean(line[x]) for x in places],
            [100 * _error(line[x]) for x in places],
            label=label,
            color=_COLOURS[i % len(_COLOURS)],
            marker=_MARKERS[i % len(_MARKERS)],
            linestyle=_DASHES[i % len(_DASHES)],
            markersize=5,
            capsize=2,
        )
    if logarithmic:
        panel.set_xscale("log")
    panel.set(xlabel=name, ylabel="test accuracy, %")
    panel.grid(alpha=0.3)


def _error(values: Sequence[float]) -> float:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{100 * fmean(values):.1f} ± {100 * _error(values):.1f}"
