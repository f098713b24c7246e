"""The size of a method: a whole number that its bytes depend on, found under a budget."""

from collections.abc import Callable, Iterator

__all__ = ["BudgetError", "largest_size", "smallest_size"]

_LARGEST_SIZE = 2**24


class BudgetError(ValueError):
    """No size of the method fits; says what its smallest takes."""


def largest_size(
    state: Callable[[int], int], whole: Callable[[int], int], budget: int
) -> int | None:
    """The largest size whose bytes do not exceed a budget; None if no size does.

    Args:
        state: bytes of a size, less what is shared: it rises with the size, and is cheap to know.
        whole: all bytes of a size. It may also fall where A shrinks as chunks grow shorter, so the
            answer is looked for from above.
        budget: bytes.

    Both raise ``ValueError`` for a size that does not exist: too large, or also too small.
    """

    def fits(count: Callable[[int], int], size: int) -> bool:
        try:
            return count(size) <= budget
        except ValueError:
            return False

    sizes: list[int] = []
    above = 1
    for above in _sizes():
        try:
            if state(above) > budget:
                break
        except ValueError:
            if sizes:
                break
        else:
            sizes.append(above)
    while sizes and not (fits(state, sizes[-1]) and fits(whole, sizes[-1])):
        above = sizes.pop()
    if not sizes:
        return None
    size = sizes[-1]
    while above - size > 1:
        middle = (size + above) // 2
        if fits(state, middle) and fits(whole, middle):
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
