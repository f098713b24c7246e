"""Picture of the ablation."""

from collections.abc import Mapping, Sequence
from math import log10
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgc.results import Result
from studies.figures.ablation_lines import AXES, Lines, error, lines_of, of_one_setting
from studies.figures.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

__all__ = ["figure"]


#: Lines of the states' axis that are drawn through all panels of the same training.
_THROUGH = ("adamw", "sign-sgd", "frozen")
#: Beyond the palette; markers repeat it.
_GREY, _WINE, _OLIVE, _TEAL = "#777777", "#882255", "#A09000", "#117733"
_BROWN, _BLUE_GREY = "#7A4A21", "#4A6A8A"
#: Colour, marker and dashes.
_LOOKS: Mapping[str, tuple[str, str, str]] = {
    "adamw": (BLACK, "o", "-"),
    "sign-sgd": (_GREY, "s", "--"),
    "frozen": (_GREY, "x", ":"),
    "galore": (SKY, "D", "-."),
    "lora": (BLUE, "^", ":"),
    "mesgc": (VERMILION, "v", "-"),
    "mesgc + ρ": (ORANGE, "P", "--"),
    "cesgc": (PURPLE, "X", "-."),
    "adjoint": (GREEN, "*", ":"),
    "explicit sparse": (_OLIVE, ">", "--"),
    "mesgc, s_c 31": (_TEAL, "p", "-."),
}
#: Lines of other labels, in turn.
_OTHERS = ((_WINE, "<", "--"), (_BROWN, "d", "-."), (_BLUE_GREY, "h", ":"))
#: Line → what the legend calls it, where its name does not say it all.
_CALLED: Mapping[str, str] = {
    "mesgc + ρ": "mesgc, ρ = 0.1",
    "mesgc, s_c 31": "mesgc, d_c 2048, s_c 31",
}
_NEAR = 5.0  # points below the lowest line, within which the majority's share is drawn
_ROW, _NAME = 0.055, 0.22  # height and length of a name in the states' panel, shares of its axes
_ROOM = 0.13  # least distance of labelled ticks, a share of the axis
_STEP = 0.004  # by which markers of lines at one place stand apart, a share of the axis


def figure(rows: Sequence[Result]) -> Figure:
    """A panel an axis, a line a method: mean over the seeds ± standard error."""
    left_out = len(rows) - len(rows := of_one_setting(rows))
    axes = [axis for axis in AXES if any(row.config["axis"] == axis for row in rows)]
    across = min(2, len(axes))
    down = -(-len(axes) // across)
    size = (10.4, 3.5 * down + 0.9) if across > 1 else (7.5, 5.2)
    made = Figure(figsize=size, layout="constrained", dpi=150)
    panels = made.subplots(down, across, squeeze=False).flatten()
    through = lines_of("states", rows)
    for axis, panel in zip(axes, panels, strict=False):
        lines = dict(lines_of(axis, rows))
        own = [row for row in rows if row.config["axis"] == axis]
        # Sign-SGD has a place on the axis of states, at 0.
        reference = [
            label
            for label in (_THROUGH if AXES[axis].beside else ())
            if (axis, label) != ("states", "sign-sgd")
        ]
        for label in reference:
            lines.pop(label, None)
        places = sorted({x for line in lines.values() for x in line})
        upright = len(places) == 1
        if upright:
            _ranked(panel, axis, places[0], lines, own[0].metrics["test_examples"])
        else:
            _panel(panel, axis, places, lines, _ticks_of(axis, own))
        for label in reference:
            _across(panel, label, through.get(label, {}), upright=upright)
        notes = _majority(panel, own, upright=upright)
        if not upright:
            notes = _frozen_below(panel, lines) + notes
            if axis == "states":
                _leasts(panel, lines)
        panel.set_title(f"{AXES[axis].asked} ({AXES[axis].paper})", loc="left", fontsize=10)
        panel.set_title("\n".join(notes), loc="right", fontsize=8)
    handles = {h.get_label(): h for p in panels for h in p.get_legend_handles_labels()[0]}
    # A line across says what it is only where it is nowhere a line of points.
    names = [n for n in handles if " (" not in str(n) or str(n).partition(" (")[0] not in handles]
    names.sort(key=lambda name: (" (" in str(name), str(name) == "majority class"))
    shown = [handles[name] for name in names]
    free = panels[len(axes) :]
    for panel in free:
        panel.set_axis_off()
    if not shown:
        pass
    elif len(free):
        free[0].legend(shown, names, loc="center", ncols=2, frameon=False, fontsize=10)
    else:
        made.legend(shown, names, loc="outside lower center", ncols=2 + across, frameon=False)
    made.suptitle(_caption(rows, left_out), fontsize=11)
    return made


def _look(label: str, lines: Lines) -> tuple[str, str, str]:
    others = [name for name in lines if name not in _LOOKS]
    return _LOOKS[label] if label in _LOOKS else _OTHERS[others.index(label) % len(_OTHERS)]


def _ticks_of(axis: str, rows: Sequence[Result]) -> Mapping[float, str]:
    """Place → its label: a batch size has its number of steps with it."""
    if axis != "batch":
        return {row.config["x"]: f"{row.config['x']:,g}" for row in rows}
    return {row.config["x"]: f"{row.config['x']:,g}\n{row.config['steps']:,} steps" for row in rows}


def _panel(
    panel: Axes, axis: str, places: Sequence[float], lines: Lines, ticks: Mapping[float, str]
) -> None:
    look = AXES[axis]
    positive = [x for x in places if x > 0]
    span = positive[-1] / positive[0] if positive else 1.0
    for i, (label, line) in enumerate(lines.items()):
        colour, marker, dashes = _look(label, lines)
        shift = _STEP * (i - (len(lines) - 1) / 2) if len(lines) > 2 else 0.0
        own = sorted(line)
        panel.errorbar(
            [x * span**shift if look.logarithmic else x for x in own],
            [100 * fmean(line[x]) for x in own],
            [100 * error(line[x]) for x in own],
            label=_CALLED.get(label, label),
            color=colour,
            marker=marker,
            linestyle=dashes,
            linewidth=1.3,
            markersize=5,
            capsize=2,
        )
    _ticks(panel, places, look.logarithmic, ticks)
    _leave_frozen(panel, lines)
    panel.set(xlabel=look.label, ylabel="test accuracy, %")
    panel.grid(alpha=0.3)


def _leave_frozen(panel: Axes, lines: Lines) -> None:
    """Far below all others the head alone does not set the scale: it leaves the panel."""
    lowest = {
        label: min(100 * fmean(values) for values in line.values()) for label, line in lines.items()
    }
    frozen = lowest.pop("frozen", None)
    if lowest and frozen is not None and frozen < min(lowest.values()) - 2 * _NEAR:
        panel.set_ylim(bottom=min(lowest.values()) - _NEAR / 2)


def _frozen_below(panel: Axes, lines: Lines) -> list[str]:
    """A note of what the head alone reaches where that is out of sight."""
    bottom = panel.get_ylim()[0]
    line = lines.get("frozen", {})
    below = [mean for x in sorted(line) if (mean := 100 * fmean(line[x])) < bottom]
    return [f"frozen: {', '.join(f'{mean:.1f}' for mean in below)}, below"] if below else []


def _leasts(panel: Axes, lines: Lines) -> None:
    """Where GaLore's and LoRA's states begin, named in a strip that is added below all data.

    The names point away from each other; one that would leave the panel turns, a row higher.
    """
    leasts = sorted(
        (min(places), label)
        for label in ("galore", "lora")
        if (places := [x for x in lines.get(label, ()) if x > 0])
    )
    if not leasts:
        return
    low, high = panel.get_ylim()
    panel.set_ylim(bottom=low - 2 * _ROW * (high - low))
    for (least, label), outward in zip(leasts, ("left", "right"), strict=False):
        colour = _LOOKS[label][0]
        panel.axvline(least, color=colour, linewidth=0.8, linestyle=":")
        at = panel.transAxes.inverted().transform(panel.transData.transform((least, low)))[0]
        turned = (at if outward == "left" else 1 - at) < _NAME
        panel.text(
            least,
            _ROW * (0.2 + turned),
            f" least {label} ",
            transform=panel.get_xaxis_transform(),
            ha="right" if (outward == "left") != turned else "left",
            fontsize=8,
            color=colour,
        )


def _ranked(panel: Axes, axis: str, x: float, lines: Lines, size: int) -> None:
    """Where there is one place only: a method a row, the best on top.

    A thin bar is the sampling error of a test part of ``size``.
    """
    order = sorted(lines, key=lambda label: fmean(lines[label][x]))
    for row, label in enumerate(order):
        colour, marker, _ = _look(label, lines)
        values = lines[label][x]
        mean = fmean(values)
        sampling = 100 * (mean * (1 - mean) / size) ** 0.5
        panel.errorbar([100 * mean], [row], xerr=[sampling], color=colour, alpha=0.4, linewidth=1)
        panel.errorbar(
            [100 * mean],
            [row],
            xerr=[100 * error(values)],
            color=colour,
            marker=marker,
            markersize=6,
            capsize=3,
        )
    panel.set_yticks(range(len(order)), order)
    panel.set(xlabel=f"test accuracy, % ({AXES[axis].label}: {x:,g}; thin bars: sampling error)")
    panel.grid(alpha=0.3, axis="x")


def _across(
    panel: Axes, label: str, line: Mapping[float, Sequence[float]], *, upright: bool
) -> None:
    """A line that does not depend on where on the axis one is: mean and standard error.

    ``upright``: accuracies lie along x.
    """
    colour, _, dashes = _LOOKS[label]
    said = {"adamw": "({:,g} numbers)", "sign-sgd": "(none)", "frozen": "(head only)"}[label]
    across, span = (panel.axvline, panel.axvspan) if upright else (panel.axhline, panel.axhspan)
    for x, values in line.items():
        mean, spread = 100 * fmean(values), 100 * error(values)
        name = f"{label} {said.format(x)}"
        across(mean, color=colour, linestyle=dashes, linewidth=1.3, label=name, zorder=1)
        span(mean - spread, mean + spread, color=colour, alpha=0.12, linewidth=0, zorder=0)


def _majority(panel: Axes, rows: Sequence[Result], *, upright: bool) -> list[str]:
    """Draw the most frequent class's share ± one sampling error, or note that it is out of sight.

    ``upright``: accuracies lie along x.
    """
    share = 100 * fmean(row.metrics["majority"] for row in rows)
    sampling = (share * (100 - share) / rows[0].metrics["test_examples"]) ** 0.5
    low, high = panel.get_xlim() if upright else panel.get_ylim()
    if share < low - _NEAR:
        return [f"majority class: {share:.1f}, " + ("to the left" if upright else "below")]
    line, span = (panel.axvline, panel.axvspan) if upright else (panel.axhline, panel.axhspan)
    line(share, color=_GREY, linestyle="--", linewidth=1, label="majority class")
    span(share - sampling, share + sampling, color=_GREY, alpha=0.12, linewidth=0, zorder=0)
    limits = min(low, share - 1.5 * sampling), max(high, share + 1.5 * sampling)
    (panel.set_xlim if upright else panel.set_ylim)(limits)
    return []


def _ticks(
    panel: Axes, places: Sequence[float], logarithmic: bool, labels: Mapping[float, str]
) -> None:
    """Ticks at places that were measured, with labels where there is room; 0 is one of its own."""
    positive = [x for x in places if x > 0]
    if not logarithmic or not positive:
        panel.set_xticks(places)
        return
    if 0 in places:
        panel.set_xscale("symlog", linthresh=positive[0], linscale=0.4)
        panel.axvline(positive[0] / 2, color=_GREY, linewidth=0.6, linestyle=":")
        panel.set_xlim(-positive[0] / 4, 1.6 * positive[-1])
    else:
        panel.set_xscale("log")
    span = log10(positive[-1] / positive[0]) + (0.4 if 0 in places else 0)
    kept: list[float] = []
    for x in positive:
        if not kept or log10(x / kept[-1]) >= _ROOM * span:
            kept.append(x)
    others = [x for x in positive if x not in kept]
    kept = [0.0, *kept] if 0 in places else kept
    panel.set_xticks(kept, [labels[x] for x in kept])
    panel.set_xticks(others, [""] * len(others), minor=True)


def _caption(rows: Sequence[Result], left_out: int) -> str:
    first = rows[0]
    runs = [value for row in rows for value in row.metrics["accuracy"]]
    known = [value for value in runs if value is not None]
    counts = sorted(
        len(values)
        for axis in AXES
        for line in lines_of(axis, rows).values()
        for values in line.values()
    )
    seeds = f"{counts[0]}" + f" to {counts[-1]}" * (counts[0] < counts[-1])
    size = first.metrics["test_examples"]
    made = f"{first.config['model']}, {first.config['data']}: mean ± s.e. over {seeds} seeds"
    if known:
        mean = fmean(known)
        sampling = 100 * (mean * (1 - mean) / size) ** 0.5
        made += f"\nsampling error of the test part, {size:,} texts: ±{sampling:.1f}"
    if any(row.metrics["tried"] for row in rows):
        made += (
            f"\nrates chosen by one run's validation {first.config['choose_by']}: "
            "neighbours may differ by that alone"
        )
    if len(known) < len(runs):
        made += f"\n{len(runs) - len(known)} of {len(runs)} runs diverged: drawn as majority class"
    if left_out:
        made += f"\n{left_out} rows of other tasks, or of points with other settings, are left out"
    return made
