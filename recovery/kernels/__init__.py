"""CUDA kernels of the solvers, and how a kernel is launched on torch tensors."""

import functools

import torch

#: Tensor cores of this generation, and asynchronous copies, are what the kernels are written for.
CAPABILITY = (8, 0)


def has_kernels(device: torch.device) -> bool:
    """Whether kernels run there: an NVIDIA GPU, Ampere or later, and CuPy installed."""
    return device.type == "cuda" and _has_cupy() and capable(device)


@functools.cache
def capable(device: torch.device) -> bool:
    """Whether a GPU is Ampere or later."""
    return torch.cuda.get_device_capability(device) >= CAPABILITY


@functools.cache
def _has_cupy() -> bool:
    try:
        import cupy  # noqa: PLC0415 — takes a second, and is not needed on the CPU
    except ImportError:
        return False
    return bool(cupy.is_available())
