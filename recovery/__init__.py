"""Sparse recovery: from ``y = A x`` and a sparsity s back to x, thousands of signals at a time.

One solver, one file; :mod:`recovery.base` holds the contract that they share. Create them by name:
``sgc.create("recovery", "omp").solve(A, y, sparsity=8)``.
"""

from recovery.base import RecoveryResult, Solver, Status

__all__ = ["RecoveryResult", "Solver", "Status"]
