"""The leading singular vectors of the gradient."""

from collections.abc import Sequence

from torch import Tensor

from sgc.blocks import State
from sgc.low_rank import METHODS, leading_bases
from sgc.options import one_of
from sgc.sources.base import Source


class SVD(Source):
    """``U[:, :r]`` or ``V[:, :r]`` of ``SVD(G) = U Λ Vᵀ``, as in GaLore (Zhao et al. 2024).

    Args:
        method: ``exact`` (a full SVD), ``randomized`` (started from the old basis), or ``auto``,
            see :func:`sgc.low_rank.leading_bases`.
    """

    def __init__(self, *, method: str = "auto") -> None:
        self.method = one_of("method", method, METHODS)

    def find(
        self,
        matrices: Sequence[Tensor],
        rank: int,
        *,
        start: Tensor | None,
        states: Sequence[State],
        turn: int,
    ) -> Tensor:
        iterations = 3 if start is None else 1
        return leading_bases(
            matrices, rank, start=start, method=self.method, power_iterations=iterations
        )
