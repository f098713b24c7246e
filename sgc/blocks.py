"""The states of alike parameters as one tensor, so that one operation covers all of them."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

State = dict[str, Tensor]
Shape = tuple[int, ...]


def block(states: Sequence[State], key: str) -> tuple[Tensor, Callable[[], None]]:
    """``states[i][key]`` of n parameters as one ``(n, *shape)`` tensor, to be changed in place.

    What lies one behind the other is not copied. Tensors that own their memory (fresh from a
    checkpoint) are put into one block first, and the states refer to it from then on. Otherwise
    (some members of a larger block) the tensor is a copy.

    Returns:
        The tensor, and what to call after changing it: copies back where it is a copy.
    """
    tensors = [state[key] for state in states]
    whole = adjacent(tensors)
    if whole is not None:
        return whole, _nothing
    whole = torch.stack(tensors)
    if all(t.untyped_storage().nbytes() == t.nbytes for t in tensors):
        for i, state in enumerate(states):
            state[key] = whole[i]
        return whole, _nothing
    return whole, lambda: torch._foreach_copy_(tensors, list(whole))


def together(tensors: Sequence[Shaped[Tensor, "*shape"]]) -> Shaped[Tensor, "n *shape"]:
    """Equally shaped tensors as one, to be read: a view where they lie together, else a copy."""
    whole = adjacent(tensors)
    return torch.stack(list(tensors)) if whole is None else whole


def adjacent(tensors: Sequence[Shaped[Tensor, "*shape"]]) -> Shaped[Tensor, "n *shape"] | None:
    """A view of tensors that lie one behind the other in one storage; None where they do not.

    The tensors are taken to be of equal shape and dtype.
    """
    first, n = tensors[0], len(tensors)
    if n == 1:
        return first[None]
    start, size = first.data_ptr(), first.nbytes
    if not size or list(map(Tensor.data_ptr, tensors)) != [*range(start, start + n * size, size)]:
        return None
    storage = first.untyped_storage()
    # Two allocations may touch by chance: all of it has to lie in the first one's storage.
    if start + n * size > storage.data_ptr() + storage.nbytes():
        return None
    if not all(map(Tensor.is_contiguous, tensors)):
        return None
    return first.as_strided((n, *first.shape), (first.numel(), *first.stride()))


def _nothing() -> None:
    pass
