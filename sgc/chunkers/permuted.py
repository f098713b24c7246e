"""Chunks from a seeded permutation that is computed, not stored."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from projections.seeding import stream
from sgc.chunkers.base import Chunker
from sgc.hashing import lowbias32


class Permuted(Chunker):
    """A stratified random permutation: c consecutive entries go to c different chunks.

    Group ``g = ⌊i/c⌋`` of c consecutive entries is dealt to the chunks with a pseudo-random
    rotation ``h(g)``: entry i goes to place g of chunk ``(i + h(g)) mod c``, where h hashes g
    with the seed. So neither a hot row nor a hot column gathers in one chunk, each chunk gets its
    exact share of every run, and the map and its inverse are a few integer operations.
    """

    layout = "dealt"

    def __init__(self, *, chunks: int, seed: int = 0) -> None:
        super().__init__(chunks=chunks, seed=seed)
        keys = stream(seed, "permuted").integers(1, 2**31 - 1, size=2)
        self.turns = (int(keys[1]) | 1, int(keys[0]))

    def source(self, slots: Int[Tensor, "*n"], *, length: int) -> Int[Tensor, "*n"]:
        group = slots % length
        turned = (slots // length - self._rotation(group)) % self.chunks
        return group * self.chunks + turned

    def split(self, flat: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch c length"]:
        length = self.length(flat.shape[-1])
        groups = self._pad(flat, length).unflatten(-1, (length, self.chunks))
        return groups.gather(-1, self._turn(flat, length, -1).expand(groups.shape)).mT

    def merge(
        self, parts: Float[Tensor, "*batch c length"], *, numel: int
    ) -> Float[Tensor, "*batch d"]:
        length = self._check_parts(parts, numel)
        groups = parts.mT
        back = groups.gather(-1, self._turn(parts, length, 1).expand(groups.shape))
        return back.flatten(-2)[..., :numel]

    def _turn(self, like: Tensor, length: int, sign: int) -> Int[Tensor, "length c"]:
        """Where each place of each group is read from: one hash a group, not one an element."""
        rotation = self._rotation(torch.arange(length, device=like.device))
        chunk = torch.arange(self.chunks, device=like.device)
        turned = chunk + sign * rotation[:, None]
        # Less than one turn away, and an integer remainder is many times slower than this.
        return turned - sign * self.chunks * (turned >= self.chunks if sign > 0 else turned < 0)

    def _rotation(self, group: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        multiply, add = self.turns
        return lowbias32(group * multiply + add) % self.chunks
