"""Every method in turn, there and back: what drifts during a run divides out of its ratios."""

from collections.abc import Callable
from typing import Any, TypeVar

from sgc.registry import MissingDependencyError

__all__ = ["PASSES", "there_and_back"]

PASSES = 2
M = TypeVar("M")


def there_and_back(
    methods: dict[str, M], one_pass: Callable[[M], dict[str, Any]]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Run all methods forwards, then backwards.

    Args:
        methods: by name.
        one_pass: of one of them.

    Returns:
        Name → what its passes returned, in the order of ``methods``, and of those whose package is
        missing name → what to install.
    """
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    left_out: dict[str, str] = {}
    for name in (*methods, *reversed(methods)):
        if name in left_out:
            continue
        try:
            done[name].append(one_pass(methods[name]))
        except MissingDependencyError as error:
            left_out[name] = str(error)
            del done[name]
    return done, left_out
