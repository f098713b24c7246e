"""How sparse moments are, and how near to them is what a solver gives back."""

from jaxtyping import Float, Int
from torch import Tensor

from recovery import RecoveryResult

__all__ = [
    "compare",
    "energy_count",
    "hit_rate",
    "largest",
    "participation",
    "short",
    "summary",
]


def largest(x: Float[Tensor, "n d"], s: int) -> tuple[Int[Tensor, "n s"], Float[Tensor, "n s"]]:
    """Places and magnitudes of the s largest of each row; places where x is 0 are −1."""
    top = x.abs().topk(s, dim=-1)
    return top.indices.masked_fill(top.values == 0, -1), top.values


def energy_count(
    x: Float[Tensor, "n d"], share: float, *, most: int | None = None
) -> Float[Tensor, " n"]:
    """Entries of each row, the largest first, until their squares reach a share of ‖x‖².

    Args:
        x: rows.
        share: in (0, 1].
        most: nonzeros of a row at most, where that is known.
    """
    top = x.abs().topk(min(most or x.shape[-1], x.shape[-1]), dim=-1).values.double()
    sums = top.square().cumsum(-1)
    wanted = share * sums[..., -1:] * (1 - 1e-12)  # the share itself is enough
    return ((sums < wanted).sum(-1) + (sums[..., -1] > 0)).double()


def participation(x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """``(Σx²)²/Σx⁴``: n of n equal entries; 0 of a row of zeros."""
    x = x.double()
    x = x / x.abs().amax(-1, keepdim=True).clamp(min=1e-300)
    squares = x.square()
    return squares.sum(-1).square() / squares.square().sum(-1).clamp(min=1e-300)


def hit_rate(found: Int[Tensor, "n s"], true: Int[Tensor, "n t"]) -> float:
    """Share of the true places that are among the found ones; −1 marks none in either."""
    there = (true[:, :, None] == found[:, None, :]).any(-1) & (true >= 0)
    return float(there.sum() / (true >= 0).sum().clamp(min=1))


def summary(x: Float[Tensor, "n d"], s: int, *, most: int) -> dict[str, float]:
    """How sparse the rows are, in the mean.

    Args:
        x: rows.
        s: how many entries ``top`` is about.
        most: nonzeros of a row at most.

    Returns:
        ``nonzero`` entries; ``90`` and ``99``: :func:`energy_count` of that many percent;
        ``participation``; ``top``: the share of ‖x‖² in the s largest entries.
    """
    top = largest(x, s)[1].double()
    share = top.square().sum(-1) / x.double().square().sum(-1).clamp(min=1e-300)
    found = {
        "nonzero": (x != 0).double().sum(-1),
        "90": energy_count(x, 0.9, most=most),
        "99": energy_count(x, 0.99, most=most),
        "participation": participation(x),
        "top": share,
    }
    return {name: short(float(value.mean())) for name, value in found.items()}


def compare(
    M: Float[Tensor, "n d"], V: Float[Tensor, "n d"], m: RecoveryResult, v: RecoveryResult, s: int
) -> dict[str, float]:
    """Hold what was recovered of two moments against them.

    Args:
        M, V: the moments, a row for each chunk.
        m, v: answers of a solver to ``A M`` and ``A V``.
        s: how many of the largest entries should be found.

    Returns:
        ``hit_m`` … ``no_v``, see :func:`studies.moment_sparsity.trial`.
    """
    there = M.gather(1, m.support.clamp(min=0)).masked_fill(m.support < 0, 0)
    top, best = largest(M, s)
    total = M.double().square().sum(1).clamp(min=1e-300)
    lost = m.to_dense(M.shape[1]) - M
    used = v.support >= 0
    same = (m.support[:, :, None] == v.support[:, None, :]) & (v.values > 0)[:, None, :]
    read = same.any(-1) & (m.support >= 0)
    found = {
        "hit_m": hit_rate(m.support, top),
        "hit_v": hit_rate(v.support, largest(V, s)[0]),
        "energy": _share(there, total),
        "best": _share(best, total),
        "error": _share(lost, total),
        "negative_v": float(((v.values < 0) & used).sum() / used.sum().clamp(min=1)),
        "no_v": 1 - float(read.sum() / (m.support >= 0).sum().clamp(min=1)),
    }
    return {name: short(value) for name, value in found.items()}


def short(value: float) -> float:
    """Four digits: the rows are kept."""
    return float(f"{value:.4g}")


def _share(x: Tensor, total: Tensor) -> float:
    """Of the energy of each row, as a mean over the rows."""
    return float((x.double().square().sum(1) / total).mean())
