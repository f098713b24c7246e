"""No compression: AdamW as everybody knows it."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from sgc import adam
from sgc.compressors.base import Compressor, Shape, State
from sgc.update import Update


class NoCompression(Compressor):
    """f and g are the identity; M and V have the parameter's shape.

    As the compressor of a parameter it is torch's own AdamW, bit for bit. As the last stage of
    another compressor (GaLore's subspace) it is dense Adam with torch's ``√V̂ + ε``.
    """

    native = True

    def refuses(self, shape: Shape) -> str | None:
        return None

    def moment_shape(self, shape: Shape) -> Shape:
        return shape

    def compress(
        self, gradient: Tensor, state: State, *, step: int
    ) -> tuple[Tensor, Tensor | None]:
        return gradient, None

    def decompress(
        self,
        first: Tensor,
        second: Tensor,
        gradients: Sequence[Tensor],
        states: Sequence[State],
        *,
        eps: float,
    ) -> Iterator[Update]:
        yield from map(Update, adam.direction(first, second, eps=eps, eps_under_root=False))
