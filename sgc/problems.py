"""Synthetic recovery problems ``y = A x`` with a known s-sparse x."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from projections import Projection
from projections.seeding import stream
from sgc.registry import create, did_you_mean

__all__ = ["LAWS", "SparseProblem", "draw_signals", "sparse_problem"]


def _gaussian(random: np.random.Generator, signals: int, sparsity: int) -> np.ndarray:
    return random.standard_normal((signals, sparsity))


def _signs(random: np.random.Generator, signals: int, sparsity: int) -> np.ndarray:
    return 2.0 * random.integers(0, 2, (signals, sparsity)) - 1


def _power_law(random: np.random.Generator, signals: int, sparsity: int) -> np.ndarray:
    return _signs(random, signals, sparsity) / np.arange(1, sparsity + 1)


#: Laws of the nonzero coefficients, by name. Equal magnitudes (±1) are the hardest for greedy
#: solvers, since nothing tells which atom comes first; fast decay (``±1/rank``) is the easiest.
LAWS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "gaussian": _gaussian,
    "signs": _signs,
    "power-law": _power_law,
}


@dataclasses.dataclass(frozen=True)
class SparseProblem:
    """Signals with a known answer, measured by one A.

    Attributes:
        A: the projection, of shape ``(k, d)``.
        y: ``(signals, k)`` measurements ``A x``, free of noise.
        support: ``(signals, s)`` int64, the columns that x uses; each row without repetition.
        values: ``(signals, s)`` the nonzero coefficients there, in the dtype of A.
    """

    A: Projection
    y: Float[Tensor, "signals k"]
    support: Int[Tensor, "signals s"]
    values: Float[Tensor, "signals s"]

    @property
    def sparsity(self) -> int:
        """s, the nonzeros of every signal."""
        return self.support.shape[1]

    def x(self) -> Float[Tensor, "signals d"]:
        """The true signals, dense."""
        dense = self.values.new_zeros(self.support.shape[0], self.A.shape[1])
        return dense.scatter_(1, self.support, self.values)


def sparse_problem(
    d: int,
    k: int,
    sparsity: int,
    *,
    signals: int,
    law: str = "gaussian",
    projection: str = "gaussian",
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> SparseProblem:
    """Draw A by name and s-sparse signals of a coefficient law, and measure them.

    A and the signals have streams of their own, so the same signals meet every projection; y is
    computed in the dtype of A.

    Args:
        d: length of a signal.
        k: number of measurements.
        sparsity: nonzeros of each signal, 1 ≤ s ≤ d.
        signals: how many; the first n are the same however many are drawn.
        law: a name of :data:`LAWS`.
        projection: a registered projection.
        seed: decides A and the signals.

    Raises:
        ValueError: an unknown law, s outside [1, d], fewer than one signal.
        UnknownPluginError: no such projection.

    Example:
        >>> problem = sparse_problem(64, 32, 3, signals=5)
        >>> problem.y.shape, int((problem.x() != 0).sum())
        (torch.Size([5, 32]), 15)
    """
    support, values = draw_signals(d, sparsity, signals=signals, law=law, seed=seed)
    A = create("projection", projection, k, d, seed=seed, device=device, dtype=dtype)
    problem = SparseProblem(
        A=A, y=values.new_empty(0), support=support.to(A.device), values=values.to(A.device, dtype)
    )
    return dataclasses.replace(problem, y=A.matvec(problem.x()))


def draw_signals(
    d: int, sparsity: int, *, signals: int, law: str = "gaussian", seed: int = 0
) -> tuple[Int[Tensor, "signals s"], Float[Tensor, "signals s"]]:
    """Uniform supports and float64 coefficients of a law, drawn on the CPU.

    Raises:
        ValueError: an unknown law, s outside [1, d], fewer than one signal.
    """
    if law not in LAWS:
        raise ValueError(
            f"unknown coefficient law {law!r}{did_you_mean(law, list(LAWS))}; "
            f"there are: {', '.join(LAWS)}"
        )
    if not 1 <= sparsity <= d:
        raise ValueError(f"sparsity must lie between 1 and d={d}, got {sparsity}")
    if signals < 1:
        raise ValueError(f"at least one signal is needed, got signals={signals}")
    where = stream(seed, "problem", "support", d, sparsity)
    support = np.stack([where.choice(d, sparsity, replace=False) for _ in range(signals)])
    values = LAWS[law](stream(seed, "problem", law, d, sparsity), signals, sparsity)
    return torch.from_numpy(support), torch.from_numpy(np.ascontiguousarray(values))
