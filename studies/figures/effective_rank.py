"""Rows of the study "effective-rank" as picture and as lines of a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from sgc.results import Result
from sgc.specs import Spec
from studies.figures.palette import BLACK, BLUE, VERMILION
from studies.measures.rank_watch import THRESHOLDS

__all__ = ["Curve", "curve", "figure", "summaries", "table"]

_COLOURS = dict(zip(THRESHOLDS, (VERMILION, BLUE), strict=True))
_FLOAT = 4  # bytes
Get = Callable[[Result], Sequence[float]]


@dataclass(frozen=True)
class Curve:
    """A mean over seeds at each step, and its standard error (0 of a single seed)."""

    mean: np.ndarray
    error: np.ndarray

    @property
    def thirds(self) -> str:
        """Start, middle and end, each the mean over a tenth of the points."""
        n = len(self.mean)
        width = max(1, n // 10)
        starts = (0, (n - width) // 2, n - width)
        return " → ".join(f"{self.mean[a : a + width].mean():.1f}" for a in starts)


def curve(rows: Sequence[Result], get: Get) -> Curve:
    """What ``get`` finds, over the seeds of one method."""
    values = np.array([get(row) for row in rows], dtype=float)
    error = values.std(0, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.zeros(values.shape[1])
    return Curve(values.mean(0), error)


def _live(row: Result) -> Sequence[float]:
    return _over_matrices(row.metrics["live"])


def _needed(threshold: str) -> Get:
    return lambda row: _over_matrices(row.metrics["needed"][threshold])


def _probe(threshold: str) -> Get:
    return lambda row: _over_matrices(row.metrics["probe"]["needed"][threshold])


def _memory(row: Result) -> Sequence[float]:
    return [100 * count / row.metrics["held"] for count in row.metrics["in_use"]]


def _loss(row: Result) -> Sequence[float]:
    return list(row.metrics["loss"])


def _over_matrices(lists: dict[str, list[float]]) -> list[float]:
    return [sum(ranks) / len(ranks) for ranks in zip(*lists.values(), strict=True)]


def _by_method(rows: Sequence[Result]) -> dict[str, list[Result]]:
    methods: dict[str, list[Result]] = {}
    for row in rows:
        methods.setdefault(row.config["method"], []).append(row)
    return methods


def _threshold(rows: Sequence[Result]) -> str | None:
    """Of AdaRankGrad, by its name in the rows."""
    value = Spec.parse(rows[0].config["spec"]).options.get("threshold")
    return None if value is None else format(value, "g")


def _largest(rows: Sequence[Result]) -> int:
    return int(Spec.parse(rows[0].config["spec"]).options["rank"])


def _capped(rows: Sequence[Result]) -> str:
    """How often the largest rank is not enough, as it seems."""
    largest = _largest(rows)
    ranks = np.array([list(row.metrics["live"].values()) for row in rows])
    return f"at most {largest}, which {100 * (ranks == largest).mean():.0f} % have"


def _accuracy(rows: Sequence[Result]) -> str:
    found = curve(rows, lambda row: [100 * row.metrics["accuracy"]])
    spread = f" ± {found.error[0]:.1f}" if len(rows) > 1 else ""
    return f"{found.mean[0]:.1f}{spread} %"


def summaries(rows: Sequence[Result]) -> list[tuple[str, ...]]:
    """For each method and threshold: method, η, accuracy, ranks live, needed by the step's
    gradient and by the mean gradient of the probe, memory in use.
    """
    lines: list[tuple[str, ...]] = []
    for method, own in _by_method(rows).items():
        threshold = _threshold(own)
        for name in [threshold] if threshold else THRESHOLDS:
            live, memory = "–", "–"
            if threshold:
                followed = curve(own, _live)
                live = f"{followed.thirds} (mean {followed.mean.mean():.1f})"
                memory = curve(own, _memory).thirds
            needed = curve(own, _needed(name)).thirds
            probe = curve(own, _probe(name)).thirds
            lines.append((method, name, _accuracy(own), live, needed, probe, memory))
    return lines


def table(rows: Sequence[Result]) -> Table:
    """:func:`summaries` as a table."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.caption_justify = "left"
    made.caption = (
        "Means over matrices and seeds, start → middle → end, each of a tenth of the measurements "
        "(± standard error over seeds). needed: by the gradient of the step; of the probe: by the "
        "mean gradient of a fixed set without dropout. memory: numbers in use in % of those held, "
        "which are GaLore's of the largest rank."
    )
    for name in ("method", "η", "accuracy", "live rank", "needed", "of the probe", "memory"):
        made.add_column(name, no_wrap=name == "method")
    for line in summaries(rows):
        made.add_row(*line)
    return made


def figure(rows: Sequence[Result]) -> Figure:
    """Ranks for each threshold, numbers in use, and the training loss, by step."""
    methods = _by_method(rows)
    adaptive = {name: own for own in methods.values() if (name := _threshold(own))}
    plain = {name: own for name, own in methods.items() if not _threshold(own)}
    picture = Figure(figsize=(11, 8), dpi=130, layout="constrained")
    panels = picture.subplots(2, 2, sharex=True)
    for axes, name in zip(panels[0], THRESHOLDS, strict=True):
        _ranks(axes, name, adaptive.get(name), plain)
    sizes = panels[1, 0]
    _sizes(sizes, adaptive)
    for method, own in methods.items():
        colour = _COLOURS.get(_threshold(own) or "", BLACK)
        _band(panels[1, 1], own, _loss, color=colour, label=f"{method}: {_accuracy(own)} accuracy")
    panels[1, 1].set_title("training loss (mean since the last point)")
    for axes in panels.flat:
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:  # not where a method has no row yet
            where = {"loc": "upper right", "bbox_to_anchor": (1, 0.9)} if axes is sizes else {}
            axes.legend(frameon=False, fontsize=8, **where)
    for axes in panels[1]:
        axes.set_xlabel("step")
    config, seeds = rows[0].config, len({row.seed for row in rows})
    matrices = len(rows[0].metrics["needed"][next(iter(THRESHOLDS))])
    picture.suptitle(
        f"{config['model']}, {config['data']}, batch {config['batch_size']}: mean over {matrices} "
        f"matrices and {seeds} seed{'s' * (seeds > 1)} (band: standard error over seeds)",
        fontsize=11,
    )
    return picture


def _ranks(
    axes: Axes,
    name: str,
    adaptive: Sequence[Result] | None,
    plain: Mapping[str, Sequence[Result]],
) -> None:
    if adaptive:
        label = f"AdaRankGrad: live rank ({_capped(adaptive)})"
        _band(axes, adaptive, _live, color=_COLOURS[name], label=label)
    for who, own, colour in (
        ("AdaRankGrad", adaptive, _COLOURS[name]),
        *((method, own, BLACK) for method, own in plain.items()),
    ):
        if own:
            _band(axes, own, _needed(name), color=colour, ls="--", lw=1, label=f"{who}: gradient")
            found = curve(own, _probe(name))
            steps, examples = own[0].metrics["probe"]["steps"], own[0].config["probe"]
            label = f"{who}: {examples} fixed examples, no dropout"
            axes.errorbar(
                steps, found.mean, found.error, fmt="D:", color=colour, ms=4, lw=0.8, label=label
            )
    axes.set_title(f"rank that keeps {100 * (1 - THRESHOLDS[name]):.0f} % of ‖G‖² (η = {name})")


def _sizes(axes: Axes, adaptive: dict[str, list[Result]]) -> None:
    axes.set_title("numbers in use: basis and moments")
    if not adaptive:
        return
    for name, own in adaptive.items():
        mean = curve(own, _memory).mean.mean()
        label = f"η = {name}: in use, {mean:.0f} % on average"
        _band(axes, own, _memory, color=_COLOURS[name], label=label)
    first = next(iter(adaptive.values()))
    held, full = (first[0].metrics[what] for what in ("held", "full"))
    axes.axhline(100, color=BLACK, lw=1, label="held: allocated all the time, as by GaLore")
    axes.set_ylabel(f"% of GaLore of rank {_largest(first)} ({_FLOAT * held / 1e6:.2g} MB)")
    axes.text(0.02, 0.88, f"AdamW: {100 * full / held:.0f} %", transform=axes.transAxes, fontsize=8)


def _band(axes: Axes, rows: Sequence[Result], get: Get, **style: object) -> None:
    found = curve(rows, get)
    steps = rows[0].metrics["steps"]
    (line,) = axes.plot(steps, found.mean, **style)  # type: ignore[arg-type] # matplotlib's own
    low, high = found.mean - found.error, found.mean + found.error
    axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, lw=0)
