"""The contract of an update."""

import abc
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from sgc.rounding import Rounding


class Update(abc.ABC):
    """``N_t`` of n parameters of equal shape, in the form g found it.

    What an update says nothing about of the gradient G is *uncovered*: the residual moves the
    weights along it.
    """

    @abc.abstractmethod
    def to_dense(self, shape: tuple[int, ...]) -> Float[Tensor, "n *shape"]:
        """The updates in the parameters' shape."""

    @abc.abstractmethod
    def covered_part(
        self, gradients: Sequence[Float[Tensor, "*shape"]]
    ) -> Float[Tensor, "n *shape"]:
        """The part of each gradient that this update speaks about."""

    @abc.abstractmethod
    def apply_to(
        self,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        *,
        lr: float | Tensor,
        decay: float | Tensor,
        residual: Float[Tensor, " n"] | None,
        rounding: Rounding,
    ) -> None:
        """``W ← decay·W − lr·(N + residual·uncovered)``, in place.

        Args:
            weights: n parameters of equal shape and dtype, with any strides.
            gradients: what the update came from, in the parameters' shape.
            lr: η; a tensor on the weights' device is read there.
            decay: ``1 − η λ``; 1.0 leaves the weights alone.
            residual: ``ρ/rms(G)`` of each parameter in float64; None for no residual.
            rounding: of half-precision weights.
        """
