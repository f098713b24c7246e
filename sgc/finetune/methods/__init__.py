"""Methods by name: the table of those that are no compressors, and every compressor.

A new method is one file and one line here: a :class:`~sgc.finetune.methods.base.Recipe` whose
keyword arguments are its options.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import sgc
from sgc.finetune.methods.adamw import AdamW
from sgc.finetune.methods.base import Cost, Recipe
from sgc.finetune.methods.bitfit import BitFit
from sgc.finetune.methods.compressed import Compressed
from sgc.finetune.methods.frozen import Frozen
from sgc.finetune.methods.lora import LoRA
from sgc.finetune.methods.relora import ReLoRA
from sgc.finetune.methods.seeds import with_seeds
from sgc.registry import did_you_mean
from sgc.specs import SpecError, Value

__all__ = ["METHODS", "Cost", "Recipe", "available", "make", "trains"]

#: What is no compressor; ``adamw`` is what the registry of compressors calls ``none``.
METHODS: dict[str, type[Recipe]] = {
    "adamw": AdamW,
    "bitfit": BitFit,
    "frozen": Frozen,
    "lora": LoRA,
    "relora": ReLoRA,
}


def available() -> list[str]:
    """Every method's name: the table's, then the compressors'."""
    return [*METHODS, *(name for name in sgc.available("compressor") if name != "none")]


def trains(name: str) -> bool:
    """Whether the method trains anything but the head (unknown names count as compressors)."""
    return METHODS.get(name, Compressed).trains


def make(name: str, options: Mapping[str, Value], *, seed: int = 0) -> Recipe:
    """A new recipe by its method's name, for one model.

    Args:
        name: one of :func:`available`.
        options: the method's; of a compressor's parts with a dot.
        seed: for the method and its parts, where they draw random numbers and no seed is given.

    Raises:
        SpecError: the method refuses these options; says which and why.
        sgc.UnknownPluginError: no method of that name.
    """
    names = available()
    if name not in names:
        raise sgc.UnknownPluginError(
            f"unknown method {name!r}{did_you_mean(name, names)}; there are: {', '.join(names)}"
        )
    try:
        if name not in METHODS:
            return Compressed(name, with_seeds("compressor", name, options, seed=seed))
        return _of_table(name, options, seed)
    except (ValueError, TypeError, LookupError, ImportError) as error:
        raise SpecError(f"{name}: {error}") from error


def _of_table(name: str, options: Mapping[str, Value], seed: int) -> Recipe:
    method = METHODS[name]
    valid = [p.name for p in inspect.signature(method).parameters.values()]
    unknown = [option for option in options if option not in valid]
    if unknown and not valid:
        raise ValueError(f"it has no options but lr, got {', '.join(unknown)}")
    if unknown:
        raise ValueError(
            f"it has no option {unknown[0]!r}{did_you_mean(unknown[0], valid)}; its options are: "
            f"{', '.join(valid)}, lr"
        )
    given: dict[str, Any] = {"seed": seed} if "seed" in valid else {}
    return method(**{**given, **options})
