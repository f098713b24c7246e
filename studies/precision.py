"""Precision: are TF32 or bf16 good enough to measure and correlate in, and where does it break?

Question: tensor cores multiply TF32 or bf16 and sum in float32. Which product of the sketch may
they take over: the measurement ``y = A x``, the solver's correlation ``Aᵀ r``, both? The same
signals are solved in float64, and what float64 finds should be found again ("kept"). Formats are
emulated by rounding the factors, see :class:`RoundedOperator`. Further mantissas, down to 3 bits,
show where it ends.

Expected: an error of 2⁻⁸ (bf16) in y is noise at −50 dB, which costs the smallest coefficients. The
correlation only has to rank atoms, and the next residual is computed anew: harmless.

Found (``python -m studies precision``, 2 seeds of 200 signals; unless said otherwise omp, Gaussian
A, Gaussian coefficients; supports kept in % with 95 % intervals):

- The correlation may be rounded: 99.7 (98.6–100) at (2048, 217, 31) and 100 (98.9–100) at
  (4096, 56, 8) with TF32 and bf16, and still 99.7 and 98 with 3 bits; values to 1e-7. Of ±1
  signals 3 bits lose 16 and 25. float32 itself keeps 99.7: one coefficient was below its rounding.
- The measurement costs: TF32 98.7 (97.1–99.5) and 100 (98.9–100), bf16 90.7 (87.4–93.2) and 96.2
  (93.6–97.8), 3 bits 20 and 61. What is lost are the smallest coefficients: with bf16 both ways
  99.7 and 99.2 % of float64's supports stay, and ‖x̂ − x‖/‖x‖ is 1.9e-3 (TF32: 2.2e-4), of the
  size of the rounding itself. Signals that decay as 1/rank lose none (391 of 391, 345 of 345).
- Keeping A in bf16 everywhere (one matrix, rounded once) gains little: 92.7 and 96.8; 93.2 and
  96 to 97 with Rademacher and SRHT, whose entries all round alike.
- omp-inverse-cholesky is the exception: it updates correlations with a Gram matrix and never
  computes them anew, so bf16 correlations alone cost it a tenth, 89.4 (86.0–92.1), and both 84.9
  (81.0–88.1); TF32 97.5. Recompute the correlation (omp), or keep the Gram matrix in float32.
- cosamp (85 of 100) and niht (87 of 98) lose as much as omp to bf16; iht finds no support at all.
- Scale: bf16 and TF32 do not care. float16 has bf16's place at 1e-5, a gradient's size, for want of
  exponents: 82.9 (78.9–86.3) instead of 97.7.

So TF32 is good enough for all of it, bf16 for the correlation of a solver that recomputes it, and
for measurements where an error of 0.2 % and the loss of the smallest entry of some signals is
nothing, as it is under a moment estimate. It breaks below 7 bits, and in float16 unless scaled.

Not here: omp-cupy's own tf32 mode, and the sum over steps of sketches that are kept in bf16.

Run time: 17 minutes as one process beside five others; iht takes a fifth. smoke: 5 s of one core.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from projections.base import BaseProjection
from recovery import RecoveryResult
from sgc.finetune.config import ConfigError
from sgc.problems import LAWS, SparseProblem, sparse_problem
from sgc.registry import create
from studies.figures.precision import STAGES, figure, table
from studies.measures.checks import check_answers, check_at_least, check_known
from studies.plugins import ensembles, solvers
from studies.study import Preset, product

__all__ = [
    "PAIRED",
    "PRECISIONS",
    "PRESETS",
    "STAGES",
    "Config",
    "RoundedOperator",
    "figure",
    "keep_bits",
    "table",
    "trial",
]

PAIRED = ("solver", "precision", "scale", "ensemble")
_DIGITS = 6


def keep_bits(x: Float[Tensor, "*n"], *, bits: int) -> Float[Tensor, "*n"]:
    """Round float32 to so many explicit mantissa bits, to the nearest and ties to even.

    The exponent keeps its range. 10 bits are TF32 (which tensor cores reach by rounding ties away
    or by cutting, as the instruction says), 7 are bf16.
    """
    drop = 23 - bits
    pattern = x.contiguous().view(torch.int32)
    tie = (pattern >> drop) & 1
    rounded = (pattern + ((1 << (drop - 1)) - 1) + tie) & (-1 << drop)
    return torch.where(x.isfinite(), rounded.view(torch.float32), x)


@dataclass(frozen=True)
class Precision:
    """A number format that products take their factors in; sums are float32, as on tensor cores.

    Attributes:
        bits: explicit bits of the mantissa.
        round: float32 → the nearest number of the format, as float32.
        stored: products are kept in the format as well, as a matrix product of bf16 tensors is;
            that of TF32 is float32.
    """

    bits: int
    round: Callable[[Tensor], Tensor]
    stored: bool = True


def _as(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda x: x.to(dtype).float()


PRECISIONS = {
    "float32": Precision(23, lambda x: x, stored=False),
    "tf32": Precision(10, partial(keep_bits, bits=10), stored=False),
    "float16": Precision(10, _as(torch.float16)),
    "bf16": Precision(7, _as(torch.bfloat16)),
    # None of a machine: bf16's range, to see where it breaks. 3 bits are those of FP8 (E4M3).
    **{f"{bits}-bit": Precision(bits, partial(keep_bits, bits=bits)) for bits in (5, 4, 3)},
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """One point.

    Args:
        solver: a registered recovery algorithm.
        precision: a name of :data:`PRECISIONS`.
        law: of the coefficients, a name of :data:`sgc.problems.LAWS`.
        d: length of a signal.
        k: number of measurements.
        sparsity: nonzeros of a signal.
        scale: that coefficients are multiplied by; gradients have 1e-5 or so.
        ensemble: a registered projection.
        signals: how many, measured by one A.

    Raises:
        ConfigError: a value outside of its limits.
    """

    solver: str = "omp"
    precision: str
    law: str = "gaussian"
    d: int
    k: int
    sparsity: int
    scale: float = 1.0
    ensemble: str = "gaussian"
    signals: int = 200

    def __post_init__(self) -> None:
        check_known("precision", self.precision, PRECISIONS)
        check_known("law", self.law, LAWS)
        check_at_least(self, d=1, k=1, sparsity=1, signals=1)
        if self.sparsity > self.d:
            raise ConfigError(
                f"sparsity={self.sparsity} exceeds d={self.d}: lower sparsity or raise d"
            )
        if not 1e-30 <= self.scale <= 1e30:
            raise ConfigError(
                f"scale={self.scale:g} leaves the range of float32: take 1e-30 to 1e30"
            )


def _configs(sizes: list[tuple[int, int, int]], signals: int) -> list[Config]:
    machine = [name for name in PRECISIONS if not name.endswith("-bit")]
    low = ["tf32", "bf16"]
    found = []
    for d, k, s in sizes:
        point = partial(Config, d=d, k=k, sparsity=s, signals=signals)
        found += product(point, law=list(LAWS), precision=list(PRECISIONS))
        found += product(point, scale=[1e-5], precision=machine)
        found += product(point, ensemble=ensembles(), precision=low)
        for name in solvers():  # those that are as quick as OMP get as many signals
            pursuit = getattr(create("recovery", name), "oracle", None) == "omp"
            point = partial(point, solver=name, signals=signals if pursuit else signals // 4)
            found += product(point, law=list(LAWS) if pursuit else ["gaussian"], precision=low)
    return list(dict.fromkeys(found))


_PAPER = [(2048, 217, 31), (4096, 56, 8)]
PRESETS = {
    "smoke": Preset(
        configs=lambda: product(
            partial(Config, d=128, k=32, sparsity=3, signals=20),
            solver=solvers(),
            precision=["tf32", "bf16"],
        )
    ),
    "default": Preset(configs=lambda: _configs(_PAPER, 200), seeds=2),
    "paper": Preset(configs=lambda: _configs(_PAPER, 1000), seeds=10),
}


class RoundedOperator(BaseProjection):
    """A matrix whose products take their factors in a lower precision and are summed in float32.

    Solvers correlate by ``rmatvec``; the atoms they fit with, by ``columns``, are not rounded.

    Args:
        matrix: ``(k, d)`` float32.
        precision: of the factors.
    """

    def __init__(self, matrix: Float[Tensor, "k d"], precision: Precision) -> None:
        super().__init__(*matrix.shape, dtype=torch.float32)
        self.atoms = matrix.T.contiguous()
        self.precision = precision
        self._rounded = precision.round(self.atoms)

    def matvec(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        self._check(x, self.shape[1], "x")
        return self.precision.round(x.float()) @ self._rounded

    def rmatvec(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:
        self._check(y, self.shape[0], "y")
        return self.precision.round(y.float()) @ self._rounded.T

    def columns(self, index: Int[Tensor, "*batch s"]) -> Float[Tensor, "*batch k s"]:
        return self.atoms[index].mT


def trial(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Recover the same signals in float64 and with each stage in the precision.

    Returns:
        ``float64``: ``found``, signals with exactly the true support; ``hits``, mean share of the
        true support; ``error``, median ``‖x̂ − x‖/‖x‖``. ``stages``: for each of :data:`STAGES`
        the same and ``same``, signals with float64's support; ``overlap``, mean share of float64's
        support; ``kept``, signals found by float64 and by this; ``error_kept``, median error of
        those, None if there are none.

    Raises:
        ValueError: the solver's answers are not of the signals' shape.
    """
    problem = sparse_problem(
        config.d,
        config.k,
        config.sparsity,
        signals=config.signals,
        law=config.law,
        projection=config.ensemble,
        seed=generator.initial_seed(),
        dtype=torch.float64,
    )
    solver, precision = create("recovery", config.solver), PRECISIONS[config.precision]
    x = problem.x() * config.scale
    matrix = problem.A.to_dense()
    exact = solver.solve(problem.A, problem.A.matvec(x), sparsity=config.sparsity)
    check_answers(config.solver, exact.support, problem.support)
    plain, rounded = (
        RoundedOperator(matrix.float(), p) for p in (PRECISIONS["float32"], precision)
    )
    kept = RoundedOperator(precision.round(matrix.float()), precision)
    pairs = {
        "measurement": (rounded, plain),
        "correlation": (plain, rounded),
        "both": (rounded, rounded),
        "stored": (kept, kept),
    }
    stages = {}
    for name, (measuring, solving) in pairs.items():
        y = measuring.matvec(x)
        if measuring.precision.stored:
            y = precision.round(y)
        answer = solver.solve(solving, y, sparsity=config.sparsity)
        solver.forget()
        stages[name] = _compared(answer, exact, problem, x)
    alone = _compared(exact, exact, problem, x)
    assert stages.keys() == STAGES.keys()
    return {"float64": {name: alone[name] for name in ("found", "hits", "error")}, "stages": stages}


def _compared(
    answer: RecoveryResult, exact: RecoveryResult, problem: SparseProblem, x: Float[Tensor, "n d"]
) -> dict[str, Any]:
    s = problem.sparsity
    own, theirs = _shared(answer.support, exact.support), _shared(answer.support, problem.support)
    found, before = theirs == s, _shared(exact.support, problem.support) == s
    used = (exact.support >= 0).sum(1)
    same = (own == used) & ((answer.support >= 0).sum(1) == used)
    error = torch.linalg.vector_norm(answer.to_dense(x.shape[1]).double() - x, dim=1)
    error = (error / torch.linalg.vector_norm(x, dim=1)).nan_to_num(nan=1.0)
    kept = found & before
    return {
        "found": int(found.sum()),
        "hits": round(float((theirs / s).mean()), _DIGITS),
        "error": float(f"{error.median():.4g}"),
        "same": int(same.sum()),
        "overlap": round(float((own / used.clamp(min=1)).mean()), _DIGITS),
        "kept": int(kept.sum()),
        "error_kept": float(f"{error[kept].median():.4g}") if kept.any() else None,
    }


def _shared(a: Int[Tensor, "n s"], b: Int[Tensor, "n s"]) -> Int[Tensor, " n"]:
    """How many columns two supports have in common; −1 is none."""
    return ((a[:, :, None] == b[:, None, :]) & (a >= 0)[:, :, None]).sum((1, 2))
