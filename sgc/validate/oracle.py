"""The oracle: scikit-learn's orthogonal matching pursuit, where it can be trusted."""

import dataclasses
import time
import warnings

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.linear_model import orthogonal_mp
from torch import Tensor

from projections import Projection

__all__ = ["OracleAnswer", "ask_oracle"]


@dataclasses.dataclass(frozen=True)
class OracleAnswer:
    """What the oracle found, by decreasing magnitude on unit columns.

    Attributes:
        support: ``(signals, s)`` int64; ``-1`` where it stopped before s atoms.
        values: ``(signals, s)`` float64 coefficients of A's own columns; 0 in unused slots.
        seconds: what it took.
    """

    support: Int[Tensor, "signals s"]
    values: Float[Tensor, "signals s"]
    seconds: float


def ask_oracle(A: Projection, y: Float[Tensor, "signals k"], *, sparsity: int) -> OracleAnswer:
    """Solve every row of y by ``sklearn.linear_model.orthogonal_mp`` in float64.

    scikit-learn assumes columns of norm one and stops by absolute tests: it is given unit columns
    and unit signals, and its coefficients are scaled back. Where the chosen atoms are dependent it
    warns and stops early; such signals come back with unused slots instead of a warning.

    Args:
        A: the projection; its float64 twin should be given, whatever dtype is under test.
        y: finite rows.
        sparsity: s.
    """
    dense = A.to_dense().double().cpu().numpy()
    norms = np.linalg.norm(dense, axis=0)
    norms[norms == 0] = 1
    signals = y.double().cpu().numpy()
    scale = np.linalg.norm(signals, axis=1, keepdims=True)
    scale[scale == 0] = 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Orthogonal matching pursuit ended", RuntimeWarning)
        start = time.perf_counter()
        found = orthogonal_mp(dense / norms, (signals / scale).T, n_nonzero_coefs=sparsity)
        seconds = time.perf_counter() - start
    unit = np.atleast_2d(found.T)
    support = np.argsort(-np.abs(unit), axis=1, kind="stable")[:, :sparsity]
    values = np.take_along_axis(unit, support, axis=1) * scale / norms[support]
    support[values == 0] = -1
    return OracleAnswer(torch.from_numpy(support), torch.from_numpy(values), seconds)
