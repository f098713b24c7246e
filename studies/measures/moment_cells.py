"""Exact moments of what MESGC keeps of gradients."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import adam
from sgc.chunkers.base import Chunker
from sgc.top_entries import top_entries

__all__ = ["Cell", "Pairs"]

#: β₁ and β₂, each.
Pairs = tuple[tuple[float, float], ...]


class Cell:
    """One way to cut and sparsify matrices, with the moments of every pair of β.

    Args:
        chunker: cuts a matrix.
        kept: s_c, entries kept of each chunk at a step.
        betas: pairs whose moments are followed.
        parameters: the matrices, all of one shape.

    Attributes:
        chunks, length: of a matrix, and numbers of each.
        M, V: pair → first and second moments, ``(matrices·chunks, length)``.
    """

    def __init__(
        self, chunker: Chunker, kept: int, betas: Pairs, parameters: Sequence[Tensor]
    ) -> None:
        self.chunker, self.chunks, self.kept = chunker, chunker.chunks, kept
        self.length = chunker.length(parameters[0].numel())
        self._size = (len(parameters) * self.chunks, self.length)
        self._device = parameters[0].device
        self.M, self.V = ({(b1, b2): self._zeros() for b1, b2 in betas} for _ in "MV")

    def _zeros(self) -> Tensor:
        return torch.zeros(self._size, device=self._device)

    @property
    def name(self) -> dict[str, int]:
        """The fields of a record that say which cell it is of."""
        return {"chunks": self.chunks, "s": self.kept}

    def accumulate(self, gradients: Sequence[Tensor]) -> None:
        """``M ← β₁ M + (1 − β₁) G̃``, ``V ← β₂ V + (1 − β₂) G̃²``."""
        top = top_entries(gradients, self.chunker, self.kept, energy=False)
        p = self._zeros().scatter_(1, top.index.flatten(0, 1), top.values.flatten(0, 1))
        q = p.square()
        for pair in self.M:
            adam.accumulate(self.M[pair], self.V[pair], p, q, beta1=pair[0], beta2=pair[1])

    def unbiased(
        self, pair: tuple[float, float], step: int, rms: Float[Tensor, " matrices"]
    ) -> tuple[Tensor, Tensor]:
        """M and V after so many steps, bias-corrected, as of gradients whose ``rms`` is 1."""
        unit = rms.masked_fill(rms == 0, 1)  # moments of a matrix without gradients are 0, too
        unit = unit.to(self._device).repeat_interleave(self.chunks)[:, None]
        M = (self.M[pair] / (1 - pair[0] ** step) / unit).float()
        V = (self.V[pair] / (1 - pair[1] ** step) / unit**2).float()
        return M, V
