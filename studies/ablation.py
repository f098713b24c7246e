"""Ablation: what do data, states, chunks, κ, the residual and the batch do to accuracy?

Question: the paper's Figures 2(a), 2(b), 3(a), 3(b), 3(c) and Table 5, on models that run here:
query and value matrices of MiniLM on the Rotten Tomatoes snippets (presets ``boolq``, ``piqa`` and
``siqa``: of SmolLM2-135M on three of the paper's own tasks). And two questions that the paper
leaves open: what becomes of the rest of the gradient (ρ), and at which batch size moments pay
against rules that keep none.

Axes, each at otherwise equal settings (c 16, s 48, κ 8: 768 numbers a matrix, GaLore's of rank 1):

- ``examples``: training examples (Figure 2(a): compressed sketches are said to learn from fewer);
- ``states``: numbers of optimizer state a matrix (Figure 2(b), Table 5: down to a sixteenth of
  the least that GaLore can take, which is half of LoRA's);
- ``chunks``: c at equal s (Figure 3(a): falls with c); ``sparsity``: s at equal c (Figure 3(b):
  rises); ``kappa``: κ at equal s (Figure 3(c): 7 is enough, 6 is not);
- ``residual``: ρ;
- ``batch``: the batch size at equal numbers of examples seen.

A trial chooses the learning rate on a part held out of all the training data, with a seed of its
own, by a walk along two rates a decade that ends once the best has a worse one on either side, and
is then trained with ``repeats`` other seeds and tested: all methods get the same care. Its spread
is that of seeds at the chosen rate, not of the choice.

PIQA and SIQA have 1,192 and 1,577 training rows here, and 308 and 377 to test on: differences
below 4 points (the standard error of one between independent runs) say nothing. Answers are
compared by the model's own likelihood, which before any training chooses .627 rightly on PIQA and
.350 on SIQA (always the same letter: .516 and .374). A linear head over letters stays at chance.

Run time: for GPUs, but for ``--preset smoke`` (seconds on a CPU). ``default``: at least 807
trainings that see 9 million examples of at most 48 tokens. SmolLM2: ``boolq`` 297 and 1.4 million
of at most 192, ``piqa`` 54 and 0.1 million, ``siqa`` 162 and 0.4 million of about 45.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from sgc.finetune.tuning import GRID, best_rate, next_rates
from studies.figures.ablation import figure, table_of
from studies.measures.ablation_lines import MINILM, SMOLLM2, cesgc_spec, lines, mesgc_spec
from studies.measures.checks import check_known
from studies.study import Preset

__all__ = ["AXES", "PAIRED", "PRESETS", "Config", "figure", "table", "trial"]

AXES = ("examples", "states", "chunks", "sparsity", "kappa", "residual", "batch")
Rates = Mapping[str, float]
#: Rate → ``accuracy`` and ``loss`` on the validation part.
Tried = dict[float, dict[str, float | None]]
#: The order of the data, the head's start and dropout are the same for all of a seed.
PAIRED = (
    *("axis", "x", "label", "spec", "lr", "patience", "choose_by", "repeats"),
    *("steps", "batch_size", "examples", "micro_batch"),
)
_TUNING = 1000  # added to a trial's seed for the runs that choose the rate


@dataclass(frozen=True, kw_only=True)
class Config:
    """One point of one line.

    Args:
        axis: which of :data:`AXES`.
        x: where on it.
        label: the line.
        spec: the method, without its learning rate.
        lr: where the walk to the best learning rate begins.
        patience: see :func:`sgc.finetune.tuning.next_rates`; 0 takes ``lr`` as it is.
        choose_by: ``accuracy`` or ``loss`` on the validation part; loss tells rates apart where
            accuracies do not, because all answer with the majority class.
        repeats: tested runs at the chosen rate, with seeds of their own.
        steps, batch_size, micro_batch, examples, test_examples, model, data, max_length, precision,
            compile, device: see :class:`sgc.finetune.FinetuneConfig`.

    Raises:
        ConfigError: an axis or choice that does not exist, a negative patience, or no repeat.
    """

    axis: str
    x: float
    label: str
    spec: str
    lr: float
    patience: int = 1
    choose_by: str = "accuracy"
    repeats: int = 3
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
        check_known("axis", self.axis, AXES)
        check_known("choice", self.choose_by, ("accuracy", "loss"))
        if self.patience < 0:
            raise ConfigError(f"patience must be at least 0, got {self.patience}")
        if not 1 <= self.repeats < _TUNING:
            raise ConfigError(f"repeats must be from 1 to {_TUNING - 1}, got {self.repeats}")

    @property
    def least_trainings(self) -> int:
        """Runs of a trial whose walk ends where it begins, and those that are tested."""
        return self.repeats + (3 if self.patience else 0)


def trial(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Choose a rate, then train and test with each of the seeds.

    Returns:
        Lists with an entry a seed, None where the run diverged: ``accuracy`` and ``test_loss``
        (nats) on the test part, ``train_loss`` of the last steps. And ``majority``,
        ``test_examples``, ``train_examples``, ``lr``, ``tried`` (rate → validation ``accuracy``
        and ``loss``), ``states`` and ``bytes`` held for all targets, ``inputs`` (digest of model
        and data).
    """
    seed = generator.initial_seed() % 2**30
    method = resolve_method(config.spec)
    own = FinetuneConfig(
        method=method.spec,
        lr=config.lr,
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
    tried: Tried = {}
    while rates := _next_rates(config, tried):
        for rate in rates:
            held = _run(own.replace(lr=rate, seed=seed + _TUNING, evaluate="validation"))
            tried[rate] = {what: held.get(f"validation_{what}") for what in ("accuracy", "loss")}
    best = best_rate(_scores(config, tried)) if tried else config.lr
    runs = [_run(own.replace(lr=best, seed=seed + i)) for i in range(config.repeats)]
    one = runs[0]
    return {
        "accuracy": [metrics["test_accuracy"] for metrics in runs],
        "test_loss": [metrics.get("test_loss") for metrics in runs],
        "train_loss": [metrics.get("train_loss") for metrics in runs],
        "majority": one["test_majority"],
        "test_examples": one["test_examples"],
        "train_examples": one["train_examples"],
        "lr": best,
        "tried": {f"{rate:g}": found for rate, found in tried.items()},
        "states": one["states"],
        "bytes": sum(one[f"{part}_bytes"] for part in ("state", "shared", "extra_weight")),
        "inputs": one["inputs"],
    }


def table(rows: Sequence[Any]) -> list[Table]:
    """Two tables an axis: accuracy, loss."""
    axes = [axis for axis in AXES if any(row.config["axis"] == axis for row in rows)]
    return [table_of(axis, rows, what) for axis in axes for what in ("accuracy", "test_loss")]


def _next_rates(config: Config, tried: Tried) -> list[float]:
    if not config.patience:
        return []
    scores = _scores(config, tried)
    return next_rates(scores, GRID, start=config.lr, patience=config.patience)


def _scores(config: Config, tried: Tried) -> dict[float, float | None]:
    """Higher is better; None where a run diverged."""
    sign = -1 if config.choose_by == "loss" else 1
    found = {rate: each[config.choose_by] for rate, each in tried.items()}
    return {rate: None if value is None else sign * value for rate, value in found.items()}


def _run(config: FinetuneConfig) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        result = run(config, folder=Path(folder), console=Console(quiet=True))
    return {**result.metrics, "inputs": result.config["inputs"]}


def _point(axis: str, x: float, label: str, spec: str, rate: float, **more: Any) -> Config:
    return Config(axis=axis, x=x, label=label, spec=spec, lr=rate, **more)


def _examples(counts: Sequence[int], rates: Rates, *, chunks: int, **task: Any) -> Iterator[Config]:
    for count in counts:
        for label, spec in lines(chunks).items():
            yield _point("examples", count, label, spec, rates[label], examples=count, **task)


def _states(
    sketches: Sequence[tuple[int, int]],
    rates: Rates,
    *,
    side: int,
    ranks: Sequence[int],
    **task: Any,
) -> Iterator[Config]:
    """Sketches of c chunks with s_c entries each; GaLore's and LoRA's ranks.

    ``side`` is the longest of a matrix. LoRA's place is that of a square one.
    """

    def point(numbers: int, label: str, spec: str) -> Config:
        return _point("states", numbers, label, spec, rates[label], **task)

    for c, s_c in sketches:
        numbers = 16 * c * s_c  # 2·κ·s
        yield point(numbers, "mesgc", mesgc_spec(c, c * s_c, 8))
        yield point(numbers, "cesgc", cesgc_spec(c, c * s_c))
        yield point(numbers, "adjoint", f"adjoint:chunks={c},measurements={numbers // 2}")
        entries = numbers // 3  # two moments and a place each
        yield point(numbers, "explicit sparse", f"explicit-sparse:entries={entries}")
    for rank in ranks:
        yield point(2 * side * rank, "galore", f"galore:rank={rank}")
        yield point(4 * side * rank, "lora", f"lora:rank={rank}")
    yield point(0, "sign-sgd", "sign-sgd")
    yield Config(axis="states", x=0, label="frozen", spec="frozen", lr=1e-3, patience=0, **task)
    yield point(2 * side**2, "adamw", "adamw")


def _sketches() -> Iterator[Config]:
    for label, chunker in (("mesgc", "permuted"), ("mesgc, contiguous", "contiguous")):
        for c in (1, 4, 16, 48):
            yield _point("chunks", c, label, f"{mesgc_spec(c, 48, 8)},chunker={chunker}", 1e-2)
    for s in (16, 48, 192, 768):
        yield _point("sparsity", s, "mesgc", mesgc_spec(16, s, 8), 1e-2)
    for kappa in (3, 4, 5, 6, 7, 8, 16):
        yield _point("kappa", kappa, "mesgc", mesgc_spec(16, 48, kappa), 1e-2)
    for rho in (0, 0.01, 0.03, 0.1, 0.3, 1):
        rate = 1e-2 if rho < 0.03 else 3e-3 if rho < 0.3 else 1e-3
        yield _point("residual", rho, "mesgc", f"{mesgc_spec(16, 48, 8)},residual={rho}", rate)


def _batches() -> Iterator[Config]:
    for size in (16, 64, 256, 512):
        for label, spec in lines(16).items():
            # Rates rise slower than the batch; the search does the rest.
            scaled = MINILM[label] * (size / 16) ** 0.25
            yield _point("batch", size, label, spec, scaled, batch_size=size, steps=17_920 // size)


def _smoke() -> list[Config]:
    tiny: dict[str, Any] = {
        **{"steps": 2, "batch_size": 4, "examples": 40, "test_examples": 20, "repeats": 2},
        **{"device": "cpu", "max_length": 16, "choose_by": "loss"},
    }
    points = (("states", 768, "mesgc", 1), ("residual", 0.1, "mesgc + ρ", 0))
    return [
        Config(axis=axis, x=x, label=line, spec=lines(16)[line], lr=1e-3, patience=patience, **tiny)
        for axis, x, line, patience in points
    ]


def _default() -> list[Config]:
    """MiniLM on the snippets, every axis; the longest trainings first."""
    counts = (250, 500, 1000, 2000, 4000)
    sizes = ((3, 1), (12, 1), (16, 3), (16, 12), (16, 48))
    examples = _examples(counts, MINILM, chunks=16)
    states = _states(sizes, MINILM, side=384, ranks=(1, 4, 16))
    return [*chain(_batches(), examples, states, _sketches())]


def _smollm2(
    data: str, counts: Sequence[int], *, steps: int, max_length: int, states: bool = False
) -> list[Config]:
    """SmolLM2 on a task of the paper: Figure 2(a), and with ``states`` Figure 2(b) on all rows."""
    task: dict[str, Any] = {
        **{"model": "smollm2", "data": data, "max_length": max_length, "steps": steps},
        **{"precision": "autocast", "compile": True, "choose_by": "loss"},
    }
    found = list(_examples(counts, SMOLLM2, chunks=24, **task))
    if states:
        sizes = ((6, 1), (24, 1), (24, 3), (24, 12))
        found += _states(sizes, SMOLLM2, side=576, ranks=(1, 4), **task)
    return found


PRESETS = {
    "smoke": Preset(configs=_smoke),
    "default": Preset(configs=_default),
    "paper": Preset(configs=lambda: [replace(config, repeats=5) for config in _default()]),
    "boolq": Preset(
        configs=lambda: _smollm2("boolq", (500, 1500, 4500), steps=300, max_length=192, states=True)
    ),
    "piqa": Preset(configs=lambda: _smollm2("piqa", (1192,), steps=150, max_length=128)),
    "siqa": Preset(configs=lambda: _smollm2("siqa", (400, 800, 1577), steps=150, max_length=128)),
}
