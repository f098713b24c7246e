"""The least work of one optimizer step, by kind of method: counted on paper, not measured.

All matrices are square and of one size. A step reads the gradient G at least once and, where its
update is dense, reads and writes the weights W; float32 moments are read and written. Subspace
refreshes are not counted: they are timed apart. Products of projections and of OMP may run on
bf16 or fp16 operands.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from sgc.bench.work import Work

__all__ = ["Workload", "adamw_work", "cesgc_work", "galore_work", "mesgc_work"]

#: Adam for one number: 3 for M, 4 for V, 2 bias corrections, √, +ε, /, ·η, −.
_ADAM_FLOPS = 14
_FLOAT32 = 4
#: M and V in float32, each read and written.
_MOMENT_BYTES = 4 * _FLOAT32


@dataclasses.dataclass(frozen=True)
class Workload:
    """Square matrices that one optimizer step updates.

    The defaults are the query and value projections of LLaMA2-7B in bf16.
    """

    matrices: int = 64
    side: int = 4096
    itemsize: int = 2

    @property
    def params(self) -> int:
        """Numbers in all matrices."""
        return self.matrices * self.side**2

    @property
    def pass_bytes(self) -> int:
        """Bytes of reading or writing W, or G, once."""
        return self.params * self.itemsize


def adamw_work(load: Workload, options: Mapping[str, Any]) -> Work:
    """W, M and V are read and written, G is read: 7 passes, 14 bytes a parameter in bf16."""
    return Work(7 * load.pass_bytes, _ADAM_FLOPS * load.params, "float32")


def mesgc_work(load: Workload, options: Mapping[str, Any]) -> Work:
    """One pass over G; with a residual three more (G again, once its norm is known; W, both ways).

    The sketch adds its moments, A, and the products of OMP.
    """
    passes = 4 if options.get("residual") else 1
    sketch = _sketch(load.side**2, load.matrices, options)
    return dataclasses.replace(sketch, bytes=passes * load.pass_bytes + sketch.bytes)


def galore_work(load: Workload, options: Mapping[str, Any]) -> Work:
    """G is read for the projection, W read and written for the lift; moments are side×rank."""
    low_rank = _low_rank(load, options["rank"])
    numbers = load.matrices * load.side * options["rank"]
    return dataclasses.replace(low_rank, bytes=low_rank.bytes + _MOMENT_BYTES * numbers)


def cesgc_work(load: Workload, options: Mapping[str, Any]) -> Work:
    """As GaLore, with a sketch of the side×rank numbers in place of dense moments."""
    low_rank = _low_rank(load, options["rank"])
    sketch = _sketch(load.side * options["rank"], load.matrices, options)
    return Work(
        low_rank.bytes + sketch.bytes,
        low_rank.flops + sketch.flops,
        low_rank.unit,
        sketch.comparisons,
    )


def _low_rank(load: Workload, rank: int) -> Work:
    """3 passes and the float32 bases; 2·rank flops a parameter down, and as many up again."""
    bases = _FLOAT32 * load.matrices * load.side * rank
    return Work(3 * load.pass_bytes + bases, 4 * load.params * rank, "bf16")


def _sketch(numel: int, matrices: int, options: Mapping[str, Any]) -> Work:
    """Moments of ``κ·s`` numbers a matrix and one OMP a chunk (both moments share a support)."""
    chunks, atoms = options["chunks"], options["sparsity"] // options["chunks"]
    k, d = round(options["kappa"] * atoms), math.ceil(numel / chunks)
    signals = matrices * chunks
    return Work(
        bytes=_MOMENT_BYTES * signals * k + _FLOAT32 * k * d,
        flops=2 * signals * d * k * atoms,
        unit="bf16",
        comparisons=signals * d * atoms,
    )
