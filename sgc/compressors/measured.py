"""What methods share that measure the chunks of a flat parameter with one A."""

import abc
import math

import torch

from projections import Projection
from sgc.chunkers.base import Chunker
from sgc.compressors.base import Compressor, Shape
from sgc.operators import Operators, elementwise
from sgc.options import part, whole
from sgc.rules.base import Rule


class Measured(Compressor):
    """The flat parameter in c chunks of length ``d_c = ⌈d/c⌉``, measured by one A ∈ R^{k_c×d_c}.

    A method says in :meth:`remedies` which of its options mend a shape that does not fit.

    Args:
        measurements: k_c.
        chunks, chunker, projection, rule, seed: as given to the method.

    Raises:
        TypeError: a part that is none, or a seed that is no integer.
        ValueError: the chunker makes another number of chunks, or the rule is not elementwise.
    """

    def __init__(
        self,
        measurements: int,
        *,
        chunks: int,
        chunker: str | Chunker,
        projection: str,
        rule: str | Rule,
        seed: int,
    ) -> None:
        self.chunks, self.projection, self.seed = chunks, projection, whole("seed", seed)
        self.rule = elementwise(part("rule", rule))
        self.chunker: Chunker = part("chunker", chunker, chunks=chunks, seed=seed)
        if self.chunker.chunks != chunks:
            raise ValueError(f"the chunker makes {self.chunker.chunks} chunks, but chunks={chunks}")
        self._operators = Operators(projection, measurements, seed=seed)

    @abc.abstractmethod
    def remedies(self, length: int) -> dict[str, str]:
        """``exactly``: the option and its value with which k_c is d_c; ``fewer``: lowers k_c."""

    def refuses_chunks(self, length: int) -> str | None:
        """Why chunks of this length will not do, after what they are; None if they will."""
        return None

    def chunk_length(self, shape: Shape) -> int:
        """d_c of a parameter of this shape."""
        return self.chunker.length(math.prod(shape))

    def operator(self, length: int, device: torch.device, dtype: torch.dtype) -> Projection:
        """The A of chunks of this length."""
        return self._operators(length, device, dtype)

    def refuses(self, shape: Shape) -> str | None:
        numel = math.prod(shape)
        if numel < self.chunks:
            return f"{numel} numbers cannot be cut into chunks={self.chunks}"
        length = self.chunk_length(shape)
        reason = self.refuses_chunks(length) or self._operators.refuses(
            length, **self.remedies(length)
        )
        what = f"chunks={self.chunks} of a parameter of shape {tuple(shape)} hold {length} numbers"
        return reason and f"{what}, {reason}"

    def moment_shape(self, shape: Shape) -> Shape:
        return (self.chunks, self._operators.measurements)

    def shared_floor(self, shape: Shape, dtype: torch.dtype) -> int:
        return self._operators.floor(self.chunk_length(shape), dtype)

    def prepare(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.operator(self.chunk_length(shape), device, dtype)

    def shared_tensors(self) -> dict[str, int]:
        return self._operators.shared_tensors()
