"""What a solver answers: supports, values, and how each signal ended."""

import dataclasses
import enum

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Status(enum.IntEnum):
    """How the recovery of one signal ended. ``Status(3).advice`` says what to do about it."""

    CONVERGED = 0
    SPARSITY_REACHED = 1
    ZERO_SIGNAL = 2
    NON_FINITE = 3
    DEPENDENT_ATOMS = 4
    SATURATED = 5
    MAX_ITERATIONS = 6

    @property
    def advice(self) -> str:
        """One sentence: what it means and the way out."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "the residual is at rounding level; unused slots mean that fewer than s "
    "atoms explain y.",
    Status.SPARSITY_REACHED: "s atoms were used and a residual is left: y is noisy, less sparse "
    "than s says, or was not recovered; compare residual_norm with the noise you expect.",
    Status.ZERO_SIGNAL: "y is zero, so is x.",
    Status.NON_FINITE: "y holds NaN or infinity, or its norm overflows; nothing was "
    "recovered for this signal.",
    Status.DEPENDENT_ATOMS: "no remaining atom adds anything: the best one is a combination of the "
    "chosen ones (repeated columns?), or y lies outside the span of A; the recovery stopped there.",
    Status.SATURATED: "as many atoms as measurements were used: k atoms fit any y, so the support "
    "proves nothing; raise k or lower s.",
    Status.MAX_ITERATIONS: "the iteration limit came before the residual settled; raise "
    "max_iterations, or the number of measurements.",
}


@dataclasses.dataclass(frozen=True)
class RecoveryResult:
    """Recovered signals in coordinate form.

    Attributes:
        support: ``(batch, s)`` int64 column numbers, in the order the solver ranks them. An unused
            slot is ``-1`` and its value 0.
        values: ``(batch, s)`` coefficients, in the dtype the solver computed in.
        residual_norm: ``(batch,)`` Euclidean norm of ``y − A x``, in the units of y.
        iterations: ``(batch,)`` int64 iterations spent on the signal.
        status: ``(batch,)`` int64 codes of :class:`Status`.
        companion: ``(batch, s)`` coefficients of a second measurement on the same support, where
            :meth:`recovery.base.Solver.solve` was given one; NaN in rows where it is not finite.
    """

    support: Int[Tensor, "batch s"]
    values: Float[Tensor, "batch s"]
    residual_norm: Float[Tensor, " batch"]
    iterations: Int[Tensor, " batch"]
    status: Int[Tensor, " batch"]
    companion: Float[Tensor, "batch s"] | None = None

    def to_dense(self, d: int) -> Float[Tensor, "batch d"]:
        """The signals as dense vectors of length d.

        Raises:
            ValueError: d is not larger than every index of the support.
        """
        largest = int(self.support.max()) if self.support.numel() else -1
        if d <= largest:
            raise ValueError(f"the support names column {largest}, which does not fit d={d}")
        dense = self.values.new_zeros((self.values.shape[0], d))
        # Unused slots carry the value 0, so adding them to column 0 changes nothing.
        return dense.scatter_add_(1, self.support.clamp(min=0), self.values)

    def counts(self) -> dict[str, int]:
        """How many signals ended in each status, by name; those that did not occur are left out."""
        tally = torch.bincount(self.status, minlength=len(Status)).tolist()
        return {Status(code).name: n for code, n in enumerate(tally) if n}


@dataclasses.dataclass
class Recovered:
    """What a solver finds for one tile of unit rows, in coefficients of unit-norm atoms."""

    support: Int[Tensor, "batch s"]
    values: Float[Tensor, "batch s"]
    residual: Float[Tensor, "batch k"]
    iterations: Int[Tensor, " batch"]
    status: Int[Tensor, " batch"]
    companion: Float[Tensor, "batch s"] | None = None  # the same for a second right-hand side
