"""Limits that the configs of several studies have, and what they ask of a solver."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from sgc.finetune.config import ConfigError
from sgc.registry import did_you_mean

__all__ = ["check_answers", "check_at_least", "check_known"]


def check_answers(solver: str, found: Tensor, true: Tensor) -> None:
    """Hold the supports that a solver, perhaps a plug-in, found against the shape of the true ones.

    One row for a batch of several would be compared with all of them.

    Raises:
        ValueError: the shapes differ; names both.
    """
    if found.shape != true.shape:
        raise ValueError(
            f"the solver {solver!r} answers {len(true)} signals of {true.shape[-1]} nonzeros with "
            f"a support of shape {tuple(found.shape)}, not {tuple(true.shape)}: it must have a row "
            "for each signal and s columns, −1 where unused"
        )


def check_at_least(config: Any, **limits: int) -> None:
    """Hold fields of a config against their least values.

    Raises:
        ConfigError: the first that is below; names field, limit and value.

    Example:
        >>> from types import SimpleNamespace
        >>> check_at_least(SimpleNamespace(signals=0), signals=1)
        Traceback (most recent call last):
        sgc.finetune.config.ConfigError: signals must be at least 1, got 0
    """
    for name, least in limits.items():
        value = getattr(config, name)
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Look a name up.

    Raises:
        ConfigError: it is none of ``known``; names the nearest and all there are.
    """
    names = list(known)
    if name not in names:
        raise ConfigError(
            f"unknown {what} {name!r}{did_you_mean(name, names)}; there are: {', '.join(names)}"
        )
