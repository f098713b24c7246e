"""What options of plug-ins have in common: checks, parts by name, options passed through."""

import inspect
import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Any

from sgc.registry import available, create


def whole(name: str, value: Any, *, least: int | None = None) -> int:
    """An option that must be an integer.

    Raises:
        TypeError: it is not; names the option and the value.
        ValueError: it is below ``least``.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    found = index(value)
    if least is not None and found < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return found


def number(name: str, value: Any, *, least: float = -math.inf) -> float:
    """An option that must be a finite number.

    Raises:
        TypeError: it is not a number; names the option and the value.
        ValueError: it is not finite, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and value >= least):
        above = f" and at least {least:g}" if least > -math.inf else ""
        raise ValueError(f"{name} must be finite{above}, got {value}")
    return float(value)


def positive(name: str, value: float) -> float:
    """An option that must be above 0.

    Raises:
        ValueError: it is not.
    """
    if number(name, value) <= 0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """An option that must be true or false.

    Raises:
        TypeError: it is neither; a word such as ``no`` must not stand for true.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, got {value!r}")
    return value


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """An option that must be one of a few words.

    Raises:
        ValueError: it is not; lists them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return str(value)


def part(kind: str, given: Any, **options: Any) -> Any:
    """A part that was given by its registered name, or as an object.

    Raises:
        TypeError: it is neither; lists the names.
    """
    is_plain = type(given).__module__ == "builtins" and not isinstance(given, str)
    if is_plain or isinstance(given, type):
        raise TypeError(
            f"a {kind} is given by its name or as an object, got {given!r}; the names are: "
            f"{', '.join(available(kind))}"
        )
    return create(kind, given, **options) if isinstance(given, str) else given


def takes_options_of(
    inner: type, *, without: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let an ``__init__(self, *, own…, **options)`` show the options of ``inner`` as its own.

    A method that wraps another accepts the other's options; with this, ``inspect`` (and so the
    registry's check and the command line's help) sees them by name, with their defaults.
    """

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(init).parameters.values() if p.kind != p.VAR_KEYWORD]
        taken = {p.name for p in own} | set(without)
        more = [p for p in inspect.signature(inner).parameters.values() if p.name not in taken]
        setattr(init, "__signature__", inspect.Signature([*own, *more]))  # noqa: B010
        setattr(init, "__options_of__", inner)  # noqa: B010
        return init

    return decorate


def shown_from(part: Any) -> type | None:
    """The class whose options a part shows as its own by :func:`takes_options_of`, if any."""
    return getattr(vars(part).get("__init__"), "__options_of__", None)
