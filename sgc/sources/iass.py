"""As many leading directions of the gradient as its information asks for."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from projections.seeding import stream
from sgc import adam
from sgc.blocks import State
from sgc.low_rank import leading_bases
from sgc.matrices import is_wide, onto_side, project
from sgc.options import number, one_of, whole
from sgc.sources.base import Source
from sgc.top_entries import energies

RANGE_FINDERS = ("subspace-iteration", "ssrf")


class IASS(Source):
    """Information-based adaptive subspace selection (AdaRankGrad, Refael et al. 2025, Alg. 2).

    Q of the largest rank allowed is found once; of it the first r columns are used, r the smallest
    rank with (eq. 2)

        ``‖A − Q_r Q_rᵀ A‖_F² ≤ η_th·‖A‖_F²``,

    A being G turned so that its shorter side comes first. Column i takes ``‖q_iᵀA‖²`` off the left
    side, so r is looked up in a running sum by bisection. (The updates that Algorithm 2 prints are
    no bisection: where r keeps too little they lower r_max and leave r alone, where it keeps enough
    they raise r. Its η_t also lacks eq. 2's squares, and the sup of eq. 4, which every rank above r
    meets, must be an inf.) If the largest rank keeps too little, it is taken.

    The basis always has as many columns as the largest rank, so that shapes do not depend on data;
    those beyond r are zero. State: ``rank``, r of the parameter.

    Args:
        threshold: η_th, the share of ``‖G‖²`` that may be left out, 0 ≤ η_th < 1; 0.48 is the
            paper's (Table 4).
        min_rank: r is at least this.
        range_finder: ``subspace-iteration``: :func:`sgc.low_rank.leading_bases`, columns by
            singular value; ``ssrf``: Algorithm 1 to the letter, Q of ``QR(A Ω)`` with a Gaussian Ω,
            one pass, columns in no order.
        seed: of Ω, which is drawn anew for each refresh.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.48,
        min_rank: int = 1,
        range_finder: str = "subspace-iteration",
        seed: int = 0,
    ) -> None:
        self.threshold = number("threshold", threshold, least=0)
        if self.threshold >= 1:
            raise ValueError(f"threshold must be below 1, got {threshold}")
        self.min_rank = whole("min_rank", min_rank, least=1)
        self.range_finder = one_of("range_finder", range_finder, RANGE_FINDERS)
        self.seed = whole("seed", seed)

    def init_state(self, side: int, rank: int, device: torch.device, dtype: torch.dtype) -> State:
        return {"rank": torch.zeros((), device=device, dtype=dtype)}

    def find(
        self,
        matrices: Sequence[Tensor],
        rank: int,
        *,
        start: Tensor | None,
        states: Sequence[State],
        turn: int,
    ) -> Tensor:
        if self.range_finder == "ssrf":
            Q = self._ssrf(matrices, rank, turn)
        else:
            # Columns that were not alive start from nothing, for which two iterations are a floor.
            warm = 1 if self.min_rank >= rank else 2
            iterations = 3 if start is None else warm
            Q = leading_bases(matrices, rank, start=start, power_iterations=iterations)
        r = self._smallest_rank(matrices, Q)
        for state, own in zip(states, r.unbind(), strict=True):
            state["rank"].copy_(own)
        alive = torch.arange(rank, device=Q.device) < r[:, None]
        return Q * alive[:, None, :]

    def _smallest_rank(
        self, matrices: Sequence[Tensor], Q: Float[Tensor, "count side r"]
    ) -> Tensor:
        rank = Q.shape[2]
        products = project(matrices, Q).double()
        kept = products.square().sum(2 if is_wide(tuple(matrices[0].shape)) else 1).cumsum(1)
        rounding = 8 * torch.finfo(Q.dtype).eps
        enough = (1 - self.threshold - rounding) * energies(matrices)
        r = torch.searchsorted(kept, enough[:, None]).squeeze(1) + 1
        return r.clamp_(min(self.min_rank, rank), rank)

    def _ssrf(
        self, matrices: Sequence[Tensor], rank: int, turn: int
    ) -> Float[Tensor, "count side r"]:
        first = matrices[0]
        draw = stream(self.seed, "ssrf", *first.shape, rank, turn)
        omega = torch.from_numpy(draw.standard_normal((max(first.shape), rank)))
        omega = omega.to(first.device, adam.moment_dtype(first.dtype)).expand(len(matrices), -1, -1)
        Y = onto_side(matrices, omega.mT if is_wide(tuple(first.shape)) else omega)
        return torch.linalg.qr(Y.double()).Q.to(Y.dtype)
