"""What a study is, and which there are."""

import hashlib
import importlib
import inspect
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch

from sgc.finetune.config import ConfigError
from sgc.finetune.randomness import derived_seed
from sgc.registry import did_you_mean
from studies.measures.checks import check_known

__all__ = ["PRESETS", "STUDIES", "Preset", "Study", "find", "product"]

#: Name → module. One file and one line here; ``python -m studies list`` shows the question.
STUDIES: Mapping[str, str] = {
    "kappa": "studies.kappa",
    "phase": "studies.phase",
    "ablation": "studies.ablation",
    "rip": "studies.rip",
    "precision": "studies.precision",
    "chunk-error": "studies.chunk_error",
    "memory": "studies.memory",
    "moment-sparsity": "studies.moment_sparsity",
    "effective-rank": "studies.effective_rank",
    "throughput": "studies.throughput",
}

#: What every study has.
PRESETS = ("smoke", "default", "paper")
#: Fields of a config that never decide what is drawn.
_NEVER_DRAWN = {"device"}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A grid.

    Args:
        configs: makes the points, frozen dataclasses of JSON values; called when the study runs,
            so that methods that were registered since are among them.
        seeds: trials of each point, with the seeds 0, 1, ….
        jobs: trials at a time where nobody says how many; None for one a core, or one on a GPU. A
            few short trials are over before processes of their own have started.
    """

    configs: Callable[[], Sequence[Any]]
    seeds: int = 1
    jobs: int | None = None


class Study:
    """A question, as one module.

    The module has

    - a docstring: ``Name: the question in a line``, then what is expected, what was found, how long
      it runs;
    - ``Config``, a frozen dataclass of JSON values; a field ``device``, if it has one, is where the
      trial computes;
    - ``PRESETS``: ``smoke`` (seconds), ``default``, ``paper``, each a :class:`Preset`;
    - ``trial(config, generator)``: the measurement. It draws from ``generator`` alone (a CPU
      generator; its ``initial_seed()`` seeds what takes seeds) and returns JSON values;
      a trial of many parts takes a third argument, ``scratch``, a folder of its own that stays
      until its row is written, for what need not be done again after a stop (its seconds are then
      those of the last leg);
    - ``figure(rows)``: the picture of :class:`sgc.results.Result` rows, a matplotlib ``Figure``;
    - ``table(rows)``, if it likes: a rich ``Table``, or several;
    - ``inputs(config)``, if trials read files: a digest of those that this one reads, ``""`` for
      none. It is a part of the trial's identity, and the row has it as the metric ``inputs``;
    - ``PAIRED``, if it likes: names of fields that do not decide what is drawn, such as the solver,
      so that equal problems meet every value;
    - ``ALONE = True``, if trials measure the machine: one runs at a time, whatever ``--jobs`` says,
      and rows of another machine do not count as done.

    Args:
        name: of the study.
        module: the module.
    """

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name, self.module = name, module
        self.kind = f"study-{name}"

    @property
    def question(self) -> str:
        """The first line of the docstring, less the name."""
        return (self.module.__doc__ or "").partition("\n")[0].partition(": ")[2]

    @property
    def alone(self) -> bool:
        """Whether a trial suffers no other one beside it."""
        return bool(getattr(self.module, "ALONE", False))

    def preset(self, name: str) -> Preset:
        """A preset by name.

        Raises:
            ConfigError: there is none of that name; lists those there are.
        """
        presets: Mapping[str, Preset] = self.module.PRESETS
        if name not in presets:
            raise ConfigError(
                f"the study {self.name} has no preset {name!r}{did_you_mean(name, list(presets))}; "
                f"there are: {', '.join(presets)}"
            )
        return presets[name]

    def inputs(self, config: Any) -> str:
        """A digest of the files that a trial reads; ``""`` if it reads none."""
        found: str = self.module.inputs(config) if hasattr(self.module, "inputs") else ""
        return found

    def run_id(self, config: Any, seed: int) -> str:
        """12 hexadecimal digits of a trial: equal for equal studies, configs, seeds and inputs."""
        return self.identity(asdict(config), seed, self.inputs(config))

    def identity(self, config: Mapping[str, Any], seed: int, inputs: str = "") -> str:
        """The same of what a row says: its config, its seed and its metric ``inputs``."""
        parts = [self.kind, config, seed, *([inputs] if inputs else [])]
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def generator(self, config: Any, seed: int) -> torch.Generator:
        """A trial's own source of randomness, whatever ran before and wherever it runs."""
        free = _NEVER_DRAWN | set(getattr(self.module, "PAIRED", ()))
        drawn = {key: value for key, value in asdict(config).items() if key not in free}
        own = derived_seed(seed, self.kind, json.dumps(drawn, sort_keys=True))
        return torch.Generator().manual_seed(own)

    @property
    def keeps_parts(self) -> bool:
        """Whether a trial that was stopped goes on from what it kept."""
        return "scratch" in inspect.signature(self.module.trial).parameters

    def trial(self, config: Any, seed: int, scratch: Path | None = None) -> dict[str, Any]:
        """The metrics of one trial, which depend on config and seed alone.

        Args:
            config, seed: of the trial.
            scratch: where it keeps its parts, if it does; None for a folder that goes with it.
        """
        generator, found = self.generator(config, seed), dict[str, Any]()
        if not self.keeps_parts:
            found = self.module.trial(config, generator)
        elif scratch is not None:
            found = self.module.trial(config, generator, scratch)
        else:
            with TemporaryDirectory() as folder:
                found = self.module.trial(config, generator, Path(folder))
        return found


def find(name: str) -> Study:
    """The study of that name.

    Raises:
        ConfigError: there is none; names the nearest and all there are.
    """
    check_known("study", name, STUDIES)
    return Study(name, importlib.import_module(STUDIES[name]))


def product(config: Callable[..., Any], **axes: Iterable[Any]) -> list[Any]:
    """A config for every combination of values, the last axis fastest.

    Example:
        >>> product(dict, a=[1, 2], b="xy")
        [{'a': 1, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'x'}, {'a': 2, 'b': 'y'}]
    """
    return [
        config(**dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]
