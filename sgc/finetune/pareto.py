"""Accuracy against bytes: every method at every size, and the best that bytes can buy."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgc.files import replacing
from sgc.finetune.race_report import Entry, RaceReport

__all__ = ["frontier", "plot_race"]

# Okabe and Ito's colours, told apart by the colour-blind; the markers repeat what they say.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def frontier(entries: Sequence[Entry]) -> list[Entry]:
    """Those that nobody beats with as few bytes or fewer, by rising bytes."""
    best: list[Entry] = []
    for entry in sorted(entries, key=lambda e: (e.bytes, -(e.accuracy or 0))):
        if entry.accuracy is None:
            continue
        if not best or entry.accuracy > (best[-1].accuracy or 0):
            best.append(entry)
    return best


def plot_race(reports: Sequence[RaceReport], path: Path, *, titles: Sequence[str]) -> None:
    """Write a PNG to ``path``: a panel for each race, with one legend.

    A marker with its standard error for each entry, a line through the sizes of one method, dotted
    lines at the budgets, and the frontier as grey steps.
    """
    width = 6.0 * len(reports) + 3.0
    figure = Figure(figsize=(width, 6.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(reports), sharey=True, squeeze=False)[0]
    labels = list(dict.fromkeys(e.label for report in reports for e in report.entries))
    styles = dict(zip(labels, itertools.cycle(_styles()), strict=False))
    for axes, report, title in zip(panels, reports, titles, strict=True):
        _panel(axes, report, styles)
        axes.set_title(title)
    panels[0].set_ylabel("test accuracy (%)")
    handles = {label: line for axes in panels for line, label in _legend(axes)}
    figure.legend(
        [handles[label] for label in labels if label in handles],
        [label for label in labels if label in handles],
        loc="outside right upper",
        frameon=False,
        fontsize=9,
    )
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _styles() -> list[tuple[str, str]]:
    """Colour and marker, no pair twice in 56."""
    n = len(_COLOURS)
    return [(_COLOURS[i % n], _MARKERS[(i % n + i // n) % len(_MARKERS)]) for i in range(n * 8)]


def _panel(axes: Axes, report: RaceReport, styles: dict[str, tuple[str, str]]) -> None:
    least = max(1, min((e.bytes for e in report.entries if e.bytes > 1000), default=1))
    leftmost = least / 4  # of rows without state
    for label, (colour, marker) in styles.items():
        own = sorted((e for e in report.entries if e.label == label), key=lambda e: e.bytes)
        own = [e for e in own if e.accuracy is not None]
        if own:
            axes.errorbar(
                [max(e.bytes, leftmost) for e in own],
                [100 * (e.accuracy or 0) for e in own],
                yerr=[100 * e.error for e in own],
                color=colour,
                marker=marker,
                markersize=7,
                linewidth=0.8,
                capsize=2,
                label=label,
            )
    best = frontier(report.entries)
    right = 2 * max(max(e.bytes, leftmost) for e in report.entries)
    axes.step(
        [*(max(e.bytes, leftmost) for e in best), right],
        [*(100 * (e.accuracy or 0) for e in best), 100 * (best[-1].accuracy or 0)],
        where="post",
        color="0.7",
        linewidth=4,
        alpha=0.5,
        zorder=0,
    )
    for budget in report.budgets:
        axes.axvline(budget, color="0.6", linestyle=":", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(least / 6, right)
    powers = range(math.ceil(math.log10(least)), math.floor(math.log10(right)) + 1)
    axes.set_xticks([leftmost, *(10**p for p in powers)])
    axes.set_xticklabels(["none", *(_bytes(10**p) for p in powers)])
    axes.minorticks_off()
    axes.set_xlabel("bytes beside the model, for the target matrices")
    axes.grid(alpha=0.3)


def _bytes(number: int) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:g} {unit}"
        number //= 1000
    return f"{number:g} GB"


def _legend(axes: Axes) -> list[tuple[Any, str]]:
    return list(zip(*axes.get_legend_handles_labels(), strict=True))
