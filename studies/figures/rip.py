"""Rows of the study "rip" as picture and table, beside what theory says."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich import box
from rich.table import Table

from sgc.results import Result
from studies.figures.intervals import wilson
from studies.figures.palette import COLOURS, MARKERS
from studies.measures.rip_theory import THEOREMS, Theorem, typical_delta, union_bound, welch

__all__ = ["figure", "table"]


def figure(rows: Sequence[Result]) -> Figure:
    """δ between its bounds, theorem by theorem, and OMP's own record, by κ; a column a size.

    Sizes whose δ is known exactly are left to the table.
    """
    large = [row for row in rows if _exact(row) is None] or list(rows)
    sizes = list(dict.fromkeys(_size(row) for row in large))
    ensembles = list(dict.fromkeys(row.config["ensemble"] for row in large))
    styles = {name: _STYLES[i % len(_STYLES)] for i, name in enumerate(ensembles)}
    count = len(THEOREMS) + 1
    picture = Figure(figsize=(max(9, 3.2 * len(sizes) + 0.5), 2.9 * count + 1.7), dpi=140)
    picture.set_layout_engine("constrained")
    panels = picture.subplots(count, len(sizes), sharex="col", squeeze=False)
    for column, (d, s) in enumerate(sizes):
        own = [row for row in large if _size(row) == (d, s)]
        shown: dict[tuple[int, float], str] = {}
        for axes, theorem in zip(panels[:, column], THEOREMS, strict=False):
            asked = theorem.order(s), round(theorem.limit(s), 9)
            if asked in shown:
                note = (
                    f"{theorem.name} at s = {s}:\nδ of order {asked[0]} below {asked[1]:.2f}, too"
                )
                text = f"{note}, as\nfor {shown[asked]} above"
                axes.text(0.5, 0.5, text, transform=axes.transAxes, **_MIDDLE)
                axes.set_axis_off()
                continue
            shown[asked] = theorem.name
            _bounds(axes, own, theorem, styles)
            axes.set_ylabel(f"δ, order {theorem.order(s)}")
        _record(panels[-1, column], own, styles)
        panels[0, column].set_title(f"d = {d}, s = {s}")
        panels[-1, column].set_xlabel("κ = k/s")
    panels[-1, 0].set_ylabel("supports that OMP finds, %")
    _legend(picture, styles)
    picture.suptitle(
        "Restricted isometry constants of A with unit-norm columns, and OMP on the same A"
    )
    return picture


def table(rows: Sequence[Result]) -> list[Table]:
    """Means over seeds, a table for each theorem and a line for each size, κ and ensemble."""
    return [_table(rows, theorem) for theorem in THEOREMS]


def _table(rows: Sequence[Result], theorem: Theorem) -> Table:
    orders = f"order {'s + 1' if theorem.order(2) == 3 else f'{theorem.order(1)}s'}"
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.title = f"δ of A with unit-norm columns, and what {theorem.name} needs ({theorem.source})"
    shown.caption_justify = "left"
    shown.caption = (
        f"δ of {orders}. typical: mean over random supports. ≥: what δ is at least, by random "
        "supports, by bad ones that were grown, and whatever scale A is given. ≤: what it is at "
        "most (Gershgorin). exact: by all supports. given: at least, with columns as they are. "
        "union: at most, of Gaussian A (95 %). μ ≥: Welch's bound. OMP: supports it finds, %."
    )
    laws = _laws(rows)
    lower = ("≥ random", "≥ grown", "≥ scaled")
    heads = ("d, s", "κ", "ensemble", "needs <", "typical", *lower, "≤", "exact", "given ≥")
    for head in (*heads, "union ≤", "μ", "μ ≥", *(f"OMP {law}" for law in laws)):
        shown.add_column(head, min_width=10 if head == "ensemble" else None)
    for (d, s, k, ensemble), own in _groups(rows, "d", "sparsity", "k", "ensemble").items():
        order = theorem.order(s)
        line = [f"{d}, {s}", f"{k / s:g}", ensemble, f"{theorem.limit(s):.2f}"]
        line += [f"{_mean(own, _of(order, x)):.2f}" for x in ("typical", *_LOWER, "upper")]
        exact = _exact(own[0], order)
        line.append("" if exact is None else f"{_mean(own, _of(order, 'exact')):.2f}")
        line.append(f"{_mean(own, _worst(order, 'given')):.2f}")
        line.append(f"{union_bound(d, k, order):.1f}")
        line += [f"{_mean(own, _coherence):.3f}", f"{welch(d, k):.3f}"]
        line += [f"{100 * hits / n:.1f}" for hits, n in map(_tally(own), laws)]
        shown.add_row(*line)
    return shown


_LOWER = ("random", "grown", "scaled")
_STYLES = tuple(zip(COLOURS, MARKERS, strict=True))
_LIMIT = "#B00020"
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 11}
_THEORY = {
    "one Gaussian support, $(1 + \\sqrt{m/k})^2 - 1$": ("-", 1.2),
    "Gaussian union bound, 95 %": (":", 1.6),
    "least that coherence could prove (Welch)": ("-.", 1.0),
}


def _bounds(
    axes: Axes, rows: Sequence[Result], theorem: Theorem, styles: dict[str, tuple[str, str]]
) -> None:
    d, s = _size(rows[0])
    order, limit = theorem.order(s), theorem.limit(s)
    for (name,), own in _groups(rows, "ensemble").items():
        colour, marker = styles[name]
        kappas, typical = _curve(own, _of(order, "typical"))
        _, lower = _curve(own, _worst(order))
        _, upper = _curve(own, _of(order, "upper"))
        kappas = kappas * (1 + 0.012 * (list(styles).index(name) - 1))  # beside each other
        axes.errorbar(
            kappas, lower[0], lower[1], color=colour, marker=marker, ms=5, lw=1.2, capsize=2
        )
        axes.plot(kappas, typical[0], color=colour, marker="x", ls="none", ms=5)
        axes.plot(kappas, upper[0], color=colour, marker=marker, ms=5, mfc="none", lw=0.8, ls="--")
    measured = [row.config["k"] for row in rows]
    k = np.geomspace(min(measured), max(measured), 60)
    curves = (
        [typical_delta(order, x) for x in k],
        [union_bound(d, x, order) for x in k],
        [(order - 1) * welch(d, x) for x in k],
    )
    for values, (line, width) in zip(curves, _THEORY.values(), strict=True):
        axes.plot(k / s, values, color="0.35", ls=line, lw=width)
    axes.axhline(limit, color=_LIMIT, lw=2)
    axes.axhspan(1e-3, limit, color=_LIMIT, alpha=0.07, lw=0)
    text = f"{theorem.name} needs δ < {limit:.2f}"
    axes.text(0.03, 0.02, text, transform=axes.transAxes, color=_LIMIT, fontsize=10, va="bottom")
    axes.set(xscale="log", yscale="log", ylim=(min(limit, 0.27) / 2.6, None))
    axes.set_xticks(ticks := sorted({row.config["k"] / s for row in rows}))
    axes.set_xticklabels([f"{x:g}" for x in ticks])
    axes.minorticks_off()
    axes.set_yticks([t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if t > axes.get_ylim()[0]])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)


def _record(axes: Axes, rows: Sequence[Result], styles: dict[str, tuple[str, str]]) -> None:
    for (name,), own in _groups(rows, "ensemble").items():
        colour, marker = styles[name]
        for law, filled in zip(_laws(own), (True, False), strict=False):
            points = []
            for (k,), at in _groups(own, "k").items():
                hits, n = _tally(at)(law)
                low, high = wilson(hits, n)
                rate = hits / n
                points.append((k / at[0].config["sparsity"], rate, rate - low, high - rate))
            kappas, rate, below, above = 100 * np.array(points).T
            kappas = kappas / 100 * (1 + 0.012 * (list(styles).index(name) - 1))
            axes.errorbar(
                kappas,
                rate,
                np.clip([below, above], 0, None),
                color=colour,
                marker=marker,
                ms=5,
                capsize=2,
                lw=1.2,
                ls="-" if filled else "--",
                mfc=colour if filled else "none",
            )
    axes.set_ylim(-4, 104)
    axes.grid(alpha=0.3)


def _legend(picture: Figure, styles: dict[str, tuple[str, str]]) -> None:
    def line(label: str, **style: object) -> Line2D:
        return Line2D([], [], **{"color": "0.2", "label": label, **style})  # type: ignore[arg-type]

    handles = [
        line(name, color=colour, marker=marker, lw=0, ms=7)
        for name, (colour, marker) in styles.items()
    ]
    handles += [
        line("δ at least: worst support seen (± SE)", marker="o"),
        line("δ at most: Gershgorin", marker="o", mfc="none", ls="--", lw=0.8),
        line("random supports, mean", marker="x", lw=0),
        line("limit of the theorem", color=_LIMIT, lw=2),
    ]
    handles += [line(name, ls=ls, lw=lw, color="0.35") for name, (ls, lw) in _THEORY.items()]
    handles += [
        line("OMP, Gaussian coefficients (95 %)", marker="o"),
        line("OMP, ±1 coefficients (95 %)", marker="o", mfc="none", ls="--"),
    ]
    picture.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _size(row: Result) -> tuple[int, int]:
    return row.config["d"], row.config["sparsity"]


def _coherence(row: Result) -> float:
    return float(row.metrics["coherence"])


def _of(order: int, what: str) -> Callable[[Result], float]:
    return lambda row: float(row.metrics["unit"][str(order)][what])


def _worst(order: int, columns: str = "unit") -> Callable[[Result], float]:
    """The better of the lower bounds."""
    return lambda row: max(row.metrics[columns][str(order)][x] for x in _LOWER[:2])


def _exact(row: Result, order: int | None = None) -> float | None:
    found: float | None = row.metrics["unit"][str(order or row.config["sparsity"] + 1)]["exact"]
    return found


def _laws(rows: Sequence[Result]) -> list[str]:
    return list(rows[0].metrics["omp"])


def _tally(rows: Sequence[Result]) -> Callable[[str], tuple[int, int]]:
    n = sum(row.config["signals"] for row in rows)
    return lambda law: (sum(row.metrics["omp"][law] for row in rows), n)


def _groups(rows: Sequence[Result], *names: str) -> dict[tuple, list[Result]]:
    found: dict[tuple, list[Result]] = {}
    for row in rows:
        found.setdefault(tuple(row.config[name] for name in names), []).append(row)
    return found


def _mean(rows: Sequence[Result], get: Callable[[Result], float]) -> float:
    return float(np.mean([get(row) for row in rows]))


def _curve(
    rows: Sequence[Result], get: Callable[[Result], float]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """κ, and mean and standard error over seeds (0 of a single one)."""
    groups = {k / own[0].config["sparsity"]: own for (k,), own in _groups(rows, "k").items()}
    values = [[get(row) for row in groups[kappa]] for kappa in sorted(groups)]
    error = [np.std(v, ddof=1) / len(v) ** 0.5 if len(v) > 1 else 0.0 for v in values]
    return np.array(sorted(groups)), (np.array([np.mean(v) for v in values]), np.array(error))
