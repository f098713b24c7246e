"""What every projection offers, and the two ways to offer it: a stored matrix or a formula."""

from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Projection(Protocol):
    """A linear operator ``A ∈ R^{k×d}`` with ``E‖A x‖² = ‖x‖²`` over the seed.

    Attributes:
        shape: ``(k, d)``.
        dtype: floating dtype of the entries; ``matvec`` and the others return it.
        device: where the operator lives; inputs must live there too.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def matvec(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """``A x`` for every vector of the batch."""

    def rmatvec(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:
        """``Aᵀ y``, the exact adjoint of :meth:`matvec`."""

    def columns(self, index: Int[Tensor, "*batch s"]) -> Float[Tensor, "*batch k s"]:
        """``A[:, index]``: the columns ("atoms") that ``index`` names."""

    def column_norms(self) -> Float[Tensor, " d"]:
        """Euclidean norm of each column."""

    def to_dense(self) -> Float[Tensor, "k d"]:
        """The matrix itself: for tests and small problems."""


class BaseProjection:
    """Checks and the parts of :class:`Projection` that follow from the others.

    A structured operator overrides ``matvec``, ``rmatvec`` and ``columns``.

    Args:
        k: number of measurements, at least 1.
        d: length of the signal, at least 1.
        seed: the same seed gives the same operator on every device and (up to rounding) dtype.
        device: where tensors are kept.
        dtype: a real floating dtype.

    Raises:
        ValueError: k or d below 1.
        TypeError: dtype is not real floating.
    """

    #: True when the operator only exists for k = d (tests choose their sizes by it).
    square: ClassVar[bool] = False
    #: True when ``Aᵀ A = I`` exactly: with no sparsity asked for, ``Aᵀ`` undoes A.
    orthogonal: ClassVar[bool] = False
    #: True when A is a formula and no k×d array is stored.
    structured: ClassVar[bool] = False
    #: True when all entries are one number or its negative: of k rows at most 2^(k − 1) columns
    #: then differ by more than a sign, and no solver can tell the others apart.
    signs: ClassVar[bool] = False

    def __init__(
        self,
        k: int,
        d: int,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if k < 1 or d < 1:
            raise ValueError(f"a projection needs k ≥ 1 and d ≥ 1, got k={k}, d={d}")
        if not dtype.is_floating_point:
            raise TypeError(f"a projection needs a real floating dtype, got {dtype}")
        self.shape = (int(k), int(d))
        self.seed = int(seed)
        self.device = torch.empty(0, device=device).device  # "cuda" → "cuda:0"
        self.dtype = dtype

    def __repr__(self) -> str:
        k, d = self.shape
        return f"{type(self).__name__}(k={k}, d={d}, seed={self.seed}, dtype={self.dtype})"

    def matvec(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        raise NotImplementedError

    def rmatvec(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:
        raise NotImplementedError

    def columns(self, index: Int[Tensor, "*batch s"]) -> Float[Tensor, "*batch k s"]:
        raise NotImplementedError

    def to_dense(self) -> Float[Tensor, "k d"]:
        return self.columns(torch.arange(self.shape[1], device=self.device))

    def column_norms(self) -> Float[Tensor, " d"]:
        return torch.linalg.vector_norm(self.to_dense(), dim=0)

    @property
    def nbytes(self) -> int:
        own = (t for t in vars(self).values() if isinstance(t, Tensor))
        return sum(t.untyped_storage().nbytes() for t in own)

    def _check(self, vector: Tensor, length: int, name: str) -> None:
        if vector.ndim < 1 or vector.shape[-1] != length:
            k, d = self.shape
            raise ValueError(
                f"{name} must end in a dimension of {length} for this {k}×{d} operator, "
                f"got shape {tuple(vector.shape)}"
            )


class DenseOperator(BaseProjection):
    """A matrix that is kept in memory: the base of the random dense ensembles, or a user's own A.

    Kept as ``Aᵀ`` (d×k, contiguous), because the hot path gathers columns of A.

    Args:
        matrix: ``(k, d)`` real floating tensor; not copied when its transpose is contiguous.

    Raises:
        ValueError: not two-dimensional or empty.
        TypeError: not floating.

    Example:
        >>> op = DenseOperator(torch.eye(2))
        >>> op.matvec(torch.tensor([3.0, 4.0]))
        tensor([3., 4.])
    """

    def __init__(self, matrix: Float[Tensor, "k d"]) -> None:
        if matrix.ndim != 2:
            raise ValueError(f"a dense operator is a (k, d) matrix, got {tuple(matrix.shape)}")
        k, d = matrix.shape
        super().__init__(k, d, device=matrix.device, dtype=matrix.dtype)
        self.atoms = matrix.detach().T.contiguous()

    def matvec(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        self._check(x, self.shape[1], "x")
        return x.to(self.dtype) @ self.atoms

    def rmatvec(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:
        self._check(y, self.shape[0], "y")
        return y.to(self.dtype) @ self.atoms.T

    def columns(self, index: Int[Tensor, "*batch s"]) -> Float[Tensor, "*batch k s"]:
        return self.atoms[index].mT

    def column_norms(self) -> Float[Tensor, " d"]:
        # Scaled first: squares of very short or long columns leave the dtype's range.
        largest = self.atoms.abs().amax(1, keepdim=True)
        unit = self.atoms / torch.where(largest > 0, largest, 1)
        return torch.linalg.vector_norm(unit, dim=1) * largest[:, 0]

    def to_dense(self) -> Float[Tensor, "k d"]:
        return self.atoms.T


def as_projection(operator: "Projection | Float[Tensor, 'k d']") -> Projection:
    """Return ``operator`` as a projection; a ``(k, d)`` tensor becomes a :class:`DenseOperator`.

    Raises:
        TypeError: neither a tensor nor something with the projection protocol.
    """
    if isinstance(operator, Tensor):
        return DenseOperator(operator)
    if isinstance(operator, Projection):
        return operator
    missing = [name for name in _REQUIRED if not hasattr(operator, name)]
    raise TypeError(
        f"A must be a (k, d) tensor or a projection, got {type(operator).__name__}, which lacks "
        f"{', '.join(missing)}"
    )


_REQUIRED = (
    *("shape", "dtype", "device", "matvec", "rmatvec", "columns", "column_norms", "to_dense"),
)
