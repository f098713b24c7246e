"""Rows of the study "throughput" as picture and table."""

from collections.abc import Sequence
from dataclasses import asdict

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from sgc.results import Result
from studies.figures.bars import stacked_bars
from studies.measures.llama import LLAMA2_7B

__all__ = ["FULL", "PAPER", "TARGET", "TARGETED", "figure", "ratios", "table", "verdicts"]

FULL = "full"  # what all are compared with
PAPER = {FULL: 1.69, "lora": 1.51, "galore": 1.88, "mesgc": 7.52, "cesgc": 2.82}  # seconds
TARGET = 1.03  # × full: the most that an iteration with its share of a refresh should take
TARGETED = ("mesgc", "cesgc")


def ratios(row: Result) -> dict[str, float]:
    """Method → its iteration, with its share of a subspace refresh, in those of ``full``."""
    seconds = {one["method"]: one["amortised_s"] for one in row.metrics["methods"]}
    return {name: t / seconds[FULL] for name, t in seconds.items()}


def verdicts(row: Result) -> list[str]:
    """A line for each of :data:`TARGETED`: is it fast enough? None for other models than 7B."""
    if row.config["model"] != asdict(LLAMA2_7B):
        return []
    found = ratios(row)
    return [
        f"{name}: at most {TARGET} × full: {found[name]:.3f}, "
        + ("met" if found[name] <= TARGET else "not met")
        for name in TARGETED
        if name in found
    ]


def table(rows: Sequence[Result]) -> list[Table]:
    """Ours beside the paper's, a table a trial."""
    return [_table(row) for row in rows]


def _table(row: Result) -> Table:
    found = ratios(row)
    made = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    made.caption_justify = "left"
    explained = (
        "ms: median of an iteration (low–high), of its optimizer step, and of an iteration with "
        "its share of a subspace refresh. × full: ratio with that share. MB: what the optimizer "
        "keeps."
    )
    left_out = [f"{name} is left out: {why}" for name, why in row.metrics["left_out"].items()]
    made.caption = "\n".join([explained, *verdicts(row), *left_out])
    made.add_column("\nmethod", no_wrap=True)
    made.add_column("iteration\nms", justify="right")  # a narrow terminal puts the spread below
    ours, theirs = ("step\nms", "with\nrefresh", "\n× full"), ("paper\ns", "paper\n× full")
    for name in (*ours, *theirs, "\nMB", "peak\nGiB"):
        made.add_column(name, justify="right", no_wrap=True)
    for one in row.metrics["methods"]:
        name = one["method"]
        middle, low, high = (1e3 * one["iteration_s"][key] for key in ("median", "low", "high"))
        paper = PAPER.get(name)
        made.add_row(
            name,
            f"{middle:.1f} ({low:.1f}–{high:.1f})",
            f"{1e3 * one['optimizer_s']['median']:.1f}",
            f"{1e3 * one['amortised_s']:.1f}" if one["refresh_s"] is not None else "–",
            f"{found[name]:.3f}",
            f"{paper:.2f}" if paper else "–",
            f"{paper / PAPER[FULL]:.2f}" if paper else "–",
            f"{1e-6 * one['state_bytes']:,.2f}",
            f"{2**-30 * one['peak_bytes']:.1f}" if one["peak_bytes"] else "–",
        )
    return made


def figure(rows: Sequence[Result]) -> Figure:
    """Seconds of an iteration by method, split up; the paper's ratios to full as markers.

    A panel a trial.
    """
    bars = sum(len(row.metrics["methods"]) for row in rows)
    size = (8.5, 0.5 + len(rows) + 0.5 * bars)
    picture = Figure(figsize=size, dpi=150, layout="constrained")
    panels = picture.subplots(len(rows), squeeze=False)[:, 0]
    for axes, row in zip(panels, rows, strict=True):
        _panel(axes, row)
    labelled = panels[0].get_legend_handles_labels()
    picture.legend(*labelled, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return picture


def _panel(axes: Axes, row: Result) -> None:
    methods, config = row.metrics["methods"], row.config
    names = [one["method"] for one in methods]
    whole = [one["iteration_s"] for one in methods]
    middle = [total["median"] for total in whole]
    step = [one["optimizer_s"]["median"] for one in methods]
    shares = [one["amortised_s"] - t for one, t in zip(methods, middle, strict=True)]
    parts = {
        "forward and backward": [t - part for t, part in zip(middle, step, strict=True)],
        "optimizer step": step,
        "subspace refresh, spread over its period": shares,
    }
    stacked_bars(axes, names, parts, whole)
    full = methods[names.index(FULL)]["amortised_s"]  # where its bar ends
    places = [i for i, name in enumerate(names) if name in PAPER]
    theirs = [full * PAPER[names[i]] / PAPER[FULL] for i in places]
    axes.plot(theirs, places, "kD", mec="white", label="the paper's ratio to full")
    top = axes.secondary_xaxis("top", functions=(lambda x: x / full, lambda x: x * full))
    top.set_xlabel("ratio to full")
    where = row.environment["cpu" if config["device"] == "cpu" else "gpu"]
    axes.set_xlabel(
        f"seconds an iteration (median, low to high of {config['repeats']}): {where}, "
        f"{config['dtype']}, {config['batch']}×{config['length']} tokens"
    )
