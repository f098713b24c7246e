"""What g returns, and how it reaches the weights."""

import dataclasses

import torch
from jaxtyping import Int
from torch import Tensor

_RMS_FLOOR = 1e-30  # its reciprocal still fits float32


@dataclasses.dataclass(frozen=True)
class Update:
    """``N_t`` of one parameter, in the shape g found it: dense, or a few coordinates.

    Attributes:
        values: dense: the parameter's shape. Sparse: ``(n,)``.
        index: sparse: ``(n,)`` int64 places in the flat parameter, each at most once; −1 marks an
            unused slot, whose value is 0. None for a dense update.
        uncovered: the part of the gradient that this update says nothing about, in the parameter's
            shape; None where there is none or nobody asked for it (residual 0).
    """

    values: Tensor
    index: Int[Tensor, " n"] | None = None
    uncovered: Tensor | None = None

    def to_dense(self, shape: tuple[int, ...]) -> Tensor:
        """The update in the parameter's shape."""
        if self.index is None:
            return self.values.reshape(shape)
        flat = self.values.new_zeros(shape).view(-1)
        # Unused slots add 0 to place 0.
        return flat.index_add_(0, self.index.clamp(min=0), self.values).view(shape)

    def apply_to(
        self, weight: Tensor, gradient: Tensor, *, lr: float | Tensor, residual: float
    ) -> None:
        """``W ← W − η (N + ρ·uncovered/rms(G))``, in place; sparse updates touch only their places.

        Args:
            weight: the parameter, any floating dtype.
            gradient: G, for its rms over the whole parameter.
            lr: η, a number or a one-element tensor.
            residual: ρ.
        """
        if self.index is None:
            _add(weight, self.values, lr)
        elif weight.is_contiguous():
            _add_at(weight.view(-1), self.index, self.values, lr)
        else:
            _add(weight, self.to_dense(tuple(weight.shape)), lr)
        if residual and self.uncovered is not None:
            # In float64: squares of vanishing or huge gradients leave float32.
            norm = torch.linalg.vector_norm(gradient, dtype=torch.float64)
            # Below the floor the residual fades out with G; a zero gradient moves nothing.
            scale = residual / (norm / gradient.numel() ** 0.5).clamp(min=_RMS_FLOOR)
            _add(weight, self.uncovered * scale.to(self.uncovered.dtype), lr)


def _add(weight: Tensor, direction: Tensor, lr: float | Tensor) -> None:
    if isinstance(lr, Tensor):
        weight.sub_((direction * lr.to(direction.device)).to(weight.dtype))
    else:
        weight.add_(direction.to(weight.dtype), alpha=-lr)


def _add_at(flat: Tensor, index: Tensor, values: Tensor, lr: float | Tensor) -> None:
    change = values * (lr.to(values.device) if isinstance(lr, Tensor) else lr)
    # Unused slots (−1) subtract 0 at place 0.
    flat.index_add_(0, index.clamp(min=0), change.to(flat.dtype), alpha=-1)
