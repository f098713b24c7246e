"""A low-rank stage in front of any compressor: compress ``B_t G`` instead of G."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.compressors.base import Compressor, Shape, State, number, whole
from sgc.update import Update


class Subspace(Compressor):
    """Project a matrix on its leading singular subspace, then let another compressor work there.

    The shorter side is projected: for m < n, ``R = B_t G`` with ``B_t = U[:, :r]ᵀ`` of
    ``SVD(G) = U Λ Vᵀ`` (r×n remain), otherwise ``R = G V[:, :r]`` (m×r remain). For a square matrix
    both sides store the same; eq. 8 of the SGC paper writes the left one, GaLore's own code takes
    the right one, which also trained better here and is used. B_t is taken from
    the gradient at the first step and every ``refresh_every`` steps; the moments are kept over a
    refresh, as in GaLore (Zhao et al. 2024) and eq. 8 of the SGC paper. The update is
    ``α·B_tᵀ N``. Tensors with more than two dimensions are taken as (first dimension)×(the rest).

    State beside the moments: ``basis`` (shorter side × r) and ``basis_step``, the step of the last
    refresh. A gradient that is zero names no subspace, so the refresh waits for the next step.

    Args:
        inner: compressor of R.
        rank: r ≥ 1, at most the shorter side.
        refresh_every: steps between two SVDs, at least 1.
        alpha: α, scale of the update.
        residual: ρ: the part of G that the update does not cover, outside the subspace or off the
            inner compressor's support, moves the weights along ``ρ·G/rms(G)``.
    """

    def __init__(
        self,
        inner: Compressor,
        *,
        rank: int,
        refresh_every: int = 200,
        alpha: float = 1.0,
        residual: float = 0.0,
    ) -> None:
        rank, refresh_every = whole("rank", rank), whole("refresh_every", refresh_every)
        if rank < 1 or refresh_every < 1:
            raise ValueError(
                f"rank and refresh_every must be at least 1, got {rank} and {refresh_every}"
            )
        self.inner = inner
        self.rank, self.refresh_every = rank, refresh_every
        self.alpha = number("alpha", alpha)
        self.residual = number("residual", residual, least=0)

    def refuses(self, shape: Shape) -> str | None:
        if len(shape) < 2:
            return f"a parameter of shape {tuple(shape)} is not a matrix, so it has no subspace"
        rows, columns = _matrix_shape(shape)
        if self.rank > min(rows, columns):
            return f"rank={self.rank} exceeds the shorter side of a {rows}×{columns} matrix"
        reason = self.inner.refuses(self._reduced(shape))
        return reason and f"after the projection of {tuple(shape)} on rank {self.rank}: {reason}"

    def moment_shape(self, shape: Shape) -> Shape:
        return self.inner.moment_shape(self._reduced(shape))

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        side = min(_matrix_shape(shape))
        return {
            "basis": torch.zeros(side, self.rank, device=device, dtype=dtype),
            "basis_step": torch.tensor(0.0),  # on the CPU, like AdamW's step; 0 is never
            **self.inner.init_state(self._reduced(shape), device, dtype),
        }

    def compress(
        self, gradient: Tensor, state: State, *, step: int
    ) -> tuple[Tensor, Tensor | None]:
        basis = state["basis"]
        matrix = _matrix(gradient).to(basis.dtype)
        last = int(state["basis_step"])
        if (last == 0 or step - last >= self.refresh_every) and bool(matrix.any()):
            basis.copy_(leading_basis(matrix, self.rank))
            state["basis_step"].fill_(step)
        return self.inner.compress(self._project(matrix, basis), state, step=step)

    def decompress(
        self,
        first: Tensor,
        second: Tensor,
        gradients: Sequence[Tensor],
        states: Sequence[State],
        *,
        eps: float,
    ) -> Iterator[Update]:
        bases = [state["basis"] for state in states]
        matrices = [_matrix(g).to(b.dtype) for g, b in zip(gradients, bases, strict=True)]
        reduced = [self._project(g, b) for g, b in zip(matrices, bases, strict=True)]
        updates = self.inner.decompress(first, second, reduced, states, eps=eps)
        for gradient, G, R, basis, inner in zip(
            gradients, matrices, reduced, bases, updates, strict=True
        ):
            direction = self._lift(inner.to_dense(R.shape), basis, G.shape) * self.alpha
            uncovered = None
            if self.residual:
                covered = R if inner.uncovered is None else R - inner.uncovered
                uncovered = (G - self._lift(covered, basis, G.shape)).view(gradient.shape)
            yield Update(direction.view(gradient.shape), uncovered=uncovered)

    def shared_tensors(self) -> dict[str, int]:
        return self.inner.shared_tensors()

    def _reduced(self, shape: Shape) -> Shape:
        rows, columns = _matrix_shape(shape)
        return (self.rank, columns) if rows < columns else (rows, self.rank)

    def _project(
        self, G: Float[Tensor, "m n"], basis: Float[Tensor, "side r"]
    ) -> Float[Tensor, "..."]:
        return basis.T @ G if G.shape[0] < G.shape[1] else G @ basis

    def _lift(self, R: Tensor, basis: Float[Tensor, "side r"], shape: Shape) -> Tensor:
        return basis @ R if shape[0] < shape[1] else R @ basis.T


def leading_basis(G: Float[Tensor, "m n"], rank: int) -> Float[Tensor, "side r"]:
    """Singular vectors of the shorter side that belong to the r largest singular values.

    Entries that are not finite count as 0, so a broken gradient cannot stop the run here; it shows
    in the moments, as with AdamW.
    """
    U, _, Vh = torch.linalg.svd(G.nan_to_num(0.0, 0.0, 0.0), full_matrices=False)
    return U[:, :rank] if G.shape[0] < G.shape[1] else Vh[:rank].T


def _matrix_shape(shape: Shape) -> tuple[int, int]:
    rows = int(shape[0])
    columns = 1
    for size in shape[1:]:
        columns *= int(size)
    return rows, columns


def _matrix(tensor: Tensor) -> Float[Tensor, "m n"]:
    return tensor.reshape(_matrix_shape(tuple(tensor.shape)))
