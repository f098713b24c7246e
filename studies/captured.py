"""Gradients of a real fine-tuning, as far as they are kept: the largest entries of each matrix."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sgc.finetune.config import ConfigError

__all__ = ["COMMAND", "GRADIENTS", "Captured", "captured", "provenance"]

#: Where they lie, and what makes them.
GRADIENTS = Path(__file__).resolve().parent.parent / "results" / "studies" / "gradients.npz"
COMMAND = "python -m studies capture"


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


def captured(path: Path | None = None) -> list[Captured]:
    """All that are kept, the first step first.

    Args:
        path: of the file, :data:`GRADIENTS` unless given.

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


def _load(path: Path | None) -> dict[str, np.ndarray]:
    path = GRADIENTS if path is None else path
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
    except FileNotFoundError as error:
        raise ConfigError(f"no captured gradients in {path}: first {COMMAND}") from error
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ConfigError(f"{path} is no file of gradients ({error}): again {COMMAND}") from error
    lacks = {"name", "step", "shape", "index", "values", "energy", "metadata"} - found.keys()
    if lacks:
        raise ConfigError(f"{path} lacks {', '.join(sorted(lacks))}: again {COMMAND}")
    return found
