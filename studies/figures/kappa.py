"""Rows of the study "kappa" as a picture."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgc.results import Result
from studies.figures.intervals import l1_kappa, omp_kappa
from studies.figures.kappa_curves import PAPER, Curve, curves, merged, named, pick
from studies.figures.palette import COLOURS, MARKERS

__all__ = ["figure"]

_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-")
_WHOLE = "share of supports found exactly"
_Drawer = Callable[[Axes], None]


def figure(rows: Sequence[Result]) -> Figure:
    """A column for each size of several nonzeros: OMP by law; solvers, then ensembles, on one law
    (captured gradients if there are); OMP with noise, or of one nonzero. What has no rows has no
    panel.
    """
    found = curves(rows)
    sizes = list(dict.fromkeys((c.d, c.sparsity) for c in found))
    many = [size for size in sizes if size[1] != 1] or sizes
    columns = [_column(found, size) for size in many]
    single = [c for c in found if c.sparsity == 1]
    if single and len(many) > 1:
        columns[-1][-1] = _one_nonzero(single)
    shown = [line for line in zip(*columns, strict=True) if any(line)]
    size = (5.0 * len(many) + 0.4, 3.7 * len(shown) + 0.9)
    picture = Figure(figsize=(max(7, size[0]), size[1]), dpi=130, layout="constrained")
    panels = picture.subplots(len(shown), len(many), squeeze=False)
    for axes, draw in zip(panels.flat, (d for line in shown for d in line), strict=True):
        if draw is None:
            axes.set_axis_off()
            continue
        draw(axes)
        axes.set_xlabel("κ = k/s, measurements a nonzero")
    picture.suptitle(
        f"Recovery against κ, {named(found[0].ensemble)} A unless said otherwise, float32\n"
        "bars: 95 % intervals (of captured signals by a bootstrap over gradients)\n"
        "curves: logistic fits in log κ; straight pieces: points joined; grey band: κ = 7",
        fontsize=10,
    )
    return picture


def _column(found: Sequence[Curve], size: tuple[int, int]) -> list[_Drawer | None]:
    """What the panels of one size are; None where there is nothing to show."""
    d, s = size
    own = pick(found, d=d, sparsity=s)
    ensemble = own[0].ensemble
    reference = "omp" if pick(own, solver="omp") else own[0].solver
    clean = pick(own, noise=0.0)
    law = "captured" if pick(clean, law="captured") else [c.law for c in clean or own][-1]
    plain = pick(clean, ensemble=ensemble)
    by_ensemble = pick(clean, solver=reference, law=law)
    noisy = [c for c in pick(own, solver=reference, ensemble=ensemble) if c.noise]

    def panel(drawn: Sequence[Curve], by: str, title: str) -> _Drawer:
        def draw(axes: Axes) -> None:
            for i, (name, curve) in enumerate(merged(drawn, by).items()):
                _line(axes, curve, i, name)
            # Of solvers above those that find nothing.
            place = {
                "loc": "lower right",
                "bbox_to_anchor": (0.96, 0.1) if by == "solver" else (1, 0),
            }
            _finish(axes, f"{title}\nd = {d}, s = {s}", _WHOLE, **place)
            _theory(axes, size)

        return draw

    return [
        panel(pick(plain, solver=reference), "law", f"{named(reference)} by law of the nonzeros"),
        panel(pick(plain, law=law), "solver", f"by solver, {named(law)} nonzeros"),
        panel(by_ensemble, "ensemble", f"{named(reference)} by ensemble, {named(law)} nonzeros")
        if len(by_ensemble) > 1
        else None,
        _noisy(noisy, f"{named(reference)} with noise\nd = {d}, s = {s}") if noisy else None,
    ]


def _noisy(own: Sequence[Curve], title: str) -> _Drawer:
    levels = sorted({c.noise for c in own})
    names = list(dict.fromkeys(c.law for c in own))

    def draw(axes: Axes) -> None:
        for curve in own:
            low = curve.noise == levels[0] and len(levels) > 1
            label = f"{named(curve.law)}, {100 * curve.noise:g} %"
            i, dash = names.index(curve.law), "-" if low else "--"
            _line(axes, curve, i, label, what="accurate", full=low, dash=dash)
        _finish(axes, title, "share with relative error ≤ the noise's", loc="lower right")

    return draw


def _one_nonzero(single: Sequence[Curve]) -> _Drawer:
    whole = [c for c in single if len(c.kappas) > 1] or single
    reference = "omp" if pick(whole, solver="omp") else whole[0].solver
    own = [c for c in pick(whole, solver=reference) if c.law == whole[0].law]

    def draw(axes: Axes) -> None:
        for i, curve in enumerate(sorted(own, key=lambda c: c.noise)):
            noise = f", {100 * curve.noise:g} % noise" if curve.noise else ""
            _line(axes, curve, i, f"{named(curve.ensemble)} A{noise}", fitted=False)
        _finish(
            axes,
            f"{reference} of one nonzero: points joined\nd = {own[0].d}, s = 1",
            _WHOLE,
            loc="best",
        )

    return draw


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
    colour = COLOURS[i % len(COLOURS)]
    dash = _DASHES[i % len(_DASHES)] if dash is None else dash
    rates = curve.rates(what)
    middle = [rate for rate, _, _ in rates]
    fit = curve.fit(what) if fitted else None
    axes.errorbar(
        curve.kappas,
        middle,
        [[m - low for m, low, _ in rates], [high - m for m, _, high in rates]],
        fmt=MARKERS[i % len(MARKERS)],
        color=colour,
        mfc=colour if full else "white",
        ms=5,
        capsize=2,
        lw=1,
        ls="none" if fit else dash,
        label=label + ("\n" if "\n" in label else " ") + f"(n {_range(curve.signals)})",
    )
    if fit:
        low, high = math.log(curve.kappas[0]), math.log(curve.kappas[-1])
        xs = [math.exp(low + (high - low) * j / 100) for j in range(101)]
        axes.plot(xs, [fit.rate(x) for x in xs], color=colour, ls=dash, lw=1.4)


def _range(counts: Iterable[int]) -> str:
    low, high = min(counts := list(counts)), max(counts)
    return f"{low}" if low == high else f"{low}–{high}"


def _theory(axes: Axes, size: tuple[int, int]) -> None:
    axes.set_xlim(right=max(axes.get_xlim()[1], 1.03 * omp_kappa(*size)))
    thresholds = {"ℓ1": (l1_kappa(*size), (0, (1, 1)))}
    thresholds["OMP: 2 ln(d−s)"] = (omp_kappa(*size), (0, (6, 2)))
    for name, (at, dash) in thresholds.items():
        axes.axvline(at, color="0.35", ls=dash, lw=1.2)
        right = name == "ℓ1"
        axes.annotate(
            name,
            (at, 1.055),
            xytext=(2 if right else -2, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            fontsize=8,
            color="0.2",
        )


def _finish(axes: Axes, title: str, ylabel: str, **legend: Any) -> None:
    axes.axvline(PAPER, color="0.85", lw=4, zorder=0)
    axes.set_ylim(-0.03, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=10.5)
    axes.grid(alpha=0.3)
    axes.legend(framealpha=0.85, edgecolor="none", fontsize=8, **legend)
