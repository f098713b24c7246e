"""The result store: one JSON line per finished run, safe to append to from several processes."""

import json
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

import sgc

__all__ = ["Result", "ResultStore", "ResultStoreError", "environment"]

_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "transformers",
    "peft",
    "cupy-cuda13x",
    "cupy-cuda12x",
)


class ResultStoreError(RuntimeError):
    """The store cannot be written where it was asked to be."""


def environment() -> dict[str, Any]:
    """Versions, hardware and the git revision of this code.

    A copy of the code without its repository takes the revision from ``SGC_REVISION``; None where
    that is not set either.
    """
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "sgc": sgc.__version__,
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "cpu_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "git": _git_revision(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    root = Path(sgc.__file__).parents[1]
    told = os.environ.get("SGC_REVISION")
    if (
        told or not (root / ".git").exists()
    ):  # an installed package: the folder is nobody's checkout
        return told
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True, cwd=root
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished run: what was asked, what came out, and where it ran.

    Args:
        run_id: identifies the run; equal configs have equal ids.
        kind: which job wrote it, such as ``"finetune"``.
        config: everything that determines the numbers, as JSON values.
        seed: the run's seed.
        metrics: the numbers that came out, as JSON values.
        environment: see :func:`environment`.
        date: ISO 8601, UTC.
    """

    run_id: str
    kind: str
    config: dict[str, Any]
    seed: int
    metrics: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=environment)
    date: str = field(default_factory=_now)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Result":
        """Read one line's object; keys of later versions are ignored.

        Raises:
            TypeError: a field is missing, or no object where one belongs.
        """
        names = cls.__dataclass_fields__
        made = cls(**{key: value for key, value in values.items() if key in names})
        for name in ("config", "metrics", "environment"):
            if not isinstance(getattr(made, name), dict):
                raise TypeError(f"{name} is no object")
        return made


@dataclass(frozen=True)
class ResultStore:
    """A JSON-lines file of :class:`Result`.

    Appending takes a lock on a hidden file beside it, writes the line with one call and syncs it:
    two processes never mix lines, and what was reported as written is on the disk.
    """

    path: Path

    def prepare(self) -> None:
        """Make the folder and see that the file can be appended to: call it before the work.

        Raises:
            ResultStoreError: the folder or file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock(), self.path.open("ab"):
                pass
        except OSError as error:
            raise ResultStoreError(
                f"results cannot be written to {self.path} ({error.strerror or error}): "
                "give a folder that you may write to, for example --out runs/mine"
            ) from error

    def append(self, result: Result) -> None:
        """Add one line at the end.

        Raises:
            ResultStoreError: the write failed (disk full, folder gone, …).
        """
        line = (json.dumps(asdict(result), allow_nan=False, sort_keys=True) + "\n").encode()
        try:
            with self._lock():
                self._write(line)
        except OSError as error:
            raise ResultStoreError(
                f"the result of run {result.run_id} could not be added to {self.path} "
                f"({error.strerror or error}): {line.decode()}"
            ) from error

    def load(self) -> list[Result]:
        """Every readable line, oldest first; an unreadable one is skipped with a warning."""
        return list(self._lines())

    def find(self, run_id: str) -> Result | None:
        """The latest result of ``run_id``, or None."""
        return next((r for r in reversed(self.load()) if r.run_id == run_id), None)

    def _lines(self) -> Iterator[Result]:
        if not self.path.exists():
            return
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            if not line.strip():
                continue
            try:
                yield Result.from_dict(json.loads(line))
            except (ValueError, TypeError, AttributeError) as error:
                warnings.warn(
                    f"{self.path}, line {number} is not a whole result and was skipped ({error}); "
                    "delete that line to silence this",
                    stacklevel=4,
                )

    def _lock(self) -> FileLock:
        return FileLock(self.path.with_name(f".{self.path.name}.lock"))

    def _write(self, line: bytes) -> None:
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # an earlier writer died inside its line: do not join it
            if os.write(handle, line) != len(line):
                os.ftruncate(handle, size)
                raise OSError("only a part of the line could be written: is the disk full?")
            os.fsync(handle)
        finally:
            os.close(handle)
