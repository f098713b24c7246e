"""Laws that random gradients follow: what sets them apart is where the large entries lie."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

__all__ = ["LAWS", "Law"]

#: ``law(generator, cases, rows, columns, sparsity) -> (cases, rows, columns)`` in float64.
Law = Callable[[Generator, int, int, int, int], Float[Tensor, "cases rows columns"]]

_HOT = 30.0  # large entries, in units of the others' standard deviation
_FREEDOM = 3  # of Student's t: with 2 the variance is no longer finite
_BELOW = 1e-3  # how far the rest of a plateau lies below its top


def _signs(generator: Generator, *shape: int) -> Tensor:
    return 2.0 * torch.randint(0, 2, shape, generator=generator).double() - 1


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _uniform(generator: Generator, *shape: int) -> Tensor:
    """On [0, 1)."""
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _hot_rows(
    generator: Generator, cases: int, rows: int, columns: int, sparsity: int
) -> Float[Tensor, "cases rows 1"]:
    """1 in the ``⌈s/columns⌉`` consecutive rows that can hold s entries, else 0.

    They start at a multiple of their number, so that contiguous chunks of as many rows or more
    hold them together.
    """
    hot = math.ceil(sparsity / columns)
    start = hot * torch.randint(0, rows // hot, (cases, 1), generator=generator)
    row = torch.arange(rows)
    return ((row >= start) & (row < start + hot)).double().unsqueeze(-1)


def hot_chunk(
    generator: Generator, cases: int, rows: int, columns: int, sparsity: int
) -> Float[Tensor, "cases rows columns"]:
    """All s large entries in adjacent rows, uniform on ±[30, 60], over a standard normal rest."""
    floor = _normal(generator, cases, rows, columns)
    large = _HOT * (1 + _uniform(generator, cases, rows, columns)) * floor.sign()
    where = _hot_rows(generator, cases, rows, columns, sparsity)
    return torch.where(where > 0, large, floor)


def hot_column(
    generator: Generator, cases: int, rows: int, columns: int, sparsity: int
) -> Float[Tensor, "cases rows columns"]:
    """The same in adjacent columns, as an input feature that is large in every example leaves."""
    return hot_chunk(generator, cases, columns, rows, sparsity).mT.contiguous()


def plateau(
    generator: Generator, cases: int, rows: int, columns: int, sparsity: int
) -> Float[Tensor, "cases rows columns"]:
    """Adjacent rows of ±1 over a rest that is 0.1 % smaller: the worst that chunks can meet."""
    level = 1 - _BELOW * (1 - _hot_rows(generator, cases, rows, columns, sparsity))
    return level * _signs(generator, cases, rows, columns)


def clustered(
    generator: Generator, cases: int, rows: int, columns: int, sparsity: int
) -> Float[Tensor, "cases rows columns"]:
    """Log-normal magnitudes ``exp(u + z/2)``: u is normal and a row's own, z each entry's."""
    scale = _normal(generator, cases, rows, 1)
    own = _normal(generator, cases, rows, columns) / 2
    return (scale + own).exp() * _signs(generator, cases, rows, columns)


def laplace(
    generator: Generator, cases: int, rows: int, columns: int, sparsity: int
) -> Float[Tensor, "cases rows columns"]:
    """Independent Laplace entries."""
    magnitude = -torch.log1p(-_uniform(generator, cases, rows, columns))
    return magnitude * _signs(generator, cases, rows, columns)


def student_t(
    generator: Generator, cases: int, rows: int, columns: int, sparsity: int
) -> Float[Tensor, "cases rows columns"]:
    """Independent Student-t entries with 3 degrees of freedom (Bailey 1994, polar method)."""
    u, turn = (_uniform(generator, cases, rows, columns) for _ in range(2))
    return (_FREEDOM * ((1 - u).pow(-2 / _FREEDOM) - 1)).sqrt() * (2 * torch.pi * turn).cos()


def uniform(
    generator: Generator, cases: int, rows: int, columns: int, sparsity: int
) -> Float[Tensor, "cases rows columns"]:
    """Independent entries, uniform on [−1, 1): the largest are of nearly equal magnitude."""
    return 2 * _uniform(generator, cases, rows, columns) - 1


#: By name; the study adds ``captured``.
LAWS: dict[str, Law] = {
    "hot-chunk": hot_chunk,
    "hot-column": hot_column,
    "plateau": plateau,
    "clustered": clustered,
    "laplace": laplace,
    "student-t": student_t,
    "uniform": uniform,
}
