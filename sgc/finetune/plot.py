"""Test accuracy against the number of optimizer states."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sgc.files import replacing
from sgc.finetune.summary import Row

__all__ = ["plot_rows"]

# Okabe and Ito's colours, told apart by the colour-blind; the markers repeat what they say.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def plot_rows(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Write a PNG to ``path``: one marker with its error bar for each row that has an accuracy.

    The horizontal axis is logarithmic with room for 0. A dotted line marks the accuracy of plain
    AdamW, if it is among the rows.
    """
    figure = Figure(figsize=(8.5, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    drawn = [row for row in rows if row.accuracy is not None]
    for i, row in enumerate(drawn):
        score, error = 100 * (row.accuracy or 0), 100 * (row.error or 0)
        axes.errorbar(
            row.states,
            score,
            yerr=error,
            fmt=_MARKERS[i % len(_MARKERS)],
            color="0.55" if row.earlier else _COLOURS[i % len(_COLOURS)],
            markerfacecolor="none" if row.earlier else None,
            markersize=8,
            capsize=3,
            label=f"{row.label} (earlier)" if row.earlier else row.label,
        )
        if row.label == "adamw":
            axes.axhline(score, color="0.5", linestyle=":", linewidth=1, zorder=0)
    counts = [row.states for row in drawn if row.states > 0] or [1]
    first, last = (math.floor(math.log10(pick(counts))) for pick in (min, max))
    axes.set_xscale("symlog", linthresh=10**first)
    axes.set_xlim(-0.3 * 10**first, 3 * max(counts))
    axes.set_xticks([0, *(10**power for power in range(first, last + 1))])
    axes.set_xlabel("optimizer states of the target matrices (numbers in M and V)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if drawn:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    with replacing(path) as file:
        figure.savefig(file, format="png")
