"""Rows of the study "chunk-error" as picture and as tables."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from rich import box
from rich.table import Table

from sgc.results import Result
from studies.figures.palette import BLUE, GREEN, ORANGE, PURPLE, VERMILION

__all__ = ["figure", "pooled", "table", "totals"]

_STYLES = (
    (VERMILION, "o", "-"),
    (BLUE, "s", "--"),
    (GREEN, "^", "-"),
    (PURPLE, "D", "--"),
    (ORANGE, "v", "-"),
)
_APART = 1.08  # factor between the c of curves, some of which coincide; the first at c itself
_PRINTED = "the paper's bound for the curve of this colour, where the mean breaks it"
_PAPER = "contiguous"  # the paper's chunks, which the others are held against
_TITLES = {
    "hot-chunk": "hot rows: one hot chunk",
    "hot-column": "hot columns",
    "plateau": "plateau: the worst case",
    "clustered": "log-normal, clustered in rows",
    "laplace": "Laplace, independent",
    "student-t": "Student-t (ν = 3), independent",
    "uniform": "uniform, independent",
    "captured": "captured from MiniLM",
}
_ORDER = ("printed", "corrected", "sharp", "repaired", "contraction", "padded")
Setting = tuple[str, int, int, int]


def pooled(rows: Sequence[Result], *, law: str, chunker: str, setting: Setting) -> list[Result]:
    """Rows of one curve by their number of chunks, those of several seeds made one.

    Means and quantiles are averaged over seeds, counts are added up.
    """
    own = [r for r in rows if r.config["chunker"] == chunker and _setting(r) == setting]
    found = []
    for c in sorted({r.config["chunks"] for r in own if r.config["law"] == law}):
        same = [r for r in own if r.config["chunks"] == c]
        metrics = _merged([r.metrics for r in same])
        found.append(replace(same[0], metrics=metrics))
    return found


def figure(rows: Sequence[Result]) -> Figure:
    """Relative error against c: a panel a law, a curve a chunker, at the law's first setting."""
    shown = _shown(rows)
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    picture = Figure(figsize=(3.1 * across + 0.5, 2.8 * down + 1.1), dpi=140, layout="constrained")
    panels = picture.subplots(down, across, sharey=True, squeeze=False)
    styles = _styles(rows)
    for axes, (law, setting) in zip(panels.flat, shown.items(), strict=False):
        _panel(axes, rows, law, setting, styles)
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("error  ‖G̃′ − G̃‖² / ‖G̃‖²", fontsize=12)
    for axes in panels.flat[max(0, len(shown) - across) : len(shown)]:
        axes.set_xlabel("number of chunks c", fontsize=12)
    handles = [
        Line2D([], [], color=colour, marker=marker, ls=line, label=name)
        for name, (colour, marker, line) in styles.items()
    ]
    handles += [
        Line2D([], [], color="black", lw=2, label="corrected bound, 2(1 − 1/c)"),
        Line2D([], [], color="0.4", ls=":", lw=2.2, label=_PRINTED),
    ]
    picture.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=12)
    picture.suptitle(
        "Top s/c of each chunk (G̃′) against the top s of the whole gradient (G̃): mean over "
        "gradients,\nband from 5 to 95 % of them. Curves are moved to the right, as some coincide",
        fontsize=13,
    )
    return picture


def table(rows: Sequence[Result]) -> list[Table]:
    """Errors at the settings of the figure; how often each inequality was broken, by law; what the
    largest entries hold.
    """
    return [_errors(rows), _counts(rows), _shares(rows)]


def totals(rows: Sequence[Result]) -> dict[str, Any]:
    """Of these rows: ``cases``, ``points``, ``broken`` points (whose mean is above the printed
    bound), ``violations`` and ``tightest`` of each inequality, ``worst``: the row that is furthest
    above the printed bound.
    """
    names = list(rows[0].metrics["violations"])
    return {
        "cases": sum(r.metrics["cases"] for r in rows),
        "points": len(rows),
        "broken": sum(r.metrics["error_low"] > r.metrics["printed"] * (1 + 1e-12) for r in rows),
        "violations": {n: sum(r.metrics["violations"][n] for r in rows) for n in names},
        "tightest": {n: max(r.metrics["tightest"][n] or 0.0 for r in rows) for n in names},
        "worst": max(rows, key=lambda r: r.metrics["tightest"]["printed"] or 0.0),
    }


def _setting(row: Result) -> Setting:
    config = row.config
    return config["law"], config["rows"], config["columns"], config["sparsity"]


def _shown(rows: Sequence[Result]) -> dict[str, Setting]:
    """The first setting of each law."""
    found: dict[str, Setting] = {}
    for row in rows:
        found.setdefault(row.config["law"], _setting(row))
    return found


def _styles(rows: Sequence[Result]) -> dict[str, tuple[str, str, str]]:
    names = dict.fromkeys(r.config["chunker"] for r in rows)
    return dict(zip(names, itertools.cycle(_STYLES), strict=False))


def _merged(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows of equal points."""
    merged: dict[str, Any] = {}
    for key, value in metrics[0].items():
        values = [m[key] for m in metrics]
        if isinstance(value, str):  # inputs
            merged[key] = value
        elif isinstance(value, dict):
            merged[key] = _merged(values)
        else:
            present = [v for v in values if v is not None]
            merged[key] = (
                sum(values) if isinstance(value, int) else float(np.mean(present or [0.0]))
            )
    return merged


def _panel(
    axes: Axes,
    rows: Sequence[Result],
    law: str,
    setting: Setting,
    styles: dict[str, tuple[str, str, str]],
) -> None:
    most = 2
    for place, (chunker, (colour, marker, line)) in enumerate(styles.items()):
        curve = pooled(rows, law=law, chunker=chunker, setting=setting)
        if not curve:
            continue
        c = [r.config["chunks"] for r in curve]
        error = [r.metrics["error"] for r in curve]
        most = max(most, *c)
        axes.plot(
            [x * _APART**place for x in c],
            [e["mean"] for e in error],
            color=colour,
            marker=marker,
            ls=line,
            lw=1.7,
            markersize=6,
            zorder=3 + place,
        )
        axes.fill_between(
            c, [e["q05"] for e in error], [e["q95"] for e in error], color=colour, alpha=0.15, lw=0
        )
        if totals(curve)["broken"]:
            printed = [r.metrics["printed"] for r in curve]
            axes.plot(c, printed, color=colour, ls=":", lw=2.2, zorder=9)
    chunks = np.geomspace(2, most, 60)
    axes.plot(chunks, 2 * (1 - 1 / chunks), color="black", lw=2, zorder=2)
    axes.set_xscale("log", base=2)
    ticks = [2**i for i in range(1, int(np.log2(most)) + 1)]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.05, 2.08)  # markers at 0 stay whole
    axes.tick_params(labelsize=11)
    axes.grid(alpha=0.3)
    _, down, across, s = setting
    axes.set_title(f"{_TITLES.get(law, law)}\n{down} × {across}, s = {s}", fontsize=11.5)


def _plain(caption: str) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption)
    made.caption_justify = "left"
    return made


def _errors(rows: Sequence[Result]) -> Table:
    made = _plain(
        "Mean of ‖G̃'−G̃‖²/‖G̃‖² ± standard error over gradients, where it is 0.005 or more; won "
        "back: of the contiguous chunks' error at the largest c. kept: ‖G̃'‖²/‖G̃‖² there. "
        "unknown: selected entries a gradient that were not captured there; they count as large "
        "as they can be."
    )
    every = sorted({r.config["chunks"] for r in rows})
    for name in ("law", "s", "chunker"):
        made.add_column(name, no_wrap=True)
    for name in (*(f"c={c}" for c in every), "won back", "kept", "unknown"):
        made.add_column(name, justify="right", no_wrap=True)
    settings = dict.fromkeys(_setting(r) for r in rows)
    shown = [*_shown(rows).values()]
    shown += [one for one in settings if one[0] == "captured" and one not in shown]
    for setting in shown:
        law, _, _, s = setting
        curves = {
            name: pooled(rows, law=law, chunker=name, setting=setting) for name in _styles(rows)
        }
        for name, curve in curves.items():
            if not curve:
                continue
            cells = {r.config["chunks"]: _mean(r) for r in curve}
            last = curve[-1].metrics
            made.add_row(
                *(law, str(s), name),
                *(cells.get(c, "") for c in every),
                _won_back(curve, curves.get(_PAPER, [])),
                f"{last['kept']['mean']:.3f}",
                f"{last['unknown']:.0f}" if law == "captured" else "",
            )
        made.add_section()
    return made


def _mean(row: Result) -> str:
    error = row.metrics["error"]
    uncertain = error["sd"] / row.metrics["cases"] ** 0.5
    if uncertain < 0.005:
        return f"{error['mean']:.3f}"
    return f"{error['mean']:.2f}±" + f"{uncertain:.2f}".removeprefix("0")


def _shares(rows: Sequence[Result]) -> Table:
    made = _plain(
        "Share of ‖G‖² on the s largest entries: mean over gradients, 5 and 95 % of them."
    )
    for name in ("law", "size", "s"):
        made.add_column(name, no_wrap=True)
    for name in ("‖G̃‖²/‖G‖²", "5 %", "95 %"):
        made.add_column(name, justify="right", no_wrap=True)
    first = {_setting(row): row for row in reversed(rows) if "share" in row.metrics}
    for (law, down, across, s), row in reversed(first.items()):
        found = (f"{row.metrics['share'][key]:.3f}" for key in ("mean", "q05", "q95"))
        made.add_row(law, f"{down} × {across}", str(s), *found)
    return made


def _won_back(curve: Sequence[Result], paper: Sequence[Result]) -> str:
    own = {r.config["chunks"]: r.metrics["error"]["mean"] for r in curve}
    base = {r.config["chunks"]: r.metrics["error"]["mean"] for r in paper}
    c = max(own)
    if curve is paper or not base.get(c):
        return "–"
    return f"{round(100 * (1 - own[c] / base[c]))} %"  # not −0 %


def _counts(rows: Sequence[Result]) -> Table:
    made = _plain(
        "Cases above each bound, all settings and chunkers; in brackets the largest left-hand "
        "side in units of the right-hand one. printed: 2(1−s/d)‖G̃'‖²; its means: points whose "
        "mean error is above the mean bound. corrected: 2(1−1/c)‖G̃‖². sharp: "
        "2(1−max(1/c, s_c/⌈d/c⌉))‖G̃‖². repaired: max(ρ−1, 2−2/ρ)‖G̃'‖², ρ = min(c, ⌈d/c⌉/s_c). "
        "contraction: ‖G−G̃'‖² ≤ (1−s/d)‖G‖². padded: the same with d = c⌈d/c⌉."
    )
    names = sorted(rows[0].metrics["violations"], key=_ORDER.index)
    for name in ("law", "cases", "printed's means", *names):
        made.add_column(name, justify="left" if name == "law" else "right", no_wrap=True)
    laws = dict.fromkeys(r.config["law"] for r in rows)
    lines = [(law, [r for r in rows if r.config["law"] == law]) for law in laws]
    for law, own in [*lines, ("all", list(rows))]:
        if law == "all":
            made.add_section()
        sums = totals(own)
        made.add_row(
            law,
            f"{sums['cases']:,}",
            f"{sums['broken']} of {sums['points']}",
            *(f"{sums['violations'][n]:,} ({sums['tightest'][n]:.3g})" for n in names),
        )
    worst = totals(rows)["worst"]
    made.title = (
        f"Counterexample to the printed bound: {worst.config['law']}, {worst.config['chunker']}, "
        f"c={worst.config['chunks']}, s={worst.config['sparsity']}: error "
        f"{worst.metrics['error']['mean']:.3g}‖G̃‖², "
        f"printed bound {worst.metrics['printed']:.2g}‖G̃‖²"
    )
    return made
