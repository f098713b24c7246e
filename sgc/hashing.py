"""A 32-bit hash that is the same on the host and on every device."""

from typing import TypeVar

from torch import Tensor

_Number = TypeVar("_Number", int, Tensor)

_MASK = 0xFFFFFFFF


def lowbias32(h: _Number) -> _Number:
    """Wellons' multiply–xorshift hash of h mod 2³², a Python integer or an int64 tensor.

    In int64 products of two 32-bit numbers wrap, and the mask keeps the 32 bits that are right.

    Example:
        >>> lowbias32(1)
        1753845952
    """
    h = h & _MASK
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & _MASK
    h = ((h ^ (h >> 15)) * 0x846CA68B) & _MASK
    return h ^ (h >> 16)
