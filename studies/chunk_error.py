"""Chunk error: what does the top s/c of each of c chunks miss of a gradient's top s?

G̃ is the top s of G, G̃' the top s/c of each of c chunks. Appendix H of the SGC paper says
E‖G̃'−G̃‖² ≤ 2(1 − s/d)·G_max, where G_max is an upper bound on E‖G̃'‖², hence also with E‖G̃'‖²
itself; and that the error is 0 in expectation if the large entries lie anywhere with equal odds.

Expected: a hot chunk breaks that bound, for its norm is that of what was kept; bounds by ‖G̃‖²
hold (proofs: :func:`studies.measures.chunk_bounds.bounds`). Strided and permuted chunks mend hot
rows, strided ones no hot columns.

Found (``python -m studies chunk-error``; results/studies/chunk-error.jsonl: 121,968 cases, i.e. a
gradient cut one way, of 40,320 different random gradients and 24 captured ones):

- The printed bound is broken in 8,710 cases, by up to 19.5 times, and in the mean at 25 of 357
  points. Hot chunk, c = s = 64: error 0.977‖G̃‖², bound 0.058‖G̃‖². Real gradients break it too,
  cut by strides: 0.84 ± 0.03 against 0.76 at c = 64, in 17 of 24. It is true for all G only if
  c ≤ 2 or s ≥ d/2; or, everywhere, with ‖G̃‖² for G_max. Its constant for ‖G̃'‖² is
  max(ρ − 1, 2 − 2/ρ), ρ = min(c, d/s): about c, not 2.
- 2(1 − 1/c)‖G̃‖² has no violation, nor has the sharper 2(1 − max(1/c, s/d))‖G̃‖², nor the
  contraction ‖G−G̃'‖² ≤ (1 − s/d)‖G‖²; a plateau comes within 0.1 % of each (of the sharper one
  since s is at most ⌈d/c⌉ or a multiple of it, at all points but s = 1024, c = 256; elsewhere none
  does). Conditions: equal magnitudes have one order for both selections; s is a multiple of c;
  where c does not divide d, d is c⌈d/c⌉, padding included (tests/studies/test_chunk_error.py has
  what breaks them without the first and the last); entries are finite.
- Independent entries have no error of 0: 0.10 to 0.71 (uniform, s/c = 32 to 1), 0.06 to 0.47
  (Laplace), 0.04 to 0.29 (Student-t), with any chunker: counts of a chunk fluctuate, and what
  is missed is the hypergeometric law's.
- MiniLM's gradients (6 matrices at 4 steps, ± their standard error, which takes them as
  independent), s = 256, c = 4, 64, 256: contiguous 0.17, 0.31, 0.43 ± 0.05; permuted 0.03, 0.16,
  0.32 ± 0.02; strided 0.39, 0.84, 0.93 ± 0.02. Of the contiguous error permuted chunks win back
  50 % at c = 64 and 27 % at 256 (s = 1024: 78 and 64 %): 64 of them cost what 4 contiguous ones
  do. Strided ones lose more than twice as much: hot columns, and c (or most of it) divides the
  width.

What the paper's Figure 3(a) loses with c is thus of two kinds, of which a permutation mends one.
MiniLM's accuracy follows: contiguous chunks lose .8, 1.5, 1.8 points at c = 4, 16, 48, permuted
ones nothing up to 16; on SIQA contiguous ones are ahead in loss (:mod:`studies.ablation`).

Limits: of a captured gradient 4096 entries are known; chunks with fewer than s/c of them count the
others as large as the smallest known: up to 160 of 1024 entries, which moves a mean error by 0.022
at most. One training run of one model, one permutation a point.

Run time: 8 minutes as two processes on two cores that others used, too (some 3 minutes of them
alone); ``smoke`` some seconds; ``paper`` was not run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from sgc.chunkers.base import Chunker
from sgc.finetune.config import ConfigError
from sgc.registry import create
from studies.figures.chunk_error import figure, table
from studies.measures.captured import available, captured, digest, shape
from studies.measures.checks import check_at_least, check_known
from studies.measures.chunk_bounds import bounds, selections
from studies.measures.gradient_laws import LAWS
from studies.plugins import chunkers
from studies.study import Preset, product

__all__ = ["PAIRED", "PRESETS", "Config", "figure", "inputs", "table", "trial"]

PAIRED = ("chunker",)
_CAPTURED = "captured"
#: Sums of squares in float64 are compared with a bound up to this relative rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Config:
    """One point: random gradients of a law, cut one way.

    Args:
        law: a name of :data:`studies.measures.gradient_laws.LAWS`, or ``captured``.
        chunker: a registered one.
        chunks: c.
        sparsity: s, a multiple of c.
        rows, columns: shape of a gradient; of the captured ones, those of that shape are taken.
        cases: gradients of this trial; of captured ones, at most.

    Raises:
        ConfigError: a value outside of its limits.
    """

    law: str
    chunker: str
    chunks: int
    sparsity: int
    rows: int = 64
    columns: int = 64
    cases: int = 384

    def __post_init__(self) -> None:
        check_known("law", self.law, [*LAWS, _CAPTURED])
        check_at_least(self, chunks=1, rows=1, columns=1, cases=1)
        if self.chunks > self.numel:
            raise ConfigError(f"chunks={self.chunks} of {self.numel} numbers: at most {self.numel}")
        if self.sparsity < 1 or self.sparsity % self.chunks:
            near = self.chunks * max(1, round(self.sparsity / self.chunks))
            raise ConfigError(
                f"sparsity={self.sparsity} is no multiple of chunks={self.chunks}; e.g. {near}"
            )
        if self.sparsity // self.chunks > self.length or self.sparsity > self.numel:
            raise ConfigError(
                f"sparsity={self.sparsity}: at most {min(self.chunks * self.length, self.numel)} "
                f"of {self.numel} numbers in {self.chunks} chunks"
            )

    @property
    def numel(self) -> int:
        """Length d of a flat gradient."""
        return self.rows * self.columns

    @property
    def length(self) -> int:
        """Numbers of a chunk, ``⌈d/c⌉``."""
        return -(-self.numel // self.chunks)


def _grid(
    *,
    cases: int,
    chunks: Sequence[int],
    padded: Sequence[int],
    shapes: Mapping[tuple[int, int], Sequence[int]],
    real: Sequence[int],
    gradients: int = 64,
) -> list[Config]:
    """Every law on shapes with their sparsities, then what was captured."""
    every = chunkers()
    points: list[Config] = []
    for (rows, columns), sparsities in shapes.items():
        cuts = padded if (rows, columns) == _PADDED else chunks
        axes = {"sparsity": sparsities, "law": LAWS, "chunks": cuts, "chunker": every}
        points += product(Config, rows=[rows], columns=[columns], cases=[cases], **axes)
    if not available():
        return points
    rows, columns = shape()
    more = [*chunks, 4 * chunks[-1]]
    axes = {"sparsity": real, "law": [_CAPTURED], "chunks": more, "chunker": every}
    return points + product(Config, rows=[rows], columns=[columns], cases=[gradients], **axes)


_SQUARE, _PADDED = (64, 64), (61, 67)  # the second is cut into chunks that need padding
PRESETS = {
    "smoke": Preset(
        configs=lambda: _grid(
            cases=16, chunks=(2, 64), padded=(), shapes={_SQUARE: [64]}, real=[256], gradients=2
        )
    ),
    "default": Preset(
        configs=lambda: _grid(
            cases=384,
            chunks=(2, 4, 8, 16, 32, 64),
            padded=(4, 16, 64),
            shapes={_SQUARE: [64, 256], _PADDED: [64]},
            real=[256, 1024],
        )
    ),
    "paper": Preset(
        configs=lambda: _grid(
            cases=256,
            chunks=(2, 4, 8, 16, 32, 64, 128, 256),
            padded=(4, 16, 64),
            shapes={_SQUARE: [256], _PADDED: [256], (256, 256): [256, 1024]},
            real=[1024],
        ),
        seeds=8,
    ),
}


def trial(config: Config, generator: Generator) -> dict[str, Any]:
    """Compare both selections on gradients of one law.

    Args:
        config: the point.
        generator: draws the gradients and the chunker's seed.

    Returns:
        ``cases``; of ``error`` = ‖G̃'−G̃‖²/‖G̃‖², of ``kept`` = ‖G̃'‖²/‖G̃‖², of ``share`` =
        ‖G̃‖²/‖G‖² and of ``missed``, the share of the top s that is not selected, each mean,
        standard deviation over cases, 5 % and 95 % quantile; ``printed``: the right-hand side of
        the printed bound for the expectation, over ‖G̃‖²; ``violations``, how many cases break each
        inequality of :func:`studies.measures.chunk_bounds.bounds`, and ``tightest``, the largest
        left-hand side in units of the right-hand one; ``unknown``, the selected entries that are
        not among those captured, per case: ``error`` and ``kept`` count them as large as they can
        be, ``error_low`` as 0.

    Raises:
        ConfigError: too little was captured.
        ValueError: a law drew NaN or infinite entries.
    """
    seed = generator.initial_seed() % 2**31
    chunker: Chunker = create("chunker", config.chunker, chunks=config.chunks, seed=seed)
    if config.law == _CAPTURED:
        G, energy, known = _captured(config)
    else:
        G = LAWS[config.law](
            generator, config.cases, config.rows, config.columns, config.sparsity
        ).flatten(1)
        energy, known = G.square().sum(-1), torch.ones_like(G, dtype=torch.bool)
    top, chunked = selections(G, chunker, config.sparsity)
    squares = G.square()
    of_top, of_chunked = (squares * top).sum(-1), (squares * chunked).sum(-1)
    error = (squares * (top ^ chunked)).sum(-1)
    unknown = (squares * (chunked & ~known)).sum(-1)
    sides_of = partial(
        bounds,
        chunks=config.chunks,
        sparsity=config.sparsity,
        numel=config.numel,
        top=of_top,
        chunked=of_chunked,
        whole=energy,
    )
    sides = sides_of(error=error, lost=energy - of_chunked)
    if config.law == _CAPTURED:
        # The printed bound is broken only if it is for whatever was not captured, and the
        # contraction unless it holds for whatever that was.
        low = sides_of(error=error - unknown, lost=energy - of_chunked + unknown)
        sides |= {name: low[name] for name in ("printed", "contraction", "padded")}
    kept = of_chunked / of_top
    return {
        "cases": len(G),
        "error": _spread(error / of_top),
        "error_low": float(((error - unknown) / of_top).mean()),
        "kept": _spread(kept),
        "share": _spread(of_top / energy),
        "missed": _spread((top & ~chunked).sum(-1) / config.sparsity),
        "printed": 2 * (1 - config.sparsity / config.numel) * float(kept.mean()),
        "unknown": float((chunked & ~known).sum(-1).double().mean()),
        "violations": {
            name: int((~(left <= right * (1 + _ROUNDING))).sum())  # a NaN holds nothing
            for name, (left, right) in sides.items()
        },
        "tightest": {name: _largest_share(*pair) for name, pair in sides.items()},
    }


def inputs(config: Config) -> str:
    """Which gradients a trial reads; none unless they are the captured ones."""
    return digest() if config.law == _CAPTURED else ""


def _captured(config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Captured gradients, flat; their ΣG²; which entries are known.

    An entry that is not known is at most as large as the smallest that is: it is set to that.
    """
    wanted = (config.rows, config.columns)
    found = [one for one in captured() if one.shape == wanted][: config.cases]
    if not found:
        raise ConfigError(
            f"no captured gradient is of shape {wanted}, most are of {shape()}: take that shape"
        )
    short = min(len(one.index) for one in found)
    if config.sparsity > short:
        raise ConfigError(
            f"sparsity={config.sparsity}: only {short} entries of a gradient were captured"
        )
    smallest = torch.tensor([abs(float(one.values[-1])) for one in found], dtype=torch.float64)
    G = smallest[:, None].repeat(1, config.numel)
    known = torch.zeros_like(G, dtype=torch.bool)
    for row, one in enumerate(found):
        index = torch.from_numpy(one.index)
        G[row, index] = torch.from_numpy(one.values).double()
        known[row, index] = True
    return G, torch.tensor([one.energy for one in found], dtype=torch.float64), known


def _spread(values: Tensor) -> dict[str, float]:
    values = values.double()
    low, high = torch.quantile(values, torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    deviation = float(values.std(correction=1)) if len(values) > 1 else 0.0
    return {"mean": float(values.mean()), "sd": deviation, "q05": low, "q95": high}


def _largest_share(left: Tensor, right: Tensor) -> float | None:
    """The largest left/right; None where no right-hand side is above 0."""
    there = right > 0
    return float((left[there] / right[there]).max()) if bool(there.any()) else None
