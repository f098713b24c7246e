"""Adam on random measurements of the gradient, back by the adjoint: no recovery."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import adam
from sgc.chunkers.base import Chunker
from sgc.compressors.base import Compressed, Moments, Shape, State, Step
from sgc.compressors.measured import Measured
from sgc.options import number, whole
from sgc.residuals.base import Residual
from sgc.rules.base import Rule
from sgc.updates import Lazy, Update
from sgc.updates.partial import Partial


class Adjoint(Measured):
    """Adam in a fixed random subspace: ``p = A G``, ``q = p²``, ``N = α·Aᵀ(M̂/(√V̂ + ε))``.

    What MESGC is held against: the same A and as many moments, but all of G is measured, V is the
    second moment of the measurements (not the measurement of G²), and nothing is recovered. The
    flat parameter is cut into c chunks of length d_c, each measured by the same
    ``A ∈ R^{k_c×d_c}``, ``k_c = k/c``. Its entries have variance 1/k_c, so that every entry of N is
    of the size of an Adam step at first. As A never changes, neither does the subspace: no more
    than k of the d directions are ever walked.

    With ``projection="identity"`` (k = d) it is AdamW.

    Covered of G, which is what the residual leaves out, is ``(k_c/d_c)·AᵀA G``: the orthogonal
    projection on the rows of A where ``A Aᵀ = (d_c/k_c)·I`` (an SRHT whose d_c is a power of two,
    the identity), and otherwise what comes nearest to it without solving with A Aᵀ.

    Args:
        measurements: k, numbers in each moment; divisible by chunks.
        chunks: c, of the whole parameter.
        alpha: α, scale of the update.
        residual: what becomes of the part of G that is not covered.
        rule: ρ between f and g, where it works on each measurement alone.
        projection: registered name of A.
        chunker: its name, or an object; for one chunk ``permuted`` is ``contiguous``.
        seed: of A and of the chunker.

    Raises:
        ValueError: options that do not fit each other, with the numbers.
    """

    def __init__(
        self,
        *,
        measurements: int = 256,
        chunks: int = 1,
        alpha: float = 1.0,
        residual: float | str | Residual = 0.0,
        rule: str | Rule = "adam",
        projection: str = "srht",
        chunker: str | Chunker = "permuted",
        seed: int = 0,
    ) -> None:
        self.measurements = whole("measurements", measurements, least=1)
        chunks = whole("chunks", chunks, least=1)
        if measurements % chunks:
            raise ValueError(
                f"measurements={measurements} is not divisible by chunks={chunks}: every chunk is "
                f"measured k/c times; try measurements={-(-measurements // chunks) * chunks}"
            )
        if chunks == 1 and chunker == "permuted":
            chunker = "contiguous"  # to a random A the order is all one, and this copies nothing
        super().__init__(
            measurements // chunks,
            chunks=chunks,
            chunker=chunker,
            projection=projection,
            rule=rule,
            seed=seed,
        )
        self.alpha = number("alpha", alpha)
        self.take_residual(residual)

    def remedies(self, length: int) -> dict[str, str]:
        return {
            "exactly": f"measurements={length * self.chunks}",
            "fewer": f"lower measurements={self.measurements}",
        }

    def size(self, size: int) -> dict[str, Any]:
        """So many measurements of each chunk."""
        return {"measurements": size * self.chunks}

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        first = gradients[0]
        length = self.chunker.length(first.numel())
        A = self.operator(length, first.device, adam.moment_dtype(first.dtype))
        # One at a time: a copy of G, padded and permuted, is made on the way.
        p = [A.matvec(self.chunker.split(g.reshape(-1).to(A.dtype))) for g in gradients]
        return Compressed(torch.stack(p), None, gradients)

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        N = adam.direction(moments.first, moments.second, eps=step.eps, eps_under_root=False)
        shape = tuple(compressed.gradients[0].shape)
        length = self.chunk_length(shape)
        share = self.measurements / (self.chunks * length)
        return Partial(self._back(N, shape, self.alpha), self._back(compressed.p, shape, share))

    def _back(
        self, measured: Float[Tensor, "n c k"], shape: Shape, factor: float
    ) -> Sequence[Float[Tensor, "*shape"]]:
        """``factor·Aᵀ`` of them, in the parameters' shape; each when it is asked for."""
        numel = math.prod(shape)
        A = self.operator(self.chunk_length(shape), measured.device, measured.dtype)

        def make(i: int) -> Tensor:
            parts = A.rmatvec(measured[i] * factor)
            return self.chunker.merge(parts, numel=numel).view(shape)

        return Lazy(len(measured), make)
