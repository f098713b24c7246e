"""Sign-SGD: the optimizer without state that compressed moments must be held against."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sgc.compressors.base import Compressor, Shape, State
from sgc.update import Update


class SignSGD(Compressor):
    """``N = sign(G)`` (Bernstein et al. 2018, without momentum): no moments, no state."""

    def refuses(self, shape: Shape) -> str | None:
        return None

    def moment_shape(self, shape: Shape) -> Shape:
        return (0,)

    def compress(
        self, gradient: Tensor, state: State, *, step: int
    ) -> tuple[Tensor, Tensor | None]:
        return gradient.new_empty(0), None

    def decompress(
        self,
        first: Tensor,
        second: Tensor,
        gradients: Sequence[Tensor],
        states: Sequence[State],
        *,
        eps: float,
    ) -> Iterator[Update]:
        for gradient in gradients:
            # The sign of NaN is 0 and that of infinity 1: both would hide a broken gradient.
            yield Update(torch.where(gradient.isfinite(), gradient.sign(), torch.nan))
