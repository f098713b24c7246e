"""Sign-SGD on the rest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sgc import adam
from sgc.blocks import State
from sgc.residuals.base import Residual, scale_of
from sgc.rules.base import Step
from sgc.updates import Dense, Lazy, LowRank, Nothing, Sparse, Update

if TYPE_CHECKING:
    from sgc.compressors.base import Compressed


class Sign(Residual):
    """``ρ·sign(G − covered G)``, FRUGAL's signSGD on what is left (Zmushko et al. 2024).

    What rounding leaves of a covered part has no sign: below :func:`noise`, 0.

    Args:
        scale: ρ, the authors' ``inactive_lr_scale``: the rest's learning rate over the others'.
    """

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale_of(scale)

    def complete(
        self, update: Update, compressed: "Compressed", states: Sequence[State], *, step: Step
    ) -> tuple[Update, Tensor | None]:
        gradients = compressed.gradients

        def make(i: int) -> Tensor:
            G, one = gradients[i], update.only(i)
            rest = one.uncovered([G])[0]
            signs = rest.sign()
            if not isinstance(one, Sparse | Nothing):  # those cover a place or do not
                signs = torch.where(rest.abs() <= noise(G, one), 0.0, signs)
            # The sign of NaN is 0 and that of infinity 1: both would hide a broken gradient.
            signs = torch.where(G.isfinite(), signs, torch.nan)
            signs = signs.to(adam.moment_dtype(G.dtype)).mul_(self.scale)
            return signs if one.covers_nothing else signs.add_(one.to_dense(tuple(G.shape))[0])

        return Dense(Lazy(len(gradients), make)), None


def noise(G: Tensor, update: Update) -> Tensor:
    """What rounding may leave of a gradient that an update covers: 8 ε of its size.

    Of low rank, for each channel: sums of as many numbers as the shorter side has; and on CUDA,
    where a half-precision gradient is projected with a basis of its own precision, that one's ε.
    """
    dtype = adam.moment_dtype(G.dtype)
    eps = 8 * torch.finfo(dtype).eps
    if not isinstance(update, LowRank):
        largest = G.abs().amax() if G.numel() else G.new_zeros(())
        return largest.to(dtype) * eps
    # The parameter as a matrix is (longer × shorter) or, transposed, (shorter × longer).
    dims = 0 if update.transposed else tuple(range(1, G.ndim))
    norm = torch.linalg.vector_norm(G, dim=dims, keepdim=True, dtype=dtype)
    if G.is_cuda and G.dtype != dtype:
        eps += torch.finfo(G.dtype).eps / update.right.shape[1] ** 0.5
    return norm * eps
