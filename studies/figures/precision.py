"""Rows of the study "precision" as picture and table."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from sgc.results import Result
from studies.figures.intervals import wilson
from studies.figures.palette import COLOURS, MARKERS

__all__ = ["STAGES", "counts", "figure", "table"]

_STYLES = tuple(zip(COLOURS, MARKERS, ("-", "--", "-.", ":", "-", "--", "-."), strict=True))
#: What is computed in the precision; the rest is float32.
STAGES = {
    "measurement": "y = A x",
    "correlation": "Aᵀ r in the solver",
    "both": "both products; the solver fits with float32 A",
    "stored": "both products, and A itself is kept in the format",
}
#: The same in a legend.
_SAID = {
    "measurement": "measurement A x rounded",
    "correlation": "correlation Aᵀ r rounded",
    "both": "both products rounded",
    "stored": "both, and A itself stored so",
}
_LAWS = {"gaussian": "Gaussian", "signs": "±1", "power-law": "±1/rank"}
_BOTH = "both"
_PLAIN = {"scale": 1.0, "ensemble": "gaussian"}
_REFERENCE = {**_PLAIN, "solver": "omp"}
#: Explicit bits of the mantissa, where a format has its place on the axis.
_BITS = {"float32": 23, "tf32": 10, "bf16": 7, "5-bit": 5, "4-bit": 4, "3-bit": 3}


def counts(rows: Sequence[Result], stage: str) -> tuple[int, int]:
    """Of the signals whose support float64 finds, those of which this stage finds it too."""
    kept = sum(row.metrics["stages"][stage]["kept"] for row in rows)
    return kept, sum(row.metrics["float64"]["found"] for row in rows)


def figure(rows: Sequence[Result]) -> Figure:
    """Supports kept by stage and by law, error of the values, and supports kept by solver."""
    sizes = list(dict.fromkeys(_size(row) for row in rows))
    picture = Figure(figsize=(max(9, 4.7 * len(sizes)), 14.5), dpi=130, layout="constrained")
    panels = picture.subplots(4, len(sizes), squeeze=False)
    for column, (d, k, s) in enumerate(sizes):
        own = [row for row in rows if _size(row) == (d, k, s)]
        omp = _where(own, **_REFERENCE)
        gaussian = _where(omp, law="gaussian")
        by_stage, by_law, errors, by_solver = panels[:, column]
        where = f"d = {d}, k = {k}, s = {s}"
        by_stage.set_title(
            f"{where}\n\nsupports kept, by what is rounded\n(omp, Gaussian nonzeros)"
        )
        for i, stage in enumerate(STAGES):
            _kept(by_stage, gaussian, stage, i, label=_SAID[stage])
            _errors(errors, gaussian, stage, i)
        by_law.set_title("supports kept, by law of the nonzeros\n(omp, both products rounded)")
        for i, law in enumerate(dict.fromkeys(row.config["law"] for row in omp)):
            _kept(by_law, _where(omp, law=law), _BOTH, i, label=_LAWS.get(law, law))
        errors.set_title("error where kept, by what is rounded\n(omp, Gaussian nonzeros)")
        errors.set(yscale="log", ylabel="median ‖x̂ − x‖/‖x‖")
        _solvers(by_solver, _where(own, law="gaussian", precision="bf16", **_PLAIN))
        by_solver.set_title("supports kept with bf16, by solver\n(Gaussian nonzeros)")
        for axes in (by_stage, by_law, errors):
            _bits_axis(axes)
        for axes in (by_stage, by_law):
            axes.set(ylim=(-4, 104), ylabel="supports kept, %")
        for axes in panels[:, column]:
            axes.title.set_fontsize(10.5)
            if axes.get_legend_handles_labels()[0]:
                low = {"loc": "lower left", "bbox_to_anchor": (0, 0)}
                free = {"loc": "lower right", "bbox_to_anchor": (1, 0.1)}  # above what is exact
                place: dict[str, Any] = free if axes is errors else low
                axes.legend(framealpha=0.8, edgecolor="none", fontsize=9, **place)
    picture.suptitle(
        "Of the supports that float64 finds, those that a rounded solver finds, too (kept), and\n"
        "the error of the values where they are kept (bars: 95 % intervals, of errors: standard "
        "error)",
        fontsize=12,
    )
    return picture


def table(rows: Sequence[Result]) -> Table:
    """A line for each point: what float64 finds and what each stage keeps of it."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.caption_justify = "left"
    shown.caption = (
        "found: supports that float64 finds, %. Then, of those, the share that is found with this "
        "stage in lower precision, too (%). Of both: same, signals whose support is float64's, "
        "right or wrong (%); overlap, mean share of float64's support (%); error, median "
        "‖x̂ − x‖/‖x‖ where kept. "
        + "; ".join(f"{name}: {what}" for name, what in STAGES.items())
        + "."
    )
    heads = ("d, k, s", "solver", "format", "coefficients", "A", "found", "A x", "Aᵀ r")
    for head in (*heads, "both", "stored", "same", "overlap", "error"):
        shown.add_column(head, no_wrap=True)
    names = ("d", "k", "sparsity", "solver", "precision", "law", "scale", "ensemble")
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for row in rows:
        groups.setdefault(tuple(row.config[name] for name in names), []).append(row)
    for (d, k, s, solver, precision, law, scale, ensemble), own in groups.items():
        n = sum(row.config["signals"] for row in own)
        size, signals = f"{d}, {k}, {s}", law if scale == 1 else f"{law} × {scale:g}"
        line = [size, solver, precision, signals, ensemble]
        line.append(f"{100 * counts(own, _BOTH)[1] / n:.1f}")
        for stage in STAGES:
            kept, found = counts(own, stage)
            line.append(f"{100 * kept / found:.1f}" if found else "–")
        line.append(f"{100 * sum(_of(own, _BOTH, 'same')) / n:.1f}")
        line.append(f"{100 * np.mean(_of(own, _BOTH, 'overlap')):.1f}")
        errors = _of(own, _BOTH, "error_kept")
        shown.add_row(*line, f"{np.mean(errors):.1e}" if errors else "–")
    return shown


def _kept(axes: Axes, rows: Sequence[Result], stage: str, place: int, *, label: str) -> None:
    colour, marker, line = _STYLES[place % len(_STYLES)]
    points = []
    for precision, bits in _BITS.items():
        kept, found = counts(_where(rows, precision=precision), stage)
        if found:
            points.append((bits * 1.025 ** (place - 1.5), *_percent(kept, found)))
    if points:
        bits, share, below, above = np.array(points).T
        axes.errorbar(
            bits,
            share,
            [below, above],
            color=colour,
            marker=marker,
            ls=line,
            capsize=2,
            label=label,
        )


def _errors(axes: Axes, rows: Sequence[Result], stage: str, place: int) -> None:
    colour, marker, line = _STYLES[place % len(_STYLES)]
    points = []
    for precision, bits in _BITS.items():
        found = _of(_where(rows, precision=precision), stage, "error_kept")
        if found:
            points.append((bits * 1.025 ** (place - 1.5), np.mean(found), _standard_error(found)))
    if points:
        bits, error, spread = np.array(points).T
        label = _SAID[stage]
        axes.errorbar(
            bits, error, spread, color=colour, marker=marker, ls=line, capsize=2, label=label
        )


def _solvers(axes: Axes, rows: Sequence[Result]) -> None:
    solvers = list(dict.fromkeys(row.config["solver"] for row in rows))
    labelled = False
    for place, solver in enumerate(solvers):
        own = _where(rows, solver=solver)
        if not counts(own, _BOTH)[1]:
            axes.text(2, place, "float64 finds none", fontsize=9, va="center")
            continue
        for i, stage in enumerate(STAGES):
            share, below, above = _percent(*counts(own, stage))
            axes.errorbar(
                [share],
                [place + 0.2 * (i - 1.5)],
                xerr=[[below], [above]],
                color=_STYLES[i][0],
                marker=_STYLES[i][1],
                capsize=2,
                ls="none",
                label=None if labelled else _SAID[stage],
            )
        labelled = True
    axes.set_yticks(range(len(solvers)), [textwrap.fill(name, 12) for name in solvers])
    axes.set(xlim=(-2, 103), xlabel="supports kept, %", ylim=(len(solvers) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)


def _bits_axis(axes: Axes) -> None:
    labels = {name: name.replace("-bit", "") for name in _BITS}
    axes.set_xscale("log")
    axes.set_xlim(26, 2.6)  # less precision to the right
    axes.set_xticks(
        list(_BITS.values()),
        [f"{labels[n]}\n{b}" if labels[n] == n else f"{b}" for n, b in _BITS.items()],
    )
    axes.minorticks_off()
    axes.set_xlabel("bits of the mantissa")
    axes.grid(alpha=0.3)


def _percent(hits: int, n: int) -> tuple[float, float, float]:
    low, high = wilson(hits, n)
    share = hits / n
    return 100 * share, max(0.0, 100 * (share - low)), max(0.0, 100 * (high - share))


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _of(rows: Sequence[Result], stage: str, what: str) -> list[float]:
    found = [row.metrics["stages"][stage][what] for row in rows]
    return [x for x in found if x is not None]


def _size(row: Result) -> tuple[int, int, int]:
    return row.config["d"], row.config["k"], row.config["sparsity"]


def _where(rows: Sequence[Result], **fields: object) -> list[Result]:
    return [row for row in rows if all(row.config[x] == value for x, value in fields.items())]
