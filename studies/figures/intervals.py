"""Success rates: binomial intervals and logistic fits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit, log_expit, ndtri, rel_entr  # scipy.stats loads for a second

__all__ = ["Crossing", "Logistic", "coefficients", "fit_logistic", "wilson"]


def wilson(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (Wilson 1927).

    The p with ``|p̂ − p| ≤ z √(p(1−p)/n)``: inside [0, 1] and of positive width even when every
    trial succeeded.

    Raises:
        ValueError: no trial, or successes outside [0, trials].

    Example:
        >>> [round(end, 3) for end in wilson(8, 10)]
        [0.49, 0.943]
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in [0, trials] with trials ≥ 1: {successes}/{trials}")
    z = float(ndtri(0.5 + level / 2))
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low, high = ((centre + sign * half) / (1 + z**2 / trials) for sign in (-1, 1))
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)


@dataclass(frozen=True)
class Crossing:
    """Where a fitted rate reaches a level, with its 95 % interval."""

    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Logistic:
    """``logit P(success) = a + b log x``, fitted.

    Attributes:
        intercept, slope: a and b.
        covariance: of (a, b): the inverse Fisher information, times deviance/(n − 2) where that
            exceeds 1 (after McCullagh & Nelder 1989, §4.5): no law says that the rate is logistic.
        span: least and largest x of the data.
    """

    intercept: float
    slope: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    span: tuple[float, float]

    def rate(self, x: float) -> float:
        """P(success) at x."""
        return float(expit(self.intercept + self.slope * math.log(x)))

    def crossing(self, level: float) -> Crossing | None:
        """The x at which the rate is ``level``; None where the data do not reach that far.

        The interval is the delta method's, on the scale of log x.
        """
        if self.slope == 0:
            return None
        log_x = (math.log(level / (1 - level)) - self.intercept) / self.slope
        low, high = map(math.log, self.span)
        if not low <= log_x <= high:
            return None
        gradient = np.array([1, log_x]) / self.slope
        half = 1.96 * math.sqrt(gradient @ np.array(self.covariance) @ gradient)
        return Crossing(*(math.exp(min(700, log_x + sign * half)) for sign in (0, -1, 1)))


def fit_logistic(
    x: Sequence[float], successes: Sequence[int], trials: Sequence[int]
) -> Logistic | None:
    """Rates against log x by maximum likelihood with Jeffreys' prior (Firth 1993).

    The prior, ``½ log det`` of the Fisher information, takes the bias of order 1/n away and keeps
    the slope finite where failures and successes do not overlap. It weighs about one trial.

    Args:
        x: positive, at least two different ones.
        successes, trials: at each x.

    Returns:
        None where every trial succeeded or every one failed: nothing says where the rate changes.

    Raises:
        ValueError: lengths differ, x is not positive, or there is one value of x only.
    """
    good, all_, at = (np.asarray(v, dtype=float) for v in (successes, trials, x))
    if not len(good) == len(all_) == len(at) or len(set(at)) < 2 or not (at > 0).all():
        raise ValueError(f"a fit needs two positive x with their counts, got x={list(x)}")
    if good.sum() in {0, all_.sum()}:
        return None
    design, change = _design(at)
    beta = _firth(design, good[None], all_[None])[0]
    rate = expit(design @ beta)
    terms = rel_entr(good, all_ * rate) + rel_entr(all_ - good, all_ * (1 - rate))
    excess = 2 * terms.sum() / max(1, len(at) - 2)
    intercept, slope = change @ beta
    inverse = np.linalg.inv(_information(design, beta[None], all_[None])[0])
    covariance = max(1.0, excess) * change @ inverse @ change.T
    (aa, ab), (ba, bb) = covariance.tolist()
    return Logistic(
        float(intercept), float(slope), ((aa, ab), (ba, bb)), (float(at.min()), float(at.max()))
    )


def coefficients(
    x: Sequence[float],
    successes: Float[np.ndarray, "fits x"],
    trials: Float[np.ndarray, "fits x"],
) -> Float[np.ndarray, "fits 2"]:
    """Intercepts and slopes of several such fits, NaN where :func:`fit_logistic` has none, or the
    trials are at one x.
    """
    design, change = _design(np.asarray(x, dtype=float))
    total = successes.sum(1)
    some = (total > 0) & (total < trials.sum(1)) & ((trials > 0).sum(1) > 1)
    found = np.full((len(successes), 2), np.nan)
    found[some] = _firth(design, successes[some], trials[some]) @ change.T
    return found


def _design(x: np.ndarray) -> tuple[Float[np.ndarray, "x 2"], Float[np.ndarray, "2 2"]]:
    """1 and log x, standardised, and what takes its coefficients back to those of log x."""
    z = np.log(x)
    middle, spread = z.mean(), z.std()
    change = np.array([[1, -middle / spread], [0, 1 / spread]])
    return np.stack([np.ones_like(z), (z - middle) / spread], 1), change


def _information(design: np.ndarray, beta: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Fisher's, ``(fits, 2, 2)``."""
    rate = expit(beta @ design.T)
    weight = trials * rate * (1 - rate)
    found: np.ndarray = np.einsum("fx,xi,xj->fij", weight, design, design)
    return found


def _firth(
    design: Float[np.ndarray, "x 2"],
    good: Float[np.ndarray, "fits x"],
    trials: Float[np.ndarray, "fits x"],
) -> Float[np.ndarray, "fits 2"]:
    """Maxima of the likelihood times Jeffreys' prior, by Newton steps that are halved where they
    lead down (Heinze & Schemper 2002).
    """

    def height(beta: np.ndarray) -> np.ndarray:
        odds = beta @ design.T
        likelihood = (good * log_expit(odds) + (trials - good) * log_expit(-odds)).sum(1)
        _, log_det = np.linalg.slogdet(_information(design, beta, trials))
        found: np.ndarray = likelihood + 0.5 * log_det
        return found

    beta = np.zeros((len(good), 2))
    before = height(beta)
    for _ in range(200):
        rate = expit(beta @ design.T)
        inverse = np.linalg.inv(_information(design, beta, trials))
        leverage = trials * rate * (1 - rate) * np.einsum("xi,fij,xj->fx", design, inverse, design)
        score = (good - trials * rate + leverage * (0.5 - rate)) @ design
        step = np.clip(np.einsum("fij,fj->fi", inverse, score), -2, 2)
        for _ in range(30):
            after = height(beta + step)
            down = after < before - 1e-9
            if not down.any():
                break
            step[down] /= 2
        beta, before = beta + step, after
        if np.abs(step).max(initial=0) < 1e-8:
            break
    return beta
