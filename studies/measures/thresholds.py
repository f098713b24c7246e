"""Where theory puts the transition from failure to success: κ = k/s that OMP and ℓ1 need."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ndtr  # scipy.stats takes most of a second to load

__all__ = ["donoho_tanner", "l1_kappa", "omp_kappa", "soft_threshold_risk"]


def omp_kappa(d: int, s: int) -> float:
    """κ = 2 ln(d − s): measurements a nonzero that OMP needs with a Gaussian A.

    Enough for large d whatever the coefficients (Fletcher & Rangan 2009, who sharpen Tropp &
    Gilbert 2007).
    """
    return 2 * math.log(d - s)


def soft_threshold_risk(share: float) -> float:
    """M(ε): minimax risk of soft thresholding over laws with a share ε of nonzeros.

    ``min_τ ε(1 + τ²) + 2(1 − ε)[(1 + τ²)Φ(−τ) − τφ(τ)]`` (Donoho, Johnstone, Hoch & Stern 1992).
    """

    def risk(tau: float) -> float:
        return share * (1 + tau**2) + 2 * (1 - share) * _tail(tau)

    return float(minimize_scalar(risk, bounds=(0, 40), method="bounded").fun)


def l1_kappa(d: int, s: int) -> float:
    """κ at which ℓ1 minimisation passes from failure to success: the Donoho–Tanner weak threshold.

    With a Gaussian A and d → ∞ at fixed ε = s/d, basis pursuit needs ``k/d = M(ε)`` whatever the
    coefficients (Donoho & Tanner 2009; as minimax risk: Donoho, Maleki & Montanari 2009).
    """
    return d * soft_threshold_risk(s / d) / s


def donoho_tanner(delta: float) -> float:
    """ρ_W(δ): largest s/k that ℓ1 minimisation recovers at δ = k/d, the same weak threshold.

    ``max_τ (1 − (2/δ) T) / (1 + τ² − 2 T)`` with ``T = (1 + τ²)Φ(−τ) − τφ(τ)`` (Donoho, Maleki &
    Montanari 2009, equation 5).

    Example:
        >>> round(donoho_tanner(0.5), 4)
        0.3857
    """

    def negative(tau: float) -> float:
        tail = _tail(tau)
        return -(1 - 2 * tail / delta) / (1 + tau**2 - 2 * tail)

    return -float(minimize_scalar(negative, bounds=(0, 40), method="bounded").fun)


def _tail(tau: float) -> float:
    """``(1 + τ²)Φ(−τ) − τφ(τ)``, the mean of ``(Z − τ)²`` where a normal Z exceeds τ."""
    density = np.exp(-(tau**2) / 2) / math.sqrt(2 * math.pi)
    return float((1 + tau**2) * ndtr(-tau) - tau * density)
