"""Launch a function of a ``.cu`` file on torch tensors: no copy, on torch's current stream."""

import array
import functools
import pathlib
import struct
import threading
import zlib
from typing import Any

import cupy
import torch
from cupy.cuda import driver
from torch import Tensor

#: What a kernel takes: None is a null pointer, an int a ``long long`` (or a device pointer), a
#: float a ``float``.
Argument = Tensor | int | float | None

_FREE_SHARED = 48 * 1024  # more shared memory a block must be asked for


class Kernel:
    """One function of a CUDA source file, compiled by CuPy once for given macros.

    Tensors are handed over as their device pointers: that is what DLPack wraps, without the
    wrapping, which takes longer than a launch. The caller sees to contiguity, dtype and device,
    and keeps the tensors alive until the launch; after it torch's allocator, which counts by
    stream, keeps the memory.

    Args:
        path: the ``.cu`` file; CuPy keeps the compiled form in its cache on disk.
        name: of the ``extern "C"`` function.
        shared: bytes of dynamic shared memory a block.
        macros: ``-D`` definitions.
    """

    def __init__(self, path: pathlib.Path, name: str, *, shared: int = 0, **macros: int) -> None:
        self._function = _module(path, tuple(sorted(macros.items()))).get_function(name)
        self._shared = shared
        self._loaded: dict[int, Any] = {}

    def __call__(
        self,
        grid: tuple[int, ...],
        threads: int,
        *arguments: Argument,
        device: torch.device,
        shared: int | None = None,
    ) -> None:
        """Enqueue the kernel; an empty grid launches nothing.

        Args:
            grid: blocks, one to three numbers.
            threads: a block.
            arguments: in the order of the kernel's parameters.
            device: where the tensors are.
            shared: bytes of dynamic shared memory, where they depend on the call.
        """
        self.bind(grid, threads, *arguments, device=device, shared=shared)()

    def bind(
        self,
        grid: tuple[int, ...],
        threads: int,
        *arguments: Argument,
        device: torch.device,
        shared: int | None = None,
    ) -> "Launch":
        """The same, to be enqueued many times."""
        number = torch.cuda.current_device() if device.index is None else device.index
        _enter(number)
        function = self._loaded.get(number)
        if function is None:
            function = self._loaded[number] = self._load(number)
        size = self._shared if shared is None else shared
        blocks = (*grid, 1, 1)[:3]
        return Launch(
            function, arguments, blocks=blocks, threads=threads, device=number, shared=size
        )

    def _load(self, number: int) -> Any:
        with torch.cuda.device(number):
            if self._shared > _FREE_SHARED:
                self._function.max_dynamic_shared_size_bytes = self._shared
            return self._function.kernel


class Launch:
    """A kernel with its arguments: a call costs about two microseconds of the host."""

    def __init__(
        self,
        function: Any,
        arguments: tuple[Argument, ...],
        *,
        blocks: tuple[int, ...],
        threads: int,
        device: int,
        shared: int,
    ) -> None:
        self._values = array.array("q", map(_word, arguments))
        start, _ = self._values.buffer_info()
        self._places = array.array("q", range(start, start + 8 * len(arguments), 8))
        self._function = function  # keeps the module loaded
        self._device = device
        stream = torch.cuda.current_stream(device).cuda_stream
        places, _ = self._places.buffer_info()
        self._call = (function.ptr, *blocks, threads, 1, 1, shared, stream, places, 0)
        self._empty = 0 in blocks

    def set(self, place: int, value: int) -> None:
        """Change an integer argument for the calls that follow."""
        self._values[place] = value

    def __call__(self) -> None:
        """Enqueue, on the stream that was current when the arguments were bound."""
        if self._empty:
            return
        if self._device == torch.cuda.current_device():
            driver.launchKernel(*self._call)
        else:
            with torch.cuda.device(self._device):
                driver.launchKernel(*self._call)


_thread = threading.local()


def _enter(number: int) -> None:
    """Make the device's context current in a thread that has not worked with it yet.

    CUDA's runtime, and so torch, does that by itself; the driver's launch does not.
    """
    seen = _thread.__dict__.setdefault("seen", set())
    if number not in seen:
        with torch.cuda.device(number):
            cupy.cuda.runtime.setDevice(number)
        seen.add(number)


def _word(argument: Argument) -> int:
    """An argument as 64 bits, of which the kernel reads as many as it declares."""
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, float):
        return int(struct.unpack("<q", struct.pack("<f4x", argument))[0])
    return argument or 0


@functools.cache
def _module(path: pathlib.Path, macros: tuple[tuple[str, int], ...]) -> Any:
    # CuPy keeps what it compiled by text and options: let the headers be part of them.
    headers = b"".join(header.read_bytes() for header in sorted(path.parent.glob("*.cuh")))
    defined = (*macros, ("HEADERS", zlib.crc32(headers)))
    options = ("-std=c++17", f"-I{path.parent}", *(f"-D{name}={value}" for name, value in defined))
    return cupy.RawModule(code=path.read_text("utf-8"), options=options)
