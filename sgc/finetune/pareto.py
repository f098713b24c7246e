"""Accuracy against bytes: every method at every size, and the best that bytes can buy."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgc.files import replacing
from sgc.finetune.pareto_panels import Panel, arrange, by_label
from sgc.finetune.pareto_style import LINE, Name, Style, name_ends, names_height, styles
from sgc.finetune.race_report import Entry, RaceReport, bytes_text

__all__ = ["frontier", "plot_races"]

# Inches. Of a picture 10 wide, type of 9 points is 11 pixels high on a page of 900 pixels.
_LEFT, _NAMES, _OVER, _UNDER, _TITLE = 0.6, 2.0, 0.3, 0.3, 0.35
_PANEL = {1: (4.5, 3.2), 2: (2.6, 2.2)}  # columns → width and least height
_BAND = "#F1DFB0"


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
    """Write a PNG to ``path``: two columns, a panel for each race and family of methods.

    Two races stand side by side; of a single one, the families do. A method has a colour, a marker,
    a line through its sizes with standard errors, and its name at the line's end; the other
    families' methods are grey dots. A grey band is the frontier, dotted lines are the budgets, and
    a black line is what was raced whatever it takes. What lies far below the others (a frozen
    model) or diverged is written at the lower edge.
    """
    rows = arrange(reports)
    panels = [panel for row in rows for panel in row]
    style = styles(
        (e.label for panel in panels for e in panel.own),
        in_family_panels=any(panel.family is not None for panel in panels),
    )
    room = LINE * max(len(panel.notes) for panel in panels)
    names = {panel: _names(panel, style) for panel in panels}
    columns = max(map(len, rows))
    wide, least = _PANEL[columns]
    heights = [max(least, *(names_height(names[panel]) for panel in row)) for row in rows]
    begins = [i == 0 or row[0].report is not rows[i - 1][0].report for i, row in enumerate(rows)]
    column = _LEFT + wide + _NAMES
    width = column * columns
    caption = textwrap.wrap(_caption(panels), int(13.5 * width))
    foot = 0.4 + 0.18 * len(caption)
    y = tall = sum(heights) + len(rows) * (_OVER + _UNDER) + sum(begins) * _TITLE + foot
    figure = Figure(figsize=(width, tall), dpi=150)
    for row, height, first in zip(rows, heights, begins, strict=True):
        y -= height + _OVER + _TITLE * first
        for i, panel in enumerate(row):
            x = _LEFT + i * column
            axes = figure.add_axes((x / width, y / tall, wide / width, height / tall))
            _limit(axes, panel, room=room / height)
            _draw(axes, panel, style)
            _note(axes, panel, height=height)
            name_ends(axes, names[panel], size=(wide, height))
            if i == 0:
                axes.set_ylabel("test accuracy (%)", fontsize=9)
            if row is rows[-1]:
                axes.set_xlabel("bytes beside the model (logarithmic)", fontsize=9)
            if first and (i == 0 or panel.report is not row[0].report):
                title = textwrap.shorten(panel.report.title, 60, placeholder="…")
                over = (y + height + _OVER) / tall
                figure.text(x / width, over, title, fontsize=10, fontweight="bold")
        y -= _UNDER
    figure.text(0.1 / width, 0.1 / tall, "\n".join(caption), fontsize=9, linespacing=1.3)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _limit(axes: Axes, panel: Panel, *, room: float) -> None:
    """Limits, with ``room`` (a share of the height) for notes, and a tick at each budget."""
    report, scale = panel.report, panel.scale
    span = (scale.right / scale.left) ** 0.06
    axes.set_xscale("log")
    axes.set_xlim(scale.left / span, scale.right * span)
    axes.set_ylim(scale.floor - (scale.top - scale.floor) * room / (1 - room), scale.top)
    ticks = [report.budgets[-1]]
    for budget in report.budgets[-2::-1]:  # as many as have room for their labels
        if ticks[-1] / budget > (scale.right / scale.left) ** 0.2:
            ticks.append(budget)
    nothing = any(e.bytes < scale.least for e in report.entries if e.budgets)
    places = [*[scale.left] * nothing, *ticks]
    axes.set_xticks(places, [*["≈ 0"] * nothing, *map(bytes_text, ticks)], fontsize=9)
    axes.minorticks_off()
    axes.tick_params(axis="y", labelsize=9)
    axes.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for budget in report.budgets:
        axes.axvline(budget, color="0.55", linestyle=":", linewidth=1, zorder=0)


def _draw(axes: Axes, panel: Panel, style: Mapping[str, Style]) -> None:
    if panel.family is not None:
        axes.set_title(panel.family or "others", loc="left", fontsize=9.5, pad=4)
    own, scale, right = panel.own, panel.scale, axes.get_xlim()[1]
    in_budget = [e for e in panel.report.entries if e.budgets]
    best = {scale.x(e): 100 * (e.accuracy or 0) for e in frontier(in_budget)}
    if best:
        steps = [*best, right], [*best.values(), max(best.values())]
        axes.step(*steps, where="post", color=_BAND, linewidth=6, zorder=0)
    others = [e for e in in_budget if e not in own and scale.shows(e)]
    dots = [scale.x(e) for e in others], [100 * (e.accuracy or 0) for e in others]
    axes.plot(*dots, ".", color="0.78", markersize=4, zorder=1)
    for e in filter(scale.shows, panel.references):
        score, error = 100 * (e.accuracy or 0), 100 * e.error
        axes.axhline(score, color="black", linewidth=1, zorder=1)
        axes.axhspan(score - error, score + error, color="black", alpha=0.08, linewidth=0)
    for label, entries in by_label(filter(scale.shows, own)).items():
        look = style[label]
        x, scores = [scale.x(e) for e in entries], [100 * (e.accuracy or 0) for e in entries]
        kept = max(entries[-1].budgets)  # it is what it is in larger budgets, too
        axes.plot([x[-1], kept], [scores[-1]] * 2, ":", color=look.colour, linewidth=1, zorder=2)
        axes.errorbar(
            x,
            scores,
            yerr=[100 * e.error for e in entries],
            color=look.colour,
            linestyle=look.line,
            linewidth=1.2,
            elinewidth=1,
            **look.points,
        )


def _note(axes: Axes, panel: Panel, *, height: float) -> None:
    """Write at the lower edge what has no place in axes of that many inches."""
    for i, line in enumerate(reversed(panel.notes)):
        axes.text(
            0.02,
            (i + 0.25) * LINE / height,
            line,
            transform=axes.transAxes,
            fontsize=8.5,
            color="0.25",
            zorder=3,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
        )


def _names(panel: Panel, style: Mapping[str, Style]) -> list[Name]:
    found, scale = [], panel.scale
    for label, entries in by_label(filter(scale.shows, panel.own)).items():
        end = entries[-1]
        x = max(scale.x(end), *end.budgets)
        found.append(Name(label, x, 100 * (end.accuracy or 0), style[label]))
    for e in filter(scale.shows, panel.references):
        held = bytes_text(e.bytes, rounded=True)
        x = scale.right * (scale.right / scale.left) ** 0.06
        found.append(Name(f"{e.label}, {held}", x, 100 * (e.accuracy or 0), None))
    return found


def _caption(panels: Sequence[Panel]) -> str:
    """What is to be seen, as far as it is drawn."""
    said = [
        "Mean ± standard error over the seeds. Yellow band: the best with as few bytes or fewer."
    ]
    if any(panel.family is not None for panel in panels):
        said.append("Grey dots: the race's other methods.")
    said.append("Dotted: the budgets, and larger ones in which a method stays as it is.")
    drawn = {e.label for panel in panels for e in panel.references if panel.scale.shows(e)}
    if drawn:
        said.append(f"Black line, grey band: {', '.join(sorted(drawn))}, whatever it takes.")
    if any(panel.notes for panel in panels):
        said.append("At the lower edge: what is far below (↓) or diverged.")
    return " ".join(said)
