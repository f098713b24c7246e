"""What a computation must do at least (bytes, operations), and how fast a device can do it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping

import torch

from projections.seeding import stream
from sgc.bench.device_timing import interleaved_on_device, released
from sgc.bench.timing import Timing

__all__ = ["Floors", "Work", "generator", "measure_floors", "tf32_products"]

#: Bandwidths, in bytes a second, and rates of multiplications and additions, by unit.
_COPY, _READ = "copy", "read"
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Work:
    """A lower bound of the work of one computation.

    Attributes:
        bytes: that must cross the memory bus at least once.
        flops: multiplications and additions.
        unit: the fastest unit that these may run on: ``float32``, ``tf32`` or ``bf16`` (fp16 has
            the same rate).
        comparisons: to choose largest magnitudes; each takes an instruction slot of the fp32 unit,
            which could have done two flops.
    """

    bytes: int
    flops: int
    unit: str
    comparisons: int = 0

    @property
    def intensity(self) -> float:
        """Flops for each byte."""
        return self.flops / self.bytes

    def floor(self, floors: "Floors") -> float:
        """Seconds that the slowest of memory, arithmetic and comparisons needs."""
        return max(
            self.bytes / floors.bandwidth,
            self.flops / floors.rates[self.unit],
            2 * self.comparisons / floors.rates["float32"],
        )


@dataclasses.dataclass(frozen=True)
class Floors:
    """What a device reaches on random data: each number is from the fastest of the timed runs.

    Attributes:
        copy: bytes a second, read and written, of a device-to-device copy.
        read: bytes a second of a sum over bf16 numbers.
        rates: flops a second of a square matrix product by unit.
        buffer_bytes: bytes of the tensor that is copied and summed.
        side: of the matrices that are multiplied.
        timings: seconds, by what was run.
    """

    copy: float
    read: float
    rates: Mapping[str, float]
    buffer_bytes: int
    side: int
    timings: Mapping[str, Timing]

    @property
    def bandwidth(self) -> float:
        """The better one of copy and read: nothing moves data faster, whatever its mix of both."""
        return max(self.copy, self.read)


def generator(device: torch.device, seed: int, *purpose: object) -> torch.Generator:
    """A generator on the device: its numbers are those of the seed, the purpose and the device."""
    own = int(stream(seed, "bench", *purpose).integers(2**62))
    return torch.Generator(device).manual_seed(own)


def measure_floors(
    device: torch.device,
    *,
    seed: int = 0,
    buffer_bytes: int = 3 * _GIB,
    side: int = 8192,
    repeats: int = 10,
    progress: Callable[[], None] = lambda: None,
) -> Floors:
    """Measure copy and read bandwidth and the matrix-product rates: on random numbers, not zeros.

    Args:
        buffer_bytes: of what is copied and read; far more than the caches hold.
        side: of the matrices.
        repeats: interleaved rounds that count.
        progress: called when done.
    """
    random = generator(device, seed, "floors")
    with released(device):
        source = torch.empty(buffer_bytes // 2, dtype=torch.bfloat16, device=device)
        source.normal_(generator=random)
        target = torch.empty_like(source)
        a, b = (torch.randn(side, side, generator=random, device=device) for _ in range(2))
        half_a, half_b = a.bfloat16(), b.bfloat16()
        timings = interleaved_on_device(
            {
                _COPY: lambda: target.copy_(source),
                _READ: source.sum,
                "bf16": lambda: half_a @ half_b,
                "tf32": lambda: _tf32_product(a, b),
                "float32": lambda: a @ b,
            },
            device=device,
            repeats=repeats,
        )
        del source, target, a, b, half_a, half_b
    progress()
    seconds = {name: timing.device for name, timing in timings.items()}
    flops = 2 * side**3
    return Floors(
        copy=2 * buffer_bytes / seconds[_COPY].low,
        read=buffer_bytes / seconds[_READ].low,
        rates={unit: flops / seconds[unit].low for unit in ("bf16", "tf32", "float32")},
        buffer_bytes=buffer_bytes,
        side=side,
        timings=seconds,
    )


def _tf32_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    with tf32_products():
        return a @ b


@contextlib.contextmanager
def tf32_products() -> Iterator[None]:
    """Torch's float32 products on a GPU in TF32; as before afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # not fp32_precision: it breaks the older switches
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
