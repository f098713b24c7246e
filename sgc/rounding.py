"""How float32 results become half-precision weights: to the nearest, or by lot without bias."""

import dataclasses
import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sgc.hashing import lowbias32

ROUNDINGS = ("nearest", "stochastic")
_GOLDEN = 0x9E3779B9  # keeps the keys of neighbours apart before they are hashed


@dataclasses.dataclass(frozen=True)
class Rounding:
    """To the nearest, or stochastically for bfloat16 weights: ``E[round(x)] = x``.

    A bf16 weight has 8 bits: a step below 1/512 of it is lost when rounded to the nearest, at every
    step again. Stochastic rounding goes up with the probability of what would be lost.

    Nothing is drawn: the 16-bit noise of a place is a hash of the place and the parameter's key, so
    a run can be repeated and resumed bit for bit, on every device. Other dtypes are not affected.

    Attributes:
        keys: a 32-bit number for each of the n parameters; None for rounding to the nearest.
    """

    keys: tuple[int, ...] | None = None

    def stochastic(self, dtype: torch.dtype) -> bool:
        """Whether weights of this dtype are rounded by lot."""
        return self.keys is not None and dtype == torch.bfloat16

    def run(
        self, x: Float[Tensor, " run"], dtype: torch.dtype, *, parameter: int, start: int = 0
    ) -> Float[Tensor, " run"]:
        """Round what goes to the flat places ``start, start + 1, …`` of one parameter."""
        if self.keys is None or dtype != torch.bfloat16:
            return x.to(dtype)
        first = start + self.keys[parameter]
        return _to_bf16(x, torch.arange(first, first + x.numel(), device=x.device))

    def at(
        self, x: Float[Tensor, "n m"], dtype: torch.dtype, index: Int[Tensor, "n m"]
    ) -> Float[Tensor, "n m"]:
        """Round what goes to the given flat places of n parameters."""
        if self.keys is None or dtype != torch.bfloat16:
            return x.to(dtype)
        keys = torch.tensor(self.keys).to(x.device, non_blocking=True)
        return _to_bf16(x, index + keys[:, None])


NEAREST = Rounding()


def stochastic(seed: int, step: int, positions: Sequence[int]) -> Rounding:
    """The rounding of the parameters at these positions of the optimizer at a step."""
    digest = hashlib.blake2b(f"sgc rounding {seed} {step}".encode(), digest_size=4).digest()
    base = int.from_bytes(digest, "little")
    return Rounding(tuple([lowbias32(base + position * _GOLDEN) for position in positions]))


def _to_bf16(x: Float[Tensor, "*n"], counter: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Add 16 random bits below the ones that bf16 keeps, then cut them off."""
    x = x.to(torch.float32)
    noise = (lowbias32(counter) >> 16).to(torch.int32)
    cut = ((x.view(torch.int32) + noise) & -65536).view(torch.float32)
    return torch.where(x.isfinite(), cut, x).to(torch.bfloat16)
