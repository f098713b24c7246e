"""The rank that matrices need, by their exact singular values."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["needed_ranks"]


def needed_ranks(G: Float[Tensor, "m n"], *, thresholds: Sequence[float]) -> list[int]:
    """For each threshold the smallest r with ``σ_1² + … + σ_r² ≥ (1 − threshold)·‖G‖²``.

    Args:
        G: decomposed in float64; of a zero matrix all ranks are 0.
        thresholds: the shares of ``‖G‖²`` that may be left out, each in [0, 1).

    Example:
        >>> G = torch.diag(torch.tensor([3.0, 2.0, 1.0]))  # squares: 9, 4, 1 of 14
        >>> needed_ranks(G, thresholds=(0.5, 0.1, 0.05, 0.0))
        [1, 2, 3, 3]
    """
    kept = torch.linalg.svdvals(G.double()).square().cumsum(0)
    rounding = 1e-12  # of the running sum
    enough = (1 - rounding) * kept[-1] * (1 - torch.tensor(thresholds, dtype=torch.float64))
    ranks = (kept < enough.to(kept.device)[:, None]).sum(1) + (kept[-1] > 0)
    return [int(r) for r in ranks]
