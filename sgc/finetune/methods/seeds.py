"""The run's seed, handed to everything in a spec that draws random numbers."""

import inspect
from collections.abc import Mapping

from sgc.registry import option_names, parts_of, resolve
from sgc.specs import Value

__all__ = ["with_seeds"]


def with_seeds(
    kind: str, name: str, options: Mapping[str, Value], *, seed: int
) -> dict[str, Value]:
    """``options`` with a ``seed`` for the part and for its parts, where they take one.

    Parts that cannot be made from options alone (projections and chunkers, which are given sizes)
    get their seed from the part that makes them.

    Example:
        >>> with_seeds("compressor", "galore", {"inner": "mesgc"}, seed=3)
        {'inner': 'mesgc', 'inner.seed': 3}
        >>> with_seeds("compressor", "frugal", {"source.seed": 1}, seed=3)
        {'source.seed': 1}
    """
    filled = dict(options)
    for key in _seed_options(kind, name, options):
        filled.setdefault(key, seed)
    return filled


def _seed_options(kind: str, name: str, options: Mapping[str, Value]) -> list[str]:
    found = ["seed"] if "seed" in (option_names(kind, name) or ()) else []
    for option, (part, default) in parts_of(kind, name).items():
        chosen = options.get(option, default)
        if isinstance(chosen, str) and _by_options(part, chosen):
            prefix = f"{option}."
            own = {k.removeprefix(prefix): v for k, v in options.items() if k.startswith(prefix)}
            found += [prefix + key for key in _seed_options(part, chosen, own)]
    return found


def _by_options(kind: str, name: str) -> bool:
    """Whether the part can be made from options alone."""
    parameters = inspect.signature(resolve(kind, name)).parameters.values()
    return all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in parameters)
