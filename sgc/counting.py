"""What A and a solver keep of each other, counted where there are no numbers: on the meta device.

Nothing of A's size is made or drawn. A of an independent ensemble is an empty meta tensor, a
built-in formula takes a number of bytes that rises evenly with d. What a solver keeps beside A
depends on numbers at two places, whether columns have the norm 1 and whether all norms are one
number; a few columns of the same ensemble say both.
"""

from typing import Any

import torch
from torch import Tensor

from projections import DenseOperator, Projection
from projections.base import BaseProjection
from recovery import Solver
from recovery.dictionary import Dictionary
from sgc.builtin import BUILTIN
from sgc.registry import create, resolve

#: A sample has so many columns, fewer where k is large: it holds ``_SAMPLE`` numbers at most, or
#: eight columns.
_COLUMNS, _SAMPLE = 64, 2**20


class Formula(BaseProjection):
    """A structured operator of which the bytes are known, and the shapes of what it returns."""

    structured = True

    def __init__(self, k: int, d: int, *, dtype: torch.dtype, nbytes: int) -> None:
        super().__init__(k, d, device="meta", dtype=dtype)
        self._nbytes = nbytes

    def matvec(self, x: Tensor) -> Tensor:
        return x.new_empty(*x.shape[:-1], self.shape[0])

    def rmatvec(self, y: Tensor) -> Tensor:
        return y.new_empty(*y.shape[:-1], self.shape[1])

    def columns(self, index: Tensor) -> Tensor:
        shape = (*index.shape[:-1], self.shape[0], index.shape[-1])
        return index.new_empty(shape, dtype=self.dtype)

    @property
    def nbytes(self) -> int:
        return self._nbytes


def counted_projection(name: str, k: int, d: int, *, seed: int, dtype: torch.dtype) -> Projection:
    """A k×d operator on the meta device, for its bytes; a formula from elsewhere is made as it is.

    Args:
        name: of the projection.
        k, d: its shape.
        seed: of its samples.
        dtype: of its entries.
    """
    if not getattr(resolve("projection", name), "structured", True):
        return DenseOperator(torch.empty(d, k, device="meta", dtype=dtype).T)
    if name not in BUILTIN["projection"]:
        made: Projection = create("projection", name, k, d, seed=seed, device="meta", dtype=dtype)
        return made
    small, more = (
        sample_projection(name, k, d, seed=seed, dtype=dtype, further=further) for further in (0, 1)
    )
    columns, a_column = small.shape[1], more.nbytes - small.nbytes
    return Formula(k, d, dtype=dtype, nbytes=small.nbytes + (d - columns) * a_column)


def sample_projection(
    name: str, k: int, d: int, *, seed: int, dtype: torch.dtype, further: int = 0
) -> BaseProjection:
    """A few columns of A with numbers, on the CPU; of a structured one, at least k.

    Args:
        name, k, d, seed, dtype: as for :func:`counted_projection`.
        further: so many columns more, whatever d is.
    """
    kind = resolve("projection", name)
    columns = max(8, min(_COLUMNS, _SAMPLE // k))
    if getattr(kind, "structured", True) and not getattr(kind, "square", False):
        columns = max(k, columns)
    columns = min(d, columns) + further
    rows = columns if getattr(kind, "square", False) else k
    made: BaseProjection = create("projection", name, rows, columns, seed=seed, dtype=dtype)
    return made


def counted_cache(solver: Solver, A: Projection, sample: Projection) -> int:
    """Bytes that :meth:`recovery.Solver.cached_nbytes` will give on the CPU for such an A.

    Args:
        solver: it is asked to prepare itself, and keeps nothing.
        A: on the meta device.
        sample: of the same ensemble, with numbers.

    Raises:
        ValueError: a solver that does not run on the CPU, or one whose bytes follow from A's
            numbers.
    """
    name = type(solver).__name__
    if solver.devices and "cpu" not in solver.devices:
        raise ValueError(
            f"{name} runs on {', '.join(sorted(solver.devices))} only, and parameters on the meta "
            "device are counted as on the CPU: take recovery=auto, or give parameters on that "
            "device"
        )
    seen = Dictionary.of(sample)
    matrix = None
    if seen.matrix is not None:
        assert isinstance(A, DenseOperator)
        assert isinstance(sample, DenseOperator)
        matrix = A.atoms if seen.matrix is sample.atoms else torch.empty_like(A.atoms)
    one_norm = seen.inverse_norms.untyped_storage().nbytes() == A.dtype.itemsize
    d = A.shape[1]
    norms = torch.empty(1 if one_norm else d, device="meta", dtype=A.dtype).expand(d)
    whole = Dictionary(A, matrix, norms)
    return whole.nbytes + _further(solver, whole, seen)


def _further(solver: Solver, whole: Dictionary, seen: Dictionary) -> int:
    """Bytes of what a solver computes of A for itself."""
    extra: Any
    try:
        extra = solver.prepare(whole)
    except (RuntimeError, NotImplementedError) as error:  # it looks at numbers: a step size, say
        extra = solver.prepare(seen)
        if getattr(extra, "nbytes", 0):
            raise ValueError(
                f"what {type(solver).__name__} keeps for A cannot be known on the meta device "
                f"({error}): give parameters on the device they are for, or take another recovery"
            ) from error
    return int(getattr(extra, "nbytes", 0))
