"""SGC: the plain method, one signal for the whole parameter."""

from typing import Any

from sgc.compressors.mesgc import MESGC
from sgc.options import takes_options_of


class SGC(MESGC):
    """Sparse gradient compression without chunks (the paper's Algorithm 3): MESGC with c = 1.

    A is κs×d for a whole parameter, so the default projection is the SRHT, which is not stored.
    """

    @takes_options_of(MESGC, without=("chunks", "chunker"))
    def __init__(self, *, sparsity: int = 64, projection: str = "srht", **options: Any) -> None:
        super().__init__(
            sparsity=sparsity, chunks=1, chunker="contiguous", projection=projection, **options
        )

    def size(self, size: int) -> dict[str, Any]:
        """More entries."""
        return {"sparsity": size}
