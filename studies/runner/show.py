"""What a study shows: its tables, on the terminal and as text, and its picture."""

import io
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console

from sgc.files import check_writable, replacing
from sgc.finetune.config import ConfigError
from sgc.results import Result
from studies.study import Study

__all__ = ["WIDTH", "Format", "NotDrawnError", "Place", "show"]

#: Characters of a table's line at least: terminals of 80 would cut its numbers.
WIDTH = 140


class NotDrawnError(ConfigError):
    """A study's picture or tables cannot be made of the rows of a file."""


class Format(StrEnum):
    """Of a picture."""

    PNG = "png"
    PDF = "pdf"
    SVG = "svg"


class Place:
    """The files of a study's preset in a folder.

    Args:
        folder: where.
        name: of the study.
        preset: whose name they bear, unless it is ``default``.
        picture: its format.
    """

    def __init__(self, folder: Path, name: str, preset: str, picture: Format = Format.PNG) -> None:
        stem = name if preset == "default" else f"{name}-{preset}"
        self.format = picture
        self.rows = folder / f"{stem}.jsonl"
        self.picture = folder / f"{stem}.{picture}"
        self.text = folder / f"{stem}.txt"

    def check_writable(self) -> None:
        """See before the work that picture and text can be written.

        Raises:
            OSError: they cannot.
        """
        check_writable(self.picture)
        check_writable(self.text)


def show(
    study: Study, rows: Sequence[Result], place: Place, console: Console, *, tables: bool = True
) -> None:
    """Write picture and tables, and say where they are.

    Args:
        study: whose.
        rows: of it.
        place: where.
        console: for messages.
        tables: whether to print them, too, as wide as the terminal but at least :data:`WIDTH`.

    Raises:
        NotDrawnError: the study cannot make its picture or tables of these rows.
        OSError: a file cannot be written; the one that was there is as it was.
    """
    try:
        made, picture = _tables(study, rows), study.module.figure(rows)
    except Exception as error:  # a plug-in's rows, or those of older code, may lack anything
        raise NotDrawnError(
            f"{study.name}: its rows in {place.rows} cannot be drawn "
            f"({type(error).__name__}: {error}); were they made by other code? --fresh measures "
            "them again, another --out begins anew"
        ) from error
    if tables and made:
        wide = Console(width=max(WIDTH, console.width))
        wide.print(*made, sep="\n")
    with replacing(place.picture) as file:
        picture.savefig(file, format=str(place.format))
    said = f"figure: {place.picture} ({len(rows)} rows)"
    if made:
        text = io.StringIO()
        Console(file=text, width=WIDTH, color_system=None, force_jupyter=False).print(
            *made, sep="\n"
        )
        with replacing(place.text) as file:
            file.write(text.getvalue().encode())
        said += f"; table: {place.text}"
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def _tables(study: Study, rows: Sequence[Result]) -> list[Any]:
    if not hasattr(study.module, "table"):
        return []
    found = study.module.table(rows)
    return [*found] if isinstance(found, list | tuple) else [found]
