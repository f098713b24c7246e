"""LDAdam: a new subspace at every step, and nothing of the gradient is lost."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State, block
from sgc.compressors.base import Compressed, Moments, Shape, Step
from sgc.compressors.subspace import Subspace
from sgc.matrices import as_matrix, is_wide, onto_side, orthonormal, project
from sgc.options import flag, number
from sgc.residuals.base import Residual
from sgc.sources.svd import SVD
from sgc.transfers import carry_over
from sgc.updates import Update


@dataclasses.dataclass(frozen=True)
class Fed(Compressed):
    """Of gradients to which an error was added.

    Attributes:
        spent: for each parameter L and B, by which ``L Bᵀ`` (``B L`` of wide matrices) of its error
            has been made use of.
    """

    spent: Sequence[tuple[Tensor, Tensor]] = ()


class LDAdam(Subspace):
    """LDAdam (Robert et al. 2025): Adam in a subspace that follows gradient and momentum.

    With E the error that was left and ``lift`` the way back from a subspace, every step takes

        ``B_t = QR(TᵀT B_{t−1})``,  ``T = ρ·lift_{t−1}(M̂_{t−1}) + (1 − ρ)(G + E)``,
        ``R = (G + E) B_t``,

    one block power iteration (the first B is that of SVD(G)), turns the moments into the new
    coordinates (transfer ``projection-aware``), takes a step of Adam on R, and keeps what neither R
    nor the turned moments M' hold:

        ``E ← G + E − lift_t(R) + β₁/(1 − β₁)·(lift_{t−1}(M_{t−1}) − lift_t(M'))``.

    State: M and V of ``2·r·max(m, n)`` numbers, the basis, and with error feedback E, ``error``, of
    the parameter's shape. The authors keep E in the gradient's buffer, which then must not be
    cleared; here it is a tensor of its own, so that a training loop stays as it is, and so its
    bytes count: with error feedback this is no method that saves memory. Square matrices are
    projected on the right side, by the authors on the left. They train with β = (0.908, 0.99).

    Args:
        rank, alpha: see :class:`~sgc.compressors.subspace.Subspace`.
        rho: ρ, 0 ≤ ρ < 1: how much the subspace follows the momentum.
        error_feedback: whether there is an E; if not, what lies outside the subspace is lost.
        residual: what the weights do with the part outside the subspace at once; with error
            feedback that part moves them twice.
    """

    def __init__(
        self,
        *,
        rank: int = 4,
        rho: float = 0.908,
        error_feedback: bool = True,
        alpha: float = 1.0,
        residual: float | str | Residual = 0.0,
    ) -> None:
        self.rho = number("rho", rho, least=0)
        if self.rho >= 1:
            raise ValueError(f"rho must be below 1, got {rho}")
        self.error_feedback = flag("error_feedback", error_feedback)
        super().__init__(
            rank=rank,
            source=SVD(),
            refresh_every=0,
            transfer="projection-aware",
            alpha=alpha,
            residual=residual,
        )

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        state = super().init_state(shape, device, dtype)
        if self.error_feedback:
            state["error"] = torch.zeros(shape, device=device, dtype=dtype)
        return state

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        if self.error_feedback:
            gradients = self._fed(gradients, states)
        late = set(self._late(states, step))  # no basis yet: the first one is that of an SVD
        warm = [i for i in range(len(states)) if i not in late]
        lost = None
        if warm:
            matrices, theirs = [as_matrix(gradients[i]) for i in warm], [states[i] for i in warm]
            lost = self._turn(matrices, theirs, step)
        found = super().compress(gradients, states, step=step)
        if not self.error_feedback:
            return found
        assert found.inner is not None
        assert found.bases is not None
        spent = list(zip(found.inner.gradients, found.bases.unbind(), strict=True))
        if lost is not None:
            turned, M, old = lost
            share = step.betas[0] / (1 - step.betas[0])
            R, B = (torch.stack(ones) for ones in zip(*(spent[i] for i in warm), strict=True))
            wide = is_wide(tuple(gradients[0].shape))
            left = torch.cat([R + share * turned, -share * M], 1 if wide else 2)
            right = torch.cat([B, old], 2)
            for i, L, both in zip(warm, left.unbind(), right.unbind(), strict=True):
                spent[i] = (L, both)
        return Fed(**vars(found), spent=spent)

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        update = super().decompress(moments, compressed, states, step=step)
        if isinstance(compressed, Fed):
            for state, (L, B) in zip(states, compressed.spent, strict=True):
                error = as_matrix(state["error"])
                factors = (B, L) if is_wide(tuple(error.shape)) else (L, B.mT)
                error.addmm_(*factors, alpha=-1)
        return update

    def _fed(self, gradients: Sequence[Tensor], states: Sequence[State]) -> Sequence[Tensor]:
        """G + E. It stands in E's own place until :meth:`decompress`, when only R is needed."""
        errors = [state["error"] for state in states]
        for error, gradient in zip(errors, gradients, strict=True):
            error.add_(gradient)
        return [error.clone() for error in errors] if self.residual_rule.active else errors

    def _turn(
        self, matrices: Sequence[Float[Tensor, "m n"]], states: Sequence[State], step: Step
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put B_t and the turned moments into the states; return M', M and B of the step before."""
        wide = is_wide(tuple(matrices[0].shape))
        bases, write_back = block(states, "basis")
        old, M = bases.clone(), block(states, "exp_avg")[0].clone()
        mean = M * (self.rho / step.corrections(before=1)[0])
        T = project(matrices, old) * (1 - self.rho) + mean  # T B: (n, long, r), or (n, r, long)
        T /= T.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(T.dtype).tiny)
        of_mean = old @ (mean @ T.mT if wide else mean.mT @ T)
        X = onto_side(matrices, T) * (1 - self.rho) + of_mean
        bases.copy_(orthonormal(X, filler=old))
        write_back()
        carry_over(self.transfer, states, bases.mT @ old, wide=wide, step=step)
        return block(states, "exp_avg")[0].clone(), M, old
