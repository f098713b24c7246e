"""Random numbers that depend on a seed and a purpose, and leave the caller's generators alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from projections.seeding import stream

__all__ = ["derived_seed", "seeded"]


def derived_seed(seed: int, *purpose: object) -> int:
    """A seed of its own for each ``purpose``, in ``[0, 2⁶³)``."""
    return int(stream(seed, "finetune", *purpose).integers(2**63))


@contextmanager
def seeded(seed: int, *purpose: object, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, torch's generators of the CPU and of ``device`` start from ``(seed, *purpose)``.

    Afterwards they are as they were: dropout and initialisation draw from the global generators
    and take no other, so they are lent a state and it is taken back.
    """
    device = torch.device(device)
    value = derived_seed(seed, *purpose)
    index = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=index):
        torch.default_generator.manual_seed(value)
        if index:
            with torch.cuda.device(index[0]):
                torch.cuda.manual_seed(value)
        yield
