"""The contract of every solver: checks, scaling, tiling, caching and statuses in one place.

A solver implements :meth:`Solver.recover` for clean input (finite rows of norm one, unit-norm
atoms) and inherits the rest.
"""

import abc
import dataclasses
import weakref
from operator import index as operator_index
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from projections import Projection, as_projection
from recovery.dictionary import Dictionary
from recovery.result import RecoveryResult, Status

__all__ = ["Recovered", "RecoveryResult", "Solver", "Status"]

_HALF = (torch.float16, torch.bfloat16)


@dataclasses.dataclass
class Recovered:
    """What a solver finds for one tile of unit rows, in coefficients of unit-norm atoms."""

    support: Int[Tensor, "batch s"]
    values: Float[Tensor, "batch s"]
    residual: Float[Tensor, "batch k"]
    iterations: Int[Tensor, " batch"]
    status: Int[Tensor, " batch"]


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
        extra = entry.extra.nbytes if isinstance(entry.extra, Tensor) else 0
        return extra + Dictionary(entry.wrapped or A, entry.matrix, entry.inverse_norms).nbytes

    @torch.no_grad()
    def solve(
        self,
        A: "Projection | Float[Tensor, 'k d']",
        y: "Float[Tensor, 'batch k'] | Float[Tensor, ' k']",
        *,
        sparsity: int,
    ) -> RecoveryResult:
        """Recover every row of y.

        Args:
            A: a projection or a dense ``(k, d)`` tensor, float32 or float64.
            y: ``(batch, k)`` measurements, or ``(k,)`` for one signal (batch 1 in the answer);
                narrower than A is computed in A's dtype.
            sparsity: s, at most this many atoms a signal; 1 ≤ s ≤ d.

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

        unit, scale, finite = _normalised(y)
        on_cpu = y.device.type == "cpu"
        rows = max(1, (self.cpu_tile_numel if on_cpu else self.accelerator_tile_numel) // d)
        tiles = [
            self.recover(dictionary, extra, tile, sparsity=sparsity, tolerance=tolerance)
            for tile in unit.split(rows)
        ]
        found = {
            f.name: torch.cat([getattr(tile, f.name) for tile in tiles])
            for f in dataclasses.fields(Recovered)
        }
        zero, bad = finite & (scale == 0), ~finite
        support = found["support"].masked_fill((zero | bad)[:, None], -1)
        inverse = dictionary.inverse_norms[support.clamp(min=0)]
        values = found["values"] * inverse * scale[:, None]
        residual_norm = torch.linalg.vector_norm(found["residual"], dim=1) * scale
        status = found["status"].masked_fill(zero, Status.ZERO_SIGNAL)
        return RecoveryResult(
            support=support,
            values=values.masked_fill(support < 0, 0),
            residual_norm=residual_norm.masked_fill(bad, torch.nan),
            iterations=found["iterations"].masked_fill(zero | bad, 0),
            status=status.masked_fill(bad, Status.NON_FINITE),
        )

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
        cache[key] = entry
        return entry


def _version(A: Any) -> int:
    """Torch's count of in-place changes to A's numbers; 0 where it keeps none."""
    numbers = getattr(A, "atoms", A)
    return numbers._version if isinstance(numbers, Tensor) and not numbers.is_inference() else 0


def rounding_level(k: int, dtype: torch.dtype) -> float:
    """Relative residual that rounding leaves of k numbers: below it there is nothing to explain."""
    return 4 * k**0.5 * torch.finfo(dtype).eps


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


def _normalised(
    y: Float[Tensor, "batch k"],
) -> tuple[Float[Tensor, "batch k"], Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Rows divided by their norm, the norms, and which rows are finite (the others become 0).

    The largest entry is first brought near one by a power of two, which is exact: 1e-30 and 1e30
    are as good as 1, and y and y·2ⁿ give the same bits.
    """
    largest = y.abs().amax(1)
    finite = torch.isfinite(largest)
    _, exponent = torch.frexp(torch.where(finite, largest, 1))
    half = exponent // 2  # in two steps: 2^-exponent itself may overflow
    down, down_rest = torch.exp2(-half.to(y.dtype)), torch.exp2((half - exponent).to(y.dtype))
    near_one = torch.where(finite[:, None], y, 0) * down[:, None] * down_rest[:, None]
    norm = torch.linalg.vector_norm(near_one, dim=1)
    scale = norm / down / down_rest
    finite = finite & torch.isfinite(scale)
    return near_one / norm.clamp(min=torch.finfo(y.dtype).tiny)[:, None], scale, finite
