"""Signals of the study "kappa": what is measured, and the noise on it."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from projections.seeding import stream
from sgc.finetune.config import ConfigError
from sgc.finetune.randomness import derived_seed
from sgc.problems import draw_signals
from sgc.registry import create
from studies.measures.captured import captured

__all__ = ["CAPTURED", "Signals", "dense", "directions", "draw"]

#: The law of the largest entries of chunks of captured gradients.
CAPTURED = "captured"


class Signals(NamedTuple):
    """Supports, values, and which of so many gradients each signal is of, 0 unless captured."""

    support: Int[Tensor, "signals s"]
    values: Float[Tensor, "signals s"]
    sources: Int[Tensor, " signals"]
    gradients: int


def draw(law: str, d: int, sparsity: int, *, signals: int, seed: int) -> Signals:
    """The first n are the same however many are asked for; of captured ones there may be fewer.

    Raises:
        ConfigError: no captured gradient has a chunk with as many entries.
    """
    if law == CAPTURED:
        return _captured(d, sparsity, signals=signals, seed=seed)
    support, values = draw_signals(d, sparsity, signals=signals, law=law, seed=seed)
    return Signals(support, values, torch.zeros(len(support), dtype=torch.int64), 1)


def _captured(d: int, sparsity: int, *, signals: int, seed: int) -> Signals:
    """Each captured gradient is cut into c = ⌈numel/d⌉ chunks (``permuted``), with zeros up to d;
    of each chunk the s largest entries stay. Chunks with fewer are left out.
    """
    supports, values, sources, gradients = [], [], [], captured()
    for n, gradient in enumerate(gradients):
        flat = torch.zeros(gradient.numel)
        flat[torch.from_numpy(gradient.index)] = torch.from_numpy(gradient.values)
        chunks = -(-gradient.numel // d)
        cut = create("chunker", "permuted", chunks=chunks, seed=derived_seed(seed, "cut", n))
        parts = cut.split(flat)
        parts = parts[(parts != 0).sum(1) >= sparsity]
        top = parts.abs().topk(sparsity, dim=1).indices
        supports.append(top)
        values.append(parts.gather(1, top))
        sources.append(torch.full((len(top),), n))
    if not sum(map(len, supports)):
        raise ConfigError(
            f"no captured gradient has a chunk of {d} with {sparsity} entries kept: "
            "ask for fewer nonzeros, or capture with more entries"
        )
    order = stream(seed, "kappa", "order").permutation(sum(map(len, supports)))
    own = torch.from_numpy(order)[:signals]
    support, value, source = (torch.cat(part)[own] for part in (supports, values, sources))
    return Signals(support, value, source, len(gradients))


def directions(count: int, k: int, seed: int) -> Float[Tensor, "count k"]:
    """Uniformly random unit vectors, the first n the same however many are asked for."""
    drawn = torch.from_numpy(stream(seed, "kappa", "noise").standard_normal((count, k)))
    return torch.nn.functional.normalize(drawn, dim=1).float()


def dense(
    support: Int[Tensor, "batch s"], values: Float[Tensor, "batch s"], d: int
) -> Float[Tensor, "batch d"]:
    """The signals as rows of length d."""
    return values.new_zeros(len(support), d).scatter_(1, support, values)
