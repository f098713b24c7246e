"""FLoRA: Adafactor whose momentum is kept in a random subspace that changes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State, block
from sgc.compressors.base import Compressed, Compressor, Moments, Shape, Step
from sgc.factored import Factored
from sgc.matrices import as_matrix, is_wide, matrix_shape, no_subspace, project, reduced_shape
from sgc.options import part, whole
from sgc.rules.momentum import Momentum
from sgc.sources.base import Source
from sgc.sources.random import Random
from sgc.updates import Dense, Update


class Flora(Compressor):
    """FLoRA (Hao et al. 2024) as in the authors' package: momentum seen through random matrices.

    With U = G/√V̂ of :mod:`~sgc.compressors.adafactor`, not clipped, and B ∈ R^{side×r} Gaussian of
    variance 1/r for the shorter side (the right one of a square matrix),

        ``N = (1 − β₁) U + β₁·M Bᵀ``,  ``M ← β₁ M + (1 − β₁) U B``,  ``N ← N / max(1, rms(N)/d)``

    (``Bᵀ U`` and ``B M`` for wide matrices). B is not stored: it can be drawn again. Every κ steps,
    after N and before M, it is replaced by a new one and M by ``M Bᵀ B_new``. Nothing is corrected
    for its start at zero, so the first updates are small.

    Each replacement makes M about √(side/r) times as large, and κ steps of decay have to undo it:
    below ``κ = ln(side/r)/(2 ln(1/β₁))``, 22 for r = 4 of 384 at β₁ = 0.9, M grows without end.

    State: M of r·max(m, n) numbers, the m + n of V̂, and ``basis_step``, the step B was replaced at
    (0 before). The package leaves a matrix to momentum in full when one side is more than four
    times the other, or shorter than the rank; here the first is compressed and the second refused.

    Args:
        rank: r ≥ 1, at most the shorter side.
        refresh_every: κ; 0 for never.
        source: of B, one that is not stored; None for
            :class:`~sgc.sources.random.Random` as it is here, not orthonormal.
        eps1, eps2, clip, decay_rate, scale_parameter: see
            :class:`~sgc.compressors.adafactor.Adafactor`; the package scales by default.
        seed: of B, where the source is not given.
    """

    rule = Momentum()

    def __init__(
        self,
        *,
        rank: int = 4,
        refresh_every: int = 1000,
        source: str | Source | None = None,
        eps1: float = 1e-30,
        eps2: float = 1e-3,
        clip: float = 1.0,
        decay_rate: float = -0.8,
        scale_parameter: bool = False,
        seed: int = 0,
    ) -> None:
        self.rank = whole("rank", rank, least=1)
        self.refresh_every = whole("refresh_every", refresh_every, least=0)
        self.seed = seed
        gaussian = Random(orthonormal=False, seed=seed)
        self.source: Source = gaussian if source is None else part("source", source)
        if self.source.stored or self.source.follows:
            raise ValueError(
                f"source={type(self.source).__name__} looks at gradients, so its bases would have "
                "to be stored; FLoRA draws them again: leave source out"
            )
        self.second = Factored(
            eps1=eps1, eps2=eps2, clip=clip, decay_rate=decay_rate, scale_parameter=scale_parameter
        )

    def refuses(self, shape: Shape) -> str | None:
        return no_subspace(shape, self.rank)

    def moment_shape(self, shape: Shape) -> Shape:
        return reduced_shape(shape, self.rank)

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        return {
            "basis_step": torch.tensor(0.0),  # on the CPU, like the step counter
            **self.second.init_state(shape, device, dtype),
        }

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        beta1 = step.betas[0]
        U = self.second.divided(gradients, states, step=step)
        matrices = [as_matrix(u) for u in U]
        wide = is_wide(tuple(matrices[0].shape))
        # Parameters that share their step count replaced B at the same step.
        B = self._basis(matrices, states, max(1, int(states[0]["basis_step"])))
        due = bool(self.refresh_every) and step.number % self.refresh_every == 0
        B_new = self._basis(matrices, states, step.number) if due else B
        reduced = project(matrices, B_new)
        N = U * (1 - beta1)
        if step.number > 1:
            M, write_back = block(states, "exp_avg")
            past = B @ M if wide else M @ B.mT
            N.add_(past.view(N.shape), alpha=beta1)
            if due:
                M.copy_(project(past.unbind(), B_new))
                write_back()
        if due:
            for state in states:
                state["basis_step"].fill_(step.number)
        return Compressed(reduced, None, gradients, inner=Compressed(N, None, N.unbind()))

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        assert compressed.inner is not None
        return Dense(self.second.clipped(compressed.inner.p))

    def step_scale(self, weights: Sequence[Tensor]) -> Float[Tensor, " n"] | None:
        return self.second.step_scale(weights)

    def prepare(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        like = torch.zeros((), device=device, dtype=dtype).expand(matrix_shape(shape))
        self._basis([like], [{}], 1)

    def size(self, size: int) -> dict[str, int]:
        return {"rank": size}

    def shared_tensors(self) -> dict[str, int]:
        return self.source.shared_tensors()

    def _basis(
        self, matrices: Sequence[Float[Tensor, "m n"]], states: Sequence[State], turn: int
    ) -> Float[Tensor, "n side r"]:
        return self.source.find(matrices, self.rank, start=None, states=states, turn=turn)
