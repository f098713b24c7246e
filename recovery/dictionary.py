"""A projection as a solver sees it: atoms of norm one, prepared once per operator."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from projections import DenseOperator, Projection


@dataclasses.dataclass(frozen=True)
class Dictionary:
    """Unit-norm atoms of a projection A: atom j is ``A[:, j] / ‖A[:, j]‖``.

    Solvers work on these atoms, so columns of any length compete fairly (Algorithm 2 of the paper
    divides by ``‖A_:i‖``). A zero column stays zero and is never worth choosing.

    Attributes:
        operator: the projection as it was given.
        matrix: ``(d, k)`` unit atoms as rows, or None for a structured operator.
        inverse_norms: ``(d,)`` factors from A's columns to unit atoms; 0 for zero columns.
    """

    operator: Projection
    matrix: Float[Tensor, "d k"] | None
    inverse_norms: Float[Tensor, " d"]

    @classmethod
    def of(cls, operator: Projection) -> "Dictionary":
        """Prepare an operator.

        Raises:
            ValueError: A holds NaN or infinity.
        """
        norms = operator.column_norms()
        if not bool(torch.isfinite(norms).all()):
            raise ValueError("A holds NaN or infinity, or columns whose norm overflows")
        # A column too short for its inverse to be a number counts as zero.
        if bool((norms == 1).all()):
            inverse = norms.new_ones(()).expand(norms.shape)  # d ones in the memory of one
        else:
            inverse = torch.where(norms >= torch.finfo(norms.dtype).tiny, 1 / norms, 0)
        matrix = None
        if isinstance(operator, DenseOperator):
            unit = bool(((norms - 1).abs() <= 4 * torch.finfo(norms.dtype).eps).all())
            # Columns of norm one are used as they are: no second copy of A.
            matrix = operator.atoms if unit else operator.atoms * inverse[:, None]
        return cls(operator, matrix, inverse)

    @property
    def shape(self) -> tuple[int, int]:
        """``(k, d)``."""
        return self.operator.shape

    @property
    def nbytes(self) -> int:
        """Bytes kept beside the operator's own."""
        shared = isinstance(self.operator, DenseOperator) and self.matrix is self.operator.atoms
        copy = 0 if self.matrix is None or shared else self.matrix.nbytes
        return copy + self.inverse_norms.untyped_storage().nbytes()

    def correlate(
        self, residual: Float[Tensor, "batch k"], *, out: Float[Tensor, "batch d"] | None = None
    ) -> Float[Tensor, "batch d"]:
        """Inner product of every residual with every atom: a tensor that is free to overwrite.

        Args:
            residual: rows in the operator's dtype.
            out: a tensor that may be used for the answer. In a loop it saves the allocation, which
                on the CPU costs a tenth of the product itself.
        """
        if self.matrix is not None:
            return torch.mm(residual, self.matrix.T, out=out)
        return self.operator.rmatvec(residual) * self.inverse_norms

    def atoms(
        self, index: Int[Tensor, "*batch m"], *, out: Float[Tensor, "*batch m k"] | None = None
    ) -> Float[Tensor, "*batch m k"]:
        """The named atoms as rows; in ``out`` if it is given."""
        if self.matrix is not None and out is not None and index.ndim == 1:
            return torch.index_select(self.matrix, 0, index, out=out)
        if self.matrix is not None:
            found = self.matrix[index]
        else:
            found = (self.operator.columns(index) * self.inverse_norms[index][..., None, :]).mT
        return found if out is None else out.copy_(found)

    def gram(self) -> Float[Tensor, "d d"]:
        """Inner products of all atoms with each other: d² numbers, so for small d."""
        return self.correlate(self.atoms(torch.arange(self.shape[1], device=self.operator.device)))

    def spectral_norm_squared(self) -> float:
        """``‖Φ‖₂²`` of the unit-norm atoms Φ: largest eigenvalue of the k×k matrix ``Φ Φᵀ``."""
        k = self.shape[0]
        unit = torch.eye(k, device=self.operator.device, dtype=self.operator.dtype)
        rows = self.correlate(unit)
        return float(torch.linalg.eigvalsh((rows @ rows.T).double())[-1])
