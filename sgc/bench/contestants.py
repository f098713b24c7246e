"""Who solves the problems of the GPU benchmark: our solvers, and what pip installs."""

import contextlib
import dataclasses
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from sklearn.linear_model import orthogonal_mp
from threadpoolctl import threadpool_info
from torch import Tensor

from sgc.bench.solver_problem import Problem, SolverSize
from sgc.bench.timing import single_thread
from sgc.bench.work import tf32_products
from sgc.registry import create

__all__ = ["CONTESTANTS", "PLAIN", "RIVAL", "Contestant", "UnavailableError"]

_PLAIN_TF32 = "omp, TF32 products"
#: The forms of OMP in plain torch: the first is what all are compared with.
PLAIN = ("omp", _PLAIN_TF32)

#: A package from PyPI: https://pypi.org/project/orthogonal-matching-pursuit-gpu/
RIVAL = "orthogonal-matching-pursuit-gpu"
_FLOAT32 = 4
_LARGE = 1e4
#: All that a size has, of the first problem: a Gram matrix is then shared by as many as ours.
_RIVAL_HOST_SIGNALS = 4096


class UnavailableError(RuntimeError):
    """A contestant cannot take part; the message says why."""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A solver, its precision and its place.

    Attributes:
        name: in tables and figures.
        make: prepares a problem, untimed; what it returns is timed and returns an answer.
        support: the ``(signals, s)`` places in an answer, −1 for unused slots, −2 for NaN.
        unit: the unit that its correlations run on, for its floor.
        memory: bytes that it takes, roughly.
        host_signals: None runs on the device; a number runs on the CPU, with the first so many.
        installable: comes from PyPI.
    """

    name: str
    make: Callable[[Problem], Callable[[], Any]]
    support: Callable[[Any, int], Int[Tensor, "signals s"]]
    unit: str = "float32"
    memory: Callable[[SolverSize], int] = lambda size: 0
    host_signals: int | None = None
    installable: bool = False

    @property
    def on_cpu(self) -> bool:
        """Whether it runs on the CPU, wherever the others do."""
        return self.host_signals is not None


def _ours(name: str, **options: Any) -> Callable[[Problem], Callable[[], Any]]:
    """A solver of ours that takes all s atoms: tolerance 0, so that rounding ends nothing early."""

    def make(problem: Problem) -> Callable[[], Any]:
        solver = create("recovery", name, tolerance=0.0, **options)
        return functools.partial(
            solver.solve, problem.A, problem.y32, sparsity=problem.size.sparsity
        )

    return make


def _plain_tf32(problem: Problem) -> Callable[[], Any]:
    """``omp`` as it is, while torch may round the operands of float32 products to TF32."""
    if problem.y.device.type != "cuda":
        raise UnavailableError("TF32 products need a GPU")
    solve = _ours("omp")(problem)

    def call() -> Any:
        with tf32_products():
            return solve()

    return call


def _rival(algorithm: str) -> Callable[[Problem], Callable[[], Any]]:
    """``run_omp`` as its README calls it, with a Gram matrix, made in every call, only for ``v0``:
    ``naive`` computes one by default and does not need it.
    """
    # None, not False: version 0.1.3 would take False for the matrix.
    options: dict[str, Any] = {} if algorithm == "v0" else {"precompute": None}

    def make(problem: Problem) -> Callable[[], Any]:
        try:
            run_omp = importlib.import_module(RIVAL.replace("-", "_")).run_omp
        except ImportError as error:
            raise UnavailableError(f"not importable ({error}): pip install {RIVAL}") from error
        return functools.partial(
            run_omp,
            problem.unit_columns,
            problem.y32,
            n_nonzero_coefs=problem.size.sparsity,
            normalize=False,
            fit_intercept=False,
            alg=algorithm,
            **options,
        )

    return make


def _scikit_learn(problem: Problem, *, one_thread: bool) -> Callable[[], Any]:
    """All signals in one call, so large that its absolute stopping test ends nothing early."""
    columns = np.asfortranarray(problem.unit_columns.numpy())
    y = (_LARGE * problem.y32).numpy().T
    threads = single_thread if one_thread else contextlib.nullcontext

    def call() -> Any:
        with threads(), _quiet():
            return orthogonal_mp(columns, y, n_nonzero_coefs=problem.size.sparsity)

    return call


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Said of a signal that is explained before s atoms are used, to rounding.
        warnings.filterwarnings("ignore", "Orthogonal matching pursuit ended", RuntimeWarning)
        yield


def _found(answer: Any, sparsity: int) -> Tensor:
    return answer.support


def _nonzeros(answer: Tensor, sparsity: int) -> Tensor:
    """Places of the s largest of dense coefficients."""
    values, places = answer.abs().nan_to_num(0.0).topk(sparsity, dim=1)
    places = places.masked_fill(values == 0, -1)
    return places.masked_fill(answer.isnan().any(1, keepdim=True), -2)


def _columns(answer: np.ndarray, sparsity: int) -> Tensor:
    dense = torch.from_numpy(np.ascontiguousarray(answer.reshape(answer.shape[0], -1).T))
    return _nonzeros(dense, sparsity)


def _v0_memory(size: SolverSize) -> int:
    """The Gram matrix (d²) and s + 5 arrays of signals×d."""
    return _FLOAT32 * (size.d**2 + size.signals * size.d * (size.sparsity + 5))


def _naive_memory(size: SolverSize) -> int:
    """Correlations, twice; the chosen atoms of all signals; A."""
    chosen = size.signals * size.sparsity * size.k
    return _FLOAT32 * (2 * size.signals * size.d + chosen + size.k * size.d)


_RIVAL_MEMORY = {"v0": _v0_memory, "naive": _naive_memory}


def _cholesky_memory(size: SolverSize) -> int:
    """Directions of a tile; the Gram matrix stays below 64 MiB."""
    return _FLOAT32 * (size.sparsity + 5) * min(size.signals * size.d, 2**27)


def _blas_threads() -> int:
    """Threads of the products in NumPy."""
    found = (pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
    return max(found, default=1)


def _scikit_learns(threads: int) -> tuple[Contestant, ...]:
    """On all threads, where that is not one, and on one."""
    names = (
        {"one thread": True} if threads == 1 else {f"{threads} threads": False, "one thread": True}
    )
    return tuple(
        Contestant(
            f"scikit-learn, CPU, {name}",
            functools.partial(_scikit_learn, one_thread=one_thread),
            _columns,
            host_signals=64,
            installable=True,
        )
        for name, one_thread in names.items()
    )


#: ``omp`` is what the others are compared with. The kernels of ``omp-cupy`` multiply fp16 parts of
#: float32 numbers at either precision: their unit has the rate of bf16.
CONTESTANTS = (
    Contestant("omp", _ours("omp"), _found),
    Contestant(_PLAIN_TF32, _plain_tf32, _found, unit="tf32"),
    Contestant("omp-cupy", _ours("omp-cupy", precision="float32"), _found, unit="bf16"),
    Contestant("omp-cupy, tf32", _ours("omp-cupy", precision="tf32"), _found, unit="bf16"),
    Contestant(
        "omp-inverse-cholesky", _ours("omp-inverse-cholesky"), _found, memory=_cholesky_memory
    ),
    *(
        Contestant(
            f"{RIVAL}, {algorithm}",
            _rival(algorithm),
            _nonzeros,
            memory=memory,
            installable=True,
        )
        for algorithm, memory in _RIVAL_MEMORY.items()
    ),
    *_scikit_learns(_blas_threads()),
    *(
        Contestant(
            f"{RIVAL}, {algorithm}, CPU",
            _rival(algorithm),
            _nonzeros,
            memory=memory,
            host_signals=_RIVAL_HOST_SIGNALS,
            installable=True,
        )
        for algorithm, memory in _RIVAL_MEMORY.items()
    ),
)
