"""No compression: moments as large as the parameter."""

from collections.abc import Sequence

from torch import Tensor

from sgc import adam
from sgc.blocks import together
from sgc.compressors.base import Compressed, Compressor, Moments, Shape, State, Step
from sgc.options import part
from sgc.rules.adam import Adam
from sgc.rules.base import Rule
from sgc.updates import Dense, Update


class NoCompression(Compressor):
    """f and g are the identity; p has the parameter's shape.

    As the compressor of a parameter, with the rule ``adam``, it is torch's own AdamW, bit for bit.
    As the last stage of another compressor (GaLore's subspace) it is dense Adam with torch's
    ``√V̂ + ε``; under another rule it is that rule's optimizer.

    Args:
        rule: ρ.
    """

    def __init__(self, *, rule: str | Rule = "adam") -> None:
        self.rule = part("rule", rule)

    @property
    def native(self) -> bool:
        return type(self.rule) is Adam

    def refuses(self, shape: Shape) -> str | None:
        return None

    def moment_shape(self, shape: Shape) -> Shape:
        return shape

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        return Compressed(together(gradients), None, gradients)

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        first, second = moments.first, moments.second
        return Dense(adam.direction(first, second, eps=step.eps, eps_under_root=False))


class AdamMini(NoCompression):
    """Adam-mini (Zhang et al. 2024): M in full, one second moment for a block of rows.

    Args:
        block_rows: see :class:`sgc.rules.adam_mini.AdamMini`.
    """

    def __init__(self, *, block_rows: int = 1) -> None:
        super().__init__(rule=part("rule", "adam-mini", block_rows=block_rows))


class SGDMomentum(NoCompression):
    """SGD with momentum: one moment as large as the parameter."""

    def __init__(self) -> None:
        super().__init__(rule="momentum")


class ProximalSGD(NoCompression):
    """Proximal SGD with momentum (ProxGen, Yun et al. 2021): weights drawn to zero.

    Args:
        l1: see :class:`sgc.rules.proximal.Proximal`.
    """

    def __init__(self, *, l1: float = 0.0) -> None:
        super().__init__(rule=part("rule", "proximal", l1=l1))
