"""Sparse Gradient Compression: Adam moments in k numbers instead of d.

``W ← W − η·g(ρ(f(G)))``: a compressor is f and g, :class:`CompressedAdamW` is ρ, and every part is
chosen by name: :func:`available` lists, :func:`create` makes, :func:`register` adds.
"""

from sgc.budget import BudgetError, Plan, Prediction, plan, predict
from sgc.optimizer import CompressedAdamW
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
