"""What one fine-tuning run is: every choice that decides its numbers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

__all__ = ["ConfigError", "FinetuneConfig"]

DType = Literal["float32", "bfloat16"]
Pooling = Literal["auto", "mean", "model", "likelihood"]
Part = Literal["test", "validation"]
Precision = Literal["full", "autocast"]

#: Where something lies does not change the numbers; ``inputs`` identifies what lies there.
_PLACES = ("model", "data")
_PER_RUN = ("method", "lr", "seed")
#: Settings that results may be older than: at their defaults they are no part of a run's identity.
_NEWER = {
    **{"evaluate": "test", "precision": "full", "micro_batch": None, "compile": False},
    **{"examples": 0, "test_examples": 0},
}
_CHOICES = {"dtype": DType, "pooling": Pooling, "precision": Precision, "evaluate": Part}


class ConfigError(ValueError):
    """A setting outside of its limits."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """One run of the main job.

    Args:
        method: full method spec of the targets (see :func:`sgc.finetune.resolve_method`).
        lr: peak learning rate of the targets.
        model: an embedded one (``"minilm"``, ``"smollm2"``) or a Hugging Face model directory.
        data: embedded (see :data:`sgc.finetune.embedded.DATA`) or a table file.
        text_column: column of the texts, or two with a comma between for text pairs, of which the
            second is cut to length, or is a list of answers to choose from; None takes the data
            set's own or ``text``.
        label_column: column of the labels; None takes the data set's own or ``label``.
        group_column: rows that share a value here stay on one side of the split.
        examples: so many training examples at most, drawn once for all seeds and methods; a smaller
            number takes a part of those of a larger one. 0 takes all.
        test_examples: the same of the part on which accuracy is measured.
        targets: which matrices the method trains, see :mod:`sgc.finetune.targets`.
        pooling: what the head sees, see :mod:`sgc.finetune.model`.
        head_lr: peak learning rate of the head, which is always plain AdamW.
        steps: optimizer steps.
        batch_size: examples a step.
        micro_batch: examples that go through the model at a time, those of like length together;
            the gradients of a larger batch are summed. None takes the batch at once.
        max_length: tokens an example is cut to.
        group_by_length: texts of like length share a batch: faster, slightly less accurate.
        warmup: share of the steps in which the learning rate rises; it then falls linearly to 0.
        weight_decay: decoupled, on targets and head.
        seed: of the data order, the head's start and dropout; equal for every method.
        device: ``cpu``, ``cuda``, ``cuda:1``, …
        dtype: of weights and activations.
        precision: ``full``, or ``autocast`` for matrix products in bfloat16 under other weights.
        compile: fuse the model's repeated blocks with ``torch.compile``: many times fewer kernels
            a step, half a minute before the first; sums are rounded in another order.
        evaluate: where accuracy is measured: on the ``test`` part, or, for choosing settings, on a
            ``validation`` part of the training rows, which are then fewer.
        inputs: digest of the model and data files, filled in when they are found.

    Raises:
        ConfigError: a value outside of its limits; says the value, the limit and the option.
    """

    method: str
    lr: float
    model: str = "minilm"
    data: str = "rotten-tomatoes"
    text_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    examples: int = 0
    test_examples: int = 0
    targets: str = "query,value"
    pooling: Pooling = "auto"
    head_lr: float = 1e-3
    steps: int = 560
    batch_size: int = 16
    micro_batch: int | None = None
    max_length: int = 48
    group_by_length: bool = False
    warmup: float = 0.06
    weight_decay: float = 0.0
    seed: int = 0
    device: str = "cpu"
    dtype: DType = "float32"
    precision: Precision = "full"
    compile: bool = False
    evaluate: Part = "test"
    inputs: str = ""

    def __post_init__(self) -> None:
        least_of = {"steps": 1, "batch_size": 1, "max_length": 4, "seed": 0}
        for name, least in (least_of | {"examples": 0, "test_examples": 0}).items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ConfigError(f"micro_batch must be at least 1, got {self.micro_batch}")
        for name in ("lr", "head_lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be a number above 0, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup is a share of the steps in [0, 1), got {self.warmup}")
        if not self.weight_decay >= 0:
            raise ConfigError(f"weight_decay must be 0 or more, got {self.weight_decay}")
        for name, choices in _CHOICES.items():
            kinds = get_args(choices)
            if getattr(self, name) not in kinds:
                raise ConfigError(f"{name} is one of {', '.join(kinds)}; got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FinetuneConfig":
        """The inverse of :meth:`to_dict`."""
        return cls(**values)

    def replace(self, **changes: Any) -> "FinetuneConfig":
        """A copy with ``changes``, checked again."""
        return replace(self, **changes)

    @property
    def run_id(self) -> str:
        """12 hexadecimal digits: equal for equal numbers to come, whatever the folders' names."""
        return self._digest(_PLACES)

    @property
    def task_id(self) -> str:
        """As :attr:`run_id`, but without method, learning rate and seed: runs to be compared."""
        return self._digest((*_PLACES, *_PER_RUN))

    def _digest(self, without: tuple[str, ...]) -> str:
        kept = {
            key: value
            for key, value in self.to_dict().items()
            if key not in without and (key not in _NEWER or value != _NEWER[key])
        }
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
