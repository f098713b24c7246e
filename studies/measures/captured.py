"""Gradients of a real fine-tuning, as far as they are kept: the largest entries of each matrix."""

import hashlib
import json
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sgc.finetune.config import ConfigError

__all__ = [
    "COMMAND",
    "GRADIENTS",
    "VARIABLE",
    "Captured",
    "available",
    "captured",
    "digest",
    "place",
    "provenance",
    "shape",
    "using",
]

#: The committed file, the variable that names another one, and what makes one.
GRADIENTS = Path(__file__).resolve().parents[2] / "results" / "studies" / "gradients.npz"
VARIABLE = "SGC_GRADIENTS"
COMMAND = "python -m studies capture"
_FIELDS = ("name", "step", "shape", "index", "values", "energy")


@dataclass(frozen=True, eq=False)
class Captured:
    """One matrix's gradient at one step, without its small entries.

    Args:
        name: of the parameter.
        step: after which it was read, from 1.
        shape: of the matrix; flat places count along its rows.
        index: flat places of the n entries that are largest in magnitude, the largest first.
        values: those entries.
        numel: d, the entries of the whole gradient.
        energy: ``ΣG²`` of the whole gradient.
    """

    name: str
    step: int
    shape: tuple[int, int]
    index: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    numel: int
    energy: float


def place() -> Path:
    """The file that studies read: :data:`VARIABLE`'s, else :data:`GRADIENTS`."""
    told = os.environ.get(VARIABLE)
    return Path(told) if told else GRADIENTS


@contextmanager
def using(path: Path | None) -> Iterator[None]:
    """Within the block studies read this file, in worker processes, too; None changes nothing.

    Raises:
        ConfigError: as :func:`captured`.
    """
    if path is None:
        yield
        return
    digest(path)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(path.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def available() -> bool:
    """Whether the file is there: a grid leaves its captured points out otherwise.

    Warns:
        UserWarning: it is not.
    """
    path = place()
    if path.exists():
        return True
    warnings.warn(
        f"no captured gradients in {path}: points that need them are left out; {COMMAND} makes "
        "such a file, --gradients FILE takes one",
        stacklevel=2,
    )
    return False


def captured(path: Path | None = None) -> list[Captured]:
    """All that are kept, the first step first.

    Args:
        path: of the file, :func:`place` unless given.

    Raises:
        ConfigError: there is no such file, or it is not one of :mod:`studies.capture`.
    """
    file = _load(path)
    return [
        Captured(
            name=str(file["name"][i]),
            step=int(file["step"][i]),
            shape=(int(file["shape"][i, 0]), int(file["shape"][i, 1])),
            index=file["index"][i].astype(np.int64),
            values=file["values"][i].astype(np.float32),
            numel=int(file["shape"][i].prod(dtype=np.int64)),
            energy=float(file["energy"][i]),
        )
        for i in range(len(file["name"]))
    ]


def provenance(path: Path | None = None) -> dict[str, Any]:
    """``config`` of the training, ``environment`` and ``created_at``.

    Raises:
        ConfigError: as :func:`captured`.
    """
    found: dict[str, Any] = json.loads(str(_load(path)["metadata"]))
    return found


def digest(path: Path | None = None) -> str:
    """12 hexadecimal digits of the gradients, whatever the date and machine of their capture.

    Raises:
        ConfigError: as :func:`captured`.
    """
    return _digest(*_version(path))


def shape(path: Path | None = None) -> tuple[int, int]:
    """Rows and columns of the matrices: those that most of them have, the first such if several.

    Raises:
        ConfigError: as :func:`captured`, or nothing was captured.
    """
    count = Counter((int(rows), int(columns)) for rows, columns in _load(path)["shape"])
    if not count:
        raise ConfigError(f"{path or place()} has no gradients: again {COMMAND}")
    return max(count, key=lambda one: count[one])


def _load(path: Path | None) -> dict[str, np.ndarray]:
    return _read(*_version(path))


def _version(path: Path | None) -> tuple[Path, int, int]:
    """The file and what changes when it is replaced."""
    path = place() if path is None else path
    try:
        about = path.stat()
    except FileNotFoundError as error:
        raise ConfigError(
            f"no captured gradients in {path}: first {COMMAND} --out {path}"
        ) from error
    return path, about.st_mtime_ns, about.st_ino


@lru_cache(maxsize=4)
def _digest(path: Path, *version: int) -> str:
    file, found = _read(path, *version), hashlib.sha256()
    for name in sorted(_FIELDS):
        array = np.ascontiguousarray(file[name])
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:12]


@lru_cache(maxsize=4)
def _read(path: Path, *version: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ConfigError(f"{path} is no file of gradients ({error}): again {COMMAND}") from error
    lacks = {*_FIELDS, "metadata"} - found.keys()
    if lacks:
        raise ConfigError(f"{path} lacks {', '.join(sorted(lacks))}: again {COMMAND}")
    return found
