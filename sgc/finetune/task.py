"""What runs share: the model and data behind a config, found, fingerprinted and tokenised once."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgc.finetune.batches import Tokens, tokenise
from sgc.finetune.config import ConfigError, FinetuneConfig
from sgc.finetune.data import load_data
from sgc.finetune.model import load_model, load_tokenizer, model_path
from sgc.finetune.readers import data_path

__all__ = ["Task", "load_task", "locate"]


@dataclass(frozen=True)
class Task:
    """Tokenised data with its classes, and the tokenizer.

    Args:
        train: what is trained on.
        test: what decides in the end.
        label_names: of the classes.
        tokenizer: of the model.
        validation: what settings are chosen on, if the config measures accuracy there.
    """

    train: Tokens
    test: Tokens
    label_names: tuple[str, ...]
    tokenizer: Any
    validation: Tokens | None = None

    def model(self, config: FinetuneConfig) -> nn.Module:
        """A fresh model for this task.

        Raises:
            ModelError: see :func:`sgc.finetune.model.load_model`.
        """
        return load_model(
            config,
            label_names=self.label_names,
            pad_token_id=self.tokenizer.pad_token_id,
            choices=self.train.choices > 1,
        )


def locate(config: FinetuneConfig) -> FinetuneConfig:
    """Settle the device and fill in the digest of the model and data files.

    Raises:
        ModelError: no such model.
        DataError: no such data.
        ConfigError: no such device.
    """
    digest = hashlib.sha256()
    model = model_path(config.model)
    wanted = (".json", ".safetensors", ".bin", ".txt", ".model")
    weights = sorted(p for p in model.rglob("*") if p.is_file() and p.suffix in wanted)
    for path in weights:
        status = path.stat()
        content = _file_digest(path, status.st_size, status.st_mtime_ns)
        digest.update(f"{path.relative_to(model)}\0{content}\0".encode())
    digest.update(data_path(config.data).read_bytes())
    return config.replace(device=_device(config.device), inputs=digest.hexdigest()[:16])


def load_task(config: FinetuneConfig) -> Task:
    """Read, split and tokenise; kept for the next run of the same task.

    Raises:
        DataError: see :func:`sgc.finetune.data.load_data`.
        ModelError: the model directory has no tokenizer.
    """
    return _load(config.replace(method="", lr=1.0, seed=0))


@lru_cache(maxsize=2)  # a race measures on the validation part, then on the test part
def _load(config: FinetuneConfig) -> Task:
    data = load_data(config)
    tokenizer = load_tokenizer(config)
    tokens = partial(tokenise, tokenizer, max_length=config.max_length)
    validation = None if data.validation is None else tokens(data.validation)
    return Task(tokens(data.train), tokens(data.test), data.label_names, tokenizer, validation)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used: {first} (try auto or cpu)") from error
    return name


@lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a whole file, once for each state of it in a process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
