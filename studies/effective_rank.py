"""Effective rank: does the rank a gradient needs fall in training, and memory with it?

Question: AdaRankGrad (Refael et al. 2025, Figures 3 and 4) keeps the smallest subspace that holds
1 − η of ‖G‖² and reports that its rank falls while RoBERTa is fine-tuned. Is that so here (MiniLM,
query and value matrices, Rotten Tomatoes, batch 16), do AdamW's gradients do the same, and is it
the training or the noise of a batch? The last is asked of the mean gradient of a fixed 128 training
examples without dropout.

Expected: as the paper says, a fall that goes on while the loss falls.

Found (``python -m studies effective-rank``; 3 seeds, 280 steps, largest rank 32): a fall in the
first 50 steps or so, then none, though the loss goes on falling. η = 0.1: a step's gradient needs
rank 16 in the first 30 steps and 12 from step 50 to the end; AdamW's just the same (16.5 ± .1, then
12.5 and 12.0), so the fall is nothing that AdaRankGrad brings about. Nor is it the noise of a batch
alone, but it does not last: the gradient of the fixed examples needs 20 at the start, 16 ± 2 with
AdamW and 14 ± 1 with AdaRankGrad at step 70, and 22 ± 2 and 20 ± 1 again at the end. Numbers in use
fall from 50 to 44 % of GaLore's (η = 0.3: 18 to 15 %): most of what is saved is saved from the
start, by a largest rank that few matrices need. Accuracy 77.9 ± 0.7 and 77.2 ± 0.2 %, AdamW
79.0 ± 0.3 %.

Not settled: at η = 0.1 the largest rank is too small for 12 % of the live ranks (first layers), and
their fall is cut off. Half of one pass over the data is no training to convergence, which is what
the paper's theorem is about; the preset ``paper``, nine passes over 480 examples, comes nearer and
has not been run.

Run time: 43 minutes as one process on a CPU core (1 s a step of one thread). ``--preset smoke``:
20 seconds, most of it to load transformers and to tokenise, which each process does for itself (2 s
a trial beyond that).

Numbers "in use" are what the paper counts. The optimizer holds state of the largest rank all the
time, since shapes must not depend on data: no byte is freed when the rank falls.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from sgc.finetune.config import ConfigError
from sgc.finetune.evaluate import score
from studies.figures.effective_rank import figure, table
from studies.measures.checks import check_at_least
from studies.measures.fine_tuning import FineTuning
from studies.measures.rank_watch import THRESHOLDS, Watch
from studies.study import Preset

__all__ = ["ADAMW", "PAIRED", "PRESETS", "Config", "figure", "table", "trial"]

#: Every method meets the same order of data, head and dropout, and is measured on the same probe.
PAIRED = ("method", "spec", "every", "probe", "probe_every")
ADAMW = "AdamW"
_LARGEST = 32  # GaLore's rank, which AdaRankGrad starts from


@dataclass(frozen=True, kw_only=True)
class Config:
    """One training.

    Args:
        method: its name in tables and figure.
        spec: ``adamw`` or a compressor, with its learning rate.
        model, data, steps, batch_size, device: as in
            :class:`sgc.finetune.config.FinetuneConfig`.
        every: steps between two measurements; the first step is measured, too.
        probe: examples of the fixed set whose mean gradient is measured as well.
        probe_every: steps between two of those, a multiple of ``every``.
        examples: so many of the training and of the test part at most; 0 for all.

    Raises:
        ConfigError: a value outside of its limits.
    """

    method: str
    spec: str
    model: str = "minilm"
    data: str = "rotten-tomatoes"
    steps: int = 280
    batch_size: int = 16
    every: int = 10
    probe: int = 128
    probe_every: int = 70
    examples: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_at_least(self, every=1, probe=1, examples=0)
        if self.probe_every < 1 or self.probe_every % self.every:
            raise ConfigError(f"probe_every={self.probe_every}: no multiple of every={self.every}")


def _configs(*, refresh_every: int, **common: Any) -> list[Config]:
    specs = {ADAMW: "adamw:lr=0.0003"}
    for name in THRESHOLDS:
        options = f"rank={_LARGEST},threshold={name},refresh_every={refresh_every},lr=0.003"
        specs[f"AdaRankGrad η={name}"] = f"adarankgrad:{options}"
    return [Config(method=method, spec=spec, **common) for method, spec in specs.items()]


_SMALL: dict[str, Any] = {
    **{"steps": 4, "batch_size": 2, "examples": 16},
    **{"every": 2, "probe_every": 4, "probe": 2},
}
PRESETS = {
    "smoke": Preset(configs=lambda: _configs(refresh_every=2, **_SMALL), jobs=1),
    "default": Preset(configs=lambda: _configs(refresh_every=20), seeds=3),
    "paper": Preset(configs=lambda: _configs(refresh_every=20, examples=480), seeds=3),
}


def trial(config: Config, generator: torch.Generator) -> dict[str, Any]:
    """Fine-tune once and measure on the way.

    Returns:
        ``steps`` that were measured; at each of them ``loss`` (mean since the one before),
        ``needed`` (threshold → a list for each matrix, by the step's own gradient), ``live`` (a
        list for each matrix), ``basis_step`` (of each matrix, when its subspace was sought last)
        and ``in_use`` (numbers of all matrices together); of the optimizer ``held`` (the same
        numbers, as allocated) and ``full`` (AdamW's moments); ``probe``, like ``steps`` and
        ``needed``; ``accuracy``, ``test_examples``, ``train_examples``, ``files`` (digest of
        model and data), ``ms_per_step``.

    Raises:
        sgc.finetune.train.Diverged: the loss became NaN or infinite.
    """
    run = FineTuning(
        config.spec,
        examples=config.examples,
        model=config.model,
        data=config.data,
        steps=config.steps,
        batch_size=config.batch_size,
        seed=generator.initial_seed() % 2**31,
        device=config.device,
    )
    watch = Watch(run, every=config.every, probe=config.probe, probe_every=config.probe_every)
    done = run.run(watch.look)
    ends = watch.found["steps"]
    starts = [0, *ends[:-1]]
    losses = [fmean(done.losses[a:b]) for a, b in zip(starts, ends, strict=True)]
    return {
        **watch.found,
        "loss": losses,
        "full": sum(2 * p.numel() for p in run.ready.targets.values()),
        "accuracy": score(run.ready.model, run.test, device=run.config.device).accuracy,
        "test_examples": len(run.test),
        "train_examples": len(run.train),
        "files": run.config.inputs,
        "ms_per_step": 1000 * done.seconds_per_step,
    }
