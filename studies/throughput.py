"""Throughput: what does one training iteration cost with each method? (Table 4 of the paper)

Question: seconds of an iteration of LLaMA2-7B, query and value matrices trained (64 of 4096×4096),
batch 16, and how they compare with full fine-tuning. The paper: full 1.69, LoRA 1.51, GaLore 1.88,
MESGC 7.52, CESGC 2.82 s.

Expected: forward and backward are alike for all methods but LoRA; a step that reads the gradient
once and recovers in batches adds a few per cent to the iteration, not 345 % as the paper's MESGC.

Run time: about one minute on one H200 (10 repeats 50 s); ``--preset smoke``: 12 s on one CPU core.

Weights and tokens are random: time depends on shapes. The preset ``paper`` has contiguous chunks,
the literal decode and α = 2, as printed, and twice the samples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

from sgc.finetune.config import ConfigError
from sgc.registry import MissingDependencyError
from sgc.results import Result
from sgc.specs import Spec
from studies import llama
from studies.bars import stacked_bars
from studies.iterations import pooled, timed_iterations
from studies.methods import training
from studies.passes import PASSES, there_and_back

__all__ = [
    "KIND",
    "PAPER",
    "PRESETS",
    "TARGET",
    "TARGETED",
    "Config",
    "figure",
    "ratios",
    "run",
    "trial",
    "verdicts",
]

KIND = "throughput"
PAPER = {"full": 1.69, "lora": 1.51, "galore": 1.88, "mesgc": 7.52, "cesgc": 2.82}  # seconds
TARGET = 1.03  # × full: the most that an iteration with its share of a refresh should take
TARGETED = ("mesgc", "cesgc")
LR = 1e-5


@dataclass(frozen=True, kw_only=True)
class Config:
    """One row: a method on a model and batch.

    Args:
        method: its name in tables.
        spec: what it is, see :func:`studies.methods.training`. A ``refresh_every`` in it says how
            many iterations share the cost of a refresh; a trial itself is shorter.
        model: sizes of the model.
        dtype: of weights, adapters and activations.
        batch: sequences an iteration.
        length: tokens of a sequence.
        gradient_checkpointing: recompute activations in the backward pass.
        warmup: iterations of each pass that do not count.
        repeats: iterations that count, shared out evenly over two passes.
        seed: of weights, tokens and A.
        device: ``cuda`` or ``cpu``.

    Raises:
        ConfigError: too few iterations, or a number of repeats that cannot be shared out.
    """

    method: str
    spec: str
    model: llama.Llama = llama.LLAMA2_7B
    dtype: llama.DType = "bfloat16"
    batch: int = 16
    length: int = 256
    gradient_checkpointing: bool = False
    warmup: int = 3
    repeats: int = 20
    seed: int = 0
    device: str = "cuda"

    def __post_init__(self) -> None:
        for name, least in (("warmup", 1), ("repeats", PASSES), ("batch", 1), ("length", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.repeats % PASSES:
            raise ConfigError(
                f"repeats={self.repeats} cannot be shared out evenly over {PASSES} passes: "
                f"give {self.repeats - 1} or {self.repeats + 1}"
            )


def _configs(mesgc: str, cesgc: str, *, residual: bool, **common: Any) -> tuple[Config, ...]:
    specs = {"full": "adamw", "lora": "lora:rank=4", "galore": "galore:rank=4,refresh_every=200"}
    specs["mesgc"] = f"mesgc:{mesgc}"
    if residual:
        specs["mesgc-residual"] = f"mesgc:{mesgc},residual=0.1"
    specs["cesgc"] = f"cesgc:refresh_every=200,{cesgc}"
    return tuple(Config(method=name, spec=spec, **common) for name, spec in specs.items())


_MESGC = "chunks=256,sparsity=256,kappa=8"  # Table 9
_CESGC = "rank=32,chunks=64,sparsity=1984,kappa=7"  # Table 6
_PRINTED = "chunker=contiguous,decode=literal,alpha=2"
_TINY_SKETCHES = ("chunks=8,sparsity=8,kappa=8", "rank=4,chunks=4,sparsity=16,kappa=4")
_TINY: dict[str, Any] = {"model": llama.TINY, "batch": 2, "length": 8, "warmup": 1, "repeats": 4}
PRESETS = {
    "smoke": _configs(*_TINY_SKETCHES, residual=True, **_TINY),
    "default": _configs(_MESGC, _CESGC, residual=True),
    "paper": _configs(f"{_MESGC},{_PRINTED}", f"{_CESGC},{_PRINTED}", residual=False, repeats=40),
}


def run(
    configs: Sequence[Config],
    *,
    progress: Callable[[Config], Any] = lambda config: None,
    left_out: Callable[[Config, MissingDependencyError], Any] = lambda config, why: None,
) -> Iterator[tuple[Config, dict[str, Any]]]:
    """The metrics of configs of one preset, each as soon as its last pass is over.

    The model is made once. For the callbacks see :func:`studies.passes.there_and_back`.

    Raises:
        MissingDependencyError: transformers is not installed.
    """
    first = configs[0]
    model = llama.build(
        first.model,
        dtype=first.dtype,
        device=torch.device(first.device),
        seed=first.seed,
        gradient_checkpointing=first.gradient_checkpointing,
    )
    passes = there_and_back(
        configs, lambda config: trial(config, model), progress=progress, left_out=left_out
    )
    for config, samples in passes:
        every = Spec.parse(config.spec).options.get("refresh_every")
        times = pooled(samples, refresh_every=every if isinstance(every, int) else None)
        peak = max((one["peak_bytes"] or 0) for one in samples) or None
        yield config, {**times, **samples[-1]["sizes"], "peak_bytes": peak}


def trial(config: Config, model: Any) -> dict[str, Any]:
    """One pass of one method; the weights that it trains move a little.

    Subspaces are found at the first step and again at the last, which is none of those that count.

    Returns:
        What :func:`studies.iterations.timed_iterations` does, ``sizes`` of the optimizer, and
        ``peak_bytes`` of all that was allocated (None on the CPU).

    Raises:
        MissingDependencyError: a package of the method is not installed.
        FloatingPointError: the loss is no longer finite.
    """
    device = torch.device(config.device)
    cuda = device.type == "cuda"
    ids = llama.tokens(
        config.model, batch=config.batch, length=config.length, device=device, seed=config.seed
    )
    count = {"warmup": config.warmup, "repeats": config.repeats // PASSES}
    spec = Spec.parse(config.spec)
    if "refresh_every" in spec.options:
        spec = spec.updated(refresh_every=sum(count.values()))
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with training(spec, model, lr=LR, device=device, seed=config.seed) as trained:
        samples = timed_iterations(
            lambda: model(input_ids=ids, labels=ids).loss, trained.optimizer, device=device, **count
        )
        sizes = trained.sizes()
    peak = torch.cuda.max_memory_allocated(device) if cuda else None
    return {**samples, "sizes": sizes, "peak_bytes": peak}


def ratios(rows: Sequence[Result]) -> dict[str, float]:
    """Method → its iteration, with its share of a subspace refresh, in those of ``full``.

    Empty where no row is of ``full``.
    """
    seconds = {row.config["method"]: row.metrics["amortised_s"] for row in rows}
    if "full" not in seconds:
        return {}
    return {name: t / seconds["full"] for name, t in seconds.items()}


def verdicts(rows: Sequence[Result]) -> list[str]:
    """A line for each of :data:`TARGETED` that can be compared with ``full``: is it fast enough?"""
    found = ratios(rows)
    return [
        f"{name}: at most {TARGET} × full: {found[name]:.3f}, "
        + ("met" if found[name] <= TARGET else "not met")
        for name in TARGETED
        if name in found
    ]


def figure(rows: Sequence[Result]) -> Figure:
    """Seconds of an iteration by method, split up; the paper's ratios to full as markers."""
    names = [row.config["method"] for row in rows]
    whole = [row.metrics["iteration_s"] for row in rows]
    middle = [total["median"] for total in whole]
    step = [row.metrics["optimizer_s"]["median"] for row in rows]
    shares = [row.metrics["amortised_s"] - t for row, t in zip(rows, middle, strict=True)]
    parts = {
        "forward and backward": [t - part for t, part in zip(middle, step, strict=True)],
        "optimizer step": step,
        "subspace refresh, spread over its period": shares,
    }
    picture = Figure(figsize=(8.5, 1.5 + 0.5 * len(rows)), dpi=150, layout="constrained")
    axes = picture.subplots()
    stacked_bars(axes, names, parts, whole)
    if "full" in names:
        full = rows[names.index("full")].metrics["amortised_s"]  # where its bar ends
        places = [i for i, name in enumerate(names) if name in PAPER]
        theirs = [full * PAPER[names[i]] / PAPER["full"] for i in places]
        axes.plot(theirs, places, "kD", mec="white", label="the paper's ratio to full")
        top = axes.secondary_xaxis("top", functions=(lambda x: x / full, lambda x: x * full))
        top.set_xlabel("ratio to full")
    config = rows[0].config
    where = rows[0].environment["cpu" if config["device"] == "cpu" else "gpu"]
    axes.set_xlabel(
        f"seconds an iteration (median, low to high of {config['repeats']}): {where}, "
        f"{config['dtype']}, {config['batch']}×{config['length']} tokens"
    )
    picture.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return picture
