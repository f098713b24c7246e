"""Rows of the study "moment-sparsity": means over seeds, and tables of them."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from sgc.results import Result
from studies.measures.moment_watch import LARGE

__all__ = [
    "HOLDS",
    "Cell",
    "cells",
    "critical_scale",
    "gradient_beta",
    "holds",
    "kappas",
    "moment_beta",
    "rms",
    "select",
    "table",
    "values",
]

#: A sketch holds x if the error of OMP's answer exceeds that of the s_c best entries by no more
#: than this share of ‖x‖².
HOLDS = 0.1

Cell = tuple[int, int]


def select(row: Result, what: str, **wanted: Any) -> list[dict[str, Any]]:
    """Records of a row that have these values."""
    records: list[dict[str, Any]] = row.metrics[what]
    return [r for r in records if all(r[key] == value for key, value in wanted.items())]


def values(rows: Sequence[Result], what: str, key: str, **wanted: Any) -> tuple[float, float]:
    """Mean over seeds and its standard error (0 of one seed), of the mean over such records."""
    means = [
        float(np.mean([record[key] for record in found]))
        for row in rows
        if (found := select(row, what, **wanted))
    ]
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return (float(np.mean(means)), error) if means else (math.nan, 0.0)


def holds(record: dict[str, float]) -> bool:
    """Whether the sketch gives back nearly as much as the s_c best entries are."""
    return record["error"] - (1 - record["best"]) <= HOLDS


def critical_scale(scales: Sequence[float], largest: Sequence[float]) -> float | None:
    """Where the largest entry of N passes 10, interpolated on logarithms; None if it never does."""
    pairs = sorted(zip(scales, largest, strict=True))
    for (a, low), (b, high) in itertools.pairwise(pairs):
        if low <= LARGE < high:
            share = math.log(LARGE / low) / math.log(high / low)
            return float(a * (b / a) ** share)
    return pairs[0][0] if pairs and pairs[0][1] > LARGE else None


def cells(row: Result) -> list[Cell]:
    """Pairs (c, s_c)."""
    return [(int(c), int(s)) for c, s in row.config["cells"]]


def moment_beta(row: Result) -> dict[str, float]:
    """The β of the moments that are recovered."""
    beta1, beta2 = row.config["recovered"][-1]
    return {"beta1": beta1, "beta2": beta2}


def gradient_beta(row: Result) -> dict[str, float] | None:
    """β = 0, if it was watched: then M is the gradient."""
    pairs = [tuple(pair) for pair in row.config["recovered"]]
    return {"beta1": 0.0, "beta2": 0.0} if (0, 0) in pairs else None


def kappas(rows: Sequence[Result], cell: Cell) -> list[float]:
    """κ that were measured for a cell."""
    return sorted({r["kappa"] for r in select(rows[0], "recovery", chunks=cell[0], s=cell[1])})


def rms(rows: Iterable[Result]) -> float:
    """Of the gradients' entries, over steps and seeds."""
    return float(np.sqrt(np.mean([np.square(row.metrics["rms"]).mean() for row in rows])))


def table(rows: Sequence[Result]) -> list[Table]:
    """Which (s, κ) hold a moment; how sparse it is; where a decode diverges."""
    return [_held(rows), _sparse(rows), _diverging(rows)]


def _held(rows: Sequence[Result]) -> Table:
    first, gradient = rows[0], gradient_beta(rows[0])
    moment, last = moment_beta(first), max(first.config["measure"])
    made = Table(
        title=f"Which (s, κ) hold a moment: M (β₁ = {moment['beta1']:g}) and V (β₂ = "
        f"{moment['beta2']:g}) after {last} steps, against gradients",
        caption="hits: share of the s_c largest entries found (± standard error over seeds). "
        "error: ‖M̂ − M‖²/‖M‖², in brackets that of the s_c best entries. Held: at most "
        f"{HOLDS:g} above it. no V: atoms of M that V's own recovery lacks.",
    )
    for header in ("c", "s_c", "κ", "k_c", "d_c/k_c", "hits, G", "hits, M", "error, M"):
        made.add_column(header, justify="right", no_wrap=True)
    for header in ("hits, V", "V < 0", "no V", "G held", "M held"):
        made.add_column(header, justify="right", no_wrap=True)
    for cell in cells(first):
        length = first.metrics["length"][str(cell[0])]
        for kappa in kappas(rows, cell):
            name: dict[str, Any] = {"chunks": cell[0], "s": cell[1], "kappa": kappa}
            at = {**name, **moment, "step": last}
            got = {
                key: values(rows, "recovery", key, **at)
                for key in ("hit_m", "hit_v", "error", "best", "negative_v", "no_v")
            }
            own = {key: value[0] for key, value in got.items()}
            k = round(kappa * cell[1])
            of_gradient = "–", "–"
            if gradient:
                g = {
                    key: values(rows, "recovery", key, **name, **gradient)
                    for key in ("hit_m", "error", "best")
                }
                plain = {key: value[0] for key, value in g.items()}
                of_gradient = _share(g["hit_m"]), "yes" if holds(plain) else "no"
            made.add_row(
                *map(str, cell),
                f"{kappa:g}",
                str(k),
                f"{length / k:.3g}",
                of_gradient[0],
                _share(got["hit_m"]),
                f"{own['error']:.2f} ({1 - own['best']:.2f})",
                _share(got["hit_v"]),
                f"{own['negative_v']:.2f}",
                f"{own['no_v']:.2f}",
                of_gradient[1],
                "yes" if holds(own) else "no",
            )
    return made


def _sparse(rows: Sequence[Result]) -> Table:
    first, last = rows[0], max(rows[0].config["measure"])
    made = Table(
        title=f"Effective sparsity after {last} steps: entries of a chunk that hold 90 % / 99 % of "
        "its energy, and (Σx²)²/Σx⁴",
        caption="of s_c: the first of them over s_c. top: share of the energy in the s_c largest. "
        "overlap: of the s_c largest of M and of V.",
    )
    for header in ("c", "s_c", "β₁", "β₂", "M: 90/99 %", "(Σx²)²/Σx⁴", "of s_c", "top"):
        made.add_column(header, justify="right")
    for header in ("V: 90/99 %", "(Σx²)²/Σx⁴", "of s_c", "overlap"):
        made.add_column(header, justify="right")
    for cell in cells(first):
        for beta1, beta2 in first.config["betas"]:
            name = {"chunks": cell[0], "s": cell[1], "step": last, "beta1": beta1, "beta2": beta2}
            keys = [f"{w}_{x}" for w in "mv" for x in ("90", "99", "participation", "top")]
            got = {key: values(rows, "moments", key, **name)[0] for key in (*keys, "overlap")}
            made.add_row(
                *map(str, cell),
                *(f"{beta:g}" for beta in (beta1, beta2)),
                f"{got['m_90']:.3g} / {got['m_99']:.3g}",
                f"{got['m_participation']:.3g}",
                f"{got['m_90'] / cell[1]:.2g}×",
                f"{got['m_top']:.2f}",
                f"{got['v_90']:.3g} / {got['v_99']:.3g}",
                f"{got['v_participation']:.3g}",
                f"{got['v_90'] / cell[1]:.2g}×",
                _share(values(rows, "moments", "overlap", **name)),
            )
    return made


def _diverging(rows: Sequence[Result]) -> Table:
    first, own = rows[0], rms(rows)
    near = min(first.config["scales"], key=lambda scale: abs(math.log(scale / own)))
    made = Table(
        title=f"N at κ = {first.config['decode_kappa']} for gradients of other scales (this run: "
        f"entries of root mean square {own:.2g})",
        caption="from: the root mean square at which the largest |N| passes 10.",
    )
    headers = ("c", "s_c", "decode", "ε", "from", f"max |N| at {near:g}", "median", "share > 10")
    for header in headers:
        made.add_column(header, justify="right")
    seen = dict.fromkeys(
        (r["chunks"], r["s"], r["decode"], r["eps"]) for r in first.metrics["decodes"]
    )
    for chunks, s, decode, eps in seen:
        name = {"chunks": chunks, "s": s, "decode": decode, "eps": eps}
        scales = sorted(first.config["scales"])
        most = [values(rows, "decodes", "max", scale=scale, **name)[0] for scale in scales]
        where = critical_scale(scales, most)
        made.add_row(
            str(chunks),
            str(s),
            decode,
            f"{eps:g}",
            "never" if where is None else f"{where:.2g}",
            *(
                f"{values(rows, 'decodes', key, scale=near, **name)[0]:.2g}"
                for key in ("max", "median", "large")
            ),
        )
    return made


def _share(value: tuple[float, float]) -> str:
    return f"{value[0]:.2f} ± {value[1]:.2f}"
