"""Choosing atoms: row-wise largest magnitudes, fast on CPU and GPU."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LANES = 64  # columns compared at once by the vectorised first pass


def argmax_excluding(
    score: Float[Tensor, "batch d"], taken: Int[Tensor, "batch i"]
) -> Int[Tensor, " batch"]:
    """Column of the largest ``|score|`` in each row, leaving out the columns ``taken``.

    Overwrites ``score``. torch's own row-wise argmax is not vectorised on the CPU (4–9 µs for 2048
    numbers); here a vectorised maximum first finds the lane, then 1/64 of the row is searched.
    """
    score.abs_().scatter_(1, taken, -1)  # below every magnitude, so never chosen again
    d = score.shape[1]
    if score.device.type != "cpu" or d < 4 * _LANES:
        return score.argmax(1)
    body = d - d % _LANES
    lanes = score[:, :body].unflatten(1, (-1, _LANES))
    lane = lanes.amax(1).argmax(1)
    within = lanes.gather(2, lane[:, None, None].expand(-1, lanes.shape[1], 1))[..., 0]
    top, place = within.max(1)
    best = place * _LANES + lane
    if body < d:
        rest, place = score[:, body:].max(1)
        best = torch.where(rest > top, place + body, best)
    return best
