"""Orthogonal matching pursuit by whichever implementation is the fastest for the problem."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from recovery.base import RecoveryResult, Solver
from recovery.dictionary import Dictionary
from recovery.kernels import has_kernels
from recovery.omp import OMP


class Auto(OMP):
    """OMP: ``omp-cupy`` on a GPU, where it can, and ``omp`` elsewhere.

    Which of them runs is no part of a configuration: it is described as OMP.

    The cost model. On a GPU in float32 the kernels win at every size they take (k ≤ 1024): the
    torch form writes batch×d correlations an iteration, they do not. On the CPU ``omp`` beats
    ``omp-inverse-cholesky`` at both sizes of ``sgc bench cpu``. Float64, a GPU without CuPy and one
    before Ampere are left to ``omp``.
    """

    described_as = "OMP"

    def __init__(self, *, tolerance: float | None = None) -> None:
        super().__init__(tolerance=tolerance)
        self._kernels: Solver | None = None

    def kernels(self, dictionary: Dictionary) -> Solver | None:
        """``omp-cupy`` where it takes this A, else None."""
        operator = dictionary.operator
        if operator.dtype == torch.float64 or not has_kernels(operator.device):
            return None
        if self._kernels is None:
            from recovery.omp_cupy import CupyOMP  # noqa: PLC0415 — needs CuPy

            self._kernels = CupyOMP(tolerance=self.tolerance)
        return self._kernels

    def prepare(self, dictionary: Dictionary) -> Any:
        chosen = self.kernels(dictionary)
        return chosen.prepare(dictionary) if chosen else super().prepare(dictionary)

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
        chosen = self.kernels(dictionary)
        solve = chosen.solve_checked if chosen else super().solve_checked
        return solve(dictionary, extra, y, companion, sparsity=sparsity, tolerance=tolerance)
