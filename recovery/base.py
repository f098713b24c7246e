"""The contract of every solver: checks, scaling, tiling, caching and statuses in one place.

A solver implements :meth:`Solver.recover` for clean input (finite rows of norm one, unit-norm
atoms) and inherits the rest.
"""

import abc
import dataclasses
import itertools
import weakref
from collections.abc import Iterable
from operator import index as operator_index
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from projections import Projection, as_projection
from recovery.dictionary import Dictionary
from recovery.least_squares import fit
from recovery.result import Recovered, RecoveryResult, Status
from recovery.scaling import normalised, rounding_level

__all__ = ["Recovered", "RecoveryResult", "Solver", "Status", "rounding_level"]

_HALF = (torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    source: weakref.ref[Any]  # weak: a solver must not keep a user's A alive
    version: int
    wrapped: Projection | None  # the operator made of a plain tensor
    matrix: Tensor | None
    inverse_norms: Tensor
    extra: Any


class Solver(abc.ABC):
    """Recover s-sparse x from ``y = A x`` for a batch of signals that share A.

    What depends on A alone is computed at the first call with that A and kept as long as A lives.
    In-place changes of A are noticed as far as torch counts them; after one that it does not see
    (through NumPy's view of the memory, ``.data``, or in ``inference_mode``) call :meth:`forget`.
    A solver draws no random numbers.

    Args:
        tolerance: a signal is done when ``‖y − A x‖ ≤ tolerance·‖y‖``. None means rounding level,
            ``4·√k·eps`` of the computing dtype.
    """

    #: Signals are worked through in tiles of about this many batch×d numbers: correlations that
    #: stay in cache are read back at cache speed, and memory does not grow with the batch.
    cpu_tile_numel: ClassVar[int] = 2**19
    accelerator_tile_numel: ClassVar[int] = 2**27
    #: Whose answer the solver reproduces ("omp": orthogonal matching pursuit's), None for nobody's.
    oracle: ClassVar[str | None] = None
    #: Dtypes of A that the solver computes in.
    dtypes: ClassVar[frozenset[torch.dtype]] = frozenset({torch.float32, torch.float64})
    #: Device types the solver runs on; empty means every one.
    devices: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, *, tolerance: float | None = None) -> None:
        if tolerance is not None and not 0 <= tolerance < 1:
            raise ValueError(f"tolerance is relative to ‖y‖ and lies in [0, 1), got {tolerance}")
        self.tolerance = tolerance
        self._cache: dict[int, _Prepared] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": {}}  # weak references can be neither copied nor pickled

    @abc.abstractmethod
    def recover(
        self,
        dictionary: Dictionary,
        extra: Any,
        y: Float[Tensor, "batch k"],
        *,
        sparsity: int,
        tolerance: float,
    ) -> Recovered:
        """Solve for rows that are finite and of Euclidean norm one (or zero: the row is discarded).

        Args:
            dictionary: A with unit-norm atoms.
            extra: what :meth:`prepare` returned for A.
            y: rows in the dtype and on the device of A.
            sparsity: 1 ≤ s ≤ d.
            tolerance: residual norm at which a row is done.
        """

    def prepare(self, dictionary: Dictionary) -> Any:
        """More that depends on A alone (a Gram matrix, a step size). Must not hold the operator."""
        return None

    def forget(self) -> None:
        """Drop what was computed for every A so far."""
        self._cache.clear()

    def cached_nbytes(self, A: "Projection | Float[Tensor, 'k d']") -> int:
        """Bytes kept for A beside A itself; 0 before the first solve with it."""
        entry = self._cache.get(id(A))
        if entry is None or entry.source() is not A:
            return 0
        extra = getattr(entry.extra, "nbytes", 0)
        return extra + Dictionary(entry.wrapped or A, entry.matrix, entry.inverse_norms).nbytes

    @torch.no_grad()
    def solve(
        self,
        A: "Projection | Float[Tensor, 'k d']",
        y: "Float[Tensor, 'batch k'] | Float[Tensor, ' k']",
        *,
        sparsity: int,
        companion: "Float[Tensor, 'batch k'] | Float[Tensor, ' k'] | None" = None,
    ) -> RecoveryResult:
        """Recover every row of y.

        Args:
            A: a projection or a dense ``(k, d)`` tensor, float32 or float64.
            y: ``(batch, k)`` measurements, or ``(k,)`` for one signal (batch 1 in the answer);
                narrower than A is computed in A's dtype.
            sparsity: s, at most this many atoms a signal; 1 ≤ s ≤ d.
            companion: more measurements, of y's shape: ``result.companion`` holds the coefficients
                that fit row i of it best (least squares) on the support recovered from row i of y.

        Raises:
            ValueError: shapes or devices do not match, s outside [1, d], A not finite.
            TypeError: y or A has a dtype that cannot be computed with, y is wider than A, or s is
                not an integer.
        """
        dictionary, extra = self._prepare(A)
        k, d = dictionary.shape
        y = _checked(y, dictionary.operator)
        sparsity = operator_index(sparsity)
        if not 1 <= sparsity <= d:
            raise ValueError(f"sparsity must lie between 1 and d={d}, got {sparsity}")
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = rounding_level(k, y.dtype)

        if companion is not None:
            companion = _checked(companion, dictionary.operator)
            if companion.shape != y.shape:
                raise ValueError(
                    f"companion must have the shape of y, {tuple(y.shape)}, "
                    f"got {tuple(companion.shape)}"
                )
        return self.solve_checked(
            dictionary, extra, y, companion, sparsity=sparsity, tolerance=tolerance
        )

    def solve_checked(
        self,
        dictionary: Dictionary,
        extra: Any,
        y: Float[Tensor, "batch k"],
        companion: Float[Tensor, "batch k"] | None,
        *,
        sparsity: int,
        tolerance: float,
    ) -> RecoveryResult:
        """What :meth:`solve` does with arguments that fit: scale, tile, recover, scale back.

        A solver that does all this in kernels of its own overrides it, and keeps the statuses.
        """
        unit, scale, finite = normalised(y)
        fellow = None
        if companion is not None:
            fellow, fellow_scale, fellow_finite = normalised(companion)
        on_cpu = y.device.type == "cpu"
        numel = self.cpu_tile_numel if on_cpu else self.accelerator_tile_numel
        rows = max(1, numel // dictionary.shape[1])
        tiles = [
            self._recover(dictionary, extra, *pair, sparsity=sparsity, tolerance=tolerance)
            for pair in zip(unit.split(rows), _split(fellow, rows), strict=False)
        ]
        found: dict[str, Any] = {
            f.name: _join([getattr(tile, f.name) for tile in tiles])
            for f in dataclasses.fields(Recovered)
        }
        zero, bad = finite & (scale == 0), ~finite
        empty = zero | bad
        support = found["support"].masked_fill(empty[:, None], -1)
        unused = support < 0
        inverse = dictionary.inverse_norms[support.clamp(min=0)]
        values = found["values"] * inverse * scale[:, None]
        residual_norm = torch.linalg.vector_norm(found["residual"], dim=1) * scale
        status = found["status"].masked_fill(zero, Status.ZERO_SIGNAL)
        if fellow is not None:
            beside = found["companion"] * inverse * fellow_scale[:, None]
            beside = beside.masked_fill(unused, 0).masked_fill(~fellow_finite[:, None], torch.nan)
        return RecoveryResult(
            support=support,
            values=values.masked_fill(unused, 0),
            residual_norm=residual_norm.masked_fill(bad, torch.nan),
            iterations=found["iterations"].masked_fill(empty, 0),
            status=status.masked_fill(bad, Status.NON_FINITE),
            companion=None if fellow is None else beside,
        )

    def _recover(
        self,
        dictionary: Dictionary,
        extra: Any,
        y: Float[Tensor, "batch k"],
        companion: Float[Tensor, "batch k"] | None,
        **options: Any,
    ) -> Recovered:
        if companion is None:
            return self.recover(dictionary, extra, y, **options)
        found = self.recover(dictionary, extra, y, **options)
        used = (found.support >= 0).to(y.dtype)[..., None]
        found.companion, _ = fit(dictionary.atoms(found.support.clamp(min=0)) * used, companion)
        return found

    def _prepare(self, A: Any) -> tuple[Dictionary, Any]:
        version = _version(A)
        entry = self._cache.get(id(A))
        if entry is None or entry.source() is not A or entry.version != version:
            entry = self._prepare_anew(A, version)
        dictionary = Dictionary(entry.wrapped or A, entry.matrix, entry.inverse_norms)
        return dictionary, entry.extra

    def _prepare_anew(self, A: Any, version: int) -> _Prepared:
        operator = as_projection(A.float() if isinstance(A, Tensor) and A.dtype in _HALF else A)
        if operator.dtype not in self.dtypes:
            raise TypeError(
                f"{type(self).__name__} computes in {' or '.join(map(str, self.dtypes))}, "
                f"but A is {operator.dtype}"
            )
        if self.devices and operator.device.type not in self.devices:
            raise ValueError(
                f"{type(self).__name__} runs on {', '.join(sorted(self.devices))}, "
                f"but A is on {operator.device}"
            )
        dictionary = Dictionary.of(operator)
        key, cache = id(A), self._cache
        entry = _Prepared(
            source=weakref.ref(A, lambda _: cache.pop(key, None)),
            version=version,
            wrapped=None if operator is A else operator,
            matrix=dictionary.matrix,
            inverse_norms=dictionary.inverse_norms,
            extra=self.prepare(dictionary),
        )
        if operator.device.type == "cuda":  # later calls may come on other streams
            torch.cuda.current_stream(operator.device).synchronize()
        cache[key] = entry
        return entry


def _version(A: Any) -> int:
    """Torch's count of in-place changes to A's numbers; 0 where it keeps none."""
    numbers = getattr(A, "atoms", A)
    return numbers._version if isinstance(numbers, Tensor) and not numbers.is_inference() else 0


def _split(y: Tensor | None, rows: int) -> Iterable[Tensor | None]:
    return itertools.repeat(None) if y is None else y.split(rows)


def _join(parts: list[Tensor | None]) -> Tensor | None:
    whole = [part for part in parts if part is not None]
    if len(whole) < 2:
        return whole[0] if whole else None
    return torch.cat(whole)


def _checked(y: Tensor, operator: Projection) -> Float[Tensor, "batch k"]:
    k, d = operator.shape
    if not y.is_floating_point():
        raise TypeError(f"y must be real floating, got {y.dtype}; convert it first")
    if y.ndim not in (1, 2) or y.shape[-1] != k:
        raise ValueError(
            f"y must be (batch, {k}) or ({k},) for A of shape {k}×{d}, got {tuple(y.shape)}"
        )
    if y.device != operator.device:
        raise ValueError(f"y is on {y.device} but A is on {operator.device}")
    if torch.finfo(y.dtype).bits > torch.finfo(operator.dtype).bits:
        raise TypeError(
            f"y is {y.dtype} but A only {operator.dtype}: make A in float64, or round y yourself"
        )
    return y.detach().to(operator.dtype).reshape(-1, k)
