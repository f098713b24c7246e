"""The two selections that the study "chunk-error" compares, and inequalities between them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sgc.chunkers.base import Chunker

__all__ = ["bounds", "selections"]


def selections(
    G: Float[Tensor, "cases d"], chunker: Chunker, sparsity: int
) -> tuple[Bool[Tensor, "cases d"], Bool[Tensor, "cases d"]]:
    """Where G̃ and G̃' are taken from G: the top s, and the top s/c of each chunk.

    Of equal magnitudes the first in G counts as the larger, in both: without one rule for both the
    bounds do not hold (see :func:`bounds`).

    Raises:
        ValueError: NaN or infinite entries, which have no order or no energy to compare.
    """
    if not bool(G.isfinite().all()):
        bad = int((~G.isfinite()).any(-1).sum())
        raise ValueError(
            f"{bad} of {len(G)} gradients have NaN or infinite entries: leave them out, no "
            "inequality says anything about them"
        )
    d = G.shape[-1]
    order = G.abs().argsort(dim=-1, descending=True, stable=True)
    worth = torch.arange(d, 0, -1, dtype=torch.float32).expand(order.shape)  # exact to 2²⁴
    key = torch.empty_like(worth, memory_format=torch.contiguous_format)
    key.scatter_(-1, order, worth)
    parts = chunker.split(key)  # padding is 0, below all
    best = parts.topk(sparsity // chunker.chunks, dim=-1, sorted=False).indices
    chosen = torch.zeros_like(parts, memory_format=torch.contiguous_format).scatter_(-1, best, 1.0)
    return key > d - sparsity, chunker.merge(chosen, numel=d) > 0


def bounds(
    *,
    chunks: int,
    sparsity: int,
    numel: int,
    error: Float[Tensor, " cases"],
    top: Float[Tensor, " cases"],
    chunked: Float[Tensor, " cases"],
    lost: Float[Tensor, " cases"],
    whole: Float[Tensor, " cases"],
) -> dict[str, tuple[Float[Tensor, " cases"], Float[Tensor, " cases"]]]:
    """Left- and right-hand sides of the inequalities, by name.

    S is the top s of G, S' the union of the chunks' top s_c = s/c, L = ⌈d/c⌉, and nᵢ ≤ min(s, L)
    entries of S lie in chunk i, which has energy Eᵢ there. With one order of equal magnitudes,
    S∩S' has the min(nᵢ, s_c) largest of each chunk's nᵢ.

    *Missed.* If nᵢ > s_c, the nᵢ − s_c smallest of the nᵢ are missed: at most the share
    1 − s_c/nᵢ ≤ 1 − s_c/min(s, L) = 1 − max(1/c, s/(cL)) of Eᵢ; else none. Summed over chunks,
    D = Σ_{S∖S'} G² ≤ (1 − max(1/c, s/(cL)))‖G̃‖².
    *Extra.* |S'∖S| ≤ |S∖S'|, and no entry outside of S is larger than one inside of it: so
    X = Σ_{S'∖S} G² ≤ D. Hence ‖G̃'−G̃‖² = D + X ≤ 2D: ``sharp``, and ``corrected``, which is
    weaker. If s ≤ L or L divides s, ``sharp`` is the least such bound: ±1 on the ``min(s, L)``
    entries of a chunk (of as many chunks as s fills), the rest as close below as one likes, comes
    as near as one likes. Otherwise it is true, but not attained: s > L entries cannot fill whole
    chunks, and of a chunk with nᵢ < L of them less than 1 − s_c/L is missed.
    *In terms of G̃'.* As before D ≤ (ρ − 1)K with K = Σ_{S∩S'} G² and ρ = min(c, L/s_c), for the
    missed of a chunk are not above the mean of those kept. (D + X)/(K + X) is monotone in X on
    [0, D], so at most max(ρ − 1, 2(1 − 1/ρ)): ``repaired``. Where c divides d, that is at most the
    printed 2(1 − s/d) if c ≤ 2 or s ≥ d/2, and it is attained, and above, in all other cases.
    *Contraction.* Chunk i has Lᵢ ≤ L entries and loses its smallest Lᵢ − s_c: a share of at most
    1 − s_c/L = 1 − s/(cL) of its energy: ``padded``; ``contraction``, with d for cL, if c divides
    d (d = 10, c = s = 4: one chunk of three ones loses 2/3 > 1 − 4/10).

    Args:
        chunks, sparsity, numel: c, s and d.
        error: ‖G̃'−G̃‖².
        top: ‖G̃‖².
        chunked: ‖G̃'‖².
        lost: ‖G−G̃'‖².
        whole: ‖G‖².
    """
    c, s, d = chunks, sparsity, numel
    padded = c * -(-d // c)
    ratio = min(c, padded / s)
    return {
        "printed": (error, 2 * (1 - s / d) * chunked),
        "corrected": (error, 2 * (1 - 1 / c) * top),
        "sharp": (error, 2 * (1 - max(1 / c, s / padded)) * top),
        "repaired": (error, max(ratio - 1, 2 * (1 - 1 / ratio)) * chunked),
        "contraction": (lost, (1 - s / d) * whole),
        "padded": (lost, (1 - s / padded) * whole),
    }
