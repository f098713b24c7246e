"""Intervals of rates whose trials come in clusters that are alike inside."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logit

from projections.seeding import stream
from studies.figures.intervals import Crossing, Logistic, coefficients, wilson

__all__ = ["Clusters"]

_RESAMPLES = 2000


class Clusters:
    """Successes at several x, by cluster: chunks of a gradient succeed and fail together.

    Intervals are percentiles of a cluster bootstrap (Davison & Hinkley 1997, §3.8): clusters are
    drawn again as a whole, the same ones at every x. They are never narrower than those of
    independent trials, which alone say something where nothing or everything succeeded.

    Args:
        x: places, ascending.
        successes, trials: counts.
    """

    def __init__(
        self,
        x: Sequence[float],
        successes: Int[np.ndarray, "x clusters"],
        trials: Int[np.ndarray, "x clusters"],
    ) -> None:
        self.x, self.successes, self.trials = list(x), successes, trials

    def rates(self) -> list[tuple[float, float, float]]:
        """Share of successes and its 95 % interval at each x."""
        good, n = self._resampled
        share = np.divide(good, n, out=np.full(good.shape, np.nan), where=n > 0)
        ends = np.nanquantile(share, (0.025, 0.975), axis=0).T
        found = []
        for (low, high), hits, of in zip(
            ends, self.successes.sum(1).tolist(), self.trials.sum(1).tolist(), strict=True
        ):
            least, most = wilson(hits, of)
            found.append((hits / of, min(least, float(low)), max(most, float(high))))
        return found

    def crossing(self, fit: Logistic, level: float) -> Crossing | None:
        """As ``fit.crossing``, of all trials together, with the interval of the clusters."""
        found = fit.crossing(level)
        if found is None:
            return None
        intercept, slope = self._coefficients.T
        never = np.full(len(slope), np.inf)  # a rate that does not rise
        log_x = np.divide(logit(level) - intercept, slope, out=never, where=~(slope <= 0))
        ends = np.nanquantile(log_x, (0.025, 0.975), method="inverted_cdf")
        low, high = np.exp(np.clip(ends, None, 700)).tolist()
        return Crossing(found.at, min(found.low, low), max(found.high, high))

    @cached_property
    def _coefficients(self) -> Float[np.ndarray, "draws 2"]:
        return coefficients(self.x, *self._resampled)

    @cached_property
    def _resampled(self) -> tuple[Float[np.ndarray, "draws x"], Float[np.ndarray, "draws x"]]:
        count = self.trials.shape[1]
        draw = stream(0, "clusters", "bootstrap")
        times = draw.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
        return (times @ self.successes.T).astype(float), (times @ self.trials.T).astype(float)
