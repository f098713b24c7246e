"""Ablation: what do data, states, chunks, κ, the residual and the batch do to accuracy?

Question: the paper's Figures 2(a), 2(b), 3(a), 3(b), 3(c) and Table 5, on models that run here:
query and value matrices of MiniLM on the Rotten Tomatoes snippets (presets ``boolq``, ``piqa`` and
``siqa``: of SmolLM2-135M on three of the paper's own tasks). And two questions that the paper
leaves open: what becomes of the rest of the gradient (ρ), and at which batch size moments pay
against rules that keep none.

Axes, each at otherwise equal settings (c 16, s 48, κ 8: 768 numbers a matrix, GaLore's of rank 1;
LoRA's least is twice that):

- ``examples``: training examples at equal steps (Figure 2(a): compressed sketches are said to learn
  from fewer; there, two epochs of each size);
- ``states``: numbers of optimizer state a matrix, by more chunks with equal s_c and κ (Figure 2(b);
  Table 5 has half of GaLore's least; here down to a sixteenth);
- ``chunks``: c at equal s (Figure 3(a): falls with c); ``sparsity``: s at equal c (Figure 3(b):
  rises); ``kappa``: κ at equal s (Figure 3(c): 7 is enough, 6 is not; one of the two lines has its
  chunks of 2,048 with 31 entries);
- ``residual``: ρ;
- ``batch``: the batch size at equal numbers of examples seen.

MESGC and CESGC have permuted chunks, the joint decode and a Gaussian A: at two of the points k_c is
8, and a ±1 A of 8 rows has 128 different columns, for chunks of thousands. ``recovery=auto`` takes
the device's own solver, so that bytes differ between devices by what it keeps.

A trial chooses the learning rate on a part held out of all the training data, with a seed of its
own, by a walk along two rates a decade that ends once the best has a worse one on either side, and
is then trained with ``repeats`` other seeds and tested: all methods get the same care. Its spread
is that of seeds at the chosen rate, not of the choice.

PIQA and SIQA have 1,192 and 1,577 training rows here, and 308 and 377 to test on: differences
below 4 points (the standard error of one between independent runs) say nothing. Their answers are
compared by the model's own likelihood, which before any training chooses .627 rightly on PIQA and
.350 on SIQA (always the same letter: .516 and .374). A linear head over letters stays at chance.
BoolQ has a linear head, 10,162 rows and 2,535 to test on (1.4 points).

Expected, from the paper: sketches ahead of GaLore and LoRA where examples or states are few; a fall
with c, a rise with s, a step between κ 6 and 7 and none after it.

Found (``python -m studies ablation``, MiniLM; points of accuracy, paired by seed):

- Examples: with 250 MESGC is .6 ahead of GaLore and LoRA of rank 1 (± .1, .3), CESGC not surely;
  with 1,000 CESGC is behind GaLore (1.1 ± .3), with all 10,250 both are (2.1, 1.7 ± .3) and behind
  LoRA (3.4 ± .6, 3.0 ± .2). AdamW is ahead of all of small state from 1,000 on but MESGC + ρ, and
  of that one with 10,250. All seeds share a subset.
- States: with 48 numbers a matrix, a sixteenth of GaLore's least, all sketches are ahead of the
  frozen model (MESGC 1.3 ± .3, CESGC, adjoint and explicit sparse 2.6 to 3.2). At equal numbers
  MESGC is behind GaLore (1.7, 1.1, .3 at 768, 3,072, 12,288) and the adjoint everywhere (1.2 to
  2.1); with half of GaLore's least it is 2.5 ± .3 behind it. Bytes are another matter: MESGC of one
  chunk and 48 numbers keeps 38 MB of A and its copies (an SRHT: 150 kB in all).
- Chunks: contiguous ones lose .8, 1.5, 1.8 at c = 4, 16, 48; permuted ones nothing up to 16 (.5 at
  48). Sparsity: 75.7, 76.7, 76.5, 79.3 at s = 16, 48, 192, 768.
- κ: 75.3 at 3, 76.1 at 6, 76.3 at 7, 76.7 at 8, 76.8 at 16; with d_c 2048 and s_c 31 no trend from
  4 to 8 (79.0 to 79.3). No step between 6 and 7.
- ρ: .01 gives 2.5 ± .3, 1 gives 3.7 ± .2. Sign-SGD, which keeps nothing, is ahead of them all.
- Batch, at equal examples seen: against sign-SGD MESGC is behind by 4.4, 3.7, 6.7, 7.4 at 16, 64,
  256, 512, + ρ by .2, .2, 1.1, 2.8. AdamW is ahead by 1.2 ± .3 at 64. The head, at one rate for
  all, is hardly trained at 256 and 512 (frozen .637, .558).
- SIQA: with 400 examples small state is ahead of AdamW in test loss (.06 to .13 nats; explicit
  sparse not surely, LoRA not), CESGC behind GaLore and LoRA in accuracy (4.1 ± 2.4, 5.1 ± 2.0);
  with 1,577 AdamW (.459) and sign-SGD (.471) are ahead of all but LoRA. Along the other axes only
  what tuning run and test agree on counts: with a quarter of GaLore's least the adjoint and
  explicit sparse are ahead of it (.04, .03 nats; MESGC and CESGC behind in the test part, ahead in
  validation), with four times it nobody is behind GaLore; loss falls with s; contiguous chunks are
  ahead of permuted ones (.045, .030, .011) and do not fall. κ and ρ are undecided: 7 is ahead of 6
  and of 8 in the test part, behind both in validation.
- PIQA: nobody learns anything that shows.
- BoolQ (majority .604): with all examples, .63 of a pass, AdamW (.632) and sign-SGD (.636) are 2 to
  3 points and .015 to .023 nats ahead of all of small state, which stay within a point of the
  majority class. With 3,000 AdamW is .5 to .9 ahead of five of seven; sketches end at the majority
  class, LoRA, GaLore and MESGC + ρ fit the training rows with hardly better answers. With 1,000 the
  walks of AdamW and sign-SGD end at the grid's lowest rate, and the others were not asked.

In 112 of 140 points the two best rates were within a sampling error of each other in validation: a
point may be off by half a point beyond its bar. The dip of MESGC + ρ at 384 and 768 numbers and the
one at s = 192 are such choices.

Run time: for GPUs, but for ``--preset smoke`` (under a minute on a CPU). ``default``: 951
trainings that see 11 million examples of at most 48 tokens, a quarter of an hour of two H200 with
``--jobs 20``. SmolLM2: ``siqa`` 366 and ``piqa`` 64 trainings of 2,400 examples, a quarter of an
hour and three minutes; ``boolq`` 161 of 6,400, a quarter of an hour.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sgc.finetune.config import ConfigError, FinetuneConfig
from sgc.finetune.defaults import resolve_method
from sgc.finetune.job import run
from sgc.finetune.tuning import GRID, best_rate, next_rates
from sgc.specs import Spec, SpecError
from studies.figures import ablation_lines as lines
from studies.figures.ablation import figure
from studies.measures import ablation_grid as grid
from studies.measures.checks import check_known
from studies.study import Preset

__all__ = ["AXES", "PAIRED", "PRESETS", "Config", "figure", "table", "trial"]

AXES = tuple(lines.AXES)
#: Rate → what was measured on the validation part.
Tried = dict[float, dict[str, float | None]]
#: The order of the data, the head's start and dropout are the same for all of a seed.
PAIRED = (
    *("axis", "x", "label", "spec", "lr", "patience", "choose_by", "repeats"),
    *("steps", "batch_size", "examples", "micro_batch"),
)
#: What is kept of a run that chooses: the first two are None where it diverged.
_HELD = ("accuracy", "loss", "majority", "examples")
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
        choose_by: ``accuracy`` on the validation part, or ``loss`` there among the rates that are
            surer than the majority class by a standard error, if any are: where hardly anything is
            learnt, accuracies do not tell rates apart.
        repeats: tested runs at the chosen rate, with seeds of their own.
        steps, batch_size, micro_batch, examples, test_examples, model, data, max_length, precision,
            compile, device: see :class:`sgc.finetune.FinetuneConfig`.

    Raises:
        ConfigError: an axis, choice or method that does not exist, a value outside of its limits,
            or a learning rate within the spec.
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
        if isinstance(self.x, bool) or not isinstance(self.x, int | float) or not self.x >= 0:
            raise ConfigError(f"x must be a number of at least 0, got {self.x!r}")
        try:
            self.training(seed=0)
        except (SpecError, LookupError) as error:
            raise ConfigError(f"{self.label}, {self.axis} {self.x:g}: {error}") from error

    def training(self, *, seed: int) -> FinetuneConfig:
        """Of the point, with the rate at which the walk begins."""
        if "lr" in Spec.parse(self.spec).options:
            raise ConfigError(f"{self.spec}: the learning rate is the field lr, not in the spec")
        return FinetuneConfig(
            method=resolve_method(self.spec).spec,
            lr=self.lr,
            model=self.model,
            data=self.data,
            steps=self.steps,
            batch_size=self.batch_size,
            micro_batch=self.micro_batch,
            examples=self.examples,
            test_examples=self.test_examples,
            max_length=self.max_length,
            precision=self.precision,  # type: ignore[arg-type] # checked there
            compile=self.compile,
            seed=seed,
            device=self.device,
        )

    @property
    def least_trainings(self) -> int:
        """Runs of a trial whose walk ends where it begins, and those that are tested."""
        return self.repeats + (3 if self.patience else 0)


def trial(config: Config, generator: torch.Generator, scratch: Path) -> dict[str, Any]:
    """Choose a rate, then train and test with each of the seeds.

    Args:
        config: the point.
        generator: of the seeds.
        scratch: where trainings leave their results and, until they end, their checkpoints.

    Returns:
        Lists with an entry a seed, None where the run diverged: ``accuracy`` and ``test_loss``
        (nats) on the test part, ``train_loss`` of the last steps. And ``majority``,
        ``test_examples``, ``train_examples``, ``lr``, ``tried`` (rate → validation ``accuracy``,
        ``loss``, ``majority`` and ``examples``), ``states`` and ``bytes`` held for all targets,
        ``files`` (digest of model and data).
    """
    seed = generator.initial_seed() % 2**30
    own = config.training(seed=seed)
    tried: Tried = {}
    while rates := _next_rates(config, tried):
        for rate in rates:
            held = _run(own.replace(lr=rate, seed=seed + _TUNING, evaluate="validation"), scratch)
            tried[rate] = {what: held.get(f"validation_{what}") for what in _HELD}
    best = best_rate(_scores(config, tried)) if tried else config.lr
    runs = [_run(own.replace(lr=best, seed=seed + i), scratch) for i in range(config.repeats)]
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
        "files": one["files"],
    }


def table(rows: Sequence[Any]) -> list[Table]:
    """Two tables an axis, accuracy and loss, and the bytes where they depend on the place."""
    axes = [axis for axis in AXES if any(row.config["axis"] == axis for row in rows)]
    return [
        lines.table_of(axis, rows, what)
        for axis in axes
        for what in ("accuracy", "test_loss", *(["bytes"] if lines.AXES[axis].sized else []))
    ]


def _next_rates(config: Config, tried: Tried) -> list[float]:
    if not config.patience:
        return []
    scores = _scores(config, tried)
    return next_rates(scores, GRID, start=config.lr, patience=config.patience)


def _scores(config: Config, tried: Tried) -> dict[float, tuple[float, ...] | None]:
    """Higher is better; None where a run diverged."""
    return {rate: _score(config, held) for rate, held in tried.items()}


def _score(config: Config, held: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Accuracy, or whether anything is known beyond the majority class; then loss.

    Trained on few examples, a rate that learns may have a larger loss than one that collapses.
    """
    if held["accuracy"] is None or held["loss"] is None:
        return None
    majority, size = held["majority"], held["examples"]
    sure = held["accuracy"] > majority + math.sqrt(majority * (1 - majority) / size)
    first = float(sure) if config.choose_by == "loss" else held["accuracy"]
    return first, -held["loss"]


def _run(config: FinetuneConfig, folder: Path) -> dict[str, Any]:
    """A training's metrics; one that ended here before is not repeated."""
    result = run(config, folder=folder, console=Console(quiet=True))
    return {**result.metrics, "files": result.config["inputs"]}


def _preset(points: Callable[[], Iterable[dict[str, Any]]], **changes: Any) -> Preset:
    return Preset(configs=lambda: [Config(**{**point, **changes}) for point in points()])


PRESETS = {
    "smoke": replace(_preset(grid.smoke), jobs=1),
    "default": _preset(grid.default),
    "paper": _preset(grid.default, repeats=5),
    "boolq": _preset(
        lambda: grid.smollm2(
            "boolq", {3000: 3000, 10_162: 0}, steps=400, max_length=192, whole_state={1000: 1000}
        )
    ),
    "piqa": _preset(lambda: grid.smollm2("piqa", {1192: 0}, steps=150, max_length=128)),
    "siqa": _preset(
        lambda: chain(
            grid.smollm2("siqa", {400: 400, 1577: 0}, steps=150, max_length=128),
            grid.smollm2_sizes("siqa", grid.SIQA, steps=150, max_length=128),
        )
    ),
}
