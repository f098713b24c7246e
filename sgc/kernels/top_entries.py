"""Launch of ``top_entries.cu``."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sgc.kernels import DTYPES
from sgc.kernels.tables import addresses, kernel

#: Entries of a chunk that a scanning thread can keep; above, a block holds the whole chunk.
_MOST = 8
_LONGEST = 8192
_THREADS = 256
_LOADS = 256  # of a thread, at least, where there is enough to read
_PACKED_LOADS = 128  # the same for loads of 16 bytes
_TURNS = 8192  # turns that a block keeps in shared memory
_GRID = 65535  # blocks of a grid's second and third dimension
_CANDIDATES = 2**26  # bytes of scratch at a time


def fits(length: int, sparsity: int, *, chunks: int) -> bool:
    """Whether there is a kernel: few entries, or chunks that a block can hold."""
    return chunks <= _GRID and (sparsity <= _MOST or length <= _LONGEST)


def largest(
    gradients: Sequence[Tensor],
    *,
    chunks: int,
    length: int,
    dealt: tuple[int, int] | None,
    sparsity: int,
    energy: bool,
) -> tuple[Int[Tensor, "n c s"], Float[Tensor, "n c s"], Float[Tensor, " n"] | None]:
    """Places and values of the largest entries of each chunk, and ``ΣG²``.

    Args:
        gradients: n tensors that :func:`sgc.kernels.usable` takes.
        chunks: c.
        length: of a chunk.
        dealt: see :attr:`sgc.chunkers.base.Chunker.dealt`; None for consecutive chunks.
        sparsity: s, see :func:`fits`.
        energy: also sum the squares.
    """
    n, numel, device = len(gradients), gradients[0].numel(), gradients[0].device
    table = addresses(gradients)
    if sparsity > _MOST:
        return _of_whole_chunks(
            gradients,
            table,
            chunks=chunks,
            length=length,
            dealt=dealt,
            sparsity=sparsity,
            energy=energy,
        )
    keep = next(size for size in (1, 2, 4, 8) if size >= sparsity)
    macros = {"DTYPE": DTYPES[gradients[0].dtype], "S": keep}
    if dealt is not None:
        width = min(chunks, _THREADS)
        lanes, tiles = _THREADS // width, -(-chunks // width)
        share = min(length, lanes * _LOADS, _TURNS)
        shares, per_share = -(-length // share), lanes * keep
    else:
        tiles, share = chunks, min(length, _THREADS * _LOADS)
        shares, per_share = -(-length // share), keep
    pack = 16 // gradients[0].element_size()
    packed = (
        dealt is not None
        and keep == 1
        and chunks % pack == 0
        and chunks <= pack * _THREADS
        and chunks * length == numel
        and all(g.data_ptr() % 16 == 0 for g in gradients)
    )
    if dealt is not None and packed:
        lanes = _THREADS // (chunks // pack)
        share = min(length, lanes * _PACKED_LOADS, _TURNS)
        tiles, shares, per_share = 1, -(-length // share), 1
    at_once = max(1, min(_GRID, _CANDIDATES // (8 * chunks * shares * per_share)))
    if n > at_once:
        parts = [
            largest(
                gradients[start : start + at_once],
                chunks=chunks,
                length=length,
                dealt=dealt,
                sparsity=sparsity,
                energy=energy,
            )
            for start in range(0, n, at_once)
        ]
        sums = [part[2] for part in parts if part[2] is not None]
        index = torch.cat([part[0] for part in parts])
        values = torch.cat([part[1] for part in parts])
        return index, values, torch.cat(sums) if energy else None
    candidates = torch.empty(n, chunks, shares * per_share, dtype=torch.int64, device=device)
    squares = None
    if energy:
        squares = torch.empty(n, shares * tiles, dtype=torch.float64, device=device)
    grid = (shares, tiles, n)
    if dealt is not None and packed:
        kernel("top_entries.cu", "top_dealt_packed", **macros)(
            grid,
            _THREADS,
            *(table, *dealt, candidates, squares, chunks, length, share),
            device=device,
            shared=chunks * (8 if pack == 4 else 4) + 4 * share,
        )
    elif dealt is not None:
        kernel("top_entries.cu", "top_dealt", **macros)(
            grid,
            _THREADS,
            *(table, *dealt, candidates, squares),
            *(numel, chunks, length, share, shares * per_share),
            device=device,
            shared=4 * share,
        )
    else:
        size = gradients[0].element_size()
        aligned = length * size % 16 == 0 and all(g.data_ptr() % 16 == 0 for g in gradients)
        kernel("top_entries.cu", "top_consecutive", **macros)(
            grid,
            _THREADS,
            *(table, candidates, squares, numel, chunks, length, share),
            # The last pack of a chunk may reach beyond the gradient where the padding begins.
            int(aligned and chunks * length == numel),
            device=device,
        )
    keys = candidates.amax(-1, keepdim=True) if sparsity == 1 else candidates.topk(sparsity).values
    keys = keys.contiguous()
    index = torch.empty_like(keys)
    values = torch.empty(keys.shape, dtype=torch.float32, device=device)
    kernel("top_entries.cu", "read_entries", **macros)(
        (-(-keys.numel() // _THREADS),),
        _THREADS,
        *(table, *(dealt or (0, 0)), keys, index, values),
        *(keys.numel(), chunks, length, sparsity, int(dealt is not None)),
        device=device,
    )
    return index, values, None if squares is None else squares.sum(1)


def _of_whole_chunks(
    gradients: Sequence[Tensor],
    table: Tensor,
    *,
    chunks: int,
    length: int,
    dealt: tuple[int, int] | None,
    sparsity: int,
    energy: bool,
) -> tuple[Int[Tensor, "n c s"], Float[Tensor, "n c s"], Float[Tensor, " n"] | None]:
    n, device = len(gradients), gradients[0].device
    index = torch.empty(n, chunks, sparsity, dtype=torch.int64, device=device)
    values = torch.empty(n, chunks, sparsity, dtype=torch.float32, device=device)
    squares = torch.empty(n, chunks, dtype=torch.float64, device=device) if energy else None
    a_thread = next(size for size in (1, 4, 8, 16, 32) if size * _THREADS >= length)
    dtype = DTYPES[gradients[0].dtype]
    kernel("top_entries.cu", "top_of_whole", DTYPE=dtype, V=a_thread)(
        (chunks, n),
        _THREADS,
        *(table, *(dealt or (0, 0)), index, values, squares),
        *(gradients[0].numel(), chunks, length, sparsity, int(dealt is not None)),
        device=device,
    )
    return index, values, None if squares is None else squares.sum(1)


def to_parameter(
    support: Int[Tensor, "rows s"],
    values: Float[Tensor, "rows s"],
    *,
    numel: int,
    chunks: int,
    length: int,
    dealt: tuple[int, int] | None,
    alpha: float,
) -> tuple[Int[Tensor, "rows s"], Float[Tensor, "rows s"]]:
    """Places in the parameter (−1 is none) and ``alpha·values`` (0 there)."""
    support, values = support.contiguous(), values.contiguous()
    index, scaled = torch.empty_like(support), torch.empty_like(values)
    kernel("top_entries.cu", "to_parameter")(
        (-(-support.numel() // _THREADS),),
        _THREADS,
        *(support, values, *(dealt or (0, 0)), index, scaled),
        *(support.numel(), numel, chunks, length, support.shape[1]),
        *(int(dealt is not None), float(alpha)),
        device=support.device,
    )
    return index, scaled
