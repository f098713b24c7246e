"""Phase: where in the δ–ρ plane does each solver recover, and how long does it take there?

As in Magni (Oxvig et al. 2014): δ = k/d measurements for each unknown, ρ = s/k nonzeros for each
measurement, every point with a seed of its own that all solvers share; the rate at each δ is fitted
by a logistic, whose 10, 50 and 90 % make the contours; and a map of compute time. d = 256, 32
signals a point, Gaussian A.

Expected: ℓ1 minimisation turns at the Donoho–Tanner curve whatever the coefficients; greedy solvers
do better than that for Gaussian coefficients at small δ, and worse for ±1.

Found (``python -m studies phase``; ρ of 50 %, 95 % interval):

- OMP gains little from larger δ: Gaussian .263 (.247–.280), .289 (.275–.303), .335 (.321–.351) and
  .361 (.345–.378) at δ = .05, .2, .5, .9, where ℓ1 has .154, .243, .386, .678. For ±1 it is flat at
  half of that: .167, .158, .175, .170 (± .017 at most). These are values of d = 256: OMP's ρ falls
  as 1/ln d, and the paper's sizes (δ ≈ .1, ρ = 1/7) are in :mod:`studies.kappa`.
- NIHT alone follows the curve, for Gaussian coefficients: .177, .226, .370, .523; ±1 .145, .189,
  .282, .378. CoSaMP comes near it up to δ = .2 and ends at ρ ≈ 1/3 (.327, .344 for ±1), where its
  3s candidates are all that k measurements can fit. IHT with its safe step: .077 to .274.
- Law matters most to OMP and least to CoSaMP: the choice of a solver depends on the signals.
- CPU time a signal, over the plane and both laws: OMP 0.9 ms, by inverse Cholesky 1.2, CoSaMP 2.6,
  IHT 8.4, NIHT 15.7, which is slowest above its curve (0.1 s). IHT alone meets its limit of
  iterations (30 % of signals), NIHT for 0.2 %.

Run time: 3 minutes as two processes on two cores that others used, too. ``--preset smoke``: 4 s.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sgc.finetune.config import ConfigError
from sgc.problems import LAWS, sparse_problem
from sgc.registry import create
from studies.figures.phase import figure, table
from studies.measures.checks import check_answers, check_at_least, check_known
from studies.plugins import solvers
from studies.study import Preset, product

__all__ = ["PAIRED", "PRESETS", "Config", "figure", "table", "trial"]

PAIRED = ("solver", "signals")
_ACCURATE = 1e-3  # relative error of a recovery


@dataclass(frozen=True, kw_only=True)
class Config:
    """One point of the plane.

    Args:
        d: signal length.
        delta: δ = k/d, the measurements for each unknown; k is rounded.
        rho: ρ = s/k, the nonzeros for each measurement; s is rounded, at least 1.
        law: of the nonzeros, one of :data:`sgc.problems.LAWS`.
        ensemble: of A.
        solver: a recovery algorithm, with its own defaults.
        signals: how many, all measured by one A.

    Raises:
        ConfigError: a value outside of its limits.
    """

    d: int
    delta: float
    rho: float
    law: str = "gaussian"
    ensemble: str = "gaussian"
    solver: str = "omp"
    signals: int = 32

    def __post_init__(self) -> None:
        for name in ("delta", "rho"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in (0, 1], got {getattr(self, name)}")
        if self.d * self.delta < 1:
            raise ConfigError(
                f"d·delta must be at least 1 measurement, got {self.d}·{self.delta}: raise either"
            )
        check_known("coefficient law", self.law, LAWS)
        check_at_least(self, signals=1)

    @property
    def k(self) -> int:
        """Measurements."""
        return round(self.delta * self.d)

    @property
    def sparsity(self) -> int:
        """Nonzeros of a signal."""
        return max(1, round(self.rho * self.k))


def trial(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Recover signals of a point's own seed.

    Returns:
        ``k``, ``sparsity``; ``signals``, of these ``exact`` with the support recovered without a
        mistake and ``accurate`` with ``‖x̂ − x‖ ≤ 10⁻³ ‖x‖``; ``statuses`` of the solver;
        ``iterations``, their mean; ``cpu_seconds_per_signal``, in which other work on the machine
        does not count, with what is prepared for A.

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
        dtype=torch.float32,
    )
    solver = create("recovery", config.solver)
    began = time.process_time()
    found = solver.solve(problem.A, problem.y, sparsity=config.sparsity)
    seconds = time.process_time() - began
    check_answers(config.solver, found.support, problem.support)
    same = (found.support.sort(1).values == problem.support.sort(1).values).all(1)
    x = problem.x()
    error = torch.linalg.vector_norm(found.to_dense(config.d) - x, dim=1)
    limit = _ACCURATE * torch.linalg.vector_norm(x, dim=1)
    return {
        "k": config.k,
        "sparsity": config.sparsity,
        "signals": config.signals,
        "exact": int(same.sum()),
        "accurate": int((error <= limit).sum()),
        "statuses": found.counts(),
        "iterations": float(found.iterations.double().mean()),
        "cpu_seconds_per_signal": seconds / config.signals,
    }


def _grid(
    d: int, deltas: Sequence[float], rhos: Sequence[float], *, signals: int, laws: Sequence[str]
) -> list[Config]:
    found: list[Config] = product(
        Config, d=[d], law=laws, delta=deltas, rho=rhos, solver=solvers(), signals=[signals]
    )
    return found


def _spread(count: int, low: float, high: float) -> list[float]:
    return [round(low + (high - low) * i / (count - 1), 4) for i in range(count)]


PRESETS = {
    "smoke": Preset(
        configs=lambda: _grid(48, (0.25, 0.5), (0.1, 0.4), signals=8, laws=["gaussian", "signs"])
    ),
    "default": Preset(
        configs=lambda: _grid(
            256,
            (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9),
            (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
            signals=32,
            laws=["gaussian", "signs"],
        )
    ),
    "paper": Preset(
        configs=lambda: _grid(
            1024, _spread(20, 0.05, 0.95), _spread(24, 0.03, 0.95), signals=64, laws=[*LAWS]
        ),
        seeds=4,
    ),
}
