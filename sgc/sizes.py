"""The size of a method: a whole number that its bytes depend on, found under a budget."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Protocol

from sgc.specs import Spec, Value

__all__ = ["BudgetError", "Costs", "Held", "fill", "largest_size", "smallest_size"]

_LARGEST_SIZE = 2**24


class BudgetError(ValueError):
    """No size of the method fits; says what its smallest takes."""


class Held(Protocol):
    """Bytes that are held between two steps."""

    @property
    def shared_bytes(self) -> int:
        """Of what parameters share."""

    @property
    def bytes(self) -> int:
        """All together."""


class Costs(Protocol):
    """What a method takes; ``shared`` and ``beyond`` as for :func:`sgc.predict`."""

    def __call__(self, spec: Spec, *, shared: bool = True, beyond: int | None = None) -> Held:
        """Raises ``ValueError`` where there is no such size."""


def fill(
    spec: Spec,
    options: Callable[[int], Mapping[str, Value] | None],
    cost: Costs,
    budget: int,
    *,
    floor: Callable[[Spec], int] | None = None,
    stretch: Callable[[Spec], Hashable] | None = None,
) -> tuple[Spec, int | None]:
    """A method at the largest size that a budget allows, and that size; None where it has none.

    Args:
        spec: the method; options that set its size are replaced.
        options: those of a size; None where the method has no size.
        cost: of a spec.
        budget: bytes.
        floor, stretch: of a spec, as for :func:`largest_size`.

    Raises:
        BudgetError: even the smallest size takes more, or the method has no size and takes more.
    """
    if options(1) is None:
        held = cost(spec).bytes
        if held > budget:
            raise BudgetError(
                f"{spec.format()} takes {held:,} bytes and has no size to choose; the budget is "
                f"{budget:,}"
            )
        return spec, None

    def of_size(size: int) -> Spec:
        return spec.updated(**(options(size) or {}))

    def whole(size: int) -> int:
        return cost(of_size(size), beyond=budget).bytes

    size = largest_size(
        lambda size: cost(of_size(size), shared=False).bytes,
        whole,
        budget,
        floor=floor and (lambda size: floor(of_size(size))),
        stretch=stretch and (lambda size: stretch(of_size(size))),
    )
    if size is None:
        smallest = of_size(smallest_size(whole))
        least = cost(smallest)
        raise BudgetError(
            f"the smallest {smallest.format()} takes {least.bytes:,} bytes"
            f"{_hint(smallest, least)}; the budget is {budget:,}"
        )
    return of_size(size), size


def largest_size(
    state: Callable[[int], int],
    whole: Callable[[int], int],
    budget: int,
    *,
    floor: Callable[[int], int] | None = None,
    stretch: Callable[[int], Hashable] | None = None,
) -> int | None:
    """The largest size whose bytes do not exceed a budget; None if no size does.

    Args:
        state: bytes of a size, less what is shared: it rises with the size within a stretch, and is
            cheap to know.
        whole: all bytes of a size. It may also fall where A shrinks as chunks grow shorter, so the
            answer is looked for from above.
        budget: bytes.
        floor: at most ``state``, and rises with the size throughout; None for ``state`` itself.
        stretch: equal for the sizes of one stretch; None where all sizes are one. A vector that a
            larger size leaves to plain AdamW may hold less there, and another stretch begins.

    All raise ``ValueError`` for a size that does not exist: too large, or also too small.
    """
    held: dict[int, int] = {}
    end = 1
    for end in _sizes():
        try:
            bytes_ = state(end)
            if bytes_ > budget and (floor is None or floor(end) > budget):
                break
        except ValueError:
            if held:
                break
        else:
            held[end] = bytes_
    if not held:
        return None

    def fits(size: int) -> bool:
        try:
            return (held[size] if size in held else state(size)) <= budget >= whole(size)
        except ValueError:
            return False

    sizes = list(held)
    if stretch is not None:
        sizes = sorted({*sizes, *_edges(stretch, [*sizes, end])})
    # Between two of these sizes the state rises, so that what fits there ends once.
    above = max(end, sizes[-1] + 1)
    while sizes and not fits(sizes[-1]):
        above = sizes.pop()
    if not sizes:
        return None
    size = sizes[-1]
    while above - size > 1:
        middle = (size + above) // 2
        if fits(middle):
            size = middle
        else:
            above = middle
    return size


def smallest_size(whole: Callable[[int], int]) -> int:
    """The size that takes the fewest bytes of 1, 2, 4, …, 128, or the first one that exists.

    Args:
        whole: bytes of a size, as for :func:`largest_size`.

    Raises:
        BudgetError: there is no size; says why not the first.
    """
    takes: list[tuple[int, int]] = []
    reason = ""
    powers = [2**i for i in range(8)]
    for size in (*powers, *_sizes()):
        if takes and size not in powers:
            break
        try:
            takes.append((whole(size), size))
        except ValueError as error:
            reason = reason or str(error)
    if not takes:
        raise BudgetError(f"no size fits these parameters: {reason}")
    return min(takes)[1]


def _sizes() -> Iterator[int]:
    """All small ones, then in steps of a sixteenth."""
    size = 1
    while size <= _LARGEST_SIZE:
        yield size
        size += max(1, size // 16)


def _edges(stretch: Callable[[int], Hashable], sizes: Sequence[int]) -> Iterator[int]:
    """Where between rising sizes another stretch begins, by bisection."""

    @cache
    def of(size: int) -> Hashable:
        try:
            return stretch(size)
        except ValueError:
            return None

    def between(low: int, high: int) -> Iterator[int]:
        if of(low) == of(high):
            return
        if high - low == 1:
            yield high
            return
        middle = (low + high) // 2
        yield from between(low, middle)
        yield from between(middle, high)

    for low, high in pairwise(sizes):
        yield from between(low, high)


def _hint(spec: Spec, least: Held) -> str:
    """Where most of the bytes are A, how to do without; else nothing."""
    shared = least.shared_bytes
    if shared <= least.bytes // 2 or spec.options.get("projection") == "srht":
        return ""
    return f"; {shared:,} of them are shared (A): projection=srht,recovery=omp keeps little"
