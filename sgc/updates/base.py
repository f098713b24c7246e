"""The contract of an update."""

import abc
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import together
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
    def only(self, i: int) -> "Update":
        """The update of parameter i alone (n = 1)."""

    @abc.abstractmethod
    def scaled(self, factor: Float[Tensor, " n"]) -> "Update":
        """Each parameter's N multiplied by its factor; what is covered stays."""

    @property
    def covers_nothing(self) -> bool:
        """Whether all of the gradient is uncovered."""
        return False

    def uncovered(self, gradients: Sequence[Float[Tensor, "*shape"]]) -> Float[Tensor, "n *shape"]:
        """The part of each gradient that this update says nothing about."""
        covered = self.covered_part(gradients)
        return together(gradients).to(covered.dtype) - covered

    def gain(
        self, gradients: Sequence[Float[Tensor, "*shape"]], *, channels: bool = True
    ) -> Float[Tensor, "n *ones"]:
        """``‖N‖/‖covered part of G‖``: of the whole parameter, or of each channel it knows.

        It broadcasts to the parameters' shape; 0 where nothing of G is covered.

        Args:
            gradients: in the parameters' shape.
            channels: False: of the whole parameter in any case.
        """
        shape = tuple(gradients[0].shape)
        dims = tuple(range(1, 1 + len(shape)))
        N = torch.linalg.vector_norm(self.to_dense(shape), dim=dims, keepdim=True)
        G = torch.linalg.vector_norm(
            self.covered_part(gradients).to(N.dtype), dim=dims, keepdim=True
        )
        return ratio(N, G)

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


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a/b, and 0 where b is 0."""
    return torch.where(b > 0, a / b.clamp(min=torch.finfo(b.dtype).tiny), b)
