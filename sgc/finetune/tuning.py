"""Which learning rate: a walk along a stated grid, for as long as it goes uphill."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["GRID", "best_rate", "next_rates"]

#: Rate → score, higher is better; a number, or a tuple of which the first that differs decides;
#: None for a run that failed.
Scores = Mapping[float, Any]

#: Two rates a decade.
GRID = tuple(float(f"{digit}e{power}") for power in range(-6, 4) for digit in (1, 3))


def next_rates(
    scores: Scores,
    grid: Sequence[float],
    *,
    start: float,
    patience: int = 1,
) -> list[float]:
    """The rates to be tried next: none once the best has ``patience`` worse ones on either side.

    The first three are the rate of the grid nearest to ``start`` and its neighbours; then those
    beside the best that were not tried yet. Nobody goes beyond a rate that failed.

    Args:
        scores: what was tried, with what came out (higher is better); None for a run that failed.
        grid: rising rates.
        start: where to begin.
        patience: beyond 1, a walk does not end in a hollow of noise.

    Example:
        >>> next_rates({}, (1e-3, 3e-3, 1e-2, 3e-2), start=1e-2)
        [0.003, 0.01, 0.03]
        >>> next_rates({3e-3: 0.8, 1e-2: 0.7, 3e-2: None}, (1e-3, 3e-3, 1e-2, 3e-2), start=1e-2)
        [0.001]
        >>> next_rates({1e-3: 0.5, 3e-3: 0.8, 1e-2: 0.7}, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        ...            start=3e-3, patience=2)
        [0.0003, 0.03]
    """
    if not scores:
        middle = min(range(len(grid)), key=lambda i: abs(math.log(grid[i] / start)))
        return [grid[i] for i in (middle - 1, middle, middle + 1) if 0 <= i < len(grid)]
    place = grid.index(best_rate(scores))
    below = _up_to_a_failure(grid[max(0, place - patience) : place][::-1], scores)
    above = _up_to_a_failure(grid[place + 1 : place + 1 + patience], scores)
    return sorted(rate for rate in (*below, *above) if rate not in scores)


def _up_to_a_failure(rates: Sequence[float], scores: Mapping[float, Any]) -> Iterator[float]:
    return itertools.takewhile(lambda rate: scores.get(rate, ...) is not None, rates)


def best_rate(scores: Scores) -> float:
    """The rate with the highest score; of equal ones, and of failures alone, the smallest."""
    ranked = [(score, -rate) for rate, score in scores.items() if score is not None]
    return -max(ranked)[1] if ranked else min(scores)
