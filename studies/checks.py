"""Limits that the configs of several studies have."""

from collections.abc import Iterable
from typing import Any

from sgc.finetune.config import ConfigError
from sgc.registry import did_you_mean

__all__ = ["check_at_least", "check_known"]


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
