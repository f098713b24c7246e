"""The picture of a GPU report, from its JSON values alone."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from sgc.files import replacing

__all__ = ["figure", "save"]

# Okabe and Ito's colours, told apart by the colour-blind; markers and labels repeat what they say.
_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#009E73")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_SMALL, _TEXT = 10, 11
_TERA = 1e12
_CEILINGS = {"bf16": "-", "tf32": "--", "float32": ":"}


def figure(report: Mapping[str, Any]) -> Figure:
    """Draw what :meth:`sgc.bench.gpu.GpuReport.to_dict` returned, or its file holds.

    Left: rates against intensity, under the measured ceilings. A step or solver far below the roof
    does more than the least that it must. Right: step times over the first method's, with the
    range of the rounds and the floor of each.
    """
    steps, solvers = report["steps"], [row for row in report["solvers"] if _on_roof(row)]
    # The bars carry the steps' names for the left panel, too.
    picture = Figure(figsize=(11.5, 7.2), dpi=150, layout="constrained")
    if not steps:
        _roof(picture.subplots(), report["floors"], steps, solvers)
    else:
        left, right = picture.subplots(1, 2, width_ratios=[1.15, 1])
        _roof(left, report["floors"], steps, solvers)
        _bars(right, steps)
    picture.legend(loc="outside lower center", ncols=3, fontsize=_SMALL, frameon=False)
    picture.suptitle(_title(report), fontsize=_TEXT + 1)
    return picture


def save(picture: Figure, path: Path) -> None:
    """Write a PNG: the file is the old one or the whole new one.

    Raises:
        OSError: the folder cannot be written.
    """
    with replacing(path) as file:
        picture.savefig(file, format="png")


def _title(report: Mapping[str, Any]) -> str:
    load = report["workload"]
    if load is None:
        return str(report["device"])
    side = load["side"]
    return f"{report['device']}; a step updates {load['matrices']} matrices of {side}×{side}, bf16"


def _on_roof(row: Mapping[str, Any]) -> bool:
    return row["rate"] is not None and not row["on_cpu"]


def _roof(
    axes: Axes,
    floors: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    solvers: Sequence[Mapping[str, Any]],
) -> None:
    points = [*steps, *solvers]
    span = [row["intensity"] for row in points] or [1.0]
    low, high = min(span) / 2, max(*span, 1e3) * 2
    bandwidth, rates = floors["bandwidth"], floors["rates"]
    for unit, style in _CEILINGS.items():
        ridge = rates[unit] / bandwidth
        corners = [min(low, ridge), ridge, max(high, ridge)]
        heights = [min(bandwidth * x, rates[unit]) / _TERA for x in corners]
        label = f"{unit} products, {rates[unit] / _TERA:.3g} Tflop/s"
        axes.plot(corners, heights, style, color="0.35", linewidth=1.5, label=label)
    memory = f"memory (slope), {bandwidth / _TERA:.2g} TB/s"
    axes.plot([], [], " ", label=memory)
    for row, colour, marker in zip(
        steps, itertools.cycle(_COLOURS), itertools.cycle(_MARKERS), strict=False
    ):
        axes.plot(
            *(row["intensity"], row["rate"] / _TERA, marker),
            color=colour,
            markersize=9,
            markeredgecolor="white",
        )
    _solver_points(axes, solvers)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    bottom = min([row["rate"] for row in points] or [_TERA]) / _TERA
    axes.set_ylim(bottom / 3, 3 * max(rates.values()) / _TERA)
    axes.set_xlabel("least flops / least bytes (flop per byte)", fontsize=_TEXT)
    axes.set_ylabel("least flops / time (Tflop/s)", fontsize=_TEXT)
    marks = "filled: steps; hollow: solvers" if steps else "solvers"
    axes.set_title(f"Roofline ({marks})", fontsize=_TEXT)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=_SMALL)


def _solver_points(axes: Axes, solvers: Sequence[Mapping[str, Any]]) -> None:
    """A hollow marker for each solver, a colour for each size."""
    names = list(dict.fromkeys(row["name"] for row in solvers))
    sizes = list(dict.fromkeys(_size(row) for row in solvers))
    markers = dict(zip(names, itertools.cycle(_MARKERS), strict=False))
    colours = dict(zip(sizes, itertools.cycle(_COLOURS), strict=False))
    for row in solvers:
        axes.plot(
            *(row["intensity"], row["rate"] / _TERA, markers[row["name"]]),
            color=colours[_size(row)],
            markerfacecolor="none",
            markeredgewidth=1.5,
            markersize=8,
        )
    for name, marker in markers.items():
        axes.plot([], [], marker, color="0.1", markerfacecolor="none", markersize=8, label=name)
    for size, colour in colours.items():
        axes.plot([], [], "-", color=colour, linewidth=4, label=f"solvers at {size}")


def _size(row: Mapping[str, Any]) -> str:
    size = row["size"]
    return f"d {size['d']}, k {size['k']}, s {size['sparsity']}"


def _bars(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    reference = steps[0]["timing"]["device"]["median"]
    widest = 0.0
    for place, (row, colour, marker) in enumerate(
        zip(steps, itertools.cycle(_COLOURS), itertools.cycle(_MARKERS), strict=False)
    ):
        ratio = row["over_reference"]
        middle, low, high = ratio["median"], ratio["low"], ratio["high"]
        end = max(high, row["amortised_over_reference"])
        widest = max(widest, end)
        axes.barh(place, middle, color=colour, alpha=0.8, height=0.6)
        spread = [[middle - low], [high - middle]]
        axes.errorbar(middle, place, xerr=spread, fmt="none", ecolor="0.2", capsize=4)
        axes.plot(
            *([row["floor"] / reference] * 2, [place - 0.38, place + 0.38]),
            color="#F0E442",
            linewidth=3,
            path_effects=[Stroke(linewidth=5, foreground="0.1"), Normal()],
            label="floor of the step" if place == 0 else None,
        )
        text = f"  {middle:.2f} × ({1e3 * row['timing']['device']['median']:.2f} ms)"
        if row["refresh"] is not None:
            axes.plot(
                *(row["amortised_over_reference"], place, "d"),
                color="white",
                markeredgecolor="0.1",
                markersize=7,
            )
            text += f"; ◇ {row['amortised_over_reference']:.2f} ×"
        axes.text(end, place, text, va="center", fontsize=_SMALL)
        axes.plot(
            -0.02,
            place,
            marker,
            transform=axes.get_yaxis_transform(),
            color=colour,
            markersize=8,
            markeredgecolor="white",
            clip_on=False,
        )
    if any(row["refresh"] is not None for row in steps):
        axes.plot(
            [],
            [],
            "d",
            color="white",
            markeredgecolor="0.1",
            label="with its share of a refresh",
        )
    axes.axvline(1, color="0.4", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(steps)), [row["name"] for row in steps])
    axes.tick_params(axis="y", length=0, pad=14, labelsize=_TEXT)
    axes.tick_params(axis="x", labelsize=_SMALL)
    axes.invert_yaxis()
    axes.set_xlim(0, 2 * widest)
    axes.set_xlabel(f"time of a step / {steps[0]['name']}", fontsize=_TEXT)
    axes.set_title("Optimizer step (whiskers: all rounds)", fontsize=_TEXT)
    axes.grid(axis="x", alpha=0.25)
