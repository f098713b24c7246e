"""Sparse Gradient Compression: Adam moments in k numbers instead of d.

``W ← W − η·g(ρ(f(G)))``: a compressor is f and g, :class:`CompressedAdamW` is ρ, and every part is
chosen by name: :func:`available` lists, :func:`create` makes, :func:`register` adds.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sgc.registry import (
    KINDS,
    DuplicatePluginError,
    MissingDependencyError,
    UnknownOptionError,
    UnknownPluginError,
    available,
    create,
    register,
    unregister,
)

if TYPE_CHECKING:
    from sgc.budget import BudgetError, Plan, Prediction, plan, predict
    from sgc.optimizer import CompressedAdamW
    from sgc.report import StateReport, peak_scratch, state_report

__version__ = "0.1.0"

__all__ = [
    "KINDS",
    "BudgetError",
    "CompressedAdamW",
    "DuplicatePluginError",
    "MissingDependencyError",
    "Plan",
    "Prediction",
    "StateReport",
    "UnknownOptionError",
    "UnknownPluginError",
    "available",
    "create",
    "peak_scratch",
    "plan",
    "predict",
    "register",
    "state_report",
    "unregister",
]

#: What imports torch, which takes seconds: at its first use, so that ``sgc --help`` need not wait.
_LATER = {
    "sgc.budget": ("BudgetError", "Plan", "Prediction", "plan", "predict"),
    "sgc.optimizer": ("CompressedAdamW",),
    "sgc.report": ("StateReport", "peak_scratch", "state_report"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            globals()[name] = getattr(importlib.import_module(module), name)
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
