"""Tables of device addresses: how one launch reaches many tensors."""

import functools
import pathlib
from collections.abc import Sequence

import torch
from torch import Tensor

from recovery.kernels.launch import Kernel

_FOLDER = pathlib.Path(__file__).parent


def addresses(tensors: Sequence[Tensor]) -> Tensor:
    """``(n,)`` int64 on the tensors' device. Training steps come back with the same addresses."""
    device = tensors[0].device
    # By stream, too: the copy to the device is ordered with the kernels of its own stream only.
    stream = torch.cuda.current_stream(device).cuda_stream
    return _table(tuple(t.data_ptr() for t in tensors), device, stream)


def on_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Host integers as int64 on a device, without waiting for it."""
    return torch.tensor(numbers, dtype=torch.int64).pin_memory().to(device, non_blocking=True)


@functools.cache
def kernel(file: str, name: str, *, shared: int = 0, **macros: int) -> Kernel:
    """A function of one of the ``.cu`` files here."""
    return Kernel(_FOLDER / file, name, shared=shared, **macros)


@functools.lru_cache(maxsize=256)
def _table(places: tuple[int, ...], device: torch.device, _stream: int) -> Tensor:
    return on_device(places, device)
