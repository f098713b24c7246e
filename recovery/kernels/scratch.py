"""Scratch memory of a chain of kernels, taken from torch's allocator in one piece."""

import torch

_ALIGNMENT = 256


class Scratch:
    """Addresses in one piece of memory, which lives as long as this object."""

    def __init__(self, device: torch.device, **sizes: int) -> None:
        self._places: dict[str, int] = {}
        end = 0
        for name, size in sizes.items():
            self._places[name] = end if size else -1
            end = -(-(end + size) // _ALIGNMENT) * _ALIGNMENT
        self._memory = torch.empty(end, dtype=torch.uint8, device=device)
        self._start = self._memory.data_ptr()

    def __getitem__(self, name: str) -> int:
        place = self._places[name]
        return 0 if place < 0 else self._start + place
