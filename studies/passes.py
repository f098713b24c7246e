"""Every config in turn, there and back: what drifts during a run divides out of its ratios."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sgc.registry import MissingDependencyError

__all__ = ["PASSES", "there_and_back"]

PASSES = 2
C = TypeVar("C")


def there_and_back(
    configs: Sequence[C],
    trial: Callable[[C], dict[str, Any]],
    *,
    progress: Callable[[C], Any],
    left_out: Callable[[C, MissingDependencyError], Any],
) -> Iterator[tuple[C, list[dict[str, Any]]]]:
    """Run all configs forwards, then backwards.

    Args:
        configs: all different.
        trial: one pass of one config.
        progress: called before each pass.
        left_out: called where a config's package is missing; the others go on.

    Yields:
        A config and what its passes returned, as soon as its second one is over.
    """
    done: dict[C, list[dict[str, Any]]] = {config: [] for config in configs}
    for config in (*configs, *reversed(configs)):
        if config not in done:
            continue
        progress(config)
        try:
            done[config].append(trial(config))
        except MissingDependencyError as error:
            left_out(config, error)
            del done[config]
            continue
        if len(done[config]) == PASSES:
            yield config, done[config]
