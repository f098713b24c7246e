"""Optimizers without state: what compressed moments must be held against."""

from collections.abc import Sequence

from torch import Tensor

from sgc import adam
from sgc.compressors.base import Compressed, Compressor, Moments, Shape, State, Step
from sgc.options import part
from sgc.residuals.base import Residual
from sgc.rules.stateless import Stateless
from sgc.updates import Nothing, Update


class ResidualOnly(Compressor):
    """Nothing is accumulated and nothing decoded: all of G is left to the residual rule.

    Args:
        residual: the rule, its name, or ρ of the normalised one.
    """

    rule = Stateless()

    def __init__(self, *, residual: float | str | Residual = 1.0) -> None:
        self.take_residual(residual)

    def refuses(self, shape: Shape) -> str | None:
        return None

    def moment_shape(self, shape: Shape) -> Shape:
        return (0,)

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        empty = gradients[0].new_empty(
            len(gradients), 0, dtype=adam.moment_dtype(gradients[0].dtype)
        )
        return Compressed(empty, None, gradients)

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        return Nothing(len(compressed.gradients), moments.first)


class SGD(ResidualOnly):
    """``N = G``, without momentum: no state. Its learning rate has the scale of ``1/G``."""

    def __init__(self) -> None:
        super().__init__(residual="raw")


class NormalisedSGD(ResidualOnly):
    """``N = G/rms(G)``, rms over the parameter: no state."""

    def __init__(self) -> None:
        super().__init__(residual=1.0)


class SignSGD(ResidualOnly):
    """``N = sign(G)`` (Bernstein et al. 2018, without momentum): no moments, no state."""

    def __init__(self) -> None:
        super().__init__(residual=part("residual", "sign"))
