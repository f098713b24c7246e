"""The contract of a chunker: a fixed reordering of the padded vector, cut into c rows."""

import abc
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Chunker(abc.ABC):
    """Cut a vector of any length into c chunks of length ``⌈d/c⌉``, padded with zeros.

    Slot ``q·⌈d/c⌉ + j`` is place j of chunk q. A chunker is the map :meth:`source` from slots to
    places of the padded vector; the rest follows from it. Nothing is stored per element.

    Args:
        chunks: c, at least 1.
        seed: only read by chunkers that shuffle.
    """

    #: Maps that a kernel can follow. "consecutive": chunk q is the run ``q·length + j``. "dealt":
    #: c consecutive entries go to c chunks, ``place = j·c + (q − turn(j)) mod c``. None: any.
    layout: ClassVar[str | None] = None
    #: (m, a): in the "dealt" layout ``turn(j) = lowbias32(m·j + a) mod c``, or 0 if m is 0.
    turns: tuple[int, int] = (0, 0)

    def __init__(self, *, chunks: int, seed: int = 0) -> None:
        if chunks < 1:
            raise ValueError(f"chunks must be at least 1, got {chunks}")
        self.chunks = int(chunks)
        self.seed = int(seed)

    @abc.abstractmethod
    def source(self, slots: Int[Tensor, "*n"], *, length: int) -> Int[Tensor, "*n"]:
        """Places in the padded vector (``chunks·length`` long) of the given slots: a bijection."""

    @property
    def dealt(self) -> tuple[int, int] | None:
        """:attr:`turns` in the "dealt" layout; None in others."""
        return self.turns if self.layout == "dealt" else None

    def length(self, numel: int) -> int:
        """Chunk length ``⌈d/c⌉`` for a vector of ``numel`` = d.

        Raises:
            ValueError: fewer numbers than chunks.
        """
        if numel < self.chunks:
            raise ValueError(
                f"{self.chunks} chunks of a vector of {numel} numbers: some would be empty; "
                f"use at most {numel} chunks"
            )
        return -(-numel // self.chunks)

    def split(self, flat: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch c length"]:
        """Cut the last dimension into chunks."""
        length = self.length(flat.shape[-1])
        slots = torch.arange(self.chunks * length, device=flat.device)
        padded = self._pad(flat, length)
        return padded[..., self.source(slots, length=length)].unflatten(-1, (self.chunks, length))

    def merge(
        self, parts: Float[Tensor, "*batch c length"], *, numel: int
    ) -> Float[Tensor, "*batch d"]:
        """Undo :meth:`split`: ``merge(split(x), numel=x.numel()) == x``."""
        length = self._check_parts(parts, numel)
        flat = parts.flatten(-2)
        slots = torch.arange(self.chunks * length, device=flat.device)
        out = torch.empty_like(flat)
        out[..., self.source(slots, length=length)] = flat
        return out[..., :numel]

    def _check_parts(self, parts: Tensor, numel: int) -> int:
        length = self.length(numel)
        if tuple(parts.shape[-2:]) != (self.chunks, length):
            raise ValueError(
                f"a vector of {numel} numbers in {self.chunks} chunks has parts of shape "
                f"({self.chunks}, {length}), got {tuple(parts.shape)}"
            )
        return length

    def _pad(self, flat: Tensor, length: int) -> Tensor:
        missing = self.chunks * length - flat.shape[-1]
        return torch.nn.functional.pad(flat, (0, missing)) if missing else flat
