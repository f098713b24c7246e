"""Rows of the study "memory" as picture and tables."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from sgc.results import Result
from studies.figures.palette import BLACK, BLUE, GREEN, VERMILION

__all__ = [
    "LARGEST_A",
    "LARGEST_GRAM",
    "break_even",
    "by_shape",
    "figure",
    "label",
    "table",
    "total",
]

_BYTES = 4
#: Bytes of a matrix A, of a Gram matrix: methods with larger ones are left out.
LARGEST_A, LARGEST_GRAM = 2**29, 2**28
#: What is drawn: label, marker, colour, filled.
_MARKS = {
    "table_1": ("Table 1 of the paper", "D", BLACK, False),
    "state": ("state: moments, bases, counters", "o", BLUE, True),
    "held": ("+ shared: A, the solver's copy and Gram matrix", "s", VERMILION, True),
    "peak": ("+ peak scratch of a step", "^", GREEN, False),
}
_SHORT = {
    "recovery.precompute_gram": "gram",
    "projection": "A",
    "recovery": "solver",
    "sparsity": "s",
    "chunks": "c",
    "rank": "r",
}
Shape = tuple[int, int, int]


def label(row: Result) -> str:
    """A method's name in the picture."""
    if row.config["adapter_rank"]:
        return f"LoRA r={row.config['adapter_rank']}"
    name, _, tail = str(row.config["spec"]).partition(":")
    for long, short in _SHORT.items():
        tail = tail.replace(long, short)
    return f"{name} {tail.replace(',', ' ')}".strip()


def by_shape(rows: Sequence[Result]) -> dict[Shape, list[Result]]:
    """Rows of equal matrices together."""
    found: dict[Shape, list[Result]] = {}
    for row in rows:
        shape = tuple(int(row.config[key]) for key in ("rows", "columns", "count"))
        found.setdefault((shape[0], shape[1], shape[2]), []).append(row)
    return found


def total(row: Result) -> int:
    """Bytes held between two steps."""
    return int(row.metrics["state"] + row.metrics["shared"])


def break_even(row: Result, reference: Result) -> float | None:
    """Matrices of this size from which on a method holds less than the reference in all.

    0 where it always does, None where it never does: the shared bytes are paid once, the state
    once a matrix.
    """
    of = [(r.metrics["state"] / r.config["count"], r.metrics["shared"]) for r in (row, reference)]
    (state, shared), (other_state, other_shared) = of
    if shared <= other_shared:
        return 0 if state < other_state else None
    return None if state >= other_state else (shared - other_shared) / (other_state - state)


def _values(row: Result) -> dict[str, float | None]:
    metrics = row.metrics
    numbers = metrics["table_1"]
    return {
        "table_1": None if numbers is None else numbers * _BYTES,
        "state": metrics["state"],
        "held": total(row),
        "peak": total(row) + metrics["scratch"],
    }


def figure(rows: Sequence[Result]) -> Figure:
    """A panel for each shape, a line for each method."""
    shapes = by_shape(rows)
    names = _order(rows)
    plain = len({label(row) for row in rows if ":" not in row.config["spec"]})
    picture = Figure(
        figsize=(5.2 + 3.6 * len(shapes), 2.2 + 0.25 * len(names)), dpi=130, layout="constrained"
    )
    panels = picture.subplots(1, len(shapes), sharey=True, squeeze=False)[0]
    for axes, (shape, own) in zip(panels, shapes.items(), strict=True):
        _panel(axes, shape, own, names, plain)
    panels[0].set_yticks(range(len(names)), names, fontsize=9.5)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    devices = ", ".join(sorted({str(row.config["device"]) for row in rows}))
    picture.suptitle(
        "Optimizer memory, counted after two steps, as a share of AdamW's two moments\n"
        f"(float32, log scale; scratch as on {devices}). Above the rule: methods as they come, "
        "below: with options; each by what it holds, the most first",
        fontsize=12,
    )
    return picture


def _order(rows: Sequence[Result]) -> list[str]:
    """Methods by what they hold a matrix, the most first; those with options after the others."""
    held: dict[str, list[float]] = {}
    plain: dict[str, bool] = {}
    for row in rows:
        adamw = 2 * _BYTES * row.config["rows"] * row.config["columns"] * row.config["count"]
        held.setdefault(label(row), []).append(total(row) / adamw)
        plain[label(row)] = ":" not in row.config["spec"]
    return sorted(held, key=lambda name: (not plain[name], -max(held[name])))


def _panel(
    axes: Axes, shape: Shape, rows: Sequence[Result], names: Sequence[str], plain: int
) -> None:
    height, width, count = shape
    adamw = 2 * _BYTES * height * width * count
    axes.set_xscale("log")
    places = {name: i for i, name in enumerate(names)}
    for key, (text, marker, colour, filled) in _MARKS.items():
        points = [
            (100 * value / adamw, places[label(row)])
            for row in rows
            if (value := _values(row)[key]) is not None
        ]
        size = {"table_1": 62, "held": 26, "state": 34, "peak": 34}[key]
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            s=size,
            marker=marker,
            facecolors=colour if filled else "none",
            edgecolors=colour,
            linewidths=1.1,
            label=text,
            zorder=4 if key == "table_1" else 3,
        )
    here = {label(row) for row in rows}
    middle = 10 ** (sum(map(math.log10, axes.get_xlim())) / 2)
    for name in [name for name in names if name not in here]:
        why = f"A > {LARGEST_A >> 20} MiB"
        if "gram=" in name:
            why = f"the solver's own choice, or Gram matrix > {LARGEST_GRAM >> 20} MiB"
        axes.text(middle, places[name], f"not run: {why}", fontsize=8, ha="center", va="center")
    for row in rows:
        values = [value for value in _values(row).values() if value]
        ends = [100 * min(values) / adamw, 100 * max(values) / adamw]
        axes.plot(ends, [places[label(row)]] * 2, color="0.8", lw=1, zorder=1)
    if 0 < plain < len(names):
        axes.axhline(plain - 0.5, color="0.3", lw=0.8)
    axes.axvline(100, color="0.4", lw=0.8, ls="--")
    axes.set_title(f"{count} matrices of {height}×{width}", fontsize=11)
    axes.set_xlabel("bytes, % of AdamW's moments", fontsize=11)
    axes.grid(axis="x", alpha=0.3)


def table(rows: Sequence[Result]) -> list[Table]:
    """One a shape, bytes a matrix for the state and in all for what is shared."""
    return [_table(shape, own) for shape, own in by_shape(rows).items()]


def _table(shape: Shape, rows: Sequence[Result]) -> Table:
    height, width, count = shape
    equal = sum(_as_predicted(row) for row in rows)
    made = Table(
        title=f"{count} matrices of {height}×{width}: predicted = counted for {equal} of "
        f"{len(rows)} methods",
        caption="moments, bases: a matrix. A, solver: once. held: all matrices together. "
        "/Table 1: held over what the paper counts. < GaLore: matrices of this size from which on "
        "less is held than by GaLore of rank 1. scratch: peak of a step, in gradients of a matrix.",
    )
    made.add_column("method", no_wrap=True)
    for name in ("moments", "bases", "A", "solver", "held", "% AdamW", "/Table 1", "< GaLore"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("scratch", justify="right", no_wrap=True)
    reference = next((r for r in rows if r.config["spec"] == "galore:rank=1"), None)
    for row in sorted(rows, key=lambda row: (":" in row.config["spec"], -total(row))):
        found = row.metrics
        each = [_size(found[key] / count) for key in ("moments", "bases")]
        once = [_size(found[key]) for key in ("projection", "solver")]
        numbers = found["table_1"]
        made.add_row(
            label(row).replace(" gram=", "\n  gram=")  # what the width of a pipe has room for
            + ("" if _as_predicted(row) else " (not as predicted)"),
            *each,
            *once,
            _size(total(row)),
            f"{100 * total(row) / (2 * count * found['gradient']):.3g}",
            "–" if numbers is None else f"{total(row) / (numbers * _BYTES):.3g}×",
            "–" if reference in (None, row) else _from(break_even(row, reference)),
            f"{found['scratch'] / found['gradient']:.2g} G",
        )
    return made


def _as_predicted(row: Result) -> bool:
    found = row.metrics
    return bool(
        found["state"] == found["predicted_state"] and found["shared"] == found["predicted_shared"]
    )


def _size(count: float) -> str:
    """Bytes, three digits."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def _from(matrices: float | None) -> str:
    if matrices is None:
        return "never"
    return "always" if matrices == 0 else f"{matrices:,.0f}"
