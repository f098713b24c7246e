"""Which learning rate: a walk along a stated grid, for as long as it goes uphill."""

import math
from collections.abc import Mapping, Sequence

__all__ = ["GRID", "best_rate", "next_rates"]

#: Two rates a decade.
GRID = tuple(float(f"{digit}e{power}") for power in range(-6, 4) for digit in (1, 3))


def next_rates(
    scores: Mapping[float, float | None], grid: Sequence[float], *, start: float
) -> list[float]:
    """The rates to be tried next: none once the best one has a worse one on either side.

    The first three are the rate of the grid nearest to ``start`` and its neighbours; then one more
    at a time, beside the best, on the side where there is none yet.

    Args:
        scores: what was tried, with what came out (higher is better); None for a run that failed.
        grid: rising rates.
        start: where to begin.

    Example:
        >>> next_rates({}, (1e-3, 3e-3, 1e-2, 3e-2), start=1e-2)
        [0.003, 0.01, 0.03]
        >>> next_rates({3e-3: 0.8, 1e-2: 0.7, 3e-2: None}, (1e-3, 3e-3, 1e-2, 3e-2), start=1e-2)
        [0.001]
    """
    if not scores:
        middle = min(range(len(grid)), key=lambda i: abs(math.log(grid[i] / start)))
        return [grid[i] for i in (middle - 1, middle, middle + 1) if 0 <= i < len(grid)]
    place = grid.index(best_rate(scores))
    beside = [grid[i] for i in (place - 1, place + 1) if 0 <= i < len(grid)]
    return [rate for rate in beside if rate not in scores]


def best_rate(scores: Mapping[float, float | None]) -> float:
    """The rate with the highest score; of equal ones the smallest."""
    ranked = [(-math.inf if score is None else score, -rate) for rate, score in scores.items()]
    return -max(ranked)[1]
