"""A basis that follows the gradients: online PCA, one step of an optimizer after every step."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import adam
from sgc.blocks import State, block
from sgc.low_rank import leading_bases
from sgc.matrices import onto_side
from sgc.options import number, one_of
from sgc.rules.base import Step
from sgc.sources.base import Source
from sgc.top_entries import energies

OPTIMIZERS = ("adam", "sgd")
_BETAS, _EPS = (0.9, 0.999), 1e-8  # torch's, which the authors leave as they are
_TINY = 1e-300  # keeps 0/0 away in float64


class OnlinePCA(Source):
    """Online Subspace Descent (Liang et al. 2024): P descends on ``‖H − H P Pᵀ‖_F²``.

    ``H = G/‖G‖_F``, turned so that the shorter side comes second, and P is side × r. With
    ``X = HᵀH P`` the loss has the gradient

        ``−4 X + 2 X (PᵀP) + 2 P (PᵀX)``.

    The first P are the leading singular vectors of the first gradient that is not zero; every later
    one moves P after it has been projected on it, as in the authors' code. P is near orthonormal
    but not held there. A gradient that is zero (or not finite) leaves the basis as it is.

    State beside the basis: ``basis_moves``, how often it moved, and under ``adam`` its two moments
    ``basis_avg`` and ``basis_avg_sq``, each as large as the basis.

    Args:
        lr: learning rate of the basis; the authors take 1/(GaLore's update gap), and let it follow
            the schedule of the weights' learning rate, which a source does not know.
        optimizer: ``adam`` (the authors' default: torch's AdamW) or ``sgd``.
        weight_decay: of ``adam``, decoupled; 0.01 is torch's default, which the authors keep.
    """

    follows = True

    def __init__(
        self, *, lr: float = 0.005, optimizer: str = "adam", weight_decay: float = 0.01
    ) -> None:
        self.lr = number("lr", lr, least=0)
        self.optimizer = one_of("optimizer", optimizer, OPTIMIZERS)
        self.weight_decay = number("weight_decay", weight_decay, least=0)

    def init_state(self, side: int, rank: int, device: torch.device, dtype: torch.dtype) -> State:
        state = {"basis_moves": torch.zeros((), device=device, dtype=dtype)}
        if self.optimizer == "adam":
            for name in ("basis_avg", "basis_avg_sq"):
                state[name] = torch.zeros(side, rank, device=device, dtype=dtype)
        return state

    def find(
        self,
        matrices: Sequence[Tensor],
        rank: int,
        *,
        start: Tensor | None,
        states: Sequence[State],
        turn: int,
    ) -> Tensor:
        for state in states:  # −1: the gradient that names a basis does not move it
            state["basis_moves"].fill_(-1)
            for name in state.keys() & {"basis_avg", "basis_avg_sq"}:
                state[name].zero_()
        return leading_bases(
            matrices, rank, start=start, power_iterations=3 if start is None else 1
        )

    def advance(
        self,
        matrices: Sequence[Tensor],
        reduced: Tensor,
        bases: Tensor,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Tensor:
        norms = energies(matrices).sqrt_()
        seen = (norms > 0) & norms.isfinite()
        moves, write_back = block(states, "basis_moves")
        moves += seen
        write_back()
        moving = (seen & (moves > 0))[:, None, None]
        gradient = self._gradient(matrices, reduced, bases, norms[:, None, None])
        if self.optimizer == "sgd":
            moved = bases - self.lr * gradient
        else:
            direction = self._direction(gradient, states, moving, moves[:, None, None])
            moved = bases * (1 - self.lr * self.weight_decay) - self.lr * direction
        return torch.where(moving, moved, bases)

    def _gradient(
        self,
        matrices: Sequence[Tensor],
        reduced: Float[Tensor, "count *reduced"],
        P: Float[Tensor, "count side r"],
        norms: Float[Tensor, "count 1 1"],
    ) -> Float[Tensor, "count side r"]:
        """Of the loss; one pass over the matrices, whose product with P is known."""
        norms = norms.clamp_min(_TINY)
        HP = (reduced / norms).to(P.dtype)  # divided twice, so that nothing leaves float32
        X = (onto_side(matrices, HP) / norms).to(P.dtype)
        return 2 * (X @ (P.mT @ P) + P @ (P.mT @ X)) - 4 * X

    def _direction(
        self,
        gradient: Float[Tensor, "count side r"],
        states: Sequence[State],
        moving: Tensor,
        moves: Float[Tensor, "count 1 1"],
    ) -> Float[Tensor, "count side r"]:
        """Adam's; the moments of a basis that stands still are left alone."""
        first, keep_first = block(states, "basis_avg")
        second, keep_second = block(states, "basis_avg_sq")
        new = first.clone(), second.clone()
        beta1, beta2 = _BETAS
        adam.accumulate(new[0], new[1], gradient, None, beta1=beta1, beta2=beta2)
        first.copy_(torch.where(moving, new[0], first))
        second.copy_(torch.where(moving, new[1], second))
        keep_first()
        keep_second()
        t = moves.clamp_min(1).double()
        unbias1, unbias2 = ((1 - beta**t).to(first.dtype) for beta in _BETAS)
        return adam.direction(first / unbias1, second / unbias2, eps=_EPS, eps_under_root=False)
