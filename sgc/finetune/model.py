"""A pre-trained transformer with a classification head, from a Hugging Face model directory.

What the head sees (``pooling``):

- ``model``: what ``AutoModelForSequenceClassification`` makes of it (BERT: first token and pooler;
  Llama: last token; a directory with a trained classifier goes on from that).
- ``mean``: the mean over the tokens and one linear layer.
- ``likelihood``: no head. A language model's own mean log-likelihood of an answer, for a multiple
  choice.
- ``auto``: ``mean`` for sentence encoders whose folder says that they were trained that way
  (``1_Pooling/config.json``, as MiniLM's does), ``likelihood`` for a multiple choice put to a
  language model, else ``model``.

Of a multiple choice, other heads give each pair of question and answer one number; the answers of a
question are its classes.
"""

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgc.finetune.config import FinetuneConfig
from sgc.finetune.embedded import MODELS, EmbeddedError
from sgc.finetune.randomness import seeded
from sgc.finetune.targets import Parameters

__all__ = [
    "ModelError",
    "compile_blocks",
    "load_model",
    "load_tokenizer",
    "model_path",
    "save_model",
    "train_only",
]

_COMPILED_FORMS = 64
_MEAN_CLASS = "MeanPoolingClassifier"


class ModelError(ValueError):
    """A model directory that cannot be used."""


def model_path(source: str) -> Path:
    """The directory behind ``source``: an embedded model's name or a path.

    Raises:
        ModelError: no such directory, no ``config.json`` in it, or the package is not installed.
    """
    if source in MODELS:
        try:
            return MODELS[source]()
        except EmbeddedError as error:
            raise ModelError(f"the model {source!r}: {error}; or give a model directory") from error
    path = Path(source).expanduser()
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{source!r} is not a Hugging Face model directory (no config.json there); embedded "
            f"are {', '.join(map(repr, MODELS))}, others: hf download NAME --local-dir DIR"
        )
    return path


def load_tokenizer(config: FinetuneConfig) -> Any:
    """The directory's tokenizer, with a padding token.

    Raises:
        ModelError: the directory has none that can be read.
    """
    path = model_path(config.model)
    with _quiet() as hf, _model_errors(path):
        tokenizer = hf.AutoTokenizer.from_pretrained(path, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ModelError(f"the tokenizer in {path} has no token that could serve as padding")
    return tokenizer


def load_model(
    config: FinetuneConfig, *, label_names: Sequence[str], pad_token_id: int, choices: bool = False
) -> nn.Module:
    """The classifier, on the config's device; what the directory lacks is drawn from the seed.

    Args:
        label_names: of the classes.
        pad_token_id: of the tokenizer.
        choices: the classes are answers, of which each gets a number of its own.

    Raises:
        ModelError: the directory cannot be read as a sequence classifier, or there is nothing whose
            likelihood could be compared.
    """
    path = model_path(config.model)
    with _quiet() as hf, _model_errors(path), seeded(config.seed, "head"):
        settings = hf.AutoConfig.from_pretrained(path, local_files_only=True)
        settings.pad_token_id = pad_token_id
        if _by_likelihood(config.pooling, settings.architectures, choices=choices):
            loader = hf.AutoModelForCausalLM
        else:
            names = ["right"] if choices else label_names
            settings.id2label = dict(enumerate(names))
            settings.label2id = {name: i for i, name in enumerate(names)}
            mean = _pools_mean(path, config.pooling, settings.architectures)
            loader = _mean_class() if mean else hf.AutoModelForSequenceClassification
        model = loader.from_pretrained(
            path,
            config=settings,
            dtype=getattr(torch, config.dtype),
            ignore_mismatched_sizes=True,  # a head for another number of classes starts afresh
            local_files_only=True,
        )
    return model.to(config.device)


def train_only(model: nn.Module, *trained: Parameters) -> None:
    """Everything but ``trained`` gets no gradient."""
    chosen = {id(parameter) for part in trained for parameter in part.values()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in chosen)


def compile_blocks(model: nn.Module, *, backend: str = "inductor") -> None:
    """Compile each of the model's repeated blocks, in place; names of parameters stay.

    Equal blocks share one compiled form, and so do later models of the same make in a process:
    only the first step waits for the compiler. The lengths and numbers of texts may change.

    Raises:
        ModelError: nothing in the model is repeated.
    """
    blocks = [block for group in model.modules() for block in _repeated(group)]
    if not blocks:
        raise ModelError(f"{type(model).__name__} has no repeated blocks that could be compiled")
    # Forms differ by what needs a gradient; many methods are tried in one process.
    limit = max(_COMPILED_FORMS, torch._dynamo.config.recompile_limit)
    torch._dynamo.config.recompile_limit = limit
    for block in blocks:
        block.compile(dynamic=True, backend=backend)


def _repeated(module: nn.Module) -> list[nn.Module]:
    """The blocks of a list of equals, such as the layers of a transformer; else none."""
    equals = isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1
    return list(module.children()) if equals else []


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer as a Hugging Face directory.

    ``AutoModelForSequenceClassification.from_pretrained(folder)`` reads it (what was compared by
    likelihood, ``AutoModelForCausalLM``); with mean pooling it needs ``trust_remote_code=True``,
    because the folder then brings its own 40 lines of code.
    """
    with _quiet():
        if type(model).__name__ == _MEAN_CLASS:
            type(model).register_for_auto_class("AutoModelForSequenceClassification")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _by_likelihood(pooling: str, architectures: list[str] | None, *, choices: bool) -> bool:
    speaks = any(name.endswith("ForCausalLM") for name in architectures or ())
    if pooling == "likelihood" and not (speaks and choices):
        lacks = (
            "answers to choose from in the data" if speaks else "a language model (…ForCausalLM)"
        )
        raise ModelError(f"--pooling likelihood needs {lacks}: take --pooling auto")
    return speaks and choices and pooling in ("auto", "likelihood")


def _pools_mean(path: Path, pooling: str, architectures: list[str] | None) -> bool:
    if pooling != "auto":
        return pooling == "mean"
    if _MEAN_CLASS in (architectures or ()):
        return True
    settings = path / "1_Pooling" / "config.json"
    return settings.is_file() and bool(
        json.loads(settings.read_text("utf-8")).get("pooling_mode_mean_tokens")
    )


@contextmanager
def _model_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{path} cannot be loaded as a sequence classifier: {error}") from error


def _mean_class() -> Any:
    from sgc.finetune.mean_pooling import MeanPoolingClassifier  # noqa: PLC0415

    return MeanPoolingClassifier


@contextmanager
def _quiet() -> Iterator[Any]:
    """transformers, without its bars and its report of weights that were drawn on purpose.

    It is imported here, at the first use: help and lists do without it, in time and in fact.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise ModelError(
            "fine-tuning needs the package transformers: pip install 'transformers>=5.17'"
        ) from error
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
