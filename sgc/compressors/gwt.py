"""GWT: Adam on the coarse coefficients of a wavelet transform."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import adam
from sgc.blocks import State, together
from sgc.compressors.base import Compressed, Compressor, Moments, Shape, Step
from sgc.compressors.none import NoCompression
from sgc.compressors.stages import Stage
from sgc.matrices import matrix_shape
from sgc.options import flag, number, whole
from sgc.residuals.base import Residual
from sgc.rules.adam import Adam
from sgc.updates import Dense, Lazy, Update
from sgc.updates.partial import Partial

_MOST = 62  # levels: rows have fewer columns than 2^62
#: The level of size 1: blocks of 1,024 columns.
_COARSEST = 10


class GWT(Stage):
    """Gradient Wavelet Transform (Wen et al. 2025): moments of the coarse half of the coarse half…

    An orthonormal Haar transform of l levels along the rows of G (tensors of more than two
    dimensions are matrices of (first dimension)×(the rest), a vector is a row) has one
    approximation coefficient for every ``b = 2^l`` columns, ``A = (sum of the block)/√b``, and
    b − 1 details. The approximations, m·⌈n/b⌉ numbers, go to the inner compressor; the columns are
    padded with zeros to a multiple of b. The details have no state:

        ``details=False``: they are left to the residual, and ``N = α·Haarᵀ(N_A, 0)``.
        ``details=True``: ``N = α·Haarᵀ(M̂/(√V̂ + ε), D/(√V̂ + ε))``, each divided as the
        approximation of its own block is. This is the paper, with α = 0.25. D/√V̂ has no bound: V
        knows nothing of the details, so where the entries of a block are large and cancel the step
        is as large as ε allows, and may grow from step to step; ``residual="fira"`` on details
        that are left to it has a bound.

    All details of a block share that divisor, so no detail is ever computed: with the block means
    ``P G = Haarᵀ(A, 0)``, what the details stand for is G − P G, and
    ``Haarᵀ(0, D/v) = (G − P G)/v``, v being that of the block.

    Level 0 is the inner compressor itself: AdamW by default.

    Args:
        inner: compressor of the approximations, or its name.
        level: l from 0 to 62.
        details: False leaves the details to the residual, True divides them by √V̂ as the
            approximations are, which needs dense Adam as the inner compressor.
        alpha: α, scale of the update.
        residual: what becomes of the part of G that the update does not cover. With details=True,
            and at level 0 with dense moments, it covers all of G, so that no rule but ``apollo``,
            which replaces the update, has anything to do.

    Raises:
        ValueError: ``details=True`` with an inner compressor that has no dense V, or with a
            residual that would do nothing.
    """

    def __init__(
        self,
        *,
        inner: str | Compressor = "none",
        level: int = 2,
        details: bool = False,
        alpha: float = 1.0,
        residual: float | str | Residual = 0.0,
    ) -> None:
        self.level = whole("level", level, least=0)
        if self.level > _MOST:
            raise ValueError(f"level must be at most {_MOST}, got {level}: 2^level columns a block")
        self.details, self.alpha = flag("details", details), number("alpha", alpha)
        self.take_residual(residual)
        own = self.residual_rule.init_state((1, 1), torch.device("meta"), torch.float32)
        self.wrap(inner, own=own, completes=True)
        dense = isinstance(self.inner, NoCompression) and isinstance(self.inner.rule, Adam)
        if self.details and not dense:
            raise ValueError(
                "details=True divides by the root of a dense V, which inner="
                f"{type(self.inner).__name__} does not have: use inner='none', or details=False"
            )
        rule = self.residual_rule
        if self.details and rule.active and not rule.everywhere:
            raise ValueError(
                f"GWT with details=True covers all of the gradient, so residual={residual!r} would "
                "do nothing: use residual=0, or details=False, which leaves the details to it"
            )

    def inner_shape(self, shape: Shape) -> Shape:
        rows, columns = _matrix_shape(shape)
        return (rows, -(-columns // 2**self.level))

    def refuses(self, shape: Shape) -> str | None:
        reason = super().refuses(shape)
        return reason and f"of {tuple(shape)}, after {self.level} levels: {reason}"

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        A = torch.stack([coarse(_rows(g), self.level) for g in gradients])
        inner = self.inner.compress(A.unbind(), states, step=step)
        return Compressed(inner.p, inner.q, gradients, inner=inner)

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        assert compressed.inner is not None
        gradients, A = compressed.gradients, compressed.inner.gradients
        shape = tuple(gradients[0].shape)
        update = self.inner.decompress(moments, compressed.inner, states, step=step)
        N_A = update.to_dense(tuple(A[0].shape)) * self.alpha
        if not self.details:
            covered = Lazy(len(A), lambda i: update.only(i).covered_part(A[i : i + 1])[0])
            return Partial(self._fine(N_A, shape), self._fine(covered, shape))
        assert moments.second is not None
        N, means = self._fine(N_A, shape), self._fine(together(A), shape)
        V = self._fine(moments.second * math.sqrt(2**self.level), shape)

        def with_details(i: int) -> Tensor:
            D = gradients[i].to(N_A.dtype) - means[i]
            return N[i] + self.alpha * adam.direction(D, V[i], eps=step.eps, eps_under_root=False)

        return Dense(Lazy(len(A), with_details))

    def size(self, size: int) -> dict[str, Any]:
        """A finer level: 1 is level 10, 11 is level 0, and there is nothing larger."""
        return {"level": _COARSEST + 1 - size}

    def _fine(
        self, coefficients: Float[Tensor, "n m b"] | Sequence[Float[Tensor, "m b"]], shape: Shape
    ) -> Lazy:
        columns = _matrix_shape(shape)[1]
        return Lazy(
            len(coefficients),
            lambda i: fine(coefficients[i], self.level, columns=columns).reshape(shape),
        )


def coarse(x: Float[Tensor, "*batch n"], level: int) -> Float[Tensor, "*batch blocks"]:
    """Approximation coefficients of the l-level orthonormal Haar transform, n padded with zeros.

    Example:
        >>> coarse(torch.tensor([1.0, 3.0, 5.0, 7.0]), 2)
        tensor([8.])
    """
    n = x.shape[-1]
    width = max(1, min(2**level, n))  # a block that is longer than the row has one coefficient, too
    padded = torch.nn.functional.pad(x, (0, -n % width))
    return padded.unflatten(-1, (-(-n // width), width)).sum(-1) / math.sqrt(2**level)


def fine(
    coefficients: Float[Tensor, "*batch blocks"], level: int, *, columns: int
) -> Float[Tensor, "*batch n"]:
    """The signal of these approximation coefficients and no details: the adjoint of coarse.

    Example:
        >>> fine(torch.tensor([8.0]), 2, columns=4)
        tensor([4., 4., 4., 4.])
    """
    width = max(1, min(2**level, columns))
    wide = (coefficients / math.sqrt(2**level)).repeat_interleave(width, dim=-1)
    return wide[..., :columns]


def _matrix_shape(shape: Shape) -> Shape:
    return matrix_shape(shape) if len(shape) > 1 else (1, math.prod(shape))


def _rows(gradient: Tensor) -> Float[Tensor, "m n"]:
    matrix = gradient.reshape(_matrix_shape(tuple(gradient.shape)))
    return matrix.to(adam.moment_dtype(gradient.dtype))
