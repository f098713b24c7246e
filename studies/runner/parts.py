"""What a trial keeps until its row is written, so that a stop costs it no more than a part."""

import shutil
from pathlib import Path

__all__ = ["Parts"]


class Parts:
    """A folder for each trial beside the file of rows, of one revision of the code.

    Args:
        rows: the file.
        revision: what parts were made with; those of another are not gone on from.
    """

    def __init__(self, rows: Path, revision: str) -> None:
        self._folder, self._revision = rows.with_suffix(".parts"), revision

    def of(self, run_id: str) -> Path:
        """A trial's folder; not made here."""
        return self._folder / f"{run_id}-{self._revision}"

    def forget(self, run_id: str) -> None:
        """Remove what a trial kept, with whatever revision."""
        for folder in self._folder.glob(f"{run_id}-*"):
            shutil.rmtree(folder, ignore_errors=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()
