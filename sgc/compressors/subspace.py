"""A low-rank stage in front of any compressor: compress ``B_t G`` instead of G."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import kernels
from sgc.blocks import block
from sgc.compressors.base import Compressed, Compressor, Shape, State, number, whole
from sgc.low_rank import METHODS, leading_bases
from sgc.updates import LowRank, Update


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
        svd: how the basis is found: ``exact`` (a full SVD), ``randomized`` (started from the old
            basis), or ``auto``, see :func:`sgc.low_rank.leading_bases`.
    """

    def __init__(
        self,
        inner: Compressor,
        *,
        rank: int,
        refresh_every: int = 200,
        alpha: float = 1.0,
        residual: float = 0.0,
        svd: str = "auto",
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
        if svd not in METHODS:
            raise ValueError(f"svd must be one of {', '.join(METHODS)}, got {svd!r}")
        self.svd = svd

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
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: int
    ) -> Compressed:
        matrices = [_matrix(g) for g in gradients]
        bases, write_back = block(states, "basis")
        if self._refresh(matrices, bases, states, step):
            write_back()
        reduced = self._project(matrices, bases)
        inner = self.inner.compress(reduced.unbind(), states, step=step)
        return Compressed(inner.p, inner.q, gradients, inner=inner)

    def decompress(
        self,
        first: Tensor,
        second: Tensor,
        compressed: Compressed,
        states: Sequence[State],
        *,
        eps: float,
    ) -> Update:
        assert compressed.inner is not None
        reduced = compressed.inner.gradients
        update = self.inner.decompress(first, second, compressed.inner, states, eps=eps)
        shape = tuple(compressed.gradients[0].shape)
        N = update.to_dense(tuple(reduced[0].shape)) * self.alpha
        covered = update.covered_part(reduced) if self.residual else None
        bases, _ = block(states, "basis")
        if _is_wide(_matrix_shape(shape)):
            return LowRank(N.mT, bases, None if covered is None else covered.mT, transposed=True)
        return LowRank(N, bases, covered)

    def shared_tensors(self) -> dict[str, int]:
        return self.inner.shared_tensors()

    def _reduced(self, shape: Shape) -> Shape:
        rows, columns = _matrix_shape(shape)
        return (self.rank, columns) if rows < columns else (rows, self.rank)

    def _refresh(
        self,
        matrices: Sequence[Float[Tensor, "m n"]],
        bases: Float[Tensor, "n side r"],
        states: Sequence[State],
        step: int,
    ) -> bool:
        """New bases where they are due, in place; the others stay."""
        counters, write_back = block(states, "basis_step")
        last = [int(number) for number in counters.tolist()]
        due = [i for i, then in enumerate(last) if then == 0 or step - then >= self.refresh_every]
        if not due:
            return False
        # The one look at numbers: a zero gradient names no subspace.
        moved = torch.stack([matrices[i].any() for i in due]).tolist()
        due = [i for i, any_entry in zip(due, moved, strict=True) if any_entry]
        for cold in (True, False):
            chosen = [i for i in due if (last[i] == 0) == cold]
            if not chosen:
                continue
            start = None if cold else torch.stack([bases[i] for i in chosen])
            found = leading_bases(
                [matrices[i] for i in chosen],
                self.rank,
                start=start,
                method=self.svd,
                power_iterations=3 if cold else 1,
            )
            for i, basis in zip(chosen, found, strict=True):
                bases[i].copy_(basis)
                counters[i] = step
        write_back()
        return bool(due)

    def _project(
        self, matrices: Sequence[Float[Tensor, "m n"]], bases: Float[Tensor, "count side r"]
    ) -> Float[Tensor, "count *reduced"]:
        first = matrices[0]
        wide = _is_wide(tuple(first.shape))
        if not wide and kernels.thin_products(
            matrices, columns=first.shape[1], rank=bases.shape[2]
        ):
            from sgc.kernels.low_rank import project  # noqa: PLC0415 — needs CuPy

            return project(matrices, bases)
        reduced = bases.new_empty(len(matrices), *self._reduced(tuple(first.shape)))
        # On CUDA half precision is read as it is and summed in float32: no wider copy of G.
        half = first.is_cuda and first.dtype in (torch.bfloat16, torch.float16)
        bases = bases.to(first.dtype) if half else bases
        for G, basis, R in zip(matrices, bases.unbind(), reduced.unbind(), strict=True):
            H = G.to(basis.dtype)
            left, right = (basis.mT, H) if wide else (H, basis)
            if half:
                torch.mm(left, right, out_dtype=R.dtype, out=R)
            else:
                torch.mm(left, right, out=R)
        return reduced


def _is_wide(shape: Shape) -> bool:
    """Whether the rows are projected: a square matrix is projected on its right side."""
    return shape[0] < shape[1]


def _matrix_shape(shape: Shape) -> tuple[int, int]:
    rows = int(shape[0])
    columns = 1
    for size in shape[1:]:
        columns *= int(size)
    return rows, columns


def _matrix(tensor: Tensor) -> Float[Tensor, "m n"]:
    return tensor.reshape(_matrix_shape(tuple(tensor.shape)))
