"""Rows of the study "kappa" as a picture."""

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from sgc.results import Result
from studies.figures.kappa_curves import (
    PAPER,
    Curve,
    base,
    curves,
    merged,
    named,
    pick,
    reference,
)
from studies.figures.palette import COLOURS, MARKERS
from studies.measures.thresholds import l1_kappa, omp_kappa

__all__ = ["figure"]

_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-")
_BELOW = 34  # points from a panel to its legend, which holds ticks and the axis' label
_TWO_COLUMNS = 38  # letters of the longest label that leave room for a second column
_WHOLE = "share of supports found exactly"
_Drawer = Callable[[Axes], None]


def figure(rows: Sequence[Result]) -> Figure:
    """A column for each size of several nonzeros: OMP by law; solvers on one law (captured
    gradients if there are); ensembles on the law that has the most of them; OMP with noise, or of
    one nonzero. What has no rows has no panel.
    """
    found = curves(rows)
    common = base(found)
    sizes = list(dict.fromkeys((c.d, c.sparsity) for c in found))
    many = [size for size in sizes if size[1] != 1] or sizes
    columns = [_column(pick(found, d=d, sparsity=s), common) for d, s in many]
    single = [c for c in found if c.sparsity == 1]
    if single and len(many) > 1:
        columns[-1][-1] = _one_nonzero(single)
    shown = [line for line in zip(*columns, strict=True) if any(line)]
    size = (5.0 * len(many) + 0.4, 4.2 * len(shown) + 0.9)
    picture = Figure(figsize=(max(7, size[0]), size[1]), dpi=130, layout="constrained")
    panels = picture.subplots(len(shown), len(many), squeeze=False)
    for axes, draw in zip(panels.flat, (d for line in shown for d in line), strict=True):
        if draw is None:
            axes.set_axis_off()
            continue
        draw(axes)
    picture.suptitle(
        f"Recovery against κ, {named(common)} A unless said otherwise, float32\n"
        "bars: 95 % intervals (of captured signals by a bootstrap over gradients)\n"
        "curves: logistic fits in log κ; straight pieces: points joined; grey band: κ = 7",
        fontsize=10,
    )
    return picture


def _column(own: Sequence[Curve], common: str) -> list[_Drawer | None]:
    """What the panels of one size are; None where there is nothing to show."""
    size = own[0].d, own[0].sparsity
    clean, noisy = pick(own, noise=0.0), [c for c in own if c.noise]

    def panel(drawn: Sequence[Curve], by: str, title: str) -> _Drawer | None:
        def draw(axes: Axes) -> None:
            for i, (name, curve) in enumerate(merged(drawn, by).items()):
                _line(axes, curve, i, name)
            _finish(axes, f"{title}\n{_setting(drawn, common)}", _WHOLE)
            _theory(axes, size)

        return draw if drawn else None

    made: list[_Drawer | None] = [None, None, None]
    if clean:
        plain = pick(clean, ensemble=base(clean, common))
        solver = reference(plain)
        law = "captured" if pick(plain, law="captured") else plain[-1].law
        made[0] = panel(
            pick(plain, solver=solver), "law", f"{named(solver)} by law of the nonzeros"
        )
        made[1] = panel(pick(plain, law=law), "solver", f"by solver, {named(law)} nonzeros")
        compared = pick(clean, solver=solver)
        law = _most_ensembles(compared, law)
        if len(compared := pick(compared, law=law)) > 1:
            title = f"{named(solver)} by ensemble, {named(law)} nonzeros"
            made[2] = panel(compared, "ensemble", title)
    return [*made, _noisy(noisy, common) if noisy else None]


def _most_ensembles(found: Sequence[Curve], usual: str) -> str:
    """The law measured with the most ensembles; of several captured ones, then the usual one."""
    counts = {c.law: len(pick(found, law=c.law)) for c in found}
    return max(counts, key=lambda law: (counts[law], law == "captured", law == usual))


def _setting(drawn: Sequence[Curve], common: str) -> str:
    """The line below a title: the size, and the ensemble where it is one and not the common one."""
    (one, *others) = dict.fromkeys(c.ensemble for c in drawn)
    said = f", {named(one)} A" if not others and one != common else ""
    return f"d = {drawn[0].d}, s = {drawn[0].sparsity}{said}"


def _noisy(found: Sequence[Curve], common: str) -> _Drawer:
    own = pick(found, ensemble=base(found, common))
    solver = reference(own)
    own = pick(own, solver=solver)
    levels = sorted({c.noise for c in own})
    names = list(dict.fromkeys(c.law for c in own))

    def draw(axes: Axes) -> None:
        for curve in own:
            low = curve.noise == levels[0] and len(levels) > 1
            label = f"{named(curve.law)}, {100 * curve.noise:g} %"
            i, dash = names.index(curve.law), "-" if low else "--"
            _line(axes, curve, i, label, what="accurate", full=low, dash=dash)
        title = f"{named(solver)} with noise\n{_setting(own, common)}"
        _finish(axes, title, "share with relative error ≤ the noise's")

    return draw


def _one_nonzero(single: Sequence[Curve]) -> _Drawer:
    whole = [c for c in single if len(c.kappas) > 1] or single
    solver = reference(whole)
    own = pick(whole, solver=solver)
    own = pick(own, law=own[0].law)

    def draw(axes: Axes) -> None:
        for i, curve in enumerate(sorted(own, key=lambda c: c.noise)):
            noise = f", {100 * curve.noise:g} % noise" if curve.noise else ""
            _line(axes, curve, i, f"{named(curve.ensemble)} A{noise}", fitted=False)
        title = f"{named(solver)} of one nonzero: points joined\nd = {own[0].d}, s = 1"
        _finish(axes, title, _WHOLE)

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


def _finish(axes: Axes, title: str, ylabel: str) -> None:
    axes.axvline(PAPER, color="0.85", lw=4, zorder=0)
    axes.set_ylim(-0.03, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set(xlabel="κ = k/s, measurements a nonzero", ylabel=ylabel)
    axes.set_title(title, fontsize=10.5)
    axes.grid(alpha=0.3)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Below the panel: inside, curves of some rows would run through any place."""
    _, labels = axes.get_legend_handles_labels()
    longest = max(len(line) for label in labels for line in str(label).split("\n"))
    place = offset_copy(axes.transAxes, axes.get_figure(root=True), y=-_BELOW, units="points")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=place,
        borderaxespad=0,
        ncols=2 if longest <= _TWO_COLUMNS else 1,
        columnspacing=1,
        handlelength=1.6,
        frameon=False,
        fontsize=8,
    )
