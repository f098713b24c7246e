"""An update of low rank."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import kernels
from sgc.rounding import Rounding
from sgc.updates.base import Update, ratio
from sgc.updates.elementwise import multiply, store, subtract_scaled


@dataclasses.dataclass(frozen=True)
class LowRank(Update):
    """``N_i = left_i right_iᵀ``, reshaped to the parameter; it covers ``covered_i right_iᵀ`` of G.

    N is never formed: the residual is folded into the small factor,

        ``W ← decay·W − lr·residual·G − [lr·(left − residual·covered)] rightᵀ``,

    and the product is added into W by the matrix multiplication itself, with the factors in the
    weight's dtype. Under stochastic rounding one weight at a time is held in float32.

    Attributes:
        left: ``(n, M, r)``.
        right: ``(n, N, r)``.
        covered: ``(n, M, r)``; None where no residual is asked for.
        transposed: the product is the transpose of the parameter (taken as a matrix): the factor
            that ``covered`` shares is then always ``right``.
    """

    left: Float[Tensor, "n M r"]
    right: Float[Tensor, "n N r"]
    covered: Float[Tensor, "n M r"] | None = None
    transposed: bool = False

    def to_dense(self, shape: tuple[int, ...]) -> Float[Tensor, "n *shape"]:
        return self._product(self.left).reshape(-1, *shape)

    def covered_part(self, gradients: Sequence[Tensor]) -> Float[Tensor, "n *shape"]:
        if self.covered is None:
            raise ValueError("this update was made without a residual: it covers nothing it knows")
        return self._product(self.covered).reshape(-1, *gradients[0].shape)

    def only(self, i: int) -> "LowRank":
        here = slice(i, i + 1)
        covered = None if self.covered is None else self.covered[here]
        return LowRank(self.left[here], self.right[here], covered, self.transposed)

    def scaled(self, factor: Float[Tensor, " n"]) -> "LowRank":
        left = self.left * factor.to(self.left.dtype)[:, None, None]
        return dataclasses.replace(self, left=left)

    def gain(
        self, gradients: Sequence[Tensor], *, channels: bool = True
    ) -> Float[Tensor, "n *ones"]:
        """``‖N_j‖/‖R_j‖`` of each channel j: a row of ``left`` and of ``covered``."""
        assert self.covered is not None
        dims = 2 if channels else (1, 2)
        N = torch.linalg.vector_norm(self.left, dim=dims)
        R = torch.linalg.vector_norm(self.covered.to(N.dtype), dim=dims)
        if not channels:
            return ratio(N, R).reshape(-1, *(1 for _ in gradients[0].shape))
        trailing = (1,) * (gradients[0].ndim - 2)
        if self.transposed:  # the parameter's columns
            return ratio(N, R).reshape(-1, 1, *gradients[0].shape[1:])
        return ratio(N, R).reshape(*N.shape, 1, *trailing)

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
        left = self.left
        scale = None
        if residual is not None and self.covered is not None:
            factor = residual.to(left.dtype)[:, None, None]
            left = torch.addcmul(left, self.covered, factor, value=-1)
            scale = residual * lr
        # Not folded into a factor of half precision, which has no numbers as small as a step.
        gain = lr if isinstance(lr, float) else 1.0
        left = left if isinstance(lr, float) else left * lr
        dtype = weights[0].dtype
        if isinstance(decay, float) and self._lift(
            weights, gradients, left, scale, gain=gain, decay=decay, rounding=rounding
        ):
            return
        if rounding.stochastic(dtype):
            for i, weight in enumerate(weights):
                x = weight.to(torch.float32, memory_format=torch.contiguous_format) * decay
                a, b = self._factors(left[i], self.right[i])
                x.view(a.shape[0], b.shape[1]).addmm_(a, b, alpha=-gain)
                if scale is not None:
                    x.addcmul_(gradients[i], scale[i].to(x.dtype), value=-1)
                store(weight, x, rounding, i)
            return
        beta = 1.0
        if scale is not None:
            subtract_scaled(weights, gradients, scale, decay=decay, rounding=rounding)
        elif isinstance(decay, Tensor):
            multiply(weights, decay, rounding)
        else:
            beta = decay
        factors = zip(left.to(dtype).unbind(), self.right.to(dtype).unbind(), strict=True)
        for weight, (a, b) in zip(weights, factors, strict=True):
            shape = (b.shape[0], a.shape[0]) if self.transposed else (a.shape[0], b.shape[0])
            matrix = weight.reshape(shape)
            matrix.addmm_(*self._factors(a, b), beta=beta, alpha=-gain)
            if matrix.data_ptr() != weight.data_ptr():  # strides that no matrix has: a copy
                weight.copy_(matrix.view(weight.shape))

    def _lift(
        self,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        left: Float[Tensor, "n M r"],
        scale: Float[Tensor, " n"] | None,
        *,
        gain: float,
        decay: float,
        rounding: Rounding,
    ) -> bool:
        """All of it in one kernel, where there is one for these weights; says whether."""
        rows, columns = (self.right, left) if self.transposed else (left, self.right)
        every = [*weights, *(() if scale is None else gradients)]
        if not kernels.thin_products(every, columns=columns.shape[1], rank=left.shape[2]):
            return False
        from sgc.kernels.low_rank import lift  # noqa: PLC0415 — needs CuPy

        moved = None if scale is None else gradients
        lift(weights, rows, columns, moved, scale, gain=gain, decay=decay, rounding=rounding)
        return True

    def _factors(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return (b, a.mT) if self.transposed else (a, b.mT)

    def _product(self, left: Float[Tensor, "n M r"]) -> Tensor:
        a, b = self._factors(left, self.right)
        return a @ b
