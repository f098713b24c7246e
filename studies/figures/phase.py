"""Rows of the study "phase" as maps of the δ–ρ plane and as a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from rich import box
from rich.table import Table

from sgc.results import Result
from studies.figures.intervals import Crossing, Logistic, fit_logistic
from studies.figures.palette import SKY, VERMILION
from studies.measures.thresholds import donoho_tanner

__all__ = ["LEVELS", "Diagram", "diagrams", "figure", "table"]

LEVELS = (0.9, 0.5, 0.1)
_NAMED = {"gaussian": "Gaussian", "signs": "±1", "power-law": "±1/rank"}
# On cividis, which is told apart by the colour-blind; dashes and markers repeat what they say.
_LINES = {0.9: ("white", ":", 1.6), 0.5: ("white", "-", 2.4), 0.1: ("white", "--", 1.6)}
_OTHER, _THEORY = (VERMILION, "s"), SKY


@dataclass(frozen=True)
class Diagram:
    """The plane of one solver and law, all seeds together.

    Attributes:
        solver, law: which.
        points: (δ, ρ) → successes, signals, seconds, s/k.
        statuses: how signals ended, over the plane.
    """

    solver: str
    law: str
    points: dict[tuple[float, float], tuple[int, int, float, float]]
    statuses: dict[str, int]

    @cached_property
    def deltas(self) -> list[float]:
        """δ, ascending."""
        return sorted({delta for delta, _ in self.points})

    @cached_property
    def rhos(self) -> list[float]:
        """ρ, ascending."""
        return sorted({rho for _, rho in self.points})

    def rates(self) -> np.ndarray:
        """``(ρ, δ)`` shares of success, NaN where nothing was measured."""
        return self._map(lambda good, n, _: good / n)

    def milliseconds(self) -> np.ndarray:
        """``(ρ, δ)`` milliseconds of CPU time a signal."""
        return self._map(lambda _, n, seconds: 1000 * seconds / n)

    def _map(self, get: Callable[[int, int, float], float]) -> np.ndarray:
        found = np.full((len(self.rhos), len(self.deltas)), np.nan)
        for (delta, rho), (good, n, seconds, _) in self.points.items():
            found[self.rhos.index(rho), self.deltas.index(delta)] = get(good, n, seconds)
        return found

    def fit(self, delta: float) -> Logistic | None:
        """Success against s/k at one δ; None where it never changes."""
        own = [values for (at, _), values in self.points.items() if at == delta]
        shares = [share for *_, share in own]
        if len(set(shares)) < 2:
            return None
        return fit_logistic(shares, [good for good, *_ in own], [n for _, n, *_ in own])

    def crossings(self, level: float) -> list[Crossing | None]:
        """The ρ at which the rate is ``level``, for each δ."""
        fits = [self.fit(delta) for delta in self.deltas]
        return [fit.crossing(level) if fit else None for fit in fits]

    @property
    def seconds(self) -> float:
        """CPU time spent in the solver."""
        return sum(seconds for *_, seconds, _ in self.points.values())


def diagrams(rows: Sequence[Result]) -> list[Diagram]:
    """A diagram for each law and solver, in the order of the rows."""
    found: dict[tuple[str, str], Diagram] = {}
    for row in rows:
        c, m = row.config, row.metrics
        own = found.setdefault((c["law"], c["solver"]), Diagram(c["solver"], c["law"], {}, {}))
        good, n, seconds, _ = own.points.get((c["delta"], c["rho"]), (0, 0, 0.0, 0.0))
        own.points[c["delta"], c["rho"]] = (
            good + m["accurate"],
            n + m["signals"],
            seconds + m["signals"] * m["cpu_seconds_per_signal"],
            m["sparsity"] / m["k"],
        )
        for name, count in m["statuses"].items():
            own.statuses[name] = own.statuses.get(name, 0) + count
    return list(found.values())


def figure(rows: Sequence[Result]) -> Figure:
    """A column for each solver: success with its contours above, compute time below."""
    every = diagrams(rows)
    law, *others = dict.fromkeys(one.law for one in every)
    shown = [one for one in every if one.law == law]
    picture = Figure(figsize=(max(6.5, 2.3 * len(shown) + 1), 6.8), dpi=130, layout="constrained")
    panels = picture.subplots(2, len(shown), sharex=True, sharey=True, squeeze=False)
    times = np.concatenate([one.milliseconds().ravel() for one in shown])
    scale = LogNorm(np.nanmin(times), np.nanmax(times) * (1 + 1e-9))
    for (top, bottom), one in zip(panels.T, shown, strict=True):
        where = (one.deltas, one.rhos)
        success = top.pcolormesh(
            *where, one.rates(), cmap="cividis", vmin=0, vmax=1, shading="nearest"
        )
        _contours(top, one)
        for other in (o for o in every if o.solver == one.solver and o.law in others[:1]):
            label = f"50 %, {_named(other.law)} nonzeros"
            _contour(top, other, 0.5, *_OTHER, "-.", 1.8, label)
        time = bottom.pcolormesh(
            *where, one.milliseconds(), cmap="magma", norm=scale, shading="nearest"
        )
        top.set_title(one.solver, fontsize=11)
        bottom.set_xlabel("δ = k/d")
        for axes in (top, bottom):
            axes.set_xlim(0, 1)
            axes.set_xticks([0.2, 0.4, 0.6, 0.8])
            axes.set_ylim(0, max(one.rhos) * 1.05)
    for axes in panels[:, 0]:
        axes.set_ylabel("ρ = s/k")
    picture.colorbar(success, ax=list(panels[0]), label="share recovered", pad=0.01)
    picture.colorbar(time, ax=list(panels[1]), label="CPU milliseconds a signal", pad=0.01)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    picture.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(3, len(labels)),
        fontsize=11,
        facecolor="0.6",
    )
    first = rows[0]
    seeds, n = len({row.seed for row in rows}), first.metrics["signals"]
    picture.suptitle(
        f"{_named(law)} nonzeros, {_named(first.config['ensemble'])} A, d = {first.config['d']}, "
        f"{n * seeds} signals a point. Above: share recovered, with relative error ≤ 10⁻³ (lines: "
        f"logistic fits at each δ, bars: 95 %).\nBelow: CPU time, one thread of {_cpus(rows)}",
        fontsize=11 if len(shown) > 3 else 8,
    )
    return picture


def _cpus(rows: Sequence[Result]) -> str:
    return ", ".join(sorted({str(row.environment.get("cpu", "a CPU")) for row in rows}))


def _contours(axes: Axes, one: Diagram) -> None:
    for level, (colour, dash, width) in _LINES.items():
        label = f"{100 * level:.0f} % of signals recovered"
        _contour(axes, one, level, colour, "o" if level == 0.5 else "", dash, width, label)
    deltas = np.linspace(0.01, 0.99, 99)
    curve = [donoho_tanner(float(delta)) for delta in deltas]
    axes.plot(deltas, curve, color=_THEORY, lw=2, label="ℓ1 (Donoho–Tanner)")


def _contour(
    axes: Axes,
    one: Diagram,
    level: float,
    colour: str,
    marker: str,
    dash: str,
    width: float,
    label: str,
) -> None:
    found = one.crossings(level)
    middle = np.array([c.at if c else np.nan for c in found])
    error = np.array([(c.at - c.low, c.high - c.at) if c else (0, 0) for c in found]).T
    axes.errorbar(
        one.deltas,
        middle,
        error if marker else None,
        color=colour,
        ls=dash,
        lw=width,
        elinewidth=1,
        capsize=2,
        marker=marker,
        ms=4,
        label=label,
        path_effects=[withStroke(linewidth=width + 1.2, foreground="0.3")],  # on yellow
    )


def table(rows: Sequence[Result]) -> Table:
    """The ρ that half of the signals allow at each δ, and how signals ended over the plane."""
    every = diagrams(rows)
    made = Table(
        title="ρ = s/k recovered with probability ½, with the fit's 95 % interval",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title_justify="left",
        caption="< and >: below the least and above the largest ρ measured",
    )
    deltas = every[0].deltas
    shown = [delta for i, delta in enumerate(deltas) if len(deltas) < 6 or i % 2 == 0]
    for name in ("law", "solver"):
        made.add_column(name, no_wrap=True)
    for delta in shown:
        made.add_column(f"δ = {delta:g}", justify="right", no_wrap=True)
    made.add_column("CPU s", justify="right")
    made.add_column("limit hit", justify="right")
    made.add_row("any", "ℓ1, theory", *(f"{donoho_tanner(d):.3f}" for d in shown), "", "")
    for one in every:
        signals = sum(one.statuses.values())
        made.add_row(
            _named(one.law),
            one.solver,
            *(_half(one, delta) for delta in shown),
            f"{one.seconds:.1f}",
            f"{one.statuses.get('MAX_ITERATIONS', 0) / signals:.1%}",
        )
    return made


def _half(one: Diagram, delta: float) -> str:
    fit = one.fit(delta)
    found = fit and fit.crossing(0.5)
    if found:
        return f"{found.at:.3f} ({found.low:.3f}–{found.high:.3f})"
    good = sum(values[0] for (at, _), values in one.points.items() if at == delta)
    n = sum(values[1] for (at, _), values in one.points.items() if at == delta)
    return f"> {max(one.rhos):g}" if good > n / 2 else f"< {min(one.rhos):g}"


def _named(value: str) -> str:
    return _NAMED.get(value, value)
