"""OMP with its selection in a CUDA kernel of our own, launched through CuPy."""

import functools
import pathlib
from typing import Any

import cupy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recovery.omp import OMP

_THREADS = 256


class CupyOMP(OMP):
    """:class:`recovery.omp.OMP` whose arg-max runs in one CUDA kernel; float32, GPU only.

    The kernel (``omp_cupy.cu``) reads each correlation once, leaves out the atoms already taken and
    writes one index a signal: no copy of ``|·|``, no mask. Torch tensors are handed over by DLPack
    without a copy, on torch's current stream.

    Raises:
        ImportError: CuPy finds no GPU.
    """

    devices = frozenset({"cuda"})
    dtypes = frozenset({torch.float32})

    def __init__(self, *, tolerance: float | None = None) -> None:
        super().__init__(tolerance=tolerance)
        if not cupy.is_available():
            raise ImportError("omp-cupy needs an NVIDIA GPU and its driver, and CuPy finds none")

    def select(
        self,
        correlation: Float[Tensor, "batch d"],
        taken: Int[Tensor, "batch i"],
    ) -> Int[Tensor, " batch"]:
        taken = taken.contiguous()
        best = torch.empty(correlation.shape[0], dtype=torch.int64, device=correlation.device)
        if best.numel():
            stream = cupy.cuda.Stream.from_external(_TorchStream(correlation.device))
            views = [cupy.from_dlpack(t) if t.numel() else None for t in (correlation, taken, best)]
            views[1] = views[2] if views[1] is None else views[1]  # nothing is taken: never read
            with cupy.cuda.Device(correlation.device.index), stream:
                sizes = (correlation.shape[1], taken.shape[1], taken.shape[1])
                _kernel()((correlation.shape[0],), (_THREADS,), (*views, *map(cupy.int32, sizes)))
        return best


class _TorchStream:
    """Torch's current stream, in the protocol by which CuPy takes streams of others."""

    def __init__(self, device: torch.device) -> None:
        self._pointer = torch.cuda.current_stream(device).cuda_stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self._pointer)


@functools.cache
def _kernel() -> Any:
    source = pathlib.Path(__file__).with_suffix(".cu").read_text()
    return cupy.RawModule(code=source, options=("-std=c++17",)).get_function("argmax_excluding")
