"""The registered parts that a study asks about: a new one is in every study by itself."""

from functools import lru_cache

from recovery import Solver
from sgc.registry import MissingDependencyError, available, create

__all__ = ["chunkers", "ensembles", "solvers"]


@lru_cache
def solvers(device: str = "cpu") -> list[str]:
    """Recovery algorithms that can be made here and take tensors of a device.

    ``auto`` is none: it hands on to another one.
    """
    kind = device.partition(":")[0]
    return [name for name in available("recovery") if name != "auto" and _takes(name, kind)]


def ensembles() -> list[str]:
    """Projections that compress; ``identity`` does not."""
    return [name for name in available("projection") if name != "identity"]


def chunkers() -> list[str]:
    """Ways to cut a gradient."""
    return available("chunker")


def _takes(name: str, device: str) -> bool:
    try:
        solver: Solver = create("recovery", name)
    except MissingDependencyError:
        return False
    devices: frozenset[str] = getattr(solver, "devices", frozenset())
    return not devices or device in devices
