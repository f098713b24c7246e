"""The paper's chunks: consecutive pieces."""

from jaxtyping import Float, Int
from torch import Tensor

from sgc.chunkers.base import Chunker


class Contiguous(Chunker):
    """``G = [G¹, …, G^c]``: chunk q is a run of consecutive entries (the paper, Appendix F).

    For a row-major weight matrix a chunk is a band of rows: when large entries sit in a few rows,
    a few chunks hold them all and the top s/c of each chunk misses most.
    """

    layout = "consecutive"

    def source(self, slots: Int[Tensor, "*n"], *, length: int) -> Int[Tensor, "*n"]:
        return slots

    def split(self, flat: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch c length"]:
        length = self.length(flat.shape[-1])
        return self._pad(flat, length).unflatten(-1, (self.chunks, length))

    def merge(
        self, parts: Float[Tensor, "*batch c length"], *, numel: int
    ) -> Float[Tensor, "*batch d"]:
        self._check_parts(parts, numel)
        return parts.flatten(-2)[..., :numel]
