"""Rows of the study "kappa" as curves: successes against κ."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from sgc.finetune.config import ConfigError
from sgc.results import Result
from studies.figures.clusters import Clusters
from studies.figures.intervals import Crossing, Logistic, fit_logistic, wilson

__all__ = ["PAPER", "Curve", "base", "curves", "merged", "named", "pick", "reference"]

PAPER = 7  # the κ of Figure 3(c)
_NAMED = {
    **{"gaussian": "Gaussian", "rademacher": "Rademacher", "srht": "SRHT"},
    **{"signs": "±1", "power-law": "±1/rank"},
}
_FIELDS = ("d", "sparsity", "ensemble", "law", "solver", "noise")
_COUNTS = ("signals", "exact", "accurate")


@dataclass(frozen=True, eq=False)
class Curve:
    """Successes against κ of one setting, all seeds together.

    Attributes:
        d, sparsity, ensemble, law, solver, noise: the setting.
        kappas: ascending.
        exact, accurate, signals: counts at each κ.
        energy: mean share of ``‖x‖²`` on atoms that were found, at each κ.
        milliseconds: a signal at each κ, mean.
        timed: the git revisions and processors that measured, at each κ: times of others do not
            compare.
        by_gradient: the three counts of captured signals, κ × gradients; otherwise None.
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
    milliseconds: list[float]
    timed: list[frozenset[tuple[str | None, str | None]]]
    by_gradient: dict[str, Int[np.ndarray, "kappa gradients"]] | None

    def rates(self, what: str) -> list[tuple[float, float, float]]:
        """Share of successes and its 95 % interval at each κ: Wilson's, or of the clusters."""
        if clusters := self._clusters.get(what):
            return clusters.rates()
        counts = zip(getattr(self, what), self.signals, strict=True)
        return [(good / n, *wilson(good, n)) for good, n in counts]

    def fit(self, what: str) -> Logistic | None:
        """The logistic fit in log κ."""
        if len(self.kappas) < 2:
            return None
        return fit_logistic(self.kappas, getattr(self, what), self.signals)

    def crossing(self, what: str, level: float) -> Crossing | None:
        """The κ at which the fit reaches a rate; None where that is not among those measured."""
        if (fit := self.fit(what)) is None:
            return None
        clusters = self._clusters.get(what)
        return clusters.crossing(fit, level) if clusters else fit.crossing(level)

    @cached_property
    def _clusters(self) -> dict[str, Clusters]:
        if self.by_gradient is None:
            return {}
        counts = self.by_gradient
        return {w: Clusters(self.kappas, counts[w], counts["signals"]) for w in _COUNTS[1:]}


def curves(rows: Sequence[Result]) -> list[Curve]:
    """A curve for each setting, in the order of the rows.

    Raises:
        ConfigError: rows of captured signals that do not say which gradient is whose.
    """
    settings: dict[tuple[Any, ...], dict[float, list[Result]]] = {}
    for row in rows:
        c = row.config
        at = settings.setdefault(tuple(c[name] for name in _FIELDS), {})
        at.setdefault(c["k"] / c["sparsity"], []).append(row)
    return [_curve(dict(zip(_FIELDS, key, strict=True)), at) for key, at in settings.items()]


def _curve(setting: dict[str, Any], rows: dict[float, list[Result]]) -> Curve:
    kappas = sorted(rows)
    at = {kappa: [row.metrics for row in rows[kappa]] for kappa in kappas}
    origins = {kappa: [row.environment for row in rows[kappa]] for kappa in kappas}

    def mean(what: str) -> list[float]:
        weighed = [sum(m["signals"] * m[what] for m in at[kappa]) for kappa in kappas]
        return [value / n for value, n in zip(weighed, counts["signals"], strict=True)]

    counts = {what: [sum(m[what] for m in at[kappa]) for kappa in kappas] for what in _COUNTS}
    return Curve(
        **setting,
        kappas=kappas,
        exact=counts["exact"],
        accurate=counts["accurate"],
        signals=counts["signals"],
        energy=mean("energy"),
        milliseconds=[1000 * seconds for seconds in mean("seconds_per_signal")],
        timed=[frozenset((o.get("git"), o.get("cpu")) for o in origins[k]) for k in kappas],
        by_gradient=_by_gradient([at[kappa] for kappa in kappas], setting["law"]),
    )


def _by_gradient(at: Sequence[Sequence[dict[str, Any]]], law: str) -> dict[str, Any] | None:
    if law != "captured":
        return None
    if not all("by_gradient" in m for metrics in at for m in metrics):
        raise ConfigError(
            "rows of captured signals lack by_gradient, as those of earlier versions do, and "
            "without it their intervals would be too narrow: measure them again (--fresh)"
        )
    return {
        what: np.array([np.sum([m["by_gradient"][what] for m in metrics], 0) for metrics in at])
        for what in _COUNTS
    }


def pick(found: Iterable[Curve], **fields: object) -> list[Curve]:
    """The curves of a setting."""
    return [c for c in found if all(getattr(c, name) == value for name, value in fields.items())]


def base(found: Sequence[Curve], preferred: str = "gaussian") -> str:
    """The ensemble meant where none is named: the preferred one if it is there, else the first."""
    return preferred if pick(found, ensemble=preferred) else found[0].ensemble


def reference(found: Sequence[Curve]) -> str:
    """The solver that ensembles and laws are compared with: OMP if it is there, else the first."""
    return "omp" if pick(found, solver="omp") else found[0].solver


def merged(own: Sequence[Curve], by: str) -> dict[str, Curve]:
    """Curves by the name that tells them apart; those with the same counts have one for both."""
    groups: dict[Any, list[Curve]] = {}
    for curve in own:
        same = (*curve.kappas, *curve.exact, *curve.accurate, *curve.signals)
        groups.setdefault(same, []).append(curve)
    return {" =\n".join(named(getattr(c, by)) for c in same): same[0] for same in groups.values()}


def named(value: object) -> str:
    """As the pictures and tables write it."""
    return _NAMED.get(str(value), str(value))
