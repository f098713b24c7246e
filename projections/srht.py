"""Subsampled randomised Hadamard transform: a fast projection that is never stored."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from projections.base import BaseProjection
from projections.seeding import stream

_RADIX = 32  # a factor's size: 4–5 passes over the data instead of log2(d), still O(d log d)


def _hadamard(order: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "p p"]:
    index = torch.arange(order, device=device)
    return _hadamard_signs(index[:, None], index[None, :]).to(dtype)


def _hadamard_signs(row: Int[Tensor, "*a"], column: Int[Tensor, "*a"]) -> Int[Tensor, "*a"]:
    """Entries of the Sylvester–Hadamard matrix, ``(-1)^popcount(row & column)``."""
    parity = row & column
    for shift in (32, 16, 8, 4, 2, 1):
        parity = parity ^ (parity >> shift)
    return 1 - 2 * (parity & 1)


def fast_walsh_hadamard(x: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch p"]:
    """Unnormalised Walsh–Hadamard transform ``H_p x`` in Sylvester ("natural") order.

    ``H_p`` is a Kronecker product of small Hadamard matrices, applied one factor at a time:
    O(p log p) operations, no p×p matrix.

    Args:
        x: last dimension p, a power of two.

    Example:
        >>> fast_walsh_hadamard(torch.tensor([1.0, 0.0, 2.0, 0.0]))
        tensor([ 3.,  3., -1., -1.])
    """
    p = x.shape[-1]
    if p < 1 or p & (p - 1):
        raise ValueError(f"the Walsh–Hadamard transform needs a power of two, got length {p}")
    batch, done = x.shape[:-1], 1
    while done < p:
        factor = min(_RADIX, p // done)
        small = _hadamard(factor, x.device, x.dtype)  # symmetric
        x = x.reshape(-1, factor) @ small if done == 1 else small @ x.reshape(-1, factor, done)
        done *= factor
    return x.reshape(*batch, p)


class SRHT(BaseProjection):
    """``A = √(p/k) · R · H/√p · D``: random signs D, Hadamard H, k rows R sampled without return.

    ``p`` is the next power of two from d; the signal is padded with zeros, so any d is welcome.
    Entries are ±1/√k, columns have norm 1. ``matvec`` and ``rmatvec`` cost O(p log p) a vector;
    only k row numbers and d signs of a byte are stored.
    Tropp, *Improved analysis of the subsampled randomized Hadamard transform* (2011), eq. (1.1).

    Raises:
        ValueError: k exceeds p: there are only p rows to sample.
    """

    structured = True
    signs = True

    def __init__(
        self,
        k: int,
        d: int,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(k, d, seed=seed, device=device, dtype=dtype)
        self._padded = 1 << max(d - 1, 0).bit_length()
        if k > self._padded:
            raise ValueError(
                f"an SRHT for d={d} has {self._padded} rows to sample (the next power of two), "
                f"got k={k}; lower k or use a dense ensemble"
            )
        random = stream(seed, "srht", k, d)
        signs = 2 * random.integers(0, 2, d, dtype=np.int8) - 1
        rows = np.sort(random.choice(self._padded, size=k, replace=False))
        self._signs = torch.from_numpy(signs).to(self.device)
        self._rows = torch.from_numpy(rows.astype(np.int64)).to(self.device)
        self._scale = 1 / math.sqrt(k)

    def matvec(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        self._check(x, self.shape[1], "x")
        signed = x.to(self.dtype) * self._signs
        padded = torch.nn.functional.pad(signed, (0, self._padded - self.shape[1]))
        return fast_walsh_hadamard(padded)[..., self._rows] * self._scale

    def rmatvec(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:
        self._check(y, self.shape[0], "y")
        spread = y.new_zeros((*y.shape[:-1], self._padded), dtype=self.dtype)
        spread[..., self._rows] = y.to(self.dtype)
        signs = self._signs.to(self.dtype) * self._scale
        return fast_walsh_hadamard(spread)[..., : self.shape[1]] * signs

    def columns(self, index: Int[Tensor, "*batch s"]) -> Float[Tensor, "*batch k s"]:
        entries = _hadamard_signs(self._rows[:, None], index[..., None, :]).to(self.dtype)
        return entries * (self._signs[index].to(self.dtype) * self._scale)[..., None, :]

    def column_norms(self) -> Float[Tensor, " d"]:
        return torch.ones((), device=self.device, dtype=self.dtype).expand(self.shape[1])
