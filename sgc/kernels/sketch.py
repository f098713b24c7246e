"""Launch of ``sketch.cu``."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sgc.kernels.tables import kernel

#: Measurements above which a lane's share would leave registers.
MOST = 1024


def measure(
    atoms: Float[Tensor, "d k"], index: Int[Tensor, "m s"], values: Float[Tensor, "m s"]
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]]:
    """``A x`` and ``A x²`` for float32 atoms (rows of Aᵀ), everything contiguous on a GPU."""
    (m, s), k = index.shape, atoms.shape[1]
    p, q = torch.empty(2, m, k, device=atoms.device).unbind()
    registers = next(size for size in (1, 2, 4, 8, 16, 32) if 32 * size >= k)
    kernel("sketch.cu", "sketch", REGS=registers)(
        (-(-m // 4),), 128, *(atoms, index, values, p, q, m, k, s), device=atoms.device
    )
    return p, q
