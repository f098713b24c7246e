"""Chunks of every c-th entry."""

from jaxtyping import Float, Int
from torch import Tensor

from sgc.chunkers.base import Chunker


class Strided(Chunker):
    """Entry i goes to chunk ``i mod c``: a hot row is spread over all chunks.

    For a matrix whose width is a multiple of c, a chunk is a set of columns, so a hot column still
    falls into one chunk; :class:`sgc.chunkers.permuted.Permuted` spreads both.
    """

    layout = "dealt"

    def source(self, slots: Int[Tensor, "*n"], *, length: int) -> Int[Tensor, "*n"]:
        return slots % length * self.chunks + slots // length

    def split(self, flat: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch c length"]:
        length = self.length(flat.shape[-1])
        return self._pad(flat, length).unflatten(-1, (length, self.chunks)).mT

    def merge(
        self, parts: Float[Tensor, "*batch c length"], *, numel: int
    ) -> Float[Tensor, "*batch d"]:
        self._check_parts(parts, numel)
        return parts.mT.flatten(-2)[..., :numel]
