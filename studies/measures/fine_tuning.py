"""A fine-tuning run of the main job that a study looks into after each step."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sgc.finetune.batches import Tokens
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.defaults import resolve_method
from sgc.finetune.prepare import prepare
from sgc.finetune.task import locate
from sgc.finetune.train import Training, train

__all__ = ["FineTuning"]


class FineTuning:
    """Model, data and optimizer of one run, before its first step.

    Args:
        method: its spec, with its learning rate or the method's own one.
        examples: the first so many of the training part and of the test part; 0 takes all.
        **settings: more of :class:`sgc.finetune.config.FinetuneConfig`.

    Attributes:
        config: of the run, with device and ``inputs`` settled.
        ready: see :class:`sgc.finetune.prepare.Prepared`.
        train, test: the examples.

    Raises:
        ConfigError, ModelError, DataError, TargetError, SpecError: see where they are defined.
    """

    def __init__(self, method: str, *, examples: int = 0, **settings: Any) -> None:
        known = resolve_method(method)
        self.config = locate(FinetuneConfig(method=known.spec, lr=known.lr, **settings))
        self.ready = prepare(self.config)
        task = self.ready.task
        self.train, self.test = (_first(part, examples) for part in (task.train, task.test))

    def run(self, after_step: Callable[[int], None]) -> Training:
        """Train.

        Args:
            after_step: called with the number of steps done, while their gradients are there.

        Raises:
            sgc.finetune.train.Interrupted: after Ctrl-C; nothing is kept.
            sgc.finetune.train.Diverged: the loss became NaN or infinite.
        """
        with TemporaryDirectory() as folder:  # an interrupted run starts again
            return train(
                self.ready.model,
                self.ready.optimizer,
                self.train,
                self.config,
                path=Path(folder, "run.pt"),
                after_step=after_step,
            )


def _first(tokens: Tokens, count: int) -> Tokens:
    if not count:
        return tokens
    parts = {"ids": tokens.ids, "labels": tokens.labels, "types": tokens.types}
    cut: dict[str, Any] = {name: part and part[:count] for name, part in parts.items()}
    return dataclasses.replace(tokens, **cut)
