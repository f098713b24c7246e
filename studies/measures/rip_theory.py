"""What theory says of restricted isometry constants: what recovery needs of δ, and bounds on it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["THEOREMS", "Theorem", "typical_delta", "union_bound", "welch"]


@dataclass(frozen=True)
class Theorem:
    """Every s-sparse x is recovered if δ of this order is below this limit.

    Attributes:
        name: what is guaranteed.
        order: s → the order of δ.
        limit: s → the limit; both are sharp, no larger one will do for all A.
        source: who proved it.
    """

    name: str
    order: Callable[[int], int]
    limit: Callable[[int], float]
    source: str


THEOREMS = (
    Theorem("OMP", lambda s: s + 1, lambda s: 1 / math.sqrt(s + 1), "Mo 2015"),
    Theorem("ℓ1", lambda s: 2 * s, lambda s: math.sqrt(0.5), "Cai & Zhang 2014"),
)


def typical_delta(order: int, k: int) -> float:
    """δ of *one* random Gaussian support, ``(1 + √(m/k))² − 1``, as m and k grow in proportion.

    σ_max goes to ``1 + √(m/k)`` (Marchenko–Pastur; Geman 1980) and its mean is never above it
    (Davidson & Szarek 2001, Theorem II.13).
    """
    return float((1 + math.sqrt(order / k)) ** 2 - 1)


def union_bound(d: int, k: int, order: int, *, failure: float = 0.05) -> float:
    """δ of *all* Gaussian supports, with probability ``1 − failure``.

    ``P(σ_max > 1 + √(m/k) + t) ≤ exp(−k t²/2)``, and the same for ``σ_min < 1 − √(m/k) − t``
    (Davidson & Szarek 2001, Theorem II.13), so that ``t = √(2 ln(2 C(d, m)/failure)/k)``
    does for all C(d, m) supports. 1 or more says nothing.
    """
    log_count = math.lgamma(d + 1) - math.lgamma(order + 1) - math.lgamma(d - order + 1)
    t = math.sqrt(2 * (math.log(2 / failure) + log_count) / k)
    return float((1 + math.sqrt(order / k) + t) ** 2 - 1)


def welch(d: int, k: int) -> float:
    """No k×d matrix has a smaller coherence: ``√((d − k)/(k (d − 1)))`` (Welch 1974)."""
    return math.sqrt(max(d - k, 0) / (k * (d - 1)))
