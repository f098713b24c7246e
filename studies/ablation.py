"""Ablation: what do data, states, chunks, κ, the residual and the batch do to accuracy?

Question: the paper's Figures 2(a), 2(b), 3(a), 3(b), 3(c) and Table 5, on models that run here:
query and value matrices of MiniLM on the Rotten Tomatoes snippets (the preset ``boolq``: of
SmolLM2-135M on BoolQ). And two questions that the paper leaves open: what becomes of the rest of
the gradient (ρ), and at which batch size moments pay against rules that keep none.

Axes, each at otherwise equal settings (c 16, s 48, κ 8: 768 numbers a matrix, GaLore's of rank 1):

- ``examples``: training examples (Figure 2(a): compressed sketches are said to learn from fewer);
- ``states``: numbers of optimizer state a matrix (Figure 2(b), Table 5: below the least that LoRA
  and GaLore can take);
- ``chunks``: c at equal s (Figure 3(a): falls with c); ``sparsity``: s at equal c (Figure 3(b):
  rises); ``kappa``: κ at equal s (Figure 3(c): 7 is enough, 6 is not);
- ``residual``: ρ;
- ``batch``: the batch size at equal numbers of examples seen.

A trial chooses the learning rate among ``rates`` on a validation part of the training data, with a
seed of its own, and is then trained once more and tested: all methods get the same care.

Run time: the default preset is for GPUs (about 1,500 short trainings). ``--preset smoke``: a few
seconds on a CPU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sgc.finetune.config import ConfigError, FinetuneConfig
from sgc.finetune.defaults import resolve_method
from sgc.finetune.job import run
from studies.ablation_figure import figure, table_of
from studies.study import Preset

__all__ = ["AXES", "PAIRED", "PRESETS", "Config", "figure", "table", "trial"]

AXES = ("examples", "states", "chunks", "sparsity", "kappa", "residual", "batch")
#: The order of the data, the head's start and dropout are the same for all of a seed.
PAIRED = ("axis", "x", "label", "spec", "rates", "steps", "batch_size", "examples", "micro_batch")
_TUNING = 1  # added to a trial's seed for the runs that choose the rate


@dataclass(frozen=True, kw_only=True)
class Config:
    """One point of one line.

    Args:
        axis: which of :data:`AXES`.
        x: where on it.
        label: the line.
        spec: the method, without its learning rate.
        rates: learning rates to choose from; one is taken as it is.
        steps, batch_size, micro_batch, examples, test_examples, model, data, max_length, precision,
            compile, device: see :class:`sgc.finetune.FinetuneConfig`.

    Raises:
        ConfigError: an axis that does not exist, or no rate.
    """

    axis: str
    x: float
    label: str
    spec: str
    rates: tuple[float, ...]
    steps: int = 560
    batch_size: int = 16
    micro_batch: int | None = None
    examples: int = 0
    test_examples: int = 0
    model: str = "minilm"
    data: str = "rotten-tomatoes"
    max_length: int = 48
    precision: str = "full"
    compile: bool = False
    device: str = "cuda"

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise ConfigError(f"unknown axis {self.axis!r}; there are: {', '.join(AXES)}")
        if not self.rates:
            raise ConfigError("rates is empty: give at least one learning rate to choose from")


def trial(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Choose a rate, train, test.

    Returns:
        ``accuracy`` on the test part (None if the run diverged), ``majority``, ``test_examples``,
        ``train_examples``, ``loss`` of the last steps, ``lr``, ``tried`` (rate → validation
        accuracy, None where it diverged), ``states`` and ``bytes`` held for all targets, ``inputs``
        (digest of model and data).
    """
    seed = generator.initial_seed() % 2**31
    method = resolve_method(config.spec)
    own = FinetuneConfig(
        method=method.spec,
        lr=config.rates[0],
        model=config.model,
        data=config.data,
        steps=config.steps,
        batch_size=config.batch_size,
        micro_batch=config.micro_batch,
        examples=config.examples,
        test_examples=config.test_examples,
        max_length=config.max_length,
        precision=config.precision,  # type: ignore[arg-type] # checked there
        compile=config.compile,
        seed=seed,
        device=config.device,
    )
    tried: dict[str, float | None] = {}
    if len(config.rates) > 1:
        for rate in config.rates:
            held = own.replace(lr=rate, seed=seed + _TUNING, evaluate="validation")
            tried[f"{rate:g}"] = _run(held).get("validation_accuracy")
    best = max(config.rates, key=lambda rate: (tried.get(f"{rate:g}") or 0.0, -rate))
    metrics = _run(own.replace(lr=best))
    return {
        "accuracy": metrics["test_accuracy"],
        "majority": metrics["test_majority"],
        "test_examples": metrics["test_examples"],
        "train_examples": metrics["train_examples"],
        "loss": metrics.get("train_loss"),
        "lr": best,
        "tried": tried,
        "states": metrics["states"],
        "bytes": sum(metrics[f"{part}_bytes"] for part in ("state", "shared", "extra_weight")),
        "inputs": metrics["inputs"],
    }


def table(rows: Sequence[Any]) -> list[Table]:
    """A table an axis."""
    return [table_of(axis, rows) for axis in AXES if any(r.config["axis"] == axis for r in rows)]


def _run(config: FinetuneConfig) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        result = run(config, folder=Path(folder), console=Console(quiet=True))
    return {**result.metrics, "inputs": result.config["inputs"]}


_SKETCH = "projection=srht,recovery=omp"


def _around(rate: float) -> tuple[float, ...]:
    return (rate / 10**0.5, rate, rate * 10**0.5)


#: Line → spec and a rate to search around; 768 numbers a matrix of MiniLM where they have a size.
_LINES = {
    "adamw": ("adamw", 3e-4),
    "sign-sgd": ("sign-sgd", 3e-4),
    "galore": ("galore:rank=1", 1e-2),
    "lora": ("lora:rank=1", 3e-3),
    "mesgc": (f"mesgc:chunks=16,sparsity=48,kappa=8,{_SKETCH}", 1e-2),
    "mesgc + ρ": (f"mesgc:chunks=16,sparsity=48,kappa=8,residual=0.1,{_SKETCH}", 3e-3),
    "cesgc": (f"cesgc:rank=4,chunks=16,sparsity=48,kappa=8,{_SKETCH}", 1e-2),
    "adjoint": ("adjoint:chunks=16,measurements=384", 1e-2),
    "explicit sparse": ("explicit-sparse:entries=256", 3e-3),
}


def _point(axis: str, x: float, label: str, spec: str, rate: float, **more: Any) -> Config:
    return Config(axis=axis, x=x, label=label, spec=spec, rates=_around(rate), **more)


def _examples() -> Iterator[Config]:
    for count in (250, 500, 1000, 2000, 4000):
        for label, (spec, rate) in _LINES.items():
            yield _point("examples", count, label, spec, rate, examples=count)


def _states() -> Iterator[Config]:
    for s_c in (1, 3, 12, 48):  # 2·κ·s numbers
        for name, spec, rate in (
            ("mesgc", "mesgc:chunks=16", 1e-2),
            ("cesgc", "cesgc:rank=4,chunks=16", 1e-2),
        ):
            yield _point(
                "states", 256 * s_c, name, f"{spec},sparsity={16 * s_c},kappa=8,{_SKETCH}", rate
            )
        k = 128 * s_c
        yield _point("states", 2 * k, "adjoint", f"adjoint:chunks=16,measurements={k}", 1e-2)
        n = 256 * s_c // 3
        yield _point("states", 3 * n, "explicit sparse", f"explicit-sparse:entries={n}", 3e-3)
    for rank in (1, 4, 16):
        yield _point("states", 768 * rank, "galore", f"galore:rank={rank}", 1e-2)
        yield _point("states", 1536 * rank, "lora", f"lora:rank={rank}", 3e-3)
    yield _point("states", 1, "sign-sgd", "sign-sgd", 3e-4)
    yield _point("states", 294_912, "adamw", "adamw", 3e-4)


def _sketches() -> Iterator[Config]:
    for chunker in ("contiguous", "permuted"):
        for c in (1, 4, 16, 48):
            yield _point("chunks", c, chunker, f"{_mesgc(c, 48, 8)},chunker={chunker}", 1e-2)
    for s in (16, 48, 192, 768):
        yield _point("sparsity", s, "mesgc", _mesgc(16, s, 8), 1e-2)
    for kappa in (3, 4, 5, 6, 7, 8, 12, 16):
        yield _point("kappa", kappa, "mesgc", _mesgc(16, 48, kappa), 1e-2)
    for rho in (0, 0.01, 0.03, 0.1, 0.3, 1):
        rate = 1e-2 if rho < 0.03 else 3e-3 if rho < 0.3 else 1e-3
        yield _point("residual", rho, "mesgc", f"{_mesgc(16, 48, 8)},residual={rho}", rate)


def _mesgc(c: int, s: int, kappa: float) -> str:
    return f"mesgc:chunks={c},sparsity={s},kappa={kappa},{_SKETCH}"


def _batches() -> Iterator[Config]:
    for size in (16, 32, 64, 128, 256, 512):
        for label, (spec, rate) in _LINES.items():
            scale = (
                size / 16
            ) ** 0.25  # rates rise slower than the batch; the search does the rest
            yield _point(
                "batch", size, label, spec, rate * scale, batch_size=size, steps=35_840 // size
            )


def _smoke() -> list[Config]:
    tiny: dict[str, Any] = {
        **{"steps": 2, "batch_size": 4, "examples": 40, "test_examples": 20},
        **{"device": "cpu", "max_length": 16},
    }
    points = (
        ("states", 768, "mesgc", _LINES["mesgc"][0]),
        ("residual", 0.1, "mesgc", _LINES["mesgc + ρ"][0]),
    )
    two, one = (1e-3, 3e-3), (1e-3,)
    return [
        Config(axis=a, x=x, label=label, spec=spec, rates=rates, **tiny)
        for (a, x, label, spec), rates in zip(points, (two, one), strict=True)
    ]


def _default() -> list[Config]:
    return [*chain(_examples(), _states(), _sketches(), _batches())]


def _boolq() -> list[Config]:
    """The lines of Figure 2(a), and of the batch size, on the paper's own kind of task."""
    task: dict[str, Any] = {
        **{"model": "smollm2", "data": "boolq", "max_length": 192, "precision": "autocast"},
        **{"compile": True},
    }
    found = []
    for count in (1000, 4000, 8000):
        for label, (spec, rate) in _LINES.items():
            found.append(_point("examples", count, label, spec, rate, examples=count, **task))
    return found


PRESETS = {
    "smoke": Preset(configs=_smoke),
    "default": Preset(configs=_default, seeds=3),
    "paper": Preset(configs=_default, seeds=5),
    "boolq": Preset(configs=_boolq, seeds=3),
}
