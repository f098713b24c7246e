"""The largest entries of each chunk: the one place where f reads the whole gradient."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sgc import adam, kernels
from sgc.chunkers.base import Chunker

#: Small parameters are worked on together up to this many numbers; a larger one alone.
_CPU_TILE, _ACCELERATOR_TILE = 2**20, 2**24


@dataclasses.dataclass(frozen=True)
class TopEntries:
    """The s entries of each chunk that are largest in magnitude, in no order.

    Attributes:
        index: places inside the chunk.
        values: in float32 (float64 for float64 gradients).
        energy: ``ΣG²`` of each parameter, where it was asked for.
    """

    index: Int[Tensor, "n c s"]
    values: Float[Tensor, "n c s"]
    energy: Float[Tensor, " n"] | None


def top_entries(
    gradients: Sequence[Tensor], chunker: Chunker, sparsity: int, *, energy: bool
) -> TopEntries:
    """Cut n gradients of equal shape into chunks and keep the s largest entries of each.

    NaN counts as largest. Scratch memory is a few times one gradient; the kernels (on a GPU, for up
    to eight entries of a chunk, or chunks of up to 8192 numbers) read every gradient once and take
    next to none.

    Args:
        gradients: n tensors of equal shape and dtype.
        chunker: cuts each flat gradient into c chunks.
        sparsity: s, at most the chunk length.
        energy: also sum the squares, in float64.
    """
    if chunker.layout and kernels.usable(gradients):
        from sgc.kernels import top_entries as cuda  # noqa: PLC0415 — needs CuPy

        length = chunker.length(gradients[0].numel())
        if cuda.fits(length, sparsity, chunks=chunker.chunks):
            found = cuda.largest(
                gradients,
                chunks=chunker.chunks,
                length=length,
                dealt=chunker.dealt,
                sparsity=sparsity,
                energy=energy,
            )
            return TopEntries(*found)
    tile = _ACCELERATOR_TILE if gradients[0].is_cuda else _CPU_TILE
    at_once = max(1, tile // gradients[0].numel())
    parts = [
        _largest(gradients[start : start + at_once], chunker, sparsity)
        for start in range(0, len(gradients), at_once)
    ]
    index, values = (torch.cat(part) for part in zip(*parts, strict=True))
    return TopEntries(index, values, energies(gradients) if energy else None)


def _largest(
    gradients: Sequence[Tensor], chunker: Chunker, sparsity: int
) -> tuple[Int[Tensor, "n c s"], Float[Tensor, "n c s"]]:
    first, *others = (g.reshape(1, -1) for g in gradients)
    parts = chunker.split(torch.cat([first, *others]) if others else first)
    index = parts.abs().topk(sparsity, dim=-1, sorted=False).indices
    return index, parts.gather(-1, index).to(adam.moment_dtype(parts.dtype))


def energies(gradients: Sequence[Tensor]) -> Float[Tensor, " n"]:
    """``ΣG²`` of each gradient in float64: squares of vanishing or huge ones leave float32."""
    if kernels.usable(gradients):
        from sgc.kernels.top_entries import largest  # noqa: PLC0415 — needs CuPy

        _, _, squares = largest(
            gradients,
            chunks=1,
            length=gradients[0].numel(),
            dealt=None,
            sparsity=1,
            energy=True,
        )
        assert squares is not None
        return squares
    norms = torch._foreach_norm(list(gradients), 2.0, torch.float64)
    return torch.stack(norms).square_()
