"""OMP on the GPU in CUDA kernels of our own, launched through CuPy."""

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar

import cupy
import torch
from jaxtyping import Float
from torch import Tensor

from recovery.dictionary import Dictionary
from recovery.kernels import CAPABILITY, capable
from recovery.kernels.launch import Argument, Kernel, Launch
from recovery.kernels.parts import TILE, in_fragment_order, margin, padded, split
from recovery.kernels.scratch import Scratch
from recovery.omp import OMP
from recovery.result import RecoveryResult
from recovery.scaling import rounding_level

_KERNELS = pathlib.Path(__file__).parent / "kernels"
_PRECISIONS = ("float32", "tf32")
#: Up to here a signal's measurements stay in registers while all atoms stream past.
_FEW = 16
#: Above, the factorisation of the kernels would leave registers: torch does it.
_MOST = 1024
_LONGEST = 65535 * 128  # atoms of a grid's second dimension
_DEPTH, _STAGES = 32, 4  # of correlate_many
_SIGNALS = 64  # of a warp of correlate_few
_WARPS = 4


@dataclasses.dataclass(frozen=True)
class _Atoms:
    """Unit atoms as the kernels read them."""

    rows: Float[Tensor, "d k"]
    parts: Float[Tensor, "padded width"]
    written_out: bool  # rows are a copy made here

    @property
    def nbytes(self) -> int:
        return self.parts.nbytes + self.written_out * self.rows.nbytes


class CupyOMP(OMP):
    """:class:`recovery.omp.OMP` in two CUDA kernels an iteration; float32, GPU only.

    An iteration is one correlation and one update. The correlation runs on tensor cores and keeps
    the largest magnitudes with their places: batch×d numbers are made and never written. The
    update, one warp a signal, takes the atom, orthogonalises it, and writes residual,
    factor and the operands of the next correlation. Nothing waits for the host.

    Which of the two correlations runs is decided by k:

    - k ≤ 16 (MESGC): a warp keeps 64 signals in registers and streams the atoms past them;
      2·k·d flops a signal on data read once. It names the group of 128 atoms with the largest
      magnitude, and the update finds the best atom of it that is not taken, in fp32. (A taken atom
      is orthogonal to the residual: it can only win when all others are, to rounding.)
    - k > 16 (CESGC): a tiled matrix product, 128 signals × 128 atoms a block, whose epilogue
      leaves out the atoms taken and keeps the two largest magnitudes of every 32 atoms. Signals and
      atoms are read from L2.

    Above k = 1024, and for more than 8 million atoms, :class:`recovery.omp.OMP` itself is used.
    CuPy compiles with subnormal numbers flushed to zero: a signal below 1e-38 is a zero one here.

    Args:
        precision: of the choice of atoms; all else is float32. "tf32": by correlations of 11-bit
            numbers, as TF32 has, summed in float32. "float32": as float32 decides. For k ≤ 16 every
            number is two fp16 parts, and three of their four products are summed (error 2⁻²²). For
            k > 16 the 11-bit correlations are bounds: atoms that come within twice their worst
            error of the largest (about ``2⁻⁹·‖r‖``, see ``kernels/parts.py``) are compared again
            in float32.
        tolerance: see :class:`recovery.base.Solver`.

    Memory: the fp16 atoms are kept (2 bytes × k·d, 6 for k ≤ 16 in float32); scratch in a call is
    4 bytes × batch × (s·k + s²) for the factor, 3 bits × batch × d for k > 16, a few rows of k
    more, and at most 512 MiB (or what 128 signals need) at a time.

    Raises:
        ImportError: CuPy finds no GPU.
        ValueError: unknown precision.
    """

    devices = frozenset({"cuda"})
    dtypes = frozenset({torch.float32})
    #: Bytes of scratch that a tile of signals may take.
    scratch_bytes: ClassVar[int] = 2**29

    def __init__(self, *, precision: str = "float32", tolerance: float | None = None) -> None:
        super().__init__(tolerance=tolerance)
        if precision not in _PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(_PRECISIONS)}, got {precision!r}"
            )
        if not cupy.is_available():
            raise ImportError("omp-cupy needs an NVIDIA GPU and its driver, and CuPy finds none")
        self.precision = precision

    def prepare(self, dictionary: Dictionary) -> _Atoms | None:
        k, d = dictionary.shape
        device = dictionary.operator.device
        if not capable(device):
            raise ValueError(
                f"omp-cupy needs a GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} "
                f"(Ampere) or later, and {device} has {torch.cuda.get_device_capability(device)}: "
                "take omp"
            )
        if k > _MOST or d > _LONGEST:
            return None
        rows = dictionary.matrix
        if rows is None:  # a structured operator: its atoms are written out once
            rows = dictionary.atoms(torch.arange(d, device=dictionary.operator.device))
        rows = rows.contiguous()
        parts = split(rows, self._parts(k), width=self._width(k), multiple=TILE)
        ordered = in_fragment_order(parts) if k <= _FEW else parts
        return _Atoms(rows, ordered, written_out=dictionary.matrix is None)

    def solve_checked(
        self,
        dictionary: Dictionary,
        extra: _Atoms | None,
        y: Float[Tensor, "batch k"],
        companion: Float[Tensor, "batch k"] | None,
        *,
        sparsity: int,
        tolerance: float,
    ) -> RecoveryResult:
        if extra is None:
            return super().solve_checked(
                dictionary, extra, y, companion, sparsity=sparsity, tolerance=tolerance
            )
        batch, k = y.shape
        found = RecoveryResult(
            support=_int64(y, batch, sparsity),
            values=y.new_empty(batch, sparsity),
            residual_norm=y.new_empty(batch),
            iterations=_int64(y, batch),
            status=_int64(y, batch),
            companion=None if companion is None else y.new_empty(batch, sparsity),
        )
        steps = min(sparsity, k)
        row = 4 * (steps * (k + steps) + 2 * k) + 2 * self._width(k) + 3 * dictionary.shape[1] // 8
        rows = max(TILE, self.scratch_bytes // row)
        y = y.contiguous()
        companion = None if companion is None else companion.contiguous()
        for start in range(0, batch, rows):
            tile = slice(start, start + rows) if batch > rows else slice(None)
            self._pursue(
                dictionary,
                extra,
                y[tile],
                None if companion is None else companion[tile],
                _rows_of(found, tile),
                steps=steps,
                tolerance=tolerance,
            )
        return found

    def _pursue(
        self,
        dictionary: Dictionary,
        atoms: _Atoms,
        y: Float[Tensor, "batch k"],
        companion: Float[Tensor, "batch k"] | None,
        found: RecoveryResult,
        *,
        steps: int,
        tolerance: float,
    ) -> None:
        """Recover some rows into ``found``."""
        (batch, k), d, sparsity = y.shape, dictionary.shape[1], found.support.shape[1]
        few, width, parts = k <= _FEW, self._width(k), self._parts(k)
        words = padded(d, TILE) // 32
        both = companion is not None
        room = Scratch(
            y.device,
            residual=4 * batch * k,
            rest=4 * batch * k * both,
            scale=4 * batch,
            rest_scale=4 * batch * both,
            signals=2 * padded(batch, TILE) * width,
            keys=8 * batch if few else 4 * batch * words,
            seconds=0 if few else 4 * batch * words,
            taken=0 if few else 4 * batch * words,
            basis=4 * batch * (steps if steps > 1 else 0) * k,
            triangle=4 * batch * steps * steps,
            weights=4 * batch * steps,
            rest_weights=4 * batch * steps * both,
        )
        kernels = _pursuit(_registers(k), few)
        launch = functools.partial(_a_warp_a_row, rows=batch, device=y.device)
        launch(
            kernels["begin"],
            *(y, companion, room["residual"], room["rest"], room["scale"], room["rest_scale"]),
            *(room["signals"], room["keys"], room["taken"], found.support, found.status),
            *(batch, k, width, words, sparsity, parts),
        )()
        correlate = self._correlation(atoms, room, batch=batch, k=k, words=words, device=y.device)
        pursue = launch(
            kernels["pursue"],
            0,  # the step: set below
            *(atoms.rows, room["keys"], room["seconds"], room["residual"], room["rest"]),
            room["signals"],
            *(room["basis"], room["triangle"], room["weights"], room["rest_weights"]),
            *(room["taken"], found.support, found.status),
            *(batch, k, d, width, words, steps, sparsity, parts),
            *(float(tolerance), rounding_level(k, y.dtype)),
            margin(k) if self.precision == "float32" else 0.0,
        )
        for step in range(steps):
            correlate()
            pursue.set(0, step)
            pursue()
        launch(
            kernels["finish"],
            *(room["residual"], room["triangle"], room["weights"], room["rest_weights"]),
            *(
                room["scale"],
                room["rest_scale"],
                dictionary.inverse_norms.contiguous(),
                found.support,
            ),
            *(found.values, found.companion, found.residual_norm, found.status, found.iterations),
            *(batch, k, steps, sparsity),
            shared=4 * _WARPS * steps,
        )()

    def _correlation(
        self,
        atoms: _Atoms,
        room: Scratch,
        *,
        batch: int,
        k: int,
        words: int,
        device: torch.device,
    ) -> Launch:
        width, panels = self._width(k), atoms.parts.shape[0]
        if k <= _FEW:
            columns, groups = -(-batch // (_WARPS * _SIGNALS)), panels
            # Twelve blocks for every multiprocessor: signals first, then shares of the atoms.
            share = -(-groups * columns // (12 * _multiprocessors(device))) if columns else 1
            return _few(width // 8).bind(
                (columns, -(-groups // share)),
                32 * _WARPS,
                *(atoms.parts, room["signals"], room["keys"], batch, groups, share),
                device=device,
            )
        return _many().bind(
            (-(-batch // TILE), panels // TILE),
            32 * _WARPS,
            *(atoms.parts, room["signals"], room["taken"], room["keys"], room["seconds"]),
            *(batch, width, words),
            device=device,
        )

    def _parts(self, k: int) -> int:
        return 3 if k <= _FEW and self.precision == "float32" else 1

    def _width(self, k: int) -> int:
        """fp16 parts of a row, with zeros up to what the kernel reads at once."""
        return padded(self._parts(k) * k, 8 if k <= _FEW else _DEPTH)


def _rows_of(found: RecoveryResult, tile: slice) -> RecoveryResult:
    def part(field: dataclasses.Field[Any]) -> Any:
        whole = getattr(found, field.name)
        return whole if whole is None else whole[tile]

    return RecoveryResult(*map(part, dataclasses.fields(found)))


def _int64(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int64, device=like.device)


def _registers(k: int) -> int:
    """Numbers of a vector that a lane keeps: the next of few compiled sizes."""
    needed = -(-k // 32)
    return next(size for size in (1, 2, 4, 7, 8, 12, 16, 32) if size >= needed)


def _a_warp_a_row(
    kernel: Kernel,
    *arguments: Argument,
    rows: int,
    device: torch.device,
    shared: int | None = None,
) -> Launch:
    grid = (-(-rows // _WARPS),)
    return kernel.bind(grid, 32 * _WARPS, *arguments, device=device, shared=shared)


@functools.cache
def _pursuit(registers: int, few: bool) -> dict[str, Kernel]:
    names = ("begin", "pursue", "finish")
    source = _KERNELS / "pursue.cu"
    return {name: Kernel(source, name, REGS=registers, FEW=int(few)) for name in names}


@functools.cache
def _few(blocks: int) -> Kernel:
    return Kernel(_KERNELS / "correlate_few.cu", "correlate_few", KB=blocks)


@functools.cache
def _many() -> Kernel:
    stage = 2 * TILE * _DEPTH * 2
    return Kernel(_KERNELS / "correlate_many.cu", "correlate_many", shared=_STAGES * stage)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
