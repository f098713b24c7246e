"""Rows of the study "kappa" as a picture and as tables."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from sgc.results import Result
from studies.intervals import Logistic, fit_logistic, l1_kappa, omp_kappa, wilson

__all__ = ["LEVELS", "Curve", "curves", "figure", "table"]

LEVELS = (0.5, 0.9, 0.95)
# Okabe and Ito's colours, told apart by the colour-blind; markers and dashes repeat what they say.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
_MARKERS, _DASHES = "osD^vPX", ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-")
_PAPER = 7  # the κ of Figure 3(c)
_NAMED = {"gaussian": "Gaussian", "signs": "±1", "power-law": "±1/rank", "captured": "captured"}
_FIELDS = ("d", "sparsity", "ensemble", "law", "solver", "noise")


@dataclass(frozen=True)
class Curve:
    """Successes against κ of one setting, all seeds together.

    Attributes:
        d, sparsity, ensemble, law, solver, noise: the setting.
        kappas: ascending.
        exact, accurate, signals: counts at each κ.
        energy: mean share of ``‖x‖²`` on atoms that were found, at each κ.
    """

    d: int
    sparsity: int
    ensemble: str
    law: str
    solver: str
    noise: float
    kappas: list[float]
    exact: list[int]
    accurate: list[int]
    signals: list[int]
    energy: list[float]

    def rates(self, what: str) -> list[tuple[float, float, float]]:
        """Share of successes and its Wilson interval at each κ."""
        counts = zip(getattr(self, what), self.signals, strict=True)
        return [(good / n, *wilson(good, n)) for good, n in counts]

    def fit(self, what: str) -> Logistic | None:
        """The logistic fit in log κ."""
        if len(self.kappas) < 2:
            return None
        return fit_logistic(self.kappas, getattr(self, what), self.signals)


def curves(rows: Sequence[Result]) -> list[Curve]:
    """A curve for each setting, in the order of the rows."""
    sums: dict[tuple[Any, ...], dict[float, list[float]]] = {}
    for row in rows:
        c, m = row.config, row.metrics
        at = sums.setdefault(tuple(c[name] for name in _FIELDS), {})
        own = at.setdefault(c["k"] / c["sparsity"], [0, 0, 0, 0.0])
        new = (m["exact"], m["accurate"], m["signals"], m["signals"] * m["energy"])
        own[:] = [old + more for old, more in zip(own, new, strict=True)]
    found = []
    for key, at in sums.items():
        kappas = sorted(at)
        exact, accurate, signals = ([int(at[kappa][i]) for kappa in kappas] for i in range(3))
        found.append(
            Curve(
                **dict(zip(_FIELDS, key, strict=True)),
                kappas=kappas,
                exact=exact,
                accurate=accurate,
                signals=signals,
                energy=[at[kappa][3] / at[kappa][2] for kappa in kappas],
            )
        )
    return found


def _pick(found: Iterable[Curve], **fields: object) -> list[Curve]:
    return [c for c in found if all(getattr(c, name) == value for name, value in fields.items())]


def figure(rows: Sequence[Result]) -> Figure:
    """For each size of several nonzeros a row: OMP by law, each solver on one law (captured
    gradients if there are), OMP with noise. One nonzero: OMP by ensemble.
    """
    found = curves(rows)
    sizes = list(dict.fromkeys((c.d, c.sparsity) for c in found))
    many = [(d, s) for d, s in sizes if s != 1] or sizes
    single = [c for c in found if c.sparsity == 1]
    ensemble = found[0].ensemble
    reference = "omp" if _pick(found, solver="omp") else found[0].solver
    law = "captured" if _pick(found, law="captured") else found[-1].law
    picture = Figure(figsize=(13, 4.2 * len(many) + 0.8), dpi=130, layout="constrained")
    panels = picture.subplots(len(many), 3, sharey=True, squeeze=False)
    for (d, s), line in zip(many, panels, strict=True):
        last = (d, s) == many[-1]
        own = _pick(found, d=d, sparsity=s, ensemble=ensemble)
        clean = _pick(own, noise=0.0)
        size = f"d = {d}, s = {s}"
        _panel(line[0], _pick(clean, solver=reference), "law", f"OMP by law, {size}", (d, s))
        title = f"by solver, {_named(law)} coefficients, {size}"
        _panel(line[1], _pick(clean, law=law), "solver", title, (d, s))
        if not last:
            line[1].legend().remove()  # the last row has it, where there is room
        if last and single and len(many) > 1:
            _one_nonzero(line[2], _pick(single, solver=reference))
        else:
            _noisy(line[2], _pick(own, solver=reference), size)
    for axes in panels[:, 0]:
        axes.set_ylabel("probability of exact support")
    for axes in panels[-1]:
        axes.set_xlabel("κ = k/s, measurements a nonzero")
    signals = max(max(c.signals) for c in found)
    picture.suptitle(
        f"Recovery against κ: {_named(ensemble)} A, float32, up to {signals} signals a point; "
        "bars: 95 % Wilson intervals, curves: logistic fits in log κ; grey: κ = 7",
        fontsize=12,
    )
    return picture


def _panel(
    axes: Axes, own: Sequence[Curve], by: str, title: str, size: tuple[int, int] | None
) -> None:
    for i, curve in enumerate(own):
        _line(axes, curve, i, _named(getattr(curve, by)))
    _finish(axes, title)
    if size:
        axes.set_xlim(right=max(axes.get_xlim()[1], 1.03 * omp_kappa(*size)))
        for name, at, dash in (
            ("ℓ1", l1_kappa(*size), (0, (1, 1))),
            ("2 ln(d−s)", omp_kappa(*size), (0, (6, 2))),
        ):
            axes.axvline(at, color="0.35", ls=dash, lw=1.2)
            axes.annotate(
                name,
                (at, 0.78),
                rotation=90,
                ha="right",
                va="center",
                fontsize=10,
                color="0.2",
                bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 1},
            )


def _noisy(axes: Axes, own: Sequence[Curve], size: str) -> None:
    levels = sorted({c.noise for c in own} - {0.0})
    names = list(dict.fromkeys(c.law for c in own))
    for curve in own:
        if curve.noise in levels:
            low = curve.noise == levels[0] and len(levels) > 1
            label = f"{_named(curve.law)}, {100 * curve.noise:g} %"
            i, dash = names.index(curve.law), "-" if low else "--"
            _line(axes, curve, i, label, what="accurate", full=low, dash=dash)
    _finish(axes, f"OMP with noise, {size}:\nrelative error ≤ the noise's")


def _one_nonzero(axes: Axes, own: Sequence[Curve]) -> None:
    whole = [c for c in own if c.law == own[0].law and len(c.kappas) > 1]
    for i, curve in enumerate(sorted(whole, key=lambda c: c.noise)):
        noise = f", {100 * curve.noise:g} % noise" if curve.noise else ""
        _line(axes, curve, i, f"{_named(curve.ensemble)} A{noise}", fitted=False)
    _finish(axes, f"OMP by ensemble and noise, d = {own[0].d}, s = 1", "center right")


def _line(
    axes: Axes,
    curve: Curve,
    i: int,
    label: str,
    *,
    what: str = "exact",
    full: bool = True,
    dash: object = None,
    fitted: bool = True,
) -> None:
    colour = _COLOURS[i % len(_COLOURS)]
    dash = _DASHES[i % len(_DASHES)] if dash is None else dash
    rates = curve.rates(what)
    middle = [rate for rate, _, _ in rates]
    fit = curve.fit(what) if fitted else None
    axes.errorbar(
        curve.kappas,
        middle,
        [[m - low for m, low, _ in rates], [high - m for m, _, high in rates]],
        fmt=_MARKERS[i % len(_MARKERS)],
        color=colour,
        mfc=colour if full else "white",
        ms=5,
        capsize=2,
        lw=1,
        ls="none" if fit else dash,
        label=label,
    )
    if fit:
        low, high = math.log(curve.kappas[0]), math.log(curve.kappas[-1])
        xs = [math.exp(low + (high - low) * j / 100) for j in range(101)]
        axes.plot(xs, [fit.rate(x) for x in xs], color=colour, ls=dash, lw=1.4)


def _finish(axes: Axes, title: str, place: Any = "lower right") -> None:
    axes.axvline(_PAPER, color="0.8", lw=4, zorder=0)
    axes.set_ylim(-0.03, 1.03)
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=True, framealpha=0.85, fontsize=9, loc=place, bbox_to_anchor=(0, 0.05, 1, 0.93)
        )


def table(rows: Sequence[Result]) -> list[Table]:
    """For each size: rates at each κ that the paper tried, and the κ of 50, 90 and 95 %."""
    made, found = [], curves(rows)
    for d, s in dict.fromkeys((c.d, c.sparsity) for c in found):
        own = _pick(found, d=d, sparsity=s)
        clean, noisy = _pick(own, noise=0.0), [c for c in own if c.noise]
        made.append(_rates(clean, "exact", f"d = {d}, s = {s}: exact support, without noise"))
        if noisy:
            said = f"d = {d}, s = {s}: relative error at most the noise's"
            made.append(_rates(noisy, "accurate", said))
    return made


def _rates(found: Sequence[Curve], what: str, title: str) -> Table:
    made = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
    )
    made.caption = (
        "±: half the 95 % Wilson interval; ( ): the fit's 95 %; < >: beyond the κ measured; "
        f"energy: share of ‖x‖² on atoms found, at κ = {_PAPER}"
    )
    kappas = [k for k in (5, 6, _PAPER, 8) if any(k in c.kappas for c in found)]
    for name in ("solver", "law", *(["noise"] if what == "accurate" else [])):
        made.add_column(name, no_wrap=True)
    for kappa in kappas:
        made.add_column(f"κ = {kappa}", justify="right", no_wrap=True)
    made.add_column(f"energy, {_PAPER}", justify="right", no_wrap=True)
    for level in LEVELS:
        made.add_column(f"κ of {100 * level:g} %", justify="right", no_wrap=True)
    for curve in found:
        other = curve.ensemble != found[0].ensemble
        head = [f"{curve.solver}, {curve.ensemble}" if other else curve.solver, _named(curve.law)]
        head += [f"{100 * curve.noise:g} %"] * (what == "accurate")
        rates = dict(zip(curve.kappas, curve.rates(what), strict=True))
        energies = dict(zip(curve.kappas, curve.energy, strict=True))
        fit = curve.fit(what)
        made.add_row(
            *head,
            *(_share(rates.get(kappa), spread=kappa == _PAPER) for kappa in kappas),
            f"{energies[_PAPER]:.3f}" if _PAPER in energies else "",
            *(_crossing(curve, fit, what, level) for level in LEVELS),
        )
    return made


def _share(rate: tuple[float, float, float] | None, *, spread: bool) -> str:
    if rate is None:
        return ""
    share, low, high = rate
    return f"{share:.3f} ±{(high - low) / 2:.3f}" if spread else f"{share:.3f}"


def _crossing(curve: Curve, fit: Logistic | None, what: str, level: float) -> str:
    if len(curve.kappas) < 2:
        return ""
    found = fit and fit.crossing(level)
    if found:
        return f"{found.at:.1f} ({found.low:.1f}–{found.high:.1f})"
    first, last = curve.kappas[0], curve.kappas[-1]
    least = fit.rate(first) if fit else curve.rates(what)[0][0]
    return f"< {first:g}" if least > level else f"> {last:g}"


def _named(value: object) -> str:
    return _NAMED.get(str(value), str(value))
