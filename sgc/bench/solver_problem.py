"""Problems of the GPU benchmark's solvers: sizes, and signals drawn without a dense array."""

import dataclasses
import functools

import torch
from jaxtyping import Float
from torch import Tensor

from projections import Projection
from sgc.bench.work import Work
from sgc.problems import draw_signals
from sgc.registry import create

__all__ = ["Problem", "SolverSize", "draw_problem"]

_FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class SolverSize:
    """Signal length d, measurements k, nonzeros s, and signals that share one A."""

    d: int
    k: int
    sparsity: int
    signals: int

    def __str__(self) -> str:
        return f"d {self.d}, k {self.k}, s {self.sparsity}, {self.signals} signals"

    def work(self, unit: str) -> Work:
        """The least for all signals: A and y are read, places and values written; s correlations
        with every atom (``2·d·k·s`` flops a signal) and as many choices among d.
        """
        chosen = self.signals * self.sparsity
        return Work(
            bytes=_FLOAT32 * self.k * (self.d + self.signals) + (8 + _FLOAT32) * chosen,
            flops=2 * chosen * self.d * self.k,
            unit=unit,
            comparisons=chosen * self.d,
        )


@dataclasses.dataclass(frozen=True)
class Problem:
    """Signals of Gaussian coefficients, measured without noise by a Gaussian A.

    Attributes:
        A: float32, on the device.
        exact: the same numbers in float64, as a matrix.
        y: measurements of norm one, float64.
    """

    size: SolverSize
    A: Projection
    exact: Float[Tensor, "k d"]
    y: Float[Tensor, "signals k"]

    @functools.cached_property
    def y32(self) -> Float[Tensor, "signals k"]:
        """Rounded to float32."""
        return self.y.float()

    @functools.cached_property
    def unit_columns(self) -> Float[Tensor, "k d"]:
        """A with columns of norm one: what solvers of others assume."""
        return (self.exact / torch.linalg.vector_norm(self.exact, dim=0)).float().contiguous()

    def first(self, signals: int, device: torch.device) -> "Problem":
        """The first signals only, with A on another device: for contestants that need only y32 and
        ``unit_columns``.
        """
        size = dataclasses.replace(self.size, signals=min(signals, self.size.signals))
        return Problem(size, self.A, self.exact.to(device), self.y[: size.signals].to(device))


def draw_problem(size: SolverSize, *, device: torch.device, seed: int = 0) -> Problem:
    """Draw A and the signals; y is summed from columns of A, no signals×d array is made."""
    where = {"device": device, "dtype": torch.float32}
    A = create("projection", "gaussian", size.k, size.d, seed=seed, **where)
    support, values = draw_signals(size.d, size.sparsity, signals=size.signals, seed=seed)
    exact = A.to_dense().double()
    columns = exact.T[support.to(device)]
    y = (columns.mT @ values.to(device)[..., None])[..., 0]
    return Problem(size, A, exact, y / torch.linalg.vector_norm(y, dim=1, keepdim=True))
