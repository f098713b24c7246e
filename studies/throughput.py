"""Throughput: what does one training iteration cost with each method of Table 4?

Seconds of an iteration of LLaMA2-7B, query and value matrices trained (64 of 4096×4096), batch 16,
and how they compare with full fine-tuning. The paper: full 1.69, LoRA 1.51, GaLore 1.88, MESGC
7.52, CESGC 2.82 s.

Expected: forward and backward are alike for all methods but LoRA; a step that reads the gradient
once and recovers in batches adds a few per cent to the iteration, not 345 % as the paper's MESGC.

Found (``python -m studies throughput``, one H200, revision 3b014b7): MESGC 0.987 and CESGC 0.997 of
full fine-tuning's iteration, a share of a subspace refresh included, GaLore 0.991, LoRA 0.970.

A trial is the whole comparison: every method in one process on one model, there and back, so that
what drifts divides out of the ratios. Seconds of different trials are not compared.

Weights and tokens are random: time depends on shapes. The preset ``paper`` has contiguous chunks,
the literal decode and α = 2, as printed, and twice the samples.

Run time: about one minute on one H200; 7 billion weights take a GPU with 40 GB. ``--preset smoke``:
a tiny model, seconds on a CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sgc.finetune.config import ConfigError
from sgc.specs import Spec
from studies.figures.throughput import FULL, figure, table
from studies.measures import llama
from studies.measures.checks import check_at_least
from studies.measures.iterations import pooled, timed_iterations
from studies.measures.methods import training
from studies.measures.passes import PASSES, there_and_back
from studies.study import Preset

__all__ = ["ALONE", "PRESETS", "Config", "figure", "table", "trial"]

#: Other work on the machine would be measured, too.
ALONE = True
LR = 1e-5


@dataclass(frozen=True, kw_only=True)
class Config:
    """One comparison on a model and batch.

    Args:
        methods: pairs of a name and a spec, see :func:`studies.measures.methods.training`. A
            ``refresh_every`` in it says how many iterations share the cost of a refresh; a pass
            itself is shorter.
        model: sizes of the model.
        dtype: of weights, adapters and activations.
        batch: sequences an iteration.
        length: tokens of a sequence.
        gradient_checkpointing: recompute activations in the backward pass.
        warmup: iterations of each pass that do not count.
        repeats: iterations of each method that count, shared out evenly over two passes.
        device: ``cuda`` or ``cpu``.

    Raises:
        ConfigError: nothing to compare with, too few iterations, or a number of repeats that cannot
            be shared out.
    """

    methods: tuple[tuple[str, str], ...]
    model: llama.Llama = llama.LLAMA2_7B
    dtype: llama.DType = "bfloat16"
    batch: int = 16
    length: int = 256
    gradient_checkpointing: bool = False
    warmup: int = 3
    repeats: int = 20
    device: str = "cuda"

    def __post_init__(self) -> None:
        names = [name for name, _ in self.methods]
        if FULL not in names or len(names) > len(set(names)):
            raise ConfigError(
                f"methods are {', '.join(names) or 'none'}: each once, and {FULL}, which all are "
                "compared with"
            )
        check_at_least(self, warmup=1, repeats=PASSES, batch=1, length=2)
        if self.repeats % PASSES:
            raise ConfigError(
                f"repeats={self.repeats} cannot be shared out evenly over {PASSES} passes: "
                f"give {self.repeats - 1} or {self.repeats + 1}"
            )


def _config(mesgc: str, cesgc: str, *, residual: bool, **common: Any) -> Config:
    specs = {FULL: "adamw", "lora": "lora:rank=4", "galore": "galore:rank=4,refresh_every=200"}
    specs["mesgc"] = f"mesgc:{mesgc}"
    if residual:
        specs["mesgc-residual"] = f"mesgc:{mesgc},residual=0.1"
    specs["cesgc"] = f"cesgc:refresh_every=200,{cesgc}"
    return Config(methods=tuple(specs.items()), **common)


_MESGC = "chunks=256,sparsity=256,kappa=8"  # Table 9
_CESGC = "rank=32,chunks=64,sparsity=1984,kappa=7"  # Table 6
_PRINTED = "chunker=contiguous,decode=literal,alpha=2"
_TINY_SKETCHES = ("chunks=8,sparsity=8,kappa=8", "rank=4,chunks=4,sparsity=16,kappa=4")
_TINY: dict[str, Any] = {
    **{"model": llama.TINY, "batch": 2, "length": 8, "warmup": 1, "repeats": 4},
    **{"device": "cpu"},
}
PRESETS = {
    "smoke": Preset(configs=lambda: [_config(*_TINY_SKETCHES, residual=True, **_TINY)]),
    "default": Preset(configs=lambda: [_config(_MESGC, _CESGC, residual=True)]),
    "paper": Preset(
        configs=lambda: [
            _config(f"{_MESGC},{_PRINTED}", f"{_CESGC},{_PRINTED}", residual=False, repeats=40)
        ]
    ),
}


def trial(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Time every method on one model.

    Returns:
        ``methods``: in their order, each with ``method``, its times (:func:`pooled`), its sizes
        (:meth:`studies.measures.methods.Training.sizes`) and ``peak_bytes`` of all that was
        allocated (None on the CPU). ``left_out``: those whose package is missing → what to install.

    Raises:
        MissingDependencyError: transformers is not installed.
        FloatingPointError: a loss is no longer finite.
    """
    seed = generator.initial_seed() % 2**31
    model = llama.build(
        config.model,
        dtype=config.dtype,
        device=torch.device(config.device),
        seed=seed,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    specs = {name: Spec.parse(spec) for name, spec in config.methods}
    passes, left_out = there_and_back(
        specs, lambda spec: one_pass(spec, model, config=config, seed=seed)
    )
    measured = [
        {"method": name, **_of_passes(specs[name], samples)} for name, samples in passes.items()
    ]
    return {"methods": measured, "left_out": left_out}


def one_pass(spec: Spec, model: Any, *, config: Config, seed: int) -> dict[str, Any]:
    """One pass of one method; the weights that it trains move a little.

    Subspaces are found at the first step and again at the last, which is none of those that count.

    Returns:
        What :func:`studies.measures.iterations.timed_iterations` does, ``sizes`` of the optimizer,
        and ``peak_bytes``.

    Raises:
        MissingDependencyError: a package of the method is not installed.
        FloatingPointError: the loss is no longer finite.
    """
    device = torch.device(config.device)
    cuda = device.type == "cuda"
    ids = llama.tokens(
        config.model, batch=config.batch, length=config.length, device=device, seed=seed
    )
    count = {"warmup": config.warmup, "repeats": config.repeats // PASSES}
    if "refresh_every" in spec.options:
        spec = spec.updated(refresh_every=sum(count.values()))
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with training(spec, model, lr=LR, device=device, seed=seed) as trained:
        samples = timed_iterations(
            lambda: model(input_ids=ids, labels=ids).loss, trained.optimizer, device=device, **count
        )
        sizes = trained.sizes()
    peak = torch.cuda.max_memory_allocated(device) if cuda else None
    return {**samples, "sizes": sizes, "peak_bytes": peak}


def _of_passes(spec: Spec, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    every = spec.options.get("refresh_every")
    times = pooled(samples, refresh_every=every if isinstance(every, int) else None)
    peak = max((one["peak_bytes"] or 0) for one in samples) or None
    return {**times, **samples[-1]["sizes"], "peak_bytes": peak}
