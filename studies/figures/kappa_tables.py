"""Rows of the study "kappa" as tables."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from sgc.results import Result
from studies.figures.kappa_curves import PAPER, Curve, base, curves, named, pick, reference

__all__ = ["LEVELS", "table"]

LEVELS = (0.5, 0.9, 0.95)
_MANY = 10  # columns of κ that a table holds
_FAR = 1000.0  # a κ that no fit can tell from infinity
_OTHER_TIME = "–"  # in place of a time that does not compare with the others
_INTERVALS = "95 % interval: Wilson's, of captured signals by a bootstrap over gradients"


def table(rows: Sequence[Result]) -> list[Table]:
    """For each size: solvers and ensembles by law at κ = 7, where there are several; rates by κ,
    and the κ of 50, 90 and 95 %; the same with noise.
    """
    made, found = [], curves(rows)
    for d, s in dict.fromkeys((c.d, c.sparsity) for c in found):
        own, common, size = pick(found, d=d, sparsity=s), base(found), f"d = {d}, s = {s}"
        clean, noisy = pick(own, noise=0.0), [c for c in own if c.noise]
        at_paper = [c for c in clean if PAPER in c.kappas]
        if len({(c.solver, c.ensemble) for c in at_paper}) > 1:
            said = f"{size}, κ = {PAPER}: which solver, which A"
            made.append(_choices(at_paper, said, common))
        if clean:
            made.append(_rates(clean, "exact", f"{size}: exact support, without noise", common))
        if noisy:
            said = f"{size}: relative error at most the noise's"
            made.append(_rates(noisy, "accurate", said, common))
    return made


def _choices(found: Sequence[Curve], title: str, common: str) -> Table:
    """A line for each solver and ensemble, a column for each law."""
    made = _empty(title)
    laws = list(dict.fromkeys(c.law for c in found))
    for name in ("solver", "A"):
        made.add_column(name, no_wrap=True)
    for name in (*map(named, laws), "ms a signal"):
        made.add_column(name, justify="right", no_wrap=True)
    timed = pick(found, law=laws[-1])
    ensemble = base(timed, common)
    solver = reference(pick(timed, ensemble=ensemble))
    (compared,) = pick(timed, solver=solver, ensemble=ensemble)
    times = {(c.solver, c.ensemble): _time(c, compared) for c in timed}
    for name, A in dict.fromkeys((c.solver, c.ensemble) for c in found):
        own = {c.law: c for c in pick(found, solver=name, ensemble=A)}
        cells = [_share(own[law], PAPER, spread=True) if law in own else "" for law in laws]
        made.add_row(name, named(A), *cells, times.get((name, A), ""))
    made.caption = (
        f"exact supports, ±: half the {_INTERVALS}; ms a signal: of {named(laws[-1])} ones, wall "
        "time of one thread beside other work"
    )
    if _OTHER_TIME in times.values():
        made.caption += (
            f"; {_OTHER_TIME}: timed at another git revision or on another processor than {solver} "
            f"with the {named(ensemble)} A, and left out"
        )
    return made


def _time(curve: Curve, compared: Curve) -> str:
    """Milliseconds a signal, of rows from where those of another curve are from."""
    at, its = curve.kappas.index(PAPER), compared.kappas.index(PAPER)
    same = curve.timed[at] == compared.timed[its]
    return f"{curve.milliseconds[at]:.1f}" if same else _OTHER_TIME


def _rates(found: Sequence[Curve], what: str, title: str, common: str) -> Table:
    """A line for each setting; those of another ensemble than the title's name theirs."""
    ensembles, common = {c.ensemble for c in found}, base(found, common)
    others = " unless said otherwise" if len(ensembles) > 1 else ""
    made = _empty(f"{title}; {named(common)} A{others}")
    every = sorted({kappa for c in found for kappa in c.kappas})
    kappas = every if len(every) <= _MANY else [k for k in (5, 6, PAPER, 8) if k in every]
    energy = PAPER in every
    made.caption = (
        f"±: half the {_INTERVALS}; ( ): the fit's 95 %; < >: beyond the κ measured"
        + f"; energy: share of ‖x‖² on atoms found, at κ = {PAPER}" * energy
    )
    for name in ("solver", "law", *(["noise"] if what == "accurate" else [])):
        made.add_column(name, no_wrap=True)
    for name in (*(f"κ {kappa:g}" for kappa in kappas), *(["energy"] if energy else [])):
        made.add_column(name, justify="right", no_wrap=True)
    for level in LEVELS:
        made.add_column(f"κ of {100 * level:g} %", justify="right", no_wrap=True)
    for setting in dict.fromkeys((c.law, c.ensemble, c.noise) for c in found):
        law, ensemble, noise = setting
        own = pick(found, law=law, ensemble=ensemble, noise=noise)
        for curve in own:
            other = f", {named(ensemble)}" if ensemble != common else ""
            head = [curve.solver + other, named(law)]
            head += [f"{100 * noise:g} %"] * (what == "accurate")
            cells = [
                _share(curve, kappa, what, spread=kappa == PAPER or not energy) for kappa in kappas
            ]
            if energy:
                at = curve.kappas.index(PAPER) if PAPER in curve.kappas else None
                cells.append("" if at is None else _digits(curve.energy[at], 3))
            made.add_row(*head, *cells, *(_crossing(curve, what, level) for level in LEVELS))
    return made


def _empty(title: str) -> Table:
    return Table(
        title=title,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=0,  # the box puts a space between columns
        title_justify="left",
        caption_justify="left",
    )


def _share(curve: Curve, kappa: float, what: str = "exact", *, spread: bool) -> str:
    if kappa not in curve.kappas:
        return ""
    share, low, high = curve.rates(what)[curve.kappas.index(kappa)]
    if not spread:
        return _digits(share, 2)
    return f"{_digits(share, 3)} ±{_digits((high - low) / 2, 3)}"


def _digits(share: float, places: int) -> str:
    return f"{share:.{places}f}".removeprefix("0")


def _crossing(curve: Curve, what: str, level: float) -> str:
    if len(curve.kappas) < 2:
        return ""
    if found := curve.crossing(what, level):
        high = f"{found.high:.1f}" if found.high < _FAR else "∞"
        return f"{found.at:.1f} ({found.low:.1f}–{high})"
    fit = curve.fit(what)
    first, last = curve.kappas[0], curve.kappas[-1]
    least = fit.rate(first) if fit else curve.rates(what)[0][0]
    return f"< {first:g}" if least > level else f"> {last:g}"
