"""Optimizer steps and solvers on one GPU, against rivals and the floors of the same run."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sgc.bench.contestants import CONTESTANTS, Contestant
from sgc.bench.device_timing import free_bytes, released
from sgc.bench.files import as_json
from sgc.bench.gpu_solvers import SIZES, SolverRow, measure_solvers
from sgc.bench.gpu_steps import METHODS, PERIOD, Method, StepRow, measure_steps
from sgc.bench.gpu_targets import SOLVER_TARGETS, STEP_TARGETS, Verdict, judge
from sgc.bench.solver_problem import SolverSize
from sgc.bench.step_work import Workload
from sgc.bench.work import Floors, measure_floors
from sgc.results import environment

__all__ = ["PARTS", "DeviceError", "GpuReport", "find_device", "run"]

STEPS, SOLVERS = PARTS = ("steps", "solvers")
_GIB = 2**30
#: W, two G and AdamW's two moments in bf16, and room for what a step takes for a while.
_BYTES_A_PARAMETER = 18
_BUFFER_BYTES = 3 * _GIB
_PRODUCT_SIDE = 8192


class DeviceError(RuntimeError):
    """There is no GPU, or too small a one."""


@dataclasses.dataclass(frozen=True)
class GpuReport:
    """All of one run: every time in seconds, with its samples.

    Attributes:
        device: name of the GPU.
        floors: what it reached on plain work.
        workload: what a step updates; None where steps were not asked for.
        steps, solvers: the rows.
        left_out: methods without a row, and why.
        targets: with their verdicts.
        refresh_every: T, the steps over which a refresh is spread.
    """

    device: str
    floors: Floors
    workload: Workload | None
    steps: tuple[StepRow, ...]
    left_out: dict[str, str]
    solvers: tuple[SolverRow, ...]
    targets: tuple[Verdict, ...]
    repeats: int
    seed: int
    refresh_every: int
    environment: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        values: dict[str, Any] = as_json(self)
        values["floors"]["bandwidth"] = self.floors.bandwidth
        return values

    def file_name(self) -> str:
        """``bench-gpu-<device>.json``, such as ``bench-gpu-nvidia-h200.json``."""
        return f"bench-gpu-{re.sub('[^a-z0-9]+', '-', self.device.lower()).strip('-')}.json"


def find_device(load: Workload | None) -> torch.device:
    """The GPU, if there is one that holds the work.

    Raises:
        DeviceError: there is none, or too little of its memory is free; says what is needed.
    """
    if not torch.cuda.is_available():
        raise DeviceError(
            "no CUDA device was found: this benchmark needs an NVIDIA GPU, its driver and a torch "
            f"built for CUDA (this one is {torch.__version__}); 'sgc bench cpu' runs anywhere"
        )
    device = torch.device("cuda", torch.cuda.current_device())
    needed = 3 * _BUFFER_BYTES
    if load is not None:
        needed = max(needed, _BYTES_A_PARAMETER * load.params)
    free = free_bytes(device)
    if free is not None and free < needed:
        raise DeviceError(
            f"{free / _GIB:.0f} GiB of the memory of {torch.cuda.get_device_name(device)} are "
            f"free, and about {needed / _GIB:.0f} are needed: end other programs on it, or lower "
            "--matrices or --side"
        )
    return device


def run(
    device: torch.device,
    *,
    parts: Sequence[str] = PARTS,
    load: Workload = Workload(),  # noqa: B008 - frozen
    methods: Sequence[Method] = METHODS,
    sizes: Sequence[SolverSize] = SIZES,
    contestants: Sequence[Contestant] = CONTESTANTS,
    repeats: int = 30,
    seed: int = 0,
    buffer_bytes: int = _BUFFER_BYTES,
    product_side: int = _PRODUCT_SIDE,
    progress: Callable[[str, int, int], Any] = lambda _what, _done, _total: None,
) -> GpuReport:
    """Measure the floors, then optimizer steps, then solvers.

    Args:
        device: from :func:`find_device`; a CPU serves tests, its times mean nothing.
        parts: of :data:`PARTS`.
        load: what a step updates.
        methods: optimizers; the first is the reference.
        sizes: what the solvers solve.
        contestants: the solvers.
        repeats: interleaved rounds that count.
        seed: of weights, gradients, A and signals.
        buffer_bytes, product_side: of the floors' operands.
        progress: called with what is being done and how much of it is.

    Raises:
        ValueError: repeats below 1.
    """
    progress("floors", 0, 1)
    floors = measure_floors(device, seed=seed, buffer_bytes=buffer_bytes, side=product_side)
    steps: list[StepRow] = []
    solvers: list[SolverRow] = []
    left_out: dict[str, str] = {}
    verdicts: list[Verdict] = []
    shared: dict[str, Any] = {"device": device, "repeats": repeats, "seed": seed}
    if STEPS in parts:
        with released(device):
            steps, left_out = measure_steps(
                load, floors, methods=methods, progress=progress, **shared
            )
        verdicts += judge(STEP_TARGETS, steps)
    if SOLVERS in parts:
        solvers = measure_solvers(
            floors, sizes=sizes, contestants=contestants, progress=progress, **shared
        )
        verdicts += judge(SOLVER_TARGETS, solvers)
    on_gpu = device.type == "cuda"
    return GpuReport(
        device=torch.cuda.get_device_name(device) if on_gpu else device.type,
        floors=floors,
        workload=load if STEPS in parts else None,
        steps=tuple(steps),
        left_out=left_out,
        solvers=tuple(solvers),
        targets=tuple(verdicts),
        repeats=repeats,
        seed=seed,
        refresh_every=PERIOD,
        environment={**environment(), "cuda": torch.version.cuda},
    )
