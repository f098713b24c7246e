"""Memory: does the optimizer hold what Table 1 says, and what does Table 1 leave out?

Table 1 of the SGC paper counts numbers of optimizer state for one matrix: 2k for MESGC, 2k + r√d
for CESGC, 3r√d for GaLore, 4r√d (and 2r√d weights) for LoRA. Here the bytes are predicted before
anything runs (:func:`sgc.budget.predict`) and counted from a live :class:`sgc.CompressedAdamW`
after two steps (:func:`sgc.state_report`): moments, bases, step counters, A, what the solver keeps
for A (a copy with unit columns, a Gram matrix), and the peak of scratch memory in a step.

Expected: predicted = counted for every compressor. Table 1 is right about the moments, but leaves
out A (k_c·d_c numbers, shared by all matrices of a size), the solver's copy of it, and scratch; a
dense A grows with d, so that "independent of the weight dimensions" holds for the moments only.

Found (``python -m studies memory``; 4 matrices of 384×384, 2 of 1024×1024): predicted = counted,
to the byte, for all 77 pairs of method and shape. Table 1 is the moments and bases of all its rows,
to the byte; step counters add 4 to 16 bytes a matrix. What it leaves out, in times what it counts:
A and the solver's copy of it make MESGC as it comes (c = 256, s_c = 1, κ = 8) 1.6× (384²) and 9.5×
(1024²) as large, the main job's sketch (c = 16, s_c = 3) 148× and 2,090×, so 39 and 77 % of AdamW;
with the Gram matrix, which ``omp-inverse-cholesky`` makes by itself up to 64 MiB, 22× and 2,060×,
four times AdamW for two matrices of 1024². Plain SGC with a Gaussian A holds 605 MB at 384², 128
times AdamW. An SRHT (signs and rows) makes MESGC 1.01× and 1.13×, SGC 10× and 130×: one byte for
each of the d signs. So 2k is what a matrix adds, not what is held; the shared part is paid once a
shape. For the paper's Table 5 (64 matrices of 4096², c = 256, s_c = 1, κ = 8; predicted): MESGC 5.5
MB with a Gaussian A, 3.1 MB with a spherical one, 3.4 MB with Rademacher signs, 1.1 MB with an
SRHT; GaLore of rank 1 3.1 MB, so that "half the optimizer states" of GaLore is 1.75 times its
bytes, as many with a spherical A, or 0.35 times with the SRHT (which does not work there: 8 signs
make 128 columns).
At 384² MESGC as it comes never gets below GaLore of rank 1 (16 against 4.6 kB a matrix), and the
main job's sketch does from 1,173 matrices on, with an SRHT from 6.

Run time: 2.6 minutes in one process while others kept both cores busy; ``smoke`` about 10 seconds
of CPU time.
Scratch is that of the device that ran it: on a CPU what torch operations return (several copies of
a gradient), on a GPU what the allocator saw; the kernels there take far less.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import sgc
from sgc.budget import predict
from sgc.compressors.base import Compressor
from sgc.finetune.config import ConfigError
from sgc.specs import Spec, SpecError
from studies.figures.memory import LARGEST_A, LARGEST_GRAM, figure, table
from studies.measures.checks import check_at_least
from studies.plugins import ensembles, solvers
from studies.study import Preset

__all__ = ["PAIRED", "PRESETS", "TABLE_1", "Config", "figure", "specs", "table", "trial"]

PAIRED = ("spec", "adapter_rank")

_BYTES = 4  # of a float32, in which all state of float32 weights is kept


@dataclass(frozen=True, kw_only=True)
class Config:
    """One trial: one method on matrices of one shape.

    Args:
        spec: a compressor with its options.
        rows, columns: m and n of each matrix.
        count: how many matrices there are; A is shared by all.
        adapter_rank: r > 0 trains two factors r×n and m×r in place of each matrix (LoRA).
        device: where the optimizer steps.

    Raises:
        ConfigError: a size below its limit, or a compressor that cannot be made or does not take
            such matrices.
    """

    spec: str
    rows: int
    columns: int
    count: int = 4
    adapter_rank: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_at_least(self, rows=1, columns=1, count=1, adapter_rank=0)
        try:
            reasons = [self.compressor().refuses(shape) for shape in self.shapes()]
        except (ValueError, TypeError, LookupError, SpecError) as error:
            raise ConfigError(f"spec={self.spec!r}: {error}") from error
        for reason in filter(None, reasons):
            raise ConfigError(f"spec={self.spec!r}: {reason}; choose another size or other options")

    def compressor(self) -> Compressor:
        """A new one."""
        spec = Spec.parse(self.spec)
        made: Compressor = sgc.create("compressor", spec.name, **spec.options)
        return made

    def shapes(self) -> list[tuple[int, int]]:
        """What trains in place of one matrix."""
        if self.adapter_rank:
            return [(self.adapter_rank, self.columns), (self.rows, self.adapter_rank)]
        return [(self.rows, self.columns)]


def _sketch(compressor: Any, side: float) -> float:
    return 2 * float(compressor.kappa) * int(compressor.sparsity)


#: Table 1 in numbers, "optimizer states" and "projection matrices" together: compressor →
#: (the compressor, √d) → numbers.
TABLE_1: dict[str, Callable[[Any, float], float]] = {
    "none": lambda compressor, side: 2 * side**2,
    "sgc": _sketch,
    "mesgc": _sketch,
    "cesgc": lambda compressor, side: _sketch(compressor.inner, side) + compressor.rank * side,
    "galore": lambda compressor, side: 3 * compressor.rank * side,
}

_MAIN = "chunks=16,sparsity=48"  # the main job's sketch


def specs(rows: int, columns: int) -> list[tuple[str, int]]:
    """Every compressor as it comes, and variants of the sketch; each with an adapter rank.

    A new compressor, solver or projection is among them. Those whose A or Gram matrix would be too
    large for a test bench are left out, and those that a solver chooses as it comes.
    """
    d = rows * columns
    length = -(-d // 256)  # of a chunk, as MESGC comes
    found = [(name, 0) for name in sgc.available("compressor")]
    found += [("galore:rank=1", 0), ("none", 1)]
    found += [(f"mesgc:projection={name}", 0) for name in ensembles() if name != "gaussian"]
    found += [(f"mesgc:recovery={name}", 0) for name in solvers()]
    cholesky = "mesgc:recovery=omp-inverse-cholesky"
    variants = [f"{cholesky},recovery.precompute_gram=false"]
    if _BYTES * length**2 <= LARGEST_GRAM:
        variants += [f"{cholesky},recovery.precompute_gram=true"]

    def held(spec: str) -> int:
        made = Config(spec=spec, rows=rows, columns=columns).compressor()
        return predict(made, [torch.empty(rows, columns, device="meta")]).bytes

    # As it comes, the solver makes one of the two choices by itself.
    found += [(spec, 0) for spec in variants if held(spec) != held(cholesky)]
    found += [(f"mesgc:{_MAIN}", 0), (f"mesgc:{_MAIN},projection=srht,recovery=omp", 0)]
    found += [("cesgc:projection=srht,recovery=omp", 0)]
    if _BYTES * 512 * d <= LARGEST_A:
        found += [("sgc:projection=gaussian", 0)]
    return found


def _configs(*shapes: tuple[int, int, int]) -> Callable[[], list[Config]]:
    def make() -> list[Config]:
        made = []
        for rows, columns, count in shapes:
            for spec, rank in specs(rows, columns):
                common: dict[str, Any] = {"rows": rows, "columns": columns, "count": count}
                made.append(Config(spec=spec, adapter_rank=rank, **common))
        return made

    return make


PRESETS = {
    "smoke": Preset(configs=_configs((64, 64, 2))),
    "default": Preset(configs=_configs((384, 384, 4), (1024, 1024, 2))),
    "paper": Preset(configs=_configs((384, 384, 12), (1024, 1024, 8), (4096, 4096, 2))),
}


def trial(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Two steps on Gaussian gradients, then count.

    Returns:
        Bytes of all matrices together: ``predicted_state``, ``predicted_shared``, ``state``,
        ``shared``; of these ``moments``, ``bases`` (and indices, fed-back errors), ``counters``
        (single numbers), ``projection`` (A), ``solver``; ``scratch``, the peak of the second step
        beyond what is held, ``first_step``, that of the first, state and A included; ``gradient``,
        bytes of one gradient. ``moment_numbers`` are those in M and V; ``table_1`` is the paper's
        count in numbers, None for what is not in the table.
    """
    device = torch.device(config.device)
    weights = [
        torch.nn.Parameter(torch.zeros(shape, device=device))
        for _ in range(config.count)
        for shape in config.shapes()
    ]
    compressor = config.compressor()
    predicted = predict(config.compressor(), weights)
    optimizer = sgc.CompressedAdamW(weights, lr=1e-3, compressor=compressor)
    peaks = []
    for _ in range(2):
        for weight in weights:
            drawn = torch.randn(tuple(weight.shape), generator=generator)
            weight.grad = drawn.to(device)
        peaks.append(sgc.peak_scratch(optimizer.step, device))
    report = sgc.state_report(optimizer)
    parts = dict.fromkeys(("moments", "bases", "counters", "projection", "solver"), 0)
    for row in report.rows:
        parts[_part(row.what, single=row.count == 1)] += row.bytes
    return {
        "predicted_state": predicted.state_bytes,
        "predicted_shared": predicted.shared_bytes,
        "state": report.state_bytes,
        "shared": report.shared_bytes,
        **parts,
        "scratch": peaks[1],
        "first_step": peaks[0],
        "gradient": config.rows * config.columns * _BYTES,
        "moment_numbers": report.moments,
        "table_1": _table_1(config, compressor),
    }


def _table_1(config: Config, compressor: Compressor) -> float | None:
    side = math.sqrt(config.rows * config.columns)
    if config.adapter_rank:
        return config.count * 4 * config.adapter_rank * side
    formula = TABLE_1.get(Spec.parse(config.spec).name)
    return None if formula is None else config.count * formula(compressor, side)


def _part(what: str, *, single: bool) -> str:
    """Where a row of the report belongs."""
    prefixes = {"exp_avg": "moments", "A ": "projection", "solver's": "solver"}
    named = (part for prefix, part in prefixes.items() if what.startswith(prefix))
    return next(named, "counters" if single else "bases")
