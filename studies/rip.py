"""RIP: can the restricted isometry property explain that OMP works at κ = 7?

Question: the paper measures with k = κs rows, and takes κ "to satisfy the RIP conditions for the
OMP algorithm" (Appendix G), 7 by ablation. δ_m of an ensemble is bounded from below by the extreme
singular values of random supports and of bad ones that are grown greedily, from above by
Gershgorin's discs, and held against what theorems ask for: OMP in s steps δ_{s+1} < 1/√(s+1) (Mo
2015, sharp), ℓ1 δ_{2s} < 1/√2 (Cai & Zhang 2014, sharp). A lower bound above the limit settles it:
the condition fails. A δ that is small on the supports that were seen would settle nothing.

Expected: it fails by far. (1 + √(m/k))² − 1 of one Gaussian support is 0.83 at m = 32, k = 217,
where 0.18 is asked for. RIP is about the worst support, and OMP has to work on the usual one.

Found (``python -m studies rip``, 3 seeds; unit-norm columns, which is what solvers work on):

- d 2048, s 31, κ 7: the mean over random supports alone is δ = 0.80 (Gaussian, Rademacher) or 0.74
  (SRHT), the worst seen 2.6 to 2.7, at most 5.5 to 6.4; 0.18 is needed. ℓ1: 3.8 to 3.9 where 0.71
  is needed. OMP finds 595, 593 and 599 of 600 supports with Gaussian coefficients, and 107, 92 and
  199 with ±1: RIP, which knows no coefficients, can tell neither.
- d 4096, s 8, κ 7: at least 2.6 to 2.9 (0.33 is needed), ℓ1 4.3 to 4.6; OMP 527, 513 and 518.
- κ 16: 1.5 to 1.6 (d 2048) and 1.7 (d 4096). At the paper's sizes neither theorem applies at any κ
  up to 16, nor to any multiple c·A: the bound that holds for all c is 0.73 and more. A random
  Gaussian support of 32 unit columns has δ < 0.18 from k ≈ 3500 on, beyond d = 2048.
- SRHT up to κ 8 has linearly dependent columns among 32 (in 9 of 12 draws; among 62 in all those at
  κ 7: σ_min = 0, no RIP of any strength), and is no worse for it: of ±1 signals at κ 7, s 31 it
  recovers twice as many as the others.
- Columns of a Gaussian A are not of norm one (spherical: those over their norms): as given, δ is
  2.8 instead of 2.6 at s 31 (κ 7) and 3.8 instead of 2.8 at s 8.
- s = 1 (a chunk of the paper's Table 5: d 65536, k 8): δ_2 = μ, so it is known. ±1/√k ensembles
  have 2⁷ different columns up to sign, μ = 1, and OMP finds 1 of 600 supports; at k = 16, 42
  (Rademacher) and 31 % (SRHT). Gaussian: μ = 0.998, above 0.71 again, and 600 of 600. That is no
  matter of RIP: ±1 columns must differ, so k has to exceed log2(d) well, whatever s is.
- d 24, where all supports can be looked at: the lower bounds reach 99.3 % of δ or more; random
  supports alone may stay at three quarters of it.
- Upper bounds prove nothing: (m − 1)·μ exceeds both limits even with Welch's least μ (save at
  s = 1), and the union bound over Gaussian supports is 3 to 17.

So κ = 7 is an empirical constant for signals whose coefficients differ in size (see the study
kappa). RIP gives no reason for it, nor for a collapse at κ = 6. What a lower bound cannot do is
vouch for an A; the smallest κ with RIP is not known from here, only that it is above 16.

Run time: a few minutes on two free cores without d = 65536, whose d² inner products take 10 to 20 s
a trial; about 25 minutes in all beside four other jobs. smoke: 6 s of one core.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sgc.finetune.config import ConfigError
from sgc.problems import draw_signals
from sgc.registry import create
from studies.figures.rip import figure, table
from studies.measures.checks import check_at_least
from studies.measures.rip_theory import THEOREMS
from studies.plugins import ensembles
from studies.study import Preset, product

__all__ = ["PAIRED", "PRESETS", "Config", "extremes", "figure", "isometry", "table", "trial"]

PAIRED = ("ensemble",)
_LAWS = ("gaussian", "signs")  # OMP's easy and hard one, for its own record beside the theorems'
_EVERY = 20_000  # up to so many supports are all looked at, and δ is exact
_TILE = 2**20  # numbers at a time: they stay in cache
_DIGITS = 6
Atoms = Float[Tensor, "d k"]
Supports = Int[Tensor, "n m"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """One point.

    Args:
        ensemble: a registered projection.
        d: columns of A, the length of a signal.
        k: rows of A.
        sparsity: s; the theorems ask about δ of the orders s + 1 and 2s.
        supports: random supports of each order.
        grown: starts from which a bad support is grown, in each of two ways.
        signals: for which OMP is tried, of each law.

    Raises:
        ConfigError: a value outside of its limits.
    """

    ensemble: str
    d: int
    k: int
    sparsity: int
    supports: int = 1000
    grown: int = 16
    signals: int = 200

    def __post_init__(self) -> None:
        check_at_least(self, k=1, sparsity=1, supports=1, grown=1, signals=1)
        largest = max(theorem.order(self.sparsity) for theorem in THEOREMS)
        if largest > self.d:
            raise ConfigError(
                f"sparsity={self.sparsity} asks for δ of order {largest}, more than d={self.d} "
                "columns: lower sparsity or raise d"
            )


def _points(
    sizes: dict[tuple[int, int], tuple[int, ...]], **common: Any
) -> Callable[[], list[Config]]:
    """(d, s) → values of κ."""
    return lambda: [
        config
        for (d, s), kappas in sizes.items()
        for config in product(
            partial(Config, d=d, sparsity=s, **common),
            k=[kappa * s for kappa in kappas],
            ensemble=ensembles(),
        )
    ]


_PAPER = {
    (24, 2): (4, 6, 8, 10),  # small enough for the exact δ
    (2048, 31): (4, 6, 7, 8, 12, 16),
    (4096, 8): (4, 6, 7, 8, 12, 16),
    (65536, 1): (8, 16),
}
PRESETS = {
    "smoke": Preset(
        configs=_points({(24, 2): (6,), (256, 4): (4, 7, 16)}, supports=200, grown=4, signals=50)
    ),
    "default": Preset(configs=_points(_PAPER), seeds=3),
    "paper": Preset(configs=_points(_PAPER, supports=50_000, grown=256, signals=1000), seeds=10),
}


def trial(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Bounds on δ of one A, and how often OMP finds the support with it.

    Returns:
        ``coherence`` μ; ``omp`` (law → signals whose support was found exactly); ``given`` and
        ``unit`` (columns as they are, and of norm one): order → what :func:`isometry` returns.
    """
    seed = generator.initial_seed()
    A = create("projection", config.ensemble, config.k, config.d, seed=seed, dtype=torch.float64)
    atoms = A.to_dense().T.contiguous()
    norms = A.column_norms()
    orders = sorted({theorem.order(config.sparsity) for theorem in THEOREMS})
    drawn = {m: _draw(config.d, m, config.supports, generator) for m in orders}

    def measure(columns: Atoms) -> tuple[float, dict[str, Any]]:
        inner = _largest_inner_products(columns, max(orders) - 1)
        starts = _pairs(columns, inner[:, 0], config.grown)
        found = {str(m): isometry(columns, drawn[m], starts, inner) for m in orders}
        return float(inner[:, 0].max()), found

    coherence, unit = measure(atoms / norms[:, None])
    alike = bool((norms - 1).abs().max() < 1e-12)
    omp, counts = create("recovery", "omp"), {}
    for law in _LAWS:
        support, values = draw_signals(
            config.d, config.sparsity, signals=config.signals, law=law, seed=seed
        )
        y = (A.columns(support) @ values[..., None])[..., 0]
        found = omp.solve(A, y, sparsity=config.sparsity).support
        same = (found.sort(1).values == support.sort(1).values).all(1)
        counts[law] = int(same.sum())
    return {
        "coherence": round(coherence, _DIGITS),
        "omp": counts,
        "given": unit if alike else measure(atoms)[1],
        "unit": unit,
    }


def isometry(
    atoms: Atoms, random: Supports, starts: Supports, inner: Float[Tensor, "d most"]
) -> dict[str, float | None]:
    """What is known of δ_m, the least δ with ``|‖A x‖² − ‖x‖²| ≤ δ‖x‖²`` for m-sparse x.

    That is the largest ``max(σ_max² − 1, 1 − σ_min²)`` over the C(d, m) submatrices of m columns.
    Whatever few of them are looked at, the largest is a *lower* bound.

    Args:
        atoms: the columns of A as rows.
        random: supports drawn uniformly.
        starts: pairs of columns from which bad supports are grown.
        inner: of each column the largest ``|⟨a_i, a_j⟩|`` with others, in falling order.

    Returns:
        ``typical``, mean of ``max(σ_max² − 1, 1 − σ_min²)`` over random supports; the lower bounds
        ``random`` and ``grown``; ``scaled``, the lower bound that also holds for every c·A,
        ``(β − α)/(β + α)`` with the extreme squares α, β of singular values over all of these
        supports (OMP does not see c, RIP does); ``upper``, certain by Gershgorin's discs,
        ``max_i |‖a_i‖² − 1| + Σ`` of the m − 1 largest ``|⟨a_i, a_j⟩|`` (Tropp 2004; for unit
        columns at most (m − 1)μ); ``exact`` where all supports can be looked at, otherwise None.
    """
    (d, _), order = atoms.shape, random.shape[1]
    bad = torch.cat([_aligned(atoms, starts, order), _dependent(atoms, starts, order)])
    looked, grown = extremes(atoms, random), extremes(atoms, bad)
    each = _delta(*looked)
    smallest = min(float(looked[0].min()), float(grown[0].min()))
    largest = max(float(looked[1].max()), float(grown[1].max()))
    discs = (atoms.square().sum(1) - 1).abs() + inner[:, : order - 1].sum(1)
    exact = None
    if math.comb(d, order) <= _EVERY:
        every = torch.combinations(torch.arange(d), order)
        exact = float(_delta(*extremes(atoms, every)).max())
    found = {
        "typical": float(each.mean()),
        "random": float(each.max()),
        "grown": float(_delta(*grown).max()),
        "scaled": (largest - smallest) / (largest + smallest),
        "upper": float(discs.max()),
        "exact": exact,
    }
    return {name: None if x is None else round(x, _DIGITS) for name, x in found.items()}


def extremes(atoms: Atoms, supports: Supports) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """``σ_min²`` and ``σ_max²`` of the submatrix of each support."""
    rows = max(1, _TILE // (supports.shape[1] * atoms.shape[1]))
    values = []
    for part in supports.split(rows):
        columns = atoms[part]
        values.append(torch.linalg.eigvalsh(columns @ columns.mT)[:, [0, -1]])
    found = torch.cat(values).clamp(min=0)  # a singular one may come out at −1e-16
    return found[:, 0], found[:, 1]


def _delta(low: Tensor, high: Tensor) -> Tensor:
    return torch.maximum(high - 1, 1 - low)


def _draw(d: int, order: int, count: int, generator: torch.Generator) -> Supports:
    rows = max(1, _TILE // d)
    parts = [min(rows, count - start) for start in range(0, count, rows)]
    return torch.cat(
        [torch.rand(n, d, generator=generator).topk(order, dim=1).indices for n in parts]
    )


def _largest_inner_products(atoms: Atoms, most: int) -> Float[Tensor, "d most"]:
    """Of each column, the largest ``|⟨a_i, a_j⟩|`` with others, in falling order."""
    d = atoms.shape[0]
    rows = max(1, _TILE // d)
    # d² numbers: in float32 where d is large, which costs half. Its error is rounded off.
    quick = (atoms.float() if d > 2**13 else atoms).T.contiguous()
    inner = quick.new_empty(rows, d)
    parts = []
    for start in range(0, d, rows):
        own = inner[: min(rows, d - start)]
        torch.mm(quick[:, start : start + rows].T, quick, out=own)
        own.diagonal(start).zero_()
        if most == 1:  # several times as fast as topk(1)
            parts.append(torch.maximum(own.amax(1), -own.amin(1))[:, None])
        else:
            parts.append(own.abs_().topk(most).values)
    return torch.cat(parts).to(atoms.dtype)


def _pairs(atoms: Atoms, largest: Float[Tensor, " d"], count: int) -> Supports:
    """Pairs of columns with large inner products, each once; up to ``count``."""
    first = largest.topk(min(2 * count, len(largest))).indices
    inner = (atoms[first] @ atoms.T).abs_()
    inner[torch.arange(len(first)), first] = -1
    pairs = torch.stack([first, inner.argmax(1)], 1).sort(1).values.tolist()
    once = list(dict.fromkeys(map(tuple, pairs)))  # in the order of largest
    return torch.tensor(once[:count])


def _aligned(atoms: Atoms, starts: Supports, order: int) -> Supports:
    """Grow supports by the column that lies nearest to their first singular direction: σ_max."""
    support = starts
    while support.shape[1] < order:
        columns = atoms[support]
        _, vectors = torch.linalg.eigh(columns @ columns.mT)
        direction = (vectors[:, None, :, -1] @ columns)[:, 0]
        score = (direction @ atoms.T).abs_().scatter_(1, support, -1)
        support = torch.cat([support, score.argmax(1, keepdim=True)], 1)
    return support


def _dependent(atoms: Atoms, starts: Supports, order: int) -> Supports:
    """Grow supports by the column of which their span leaves the least: σ_min."""
    support = starts
    rest = atoms.square().sum(1).repeat(len(starts), 1)  # ‖(I − P) a_j‖² for each start
    basis = atoms.new_zeros(len(starts), 0, atoms.shape[1])
    for i in range(order):
        if i == support.shape[1]:
            left = rest.scatter(1, support, torch.inf)
            support = torch.cat([support, left.argmin(1, keepdim=True)], 1)
        new = atoms[support[:, i]]
        for _ in range(2):  # twice, as in Gram–Schmidt, for a column that is nearly dependent
            new = new - ((basis @ new[..., None]).mT @ basis)[:, 0]
        length = torch.linalg.vector_norm(new, dim=1, keepdim=True)
        new = torch.where(length > 1e-12, new / length.clamp(min=1e-12), 0)
        basis = torch.cat([basis, new[:, None]], 1)
        rest = rest - (new @ atoms.T).square()
    return support
