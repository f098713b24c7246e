"""Picture and tables of the ablation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, log10
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from sgc.results import Result
from studies.figures.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

__all__ = ["figure", "lines_of", "of_one_setting", "table_of"]


@dataclass(frozen=True)
class _Axis:
    """How one axis is drawn: its label, whether in logarithms, whether AdamW lies beside it."""

    label: str
    logarithmic: bool = True
    beside: bool = True


_AXES: Mapping[str, _Axis] = {
    "examples": _Axis("training examples", beside=False),
    "batch": _Axis("batch size, at equal numbers of examples seen", beside=False),
    "states": _Axis("numbers of optimizer state a matrix"),
    "residual": _Axis("ρ, weight of the rest of the gradient"),
    "chunks": _Axis("chunks c, at equal s"),
    "sparsity": _Axis("sparsity s, at equal c"),
    "kappa": _Axis("κ = k/s, at equal s", logarithmic=False),
}
#: Lines of the states' axis that are drawn through all panels of the same training.
_THROUGH = ("adamw", "sign-sgd", "frozen")
_GREY, _WINE, _OLIVE = "#777777", "#882255", "#A09000"  # beyond the palette; markers repeat it
#: Colour, marker and dashes.
_LOOKS: Mapping[str, tuple[str, str, str]] = {
    "adamw": (BLACK, "o", "-"),
    "sign-sgd": (_GREY, "s", "--"),
    "frozen": (_GREY, "x", ":"),
    "galore": (SKY, "D", "-."),
    "lora": (BLUE, "^", ":"),
    "mesgc": (VERMILION, "v", "-"),
    "mesgc + ρ": (ORANGE, "P", "--"),
    "cesgc": (PURPLE, "X", "-."),
    "adjoint": (GREEN, "*", ":"),
    "explicit sparse": (_OLIVE, ">", "--"),
}
_OTHERS = (_WINE, "<", "--")
_NEAR = 5.0  # points below the lowest line, within which the majority's share is drawn
_ROOM = 0.13  # least distance of labelled ticks, a share of the axis
_STEP = 0.004  # by which markers of lines at one place stand apart, a share of the axis

#: Name, factor and digits of what a table shows.
_UNITS: Mapping[str, tuple[str, float, int]] = {
    "accuracy": ("test accuracy, %", 100, 1),
    "test_loss": ("test loss, nats", 1, 3),
    "bytes": ("kB kept for all targets", 1e-3, 1),
}

#: Line → x → what was measured with the seeds.
Lines = Mapping[str, Mapping[float, Sequence[float]]]


def of_one_setting(rows: Iterable[Result]) -> list[Result]:
    """Rows without those that trained a point in another way than its first row did."""
    first: dict[tuple[str, str, float], dict[str, Any]] = {}
    kept = []
    for row in rows:
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


def figure(rows: Sequence[Result]) -> Figure:
    """A panel an axis, a line a method: mean over the seeds ± standard error."""
    left_out = len(rows) - len(rows := of_one_setting(rows))
    axes = [axis for axis in _AXES if any(row.config["axis"] == axis for row in rows)]
    across = min(2, len(axes))
    down = -(-len(axes) // across)
    size = (10.4, 3.5 * down + 0.9) if across > 1 else (7.5, 5.2)
    made = Figure(figsize=size, layout="constrained", dpi=150)
    panels = made.subplots(down, across, squeeze=False).flatten()
    through = lines_of("states", rows)
    for axis, panel in zip(axes, panels, strict=False):
        lines = dict(lines_of(axis, rows))
        own = [row for row in rows if row.config["axis"] == axis]
        for label in _THROUGH if _AXES[axis].beside else ():
            if axis == "states" and label == "sign-sgd":
                continue  # it has a place there, at 0
            lines.pop(label, None)
            _across(panel, label, through.get(label, {}))
        places = sorted({x for line in lines.values() for x in line})
        if len(places) == 1:
            _ranked(panel, axis, places[0], lines)
        else:
            _panel(panel, axis, places, lines)
        _majority(panel, own, upright=len(places) == 1)
    handles = {h.get_label(): h for p in panels for h in p.get_legend_handles_labels()[0]}
    names = sorted(handles, key=lambda name: (" (" in str(name), str(name) == "majority class"))
    shown = [handles[name] for name in names]
    free = panels[len(axes) :]
    for panel in free:
        panel.set_axis_off()
    if not shown:
        pass
    elif len(free):
        free[0].legend(shown, names, loc="center", ncols=2, frameon=False, fontsize=10)
    else:
        made.legend(shown, names, loc="outside lower center", ncols=2 + across, frameon=False)
    made.suptitle(_caption(rows, left_out), fontsize=11)
    return made


def table_of(axis: str, rows: Sequence[Result], what: str = "accuracy") -> Table:
    """Lines against places on an axis; ``what`` as :func:`lines_of` takes it."""
    lines = lines_of(axis, rows, what)
    places = sorted({x for line in lines.values() for x in line})
    unit, factor, digits = _UNITS[what]
    made = Table(
        box=box.SIMPLE_HEAD,
        title=f"{unit}: {_AXES[axis].label}",
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    made.add_column("", no_wrap=True)
    for x in places:
        made.add_column(f"{x:,g}", justify="right", no_wrap=True)
    for label, line in lines.items():
        cells: Iterable[list[float]]
        cells = ([factor * value for value in line.get(x, ())] for x in places)
        made.add_row(label, *(_cell(values, digits) for values in cells))
    return made


def _panel(panel: Axes, axis: str, places: Sequence[float], lines: Lines) -> None:
    look = _AXES[axis]
    positive = [x for x in places if x > 0]
    span = positive[-1] / positive[0] if positive else 1.0
    for i, (label, line) in enumerate(lines.items()):
        colour, marker, dashes = _LOOKS.get(label, _OTHERS)
        shift = _STEP * (i - (len(lines) - 1) / 2) if len(lines) > 2 else 0.0
        own = sorted(line)
        panel.errorbar(
            [x * span**shift if look.logarithmic else x for x in own],
            [100 * fmean(line[x]) for x in own],
            [100 * _error(line[x]) for x in own],
            label=label,
            color=colour,
            marker=marker,
            linestyle=dashes,
            linewidth=1.3,
            markersize=5,
            capsize=2,
        )
    if axis == "states":
        for label in ("galore", "lora"):
            for least in sorted(x for x in lines.get(label, ()) if x > 0)[:1]:
                colour = _LOOKS[label][0]
                panel.axvline(least, color=colour, linewidth=0.8, linestyle=":")
                panel.text(
                    least,
                    0.14,
                    f"least {label} ",
                    transform=panel.get_xaxis_transform(),
                    rotation=90,
                    ha="right",
                    fontsize=8,
                    color=colour,
                )
    _ticks(panel, places, look.logarithmic)
    panel.set(xlabel=look.label, ylabel="test accuracy, %")
    panel.grid(alpha=0.3)


def _ranked(panel: Axes, axis: str, x: float, lines: Lines) -> None:
    """Where there is one place only: a method a row, the best on top."""
    order = sorted(lines, key=lambda label: fmean(lines[label][x]))
    for row, label in enumerate(order):
        colour, marker, _ = _LOOKS.get(label, _OTHERS)
        values = lines[label][x]
        panel.errorbar(
            [100 * fmean(values)],
            [row],
            xerr=[100 * _error(values)],
            color=colour,
            marker=marker,
            markersize=6,
            capsize=3,
        )
    panel.set_yticks(range(len(order)), order)
    panel.set(xlabel=f"test accuracy, % ({_AXES[axis].label}: {x:,g})")
    panel.grid(alpha=0.3, axis="x")


def _across(panel: Axes, label: str, line: Mapping[float, Sequence[float]]) -> None:
    """A line that does not depend on where on the axis one is: mean and standard error."""
    colour, _, dashes = _LOOKS[label]
    said = {"adamw": "({:,g} numbers)", "sign-sgd": "(none)", "frozen": "(head only)"}[label]
    for x, values in line.items():
        mean, error = 100 * fmean(values), 100 * _error(values)
        name = f"{label} {said.format(x)}"
        panel.axhline(mean, color=colour, linestyle=dashes, linewidth=1.3, label=name, zorder=1)
        panel.axhspan(mean - error, mean + error, color=colour, alpha=0.12, linewidth=0, zorder=0)


def _majority(panel: Axes, rows: Sequence[Result], *, upright: bool) -> None:
    """The most frequent class's share ± one sampling error, or a note that it is out of sight.

    ``upright``: accuracies lie along x.
    """
    share = 100 * fmean(row.metrics["majority"] for row in rows)
    error = (share * (100 - share) / rows[0].metrics["test_examples"]) ** 0.5
    low, high = panel.get_xlim() if upright else panel.get_ylim()
    if share < low - _NEAR:
        note = f"majority class: {share:.1f}, " + ("to the left" if upright else "below")
        panel.text(0.98, 0.02, note, transform=panel.transAxes, ha="right", fontsize=8)
        return
    line, span = (panel.axvline, panel.axvspan) if upright else (panel.axhline, panel.axhspan)
    line(share, color=_GREY, linestyle="--", linewidth=1, label="majority class")
    span(share - error, share + error, color=_GREY, alpha=0.12, linewidth=0, zorder=0)
    limits = min(low, share - 1.5 * error), max(high, share + 1.5 * error)
    (panel.set_xlim if upright else panel.set_ylim)(limits)


def _ticks(panel: Axes, places: Sequence[float], logarithmic: bool) -> None:
    """Labels at places that were measured, as many as have room; 0 is a place of its own."""
    positive = [x for x in places if x > 0]
    if not logarithmic or not positive:
        panel.set_xticks(places)
        return
    if 0 in places:
        panel.set_xscale("symlog", linthresh=positive[0], linscale=0.4)
        panel.axvline(positive[0] / 2, color=_GREY, linewidth=0.6, linestyle=":")
        panel.set_xlim(-positive[0] / 4, 1.6 * positive[-1])
    else:
        panel.set_xscale("log")
    span = log10(positive[-1] / positive[0]) + (0.4 if 0 in places else 0)
    kept: list[float] = []
    for x in positive:
        if not kept or log10(x / kept[-1]) >= _ROOM * span:
            kept.append(x)
    kept = [0.0, *kept] if 0 in places else kept
    panel.set_xticks(kept, [f"{x:,g}" for x in kept])
    panel.set_xticks([], minor=True)


def _caption(rows: Sequence[Result], left_out: int) -> str:
    first = rows[0]
    runs = [value for row in rows for value in row.metrics["accuracy"]]
    known = [value for value in runs if value is not None]
    counts = sorted(
        len(values)
        for axis in _AXES
        for line in lines_of(axis, rows).values()
        for values in line.values()
    )
    seeds = f"{counts[0]}" + f" to {counts[-1]}" * (counts[0] < counts[-1])
    size = first.metrics["test_examples"]
    made = f"{first.config['model']}, {first.config['data']}: mean ± s.e. over {seeds} seeds"
    if known:
        mean = fmean(known)
        error = 100 * (mean * (1 - mean) / size) ** 0.5
        made += f"\nsampling error of the test part, {size:,} texts: ±{error:.1f}"
    if len(known) < len(runs):
        made += f"\n{len(runs) - len(known)} of {len(runs)} runs diverged: drawn as majority class"
    if left_out:
        made += f"\n{left_out} rows of the same points with other settings are left out"
    return made


def _error(values: Sequence[float]) -> float:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    if not all(map(isfinite, values)):
        return "diverged"
    error = f"{_error(values):.{digits}f}"
    return f"{fmean(values):.{digits}f}±{error.removeprefix('0')}"
