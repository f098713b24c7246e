"""Accuracy against bytes: every method at every size, and the best that bytes can buy."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgc.files import replacing
from sgc.finetune.lineup import FAMILIES
from sgc.finetune.race_report import Entry, RaceReport

__all__ = ["frontier", "plot_races"]

# Okabe and Ito's colours, told apart by the colour-blind; the markers repeat what they say.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_STATELESS = 1000  # bytes: what holds less stands at the left


def frontier(entries: Sequence[Entry]) -> list[Entry]:
    """Those that nobody beats with as few bytes or fewer, by rising bytes."""
    best: list[Entry] = []
    for entry in sorted(entries, key=lambda e: (e.bytes, -(e.accuracy or 0))):
        if entry.accuracy is None:
            continue
        if not best or entry.accuracy > (best[-1].accuracy or 0):
            best.append(entry)
    return best


def plot_races(reports: Sequence[RaceReport], path: Path) -> None:
    """Write a PNG to ``path``: a row for each race, a column for each family of methods.

    In its column a method has a colour, a line through its sizes and standard errors; all others
    are grey dots. Grey steps are the frontier, dotted lines the budgets. What lies far below the
    others (a frozen model) is written at the lower edge.
    """
    families = sorted({e.family for r in reports for e in r.entries if e.budgets}, key=_place)
    figure = Figure(
        figsize=(2.0 + 4.0 * len(families), 0.8 + 3.6 * len(reports)),
        dpi=130,
        layout="constrained",
    )
    grid = figure.subplots(len(reports), len(families), sharex=True, sharey=True, squeeze=False)
    for row, report in zip(grid, reports, strict=True):
        for axes, family in zip(row, families, strict=True):
            _panel(axes, report, family)
        row[0].set_ylabel(f"{report.title}\ntest accuracy (%)", fontsize=9)
    for axes, family in zip(grid[0], families, strict=True):
        axes.set_title(family)
    for axes in grid[-1]:
        axes.set_xlabel("bytes beside the model")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False, fontsize=8
            )
    figure.supxlabel(
        "mean ± standard error over seeds; grey band: the best with as few bytes; grey dots: the "
        "other columns' methods; dotted: the budgets",
        fontsize=9,
    )
    _scale(grid[0][0], reports)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _place(family: str) -> int:
    known = list(FAMILIES)
    return known.index(family) if family in known else len(known)


def _panel(axes: Axes, report: RaceReport, family: str) -> None:
    drawn = [e for e in report.entries if e.accuracy is not None]
    floor = _floor([report])
    others = [e for e in drawn if e.family != family and e.budgets]
    axes.plot(*_points(others), ".", color="0.8", zorder=1)
    for e in (e for e in drawn if not e.budgets):  # references
        axes.errorbar(*_points([e]), yerr=[100 * e.error], fmt="k*", markersize=10, label=e.label)
    if drawn:
        x, y = _points(frontier(report.entries))
        steps = [*x, 1e9], [*y, y[-1]]
        axes.step(*steps, where="post", color="0.7", linewidth=5, alpha=0.4, zorder=0)
    labels = dict.fromkeys(e.label for e in drawn if e.family == family and e.budgets)
    for i, label in enumerate(labels):
        own = sorted((e for e in drawn if e.label == label), key=lambda e: e.bytes)
        x, y = _points(own)
        colour, marker = _COLOURS[i % 7], _MARKERS[(i % 7 + i // 7) % 8]
        if y[0] < floor:
            text = f"{label} {y[0]:.1f}"
            axes.annotate(text, (x[0], floor), fontsize=8, color=colour, ha="left")
            axes.plot([], [], label=label, color=colour, marker=marker)
            continue
        errors = [100 * e.error for e in own]
        axes.errorbar(
            x,
            y,
            yerr=errors,
            label=label,
            markersize=6,
            linewidth=1,
            linestyle="-" if i < len(_COLOURS) else "--",  # the colours come round again
            capsize=2,
            color=colour,
            marker=marker,
        )
    for budget in report.budgets:
        axes.axvline(budget, color="0.6", linestyle=":", linewidth=1, zorder=0)
    axes.grid(alpha=0.3)


def _points(entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
    return (
        [max(float(e.bytes), _STATELESS) for e in entries],
        [100 * (e.accuracy or 0) for e in entries],
    )


def _floor(reports: Sequence[RaceReport]) -> float:
    """Lower edge in per cent: below all but what lies far below (by 2 points) the rest."""
    scores = sorted(100 * e.accuracy for r in reports for e in r.entries if e.accuracy is not None)
    if not scores:  # everybody diverged
        return 0.0
    lowest = scores[0]
    for low, above in itertools.pairwise(scores[: 1 + len(scores) // 4]):
        lowest = above if above - low > 2 else lowest
    return lowest - 0.5


def _scale(axes: Axes, reports: Sequence[RaceReport]) -> None:
    """Shared axes: bytes on a logarithmic scale that begins with those that hold next to none."""
    scores = [100 * e.accuracy for r in reports for e in r.entries if e.accuracy is not None]
    errors = [100 * e.error for r in reports for e in r.entries if e.accuracy is not None]
    above = max((score + error for score, error in zip(scores, errors, strict=True)), default=100.0)
    axes.set_ylim(min(_floor([r]) for r in reports) - 0.3, above + 0.5)
    right = 2 * max(e.bytes for r in reports for e in r.entries)
    axes.set_xscale("log")
    axes.set_xlim(_STATELESS / 1.8, right)
    powers = range(4, math.floor(math.log10(right)) + 1)
    axes.set_xticks([_STATELESS, *(10**p for p in powers)])
    axes.set_xticklabels(["none", *(_bytes(10**p) for p in powers)])
    axes.minorticks_off()


def _bytes(number: int) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:g} {unit}"
        number //= 1000
    return f"{number:g} GB"
