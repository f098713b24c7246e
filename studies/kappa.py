"""Kappa: how many measurements a nonzero, κ = k/s, does each solver need, for which signals?

The paper takes k = κ·s and reads from accuracies (Figure 3(c): d_c = 2048, s_c = 31) that κ = 7
is enough, 6 too few and 8 no gain. Here supports are known, and the law of the coefficients is an
axis: Gaussian, ±1, ±1/rank, and the largest entries of chunks of captured gradients (24 of MiniLM's
query and value matrices; a stand-in for the paper's rank-32 gradients, which are not at hand).

Expected: OMP needs κ = 2 ln(d−s), 15.2 and 16.6 at (d, s) = (2048, 31) and (4096, 8), for equal
magnitudes, and less the faster they fall; ℓ1 minimisation turns at 5.6 and 8.4 for all laws.

Found (``python -m studies kappa``; 1024 signals an OMP rate at κ = 7, captured 864 at (4096, 8);
95 % intervals in brackets, of captured signals by a bootstrap over their gradients, since chunks of
a gradient are alike):

- Exact supports by OMP at (2048, 217, 31): Gaussian .995 (.989–.998), ±1/rank .981 (.971–.988),
  captured .689 (.601–.769), ±1 .184 (.161–.208); at (4096, 56, 8): .865 (.843–.885), .864
  (.842–.884), .409 (.346–.470), .083 (.068–.102). 95 % are reached at κ = 5.8, 6.3, 8.9, 11.1 and
  at 8.0, 7.9, 10.8, 12.8. The largest entries of real gradients lie between Gaussian and ±1: what
  is cut off at s has no small coefficients. The six matrices differ, from .33 to .91 and from .14
  to .60: over them a bootstrap gives .52–.84 and .28–.51.
- So κ = 7 is enough at (2048, 31) for Gaussian and decaying coefficients only. Figure 3(c) has a
  likeness in another measure, the share of ‖x‖² that captured signals keep on atoms found: .763,
  .932, .987, .997 at κ = 5, 6, 7, 8. At (4096, 8) it is .682 at κ = 7 and .821 at 8: 7 is no
  constant of OMP, it goes with s and d.
- Solver: at (2048, 31) CoSaMP recovers all laws at κ = 7 (.975 to 1; captured .975 (.957–.990),
  8.1 ms a signal against OMP's 1.7), turning at 5.0 to 6.0, about the ℓ1 threshold; at (4096, 8) it
  is worse than OMP but for ±1 (captured .148). NIHT is close to CoSaMP, and slower. IHT with its
  safe step recovers nothing at κ = 7.
- Ensemble, captured signals by OMP at κ = 7: at (2048, 31) SRHT .783 (.718–.842), Gaussian .689,
  Rademacher .684, spherical .673; of the same gradients SRHT finds .094 (.055–.135) more. At
  (4096, 8): .413, .409, .406, .375; there the spherical A, which is the Gaussian one with columns
  of norm one, finds .034 (.015–.052) less.
- d_c = 65536, s_c = 1, κ = 8 (the paper's smallest states): every solver is exact with a Gaussian
  A, OMP 512 times of 512, with 10 % noise as well; without noise κ = 4 is enough. Rademacher and
  SRHT fail (0 and 1 of 512): eight signs make 2⁷ = 128 columns up to sign, each some 512 times.
- 1 % noise hardly changes OMP's rates at κ = 7. At 10 % the error stays below the noise at
  (2048, 217, 31) for .976 (Gaussian), .360 (±1/rank), .614 (captured), .158 (±1).

Rates measured elsewhere were .992, .176 at (2048, 217, 31) and .863, .039 at (4096, 56, 8), for
Gaussian and ±1; if of 256 signals, as their digits suggest, their intervals are .972–.998,
.134–.227, .816–.900 and .021–.070. With columns of norm one (spherical) they are .992, .177, .854
and .054 (.041–.069) here. A Gaussian A is better at the last: .083 (.068–.102). Its columns of
length 56 differ by 10 % in norm, so that equal coefficients do not weigh equally, and what differs
is easier to tell apart; at k = 217 that no longer shows. Rademacher and SRHT, whose columns have
norm one, have .050 and .048.

Not settled: moments are less sparse than the signals here (:mod:`studies.moment_sparsity`);
gradients of one run at four steps, taken as independent.

Run time: 26 minutes as two processes on two cores with a load of 6 to 13, not timed alone. Times a
signal: of captured ones, measured together, in one thread beside a load of 5.
``--preset smoke``: 5 s of one core.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recovery import RecoveryResult
from sgc.finetune.config import ConfigError
from sgc.finetune.randomness import derived_seed
from sgc.problems import LAWS
from sgc.registry import create
from studies.figures.kappa import figure
from studies.figures.kappa_tables import table
from studies.measures.captured import available, digest
from studies.measures.checks import check_answers, check_known
from studies.measures.kappa_signals import CAPTURED, dense, directions, draw
from studies.plugins import ensembles, solvers
from studies.study import Preset, product

__all__ = [
    "PAIRED",
    "PRESETS",
    "REFERENCE",
    "SIZES",
    "Config",
    "figure",
    "inputs",
    "laws",
    "table",
    "trial",
]

#: (d_c, s_c): of the paper's Figure 3(c), with rank 32 and 64 chunks; a smaller one; and Table 5's.
SIZES, ONE_SPARSE = ((2048, 31), (4096, 8)), (65536, 1)
REFERENCE = "omp"  # the paper's solver, which meets every ensemble
KAPPAS = (3, 4, 5, 6, 7, 8, 10, 12, 16)
NOISY_KAPPAS, NOISES = (5, 7, 8, 12), (0.01, 0.1)  # 7 and 12 for every solver
PAIRED = ("solver", "ensemble", "noise", "signals")
#: A relative error below this is a recovery, where the measurements are exact.
_ACCURATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Config:
    """Recover s-sparse signals from k measurements.

    Args:
        d, k, sparsity: signal length, measurements, nonzeros.
        law: of the nonzeros: one of :data:`sgc.problems.LAWS`, or ``captured``: the largest s
            entries of each chunk of a gradient from fine-tuning.
        ensemble: of A.
        solver: a recovery algorithm, with its own defaults.
        noise: ``‖ε‖/‖Ax‖`` of the noise ε (a uniformly random direction) that is added to each
            measurement.
        signals: how many, of captured gradients at most as many as there are.
        matrices: independent A, each measuring an equal share.

    Raises:
        ConfigError: a value outside of its limits.
    """

    d: int
    k: int
    sparsity: int
    law: str = "gaussian"
    ensemble: str = "gaussian"
    solver: str = REFERENCE
    noise: float = 0.0
    signals: int = 512
    matrices: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.sparsity <= self.k <= self.d:
            raise ConfigError(
                f"1 ≤ s ≤ k ≤ d must hold, got s={self.sparsity}, k={self.k}, d={self.d}: choose "
                "a κ = k/s between 1 and d/s"
            )
        check_known("coefficient law", self.law, [*LAWS, CAPTURED])
        if not 0 <= self.noise < 1:
            raise ConfigError(f"noise is relative to the measurement, in [0, 1), got {self.noise}")
        if not 1 <= self.matrices <= self.signals:
            raise ConfigError(
                f"signals={self.signals} must be at least matrices={self.matrices}, which is ≥ 1"
            )


def trial(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Measure, recover and compare.

    Returns:
        ``signals``; of these ``exact`` with the support recovered without a mistake, ``accurate``
        with ``‖x̂ − x‖ ≤ max(10⁻³, noise)·‖x‖``; ``statuses`` of the solver; ``median_error``
        ``‖x̂ − x‖/‖x‖`` (None if not finite); ``energy``, the mean share of ``‖x‖²`` that lies on
        atoms found; ``seconds_per_signal``, with what the solver prepares for each A. Of captured
        signals ``by_gradient``: the three counts of each gradient's chunks, which are alike.

    Raises:
        ConfigError: no captured gradient has a chunk with as many entries.
        ValueError: the solver's answers are not of the signals' shape.
    """
    seed = generator.initial_seed()
    drawn = draw(config.law, config.d, config.sparsity, signals=config.signals, seed=seed)
    solver = create("recovery", config.solver)
    exact, errors, energies, origins, seconds = [], [], [], [], 0.0
    statuses: dict[str, int] = {}
    for i in range(config.matrices):
        own = slice(i, None, config.matrices)
        true, x = drawn.support[own], drawn.values[own].float()
        if not len(true):
            continue
        A = create(
            "projection", config.ensemble, config.k, config.d, seed=derived_seed(seed, "A", i)
        )
        y = A.matvec(dense(true, x, config.d))
        y = y + config.noise * torch.linalg.vector_norm(y, dim=1, keepdim=True) * directions(
            len(y), config.k, derived_seed(seed, "noise", i)
        )
        began = time.perf_counter()
        found: RecoveryResult = solver.solve(A, y, sparsity=config.sparsity)
        seconds += time.perf_counter() - began
        solver.forget()
        check_answers(config.solver, found.support, true)
        exact.append((found.support.sort(1).values == true.sort(1).values).all(1))
        origins.append(drawn.sources[own])
        whole = torch.linalg.vector_norm(x, dim=1)
        error = torch.linalg.vector_norm(found.to_dense(config.d) - dense(true, x, config.d), dim=1)
        errors.append(error / whole)
        hit = (true[:, :, None] == found.support[:, None, :]).any(2)
        energies.append((x * hit).square().sum(1) / whole.square())
        for name, count in found.counts().items():
            statuses[name] = statuses.get(name, 0) + count
    error = torch.cat(errors).nan_to_num(nan=torch.inf)
    middle = float(error.median())
    each = {
        "signals": torch.ones(len(error), dtype=torch.bool),
        "exact": torch.cat(exact),
        "accurate": error <= max(_ACCURATE, config.noise),
    }
    grouped: dict[str, Any] = {}
    if config.law == CAPTURED:
        of, count = torch.cat(origins), drawn.gradients
        grouped["by_gradient"] = {
            what: of[good].bincount(minlength=count).tolist() for what, good in each.items()
        }
    return {
        **{what: int(good.sum()) for what, good in each.items()},
        **grouped,
        "statuses": statuses,
        "median_error": middle if np.isfinite(middle) else None,
        "energy": float(torch.cat(energies).mean()),
        "seconds_per_signal": seconds / len(error),
    }


def laws() -> list[str]:
    """Coefficient laws that there are signals of: ``captured`` when gradients are kept."""
    return [*LAWS, *([CAPTURED] if available() else [])]


def inputs(config: Config) -> str:
    """Which gradients a trial reads; none unless its signals are captured."""
    return digest() if config.law == CAPTURED else ""


def _budget(solver: str, d: int, signals: int) -> int:
    """Fewer signals for solvers that may iterate long: by their own limit, 300 for IHT."""
    limit = getattr(create("recovery", solver), "max_iterations", 0)
    affordable = 12800 * signals // (512 * max(limit, 25)) // (4 if d > 2**14 and limit else 1)
    return max(8, min(signals, affordable))


def _grid(
    sizes: Sequence[tuple[int, int]], kappas: Sequence[float], *, signals: int, **axes: Any
) -> list[Config]:
    """A product over sizes, κ and more; the paper's κ = 7 has twice as many signals."""

    def config(size: tuple[int, int], kappa: float, solver: str, **more: Any) -> Config:
        d, s = size
        n = _budget(solver, d, signals) * (2 if kappa == 7 else 1)
        return Config(d=d, k=round(kappa * s), sparsity=s, solver=solver, signals=n, **more)

    return product(config, size=sizes, kappa=kappas, **axes)


def _default(
    *, signals: int = 512, kappas: Sequence[float] = KAPPAS, noisy: Sequence[float] = NOISY_KAPPAS
) -> list[Config]:
    every, one = laws(), [ONE_SPARSE]
    few = (3, 4, 5, 6, 7, 8, 12)
    found = [
        *_grid(SIZES, kappas, signals=signals, solver=solvers(), law=every),
        *_grid(SIZES, kappas, signals=signals, solver=[REFERENCE], ensemble=ensembles(), law=every),
        *_grid(SIZES, noisy, signals=signals, solver=[REFERENCE], law=every, noise=NOISES),
        *_grid(SIZES, noisy[1::2], signals=signals, solver=solvers(), law=every, noise=NOISES),
        # Of one nonzero the law is no matter: solvers are free of scale.
        *_grid(one, few, signals=signals, solver=[REFERENCE], ensemble=ensembles()),
        *_grid(one, [8], signals=signals, solver=solvers(), law=every),
        *_grid(one, few, signals=signals, solver=[REFERENCE], noise=NOISES),
    ]
    return list(dict.fromkeys(found))


def _smoke() -> list[Config]:
    size, kappas = [(64, 3)], (3, 7)
    found = [
        *_grid(size, kappas, signals=16, solver=solvers(), law=laws()),
        *_grid(size, kappas, signals=16, solver=[REFERENCE], ensemble=ensembles()),
        *_grid(size, kappas, signals=16, solver=[REFERENCE], law=laws(), noise=[0.1]),
    ]
    return list(dict.fromkeys(found))


def _paper() -> list[Config]:
    fine = (3, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8, 9, 10, 11, 12, 14, 16, 18, 20)
    return _default(signals=2048, kappas=fine, noisy=fine)


PRESETS = {
    "smoke": Preset(configs=_smoke),
    "default": Preset(configs=_default),
    "paper": Preset(configs=_paper, seeds=4),
}
