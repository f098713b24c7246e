"""Choosing atoms: row-wise largest magnitudes, fast on CPU and GPU."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def argmax_excluding(
    score: Float[Tensor, "batch d"], taken: Int[Tensor, "batch i"]
) -> Int[Tensor, " batch"]:
    """Column of the largest ``|score|`` in each row, leaving out the columns ``taken``.

    Overwrites ``score``. On the CPU NumPy looks for the maximum, on the same memory: its row-wise
    argmax is vectorised (0.2 µs for 2048 numbers), torch's is not (4–9 µs).
    """
    score.abs_().scatter_(1, taken, -1)  # below every magnitude, so never chosen again
    if score.device.type == "cpu":
        return torch.from_numpy(score.numpy().argmax(1))
    return score.argmax(1)
