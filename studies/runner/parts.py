"""What a trial keeps until its row is written, so that a stop costs it no more than a part."""

import hashlib
import shutil
from pathlib import Path

import projections
import recovery
import sgc

__all__ = ["Parts", "code"]

_SOURCE = (
    Path(__file__).parents[1],
    *(Path(package.__path__[0]) for package in (projections, recovery, sgc)),
)


def code(revision: str | None) -> str:
    """What parts are made with: a revision, or where it does not say all, a digest of the source.

    Args:
        revision: as :func:`sgc.results.environment` has it: None without git, and the same
            ``…-dirty`` whatever was changed.
    """
    if revision and not revision.endswith("-dirty"):
        return revision
    digest = hashlib.sha256()
    for root in _SOURCE:
        for file in sorted(root.rglob("*")):
            if file.suffix in (".py", ".cu", ".cuh"):
                digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return f"{revision or 'unknown'}-{digest.hexdigest()[:12]}"


class Parts:
    """A folder for each trial beside the file of rows, of one state of the code.

    Args:
        rows: the file.
        revision: see :func:`code`; parts made with another state are not gone on from.
    """

    def __init__(self, rows: Path, revision: str | None) -> None:
        self._folder, self._code = rows.with_suffix(".parts"), code(revision)

    def of(self, run_id: str, *plugins: str) -> Path:
        """A trial's folder; not made here.

        Args:
            run_id: of the trial.
            plugins: digests of the plug-in files that it reads, as good as a revision each.
        """
        return self._folder / "-".join((run_id, self._code, *plugins))

    def forget(self, run_id: str) -> None:
        """Remove what a trial kept, with whatever code."""
        for folder in self._folder.glob(f"{run_id}-*"):
            shutil.rmtree(folder, ignore_errors=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()
