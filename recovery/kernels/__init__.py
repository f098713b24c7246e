"""CUDA kernels of the solvers, and how a kernel is launched on torch tensors."""

import functools
import importlib.util


@functools.cache
def has_cupy() -> bool:
    """Whether CuPy is installed and finds a GPU."""
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy  # noqa: PLC0415 — takes a second, and is not needed on the CPU

    return bool(cupy.is_available())
