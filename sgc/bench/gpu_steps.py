"""Optimizer steps on one device: every method updates the same weights from the same gradients."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sgc.bench.device_timing import DeviceTiming, interleaved_on_device, once, released
from sgc.bench.step_work import Workload, adamw_work, cesgc_work, galore_work, mesgc_work
from sgc.bench.timing import Timing
from sgc.bench.work import Floors, Work, generator
from sgc.optimizer import CompressedAdamW
from sgc.registry import MissingDependencyError, create
from sgc.report import peak_scratch, state_report

__all__ = ["METHODS", "PERIOD", "Method", "Refresh", "StepRow", "measure_steps"]

#: T: steps from one subspace refresh to the next, over which its cost is spread.
PERIOD = 200
_NEVER = 10**9
_WARMUP, _REFRESHES = 3, 3
#: Sets of them.
_GRADIENTS = 2
_LR = 1e-8
_EXPECTED = (ValueError, RuntimeError, MissingDependencyError)


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer to be timed.

    Attributes:
        name: in tables and figures.
        compressor: a registered name; None is torch's fused AdamW.
        options: of the compressor.
        work: the least that a step must do.
    """

    name: str
    compressor: str | None
    options: Mapping[str, Any]
    work: Callable[[Workload, Mapping[str, Any]], Work]

    @property
    def refreshes(self) -> bool:
        """Whether it keeps a subspace."""
        return "rank" in self.options

    def optimizer(self, weights: Sequence[Tensor], *, refresh_every: int = _NEVER) -> Optimizer:
        """A new one for these weights.

        Raises:
            ValueError: the compressor cannot take them.
        """
        if self.compressor is None:
            return torch.optim.AdamW(weights, lr=_LR, fused=True)
        period = {"refresh_every": refresh_every} if self.refreshes else {}
        compressor = create("compressor", self.compressor, **self.options, **period)
        return CompressedAdamW(weights, lr=_LR, compressor=compressor)


def _method(
    name: str,
    compressor: str | None,
    work: Callable[[Workload, Mapping[str, Any]], Work],
    **options: Any,
) -> Method:
    return Method(name, compressor, MappingProxyType(options), work)


_SMALL = {"chunks": 256, "sparsity": 256, "kappa": 8}
#: The first one is what the others are compared with.
METHODS = (
    _method("AdamW, fused", None, adamw_work),
    _method("GaLore, rank 4", "galore", galore_work, rank=4),
    _method("GaLore, rank 32", "galore", galore_work, rank=32),
    _method("MESGC, c 256", "mesgc", mesgc_work, **_SMALL),
    _method("MESGC, c 64", "mesgc", mesgc_work, chunks=64, sparsity=64, kappa=7),
    _method("MESGC, c 256, residual", "mesgc", mesgc_work, **_SMALL, residual=0.1),
    _method("CESGC, rank 32", "cesgc", cesgc_work, rank=32, chunks=64, sparsity=1984, kappa=7),
)


@dataclasses.dataclass(frozen=True)
class Refresh:
    """Steps on which every subspace is computed: ``cold`` is the first one of fresh states (A and
    the states are made in it, too), ``warm`` are later ones, which may start from the old bases;
    ``peak_extra_bytes`` is the temporary memory of one more of these, at its peak.
    """

    cold: float
    warm: Timing
    peak_extra_bytes: int


@dataclasses.dataclass(frozen=True)
class StepRow:
    """One method.

    Attributes:
        timing: seconds of a step without refresh.
        over_reference: device time over the first method's, round by round.
        latency_over_reference: the same of the latency.
        floor: seconds that the work needs at the measured rates.
        over_floor: median device time over the floor.
        bandwidth, rate: least bytes, and flops, over the median device time.
        refresh: None for a method without subspace.
        amortised: median seconds with one warm refresh in T steps.
        amortised_over_reference: ``over_reference`` with the same share of a refresh.
        peak_extra_bytes: temporary memory at its peak, of a later step or of a warm refresh, if
            that takes more.
        state_bytes, shared_bytes: what is kept between steps, a parameter's own and shared.
    """

    name: str
    compressor: str | None
    options: Mapping[str, Any]
    timing: DeviceTiming
    over_reference: Timing
    latency_over_reference: Timing
    work: Work
    intensity: float
    floor: float
    over_floor: float
    bandwidth: float
    rate: float
    refresh: Refresh | None
    amortised: float
    amortised_over_reference: float
    peak_extra_bytes: int
    state_bytes: int
    shared_bytes: int


def measure_steps(
    load: Workload,
    floors: Floors,
    *,
    device: torch.device,
    methods: Sequence[Method] = METHODS,
    repeats: int = 30,
    seed: int = 0,
    progress: Callable[[str, int, int], Any] = lambda _what, _done, _total: None,
) -> tuple[list[StepRow], dict[str, str]]:
    """Time a step of every method; rounds are interleaved, with all optimizers alive.

    Gradients are random bf16 numbers: two sets of them, which every method is given by turns, so
    that its moments are those of no single gradient. A method that cannot run is left out, except
    the first.

    Returns:
        The rows, and by name why a method is not among them.
    """
    weights, gradients = _weights(load, device, seed)
    optimizers: dict[str, Optimizer] = {}
    peaks: dict[str, int] = {}
    refreshes: dict[str, Refresh] = {}
    left_out: dict[str, str] = {}
    for number, method in enumerate(methods):
        progress(f"{method.name}: memory and refresh", number, len(methods))
        try:
            with released(device):
                optimizer = method.optimizer(weights)
                for _ in range(_WARMUP):
                    gradients.turn(method.name)
                    optimizer.step()
                gradients.turn(method.name)
                peaks[method.name] = peak_scratch(optimizer.step, device)
                if method.refreshes:
                    refreshes[method.name] = _refresh(method, weights, gradients, device)
        except _EXPECTED as error:
            if number == 0:
                raise
            left_out[method.name] = f"{type(error).__name__}: {error}"
        else:
            optimizers[method.name] = optimizer

    total, done = len(optimizers) * (_WARMUP + 2 * repeats), iter(range(1, 10**9))
    timings = interleaved_on_device(
        {name: optimizer.step for name, optimizer in optimizers.items()},
        device=device,
        repeats=repeats,
        warmup=_WARMUP,
        before=gradients.turn,
        progress=lambda: progress("optimizer steps", next(done), total),
    )
    reference = timings[methods[0].name]
    rows = []
    for method in methods:
        if method.name not in timings:
            continue
        timing, refresh = timings[method.name], refreshes.get(method.name)
        work = method.work(load, method.options)
        seconds = timing.device.median
        amortised = seconds
        if refresh is not None:
            amortised = ((PERIOD - 1) * seconds + refresh.warm.median) / PERIOD
        floor, over = work.floor(floors), timing.device.over(reference.device)
        own, shared = _state_bytes(optimizers[method.name])
        rows.append(
            StepRow(
                name=method.name,
                compressor=method.compressor,
                options=method.options,
                timing=timing,
                over_reference=over,
                latency_over_reference=timing.latency.over(reference.latency),
                work=work,
                intensity=work.intensity,
                floor=floor,
                over_floor=seconds / floor,
                bandwidth=work.bytes / seconds,
                rate=work.flops / seconds,
                refresh=refresh,
                amortised=amortised,
                amortised_over_reference=over.median * amortised / seconds,
                peak_extra_bytes=max(
                    peaks[method.name], 0 if refresh is None else refresh.peak_extra_bytes
                ),
                state_bytes=own,
                shared_bytes=shared,
            )
        )
    return rows, left_out


class _Gradients:
    """Sets of gradients that are given to the weights by turns, by each method's own count."""

    def __init__(self, weights: Sequence[Tensor], sets: Sequence[Sequence[Tensor]]) -> None:
        self._weights = weights
        self._sets = sets
        self._turns: collections.Counter[str] = collections.Counter()

    def turn(self, name: str) -> None:
        """Give the weights the next set of this method: no numbers are copied."""
        chosen = self._sets[self._turns[name] % len(self._sets)]
        self._turns[name] += 1
        for weight, gradient in zip(self._weights, chosen, strict=True):
            weight.grad = gradient


def _weights(
    load: Workload, device: torch.device, seed: int
) -> tuple[list[torch.nn.Parameter], _Gradients]:
    random = generator(device, seed, "steps", load.matrices, load.side)
    shape = (load.side, load.side)

    def draw() -> list[Tensor]:
        return [
            (0.02 * torch.randn(shape, generator=random, device=device)).bfloat16()
            for _ in range(load.matrices)
        ]

    weights = [torch.nn.Parameter(value) for value in draw()]
    return weights, _Gradients(weights, [draw() for _ in range(_GRADIENTS)])


def _refresh(
    method: Method, weights: Sequence[Tensor], gradients: _Gradients, device: torch.device
) -> Refresh:
    """Time refreshes on an optimizer that does one at every step."""
    optimizer = method.optimizer(weights, refresh_every=1)
    seconds = []
    for _ in range(1 + _REFRESHES):
        gradients.turn(method.name)
        seconds.append(once(optimizer.step, device)[1])
    gradients.turn(method.name)
    peak = peak_scratch(optimizer.step, device)
    return Refresh(cold=seconds[0], warm=Timing(tuple(seconds[1:])), peak_extra_bytes=peak)


def _state_bytes(optimizer: Optimizer) -> tuple[int, int]:
    if isinstance(optimizer, CompressedAdamW):
        report = state_report(optimizer)
        return report.state_bytes, report.shared_bytes
    tensors = (t for state in optimizer.state.values() for t in state.values())
    return sum(t.nbytes for t in tensors if isinstance(t, Tensor)), 0
