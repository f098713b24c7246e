"""A run that can stop at any moment: its state on disk, replaced as a whole or not at all."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

__all__ = ["CheckpointError", "Snapshot", "StopRequest", "load", "save", "stop_signals"]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a run needs to go on: tensors and plain values only.

    Args:
        step: steps done.
        weights: trained parameters by name.
        optimizer: its ``state_dict``.
        scheduler: its ``state_dict``.
        losses: one number for each step done.
        step_seconds: measured durations (not needed for the numbers to come).
    """

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    losses: list[float]
    step_seconds: list[float] = field(default_factory=list)


def save(path: Path, snapshot: Snapshot) -> None:
    """Write beside ``path``, sync, then take its place: the file is always a whole one.

    Raises:
        CheckpointError: it could not be written, the disk being full for instance.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(vars(snapshot), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch's zip writer raises the latter on a full disk
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"the checkpoint {path} could not be written ({error}); the one before it is kept"
        ) from error


def load(path: Path) -> Snapshot | None:
    """The snapshot in ``path`` on the CPU, or None where there is no such file.

    Raises:
        CheckpointError: the file is not a checkpoint of this version.
    """
    if not path.exists():
        return None
    try:
        return Snapshot(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises whatever its unpickler or zip reader stumbles over
        raise CheckpointError(
            f"the checkpoint {path} cannot be read ({error}); delete it to start that run afresh"
        ) from error


@dataclass
class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; the loop looks at it between two steps."""

    name: str | None = None


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a request; a second one acts at once, as it does outside.

    Signals reach the main thread only: in another one the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: FrameType | None) -> None:
        request.name = signal.Signals(number).name
        for which, handler in before.items():
            signal.signal(which, handler)

    for which in before:
        signal.signal(which, ask)
    try:
        yield request
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
