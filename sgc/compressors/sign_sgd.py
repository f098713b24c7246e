"""Sign-SGD: the optimizer without state that compressed moments must be held against."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sgc.compressors.base import Compressed, Compressor, Shape, State
from sgc.updates import Dense, Update


class SignSGD(Compressor):
    """``N = sign(G)`` (Bernstein et al. 2018, without momentum): no moments, no state."""

    def refuses(self, shape: Shape) -> str | None:
        return None

    def moment_shape(self, shape: Shape) -> Shape:
        return (0,)

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: int
    ) -> Compressed:
        return Compressed(gradients[0].new_empty(len(gradients), 0), None, gradients)

    def decompress(
        self,
        first: Tensor,
        second: Tensor,
        compressed: Compressed,
        states: Sequence[State],
        *,
        eps: float,
    ) -> Update:
        return Dense(_Signs(compressed.gradients))


@dataclasses.dataclass(frozen=True)
class _Signs(Sequence[Tensor]):
    """Signs that are taken when asked for: they need not all exist at once."""

    gradients: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.gradients)

    def __getitem__(self, i: Any) -> Any:
        gradient = self.gradients[i]
        # The sign of NaN is 0 and that of infinity 1: both would hide a broken gradient.
        return torch.where(gradient.isfinite(), gradient.sign(), torch.nan)
