"""Tables of text: CSV, TSV, JSON lines and JSON files, plain or compressed."""

import bz2
import csv
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from sgc.finetune.embedded import DATA, EmbeddedError

__all__ = ["DataError", "data_path", "read_table"]

Row = dict[str, Any]


class DataError(ValueError):
    """A data file that cannot be used; the message says why and what would do."""


def data_path(source: str) -> Path:
    """The file behind ``source``: an embedded data set's name or a path.

    Raises:
        DataError: no such file, or the embedding package is not installed.
    """
    if source in DATA:
        try:
            return DATA[source].path()
        except EmbeddedError as error:
            raise DataError(f"the data set {source!r}: {error}; or give your own file") from error
    path = Path(source).expanduser()
    if not path.is_file():
        raise DataError(
            f"there is no data file {source!r}; embedded are {', '.join(map(repr, DATA))}"
        )
    return path


def read_table(path: Path) -> list[Row]:
    """Read every row of a ``.csv``, ``.tsv``, ``.jsonl`` or ``.json`` file, compressed or not.

    Raises:
        DataError: unknown ending, not UTF-8, not parseable, or no rows.
    """
    endings = [suffix.lower() for suffix in path.suffixes]
    opener = _OPENERS[endings.pop()] if endings and endings[-1] in _OPENERS else open
    ending = endings[-1] if endings else ""
    reader = _READERS.get(ending)
    if reader is None:
        raise DataError(
            f"{path} does not end in {', '.join(_READERS)}, or one of these with "
            f"{' or '.join(_OPENERS)} behind it"
        )
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = list(reader(file))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    except (csv.Error, ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as {ending[1:]}: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def _csv(file: TextIO, *, delimiter: str = ",") -> Iterator[Row]:
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(
                f"the row that ends on line {reader.line_num} has not the "
                f"{len(reader.fieldnames or [])} fields of the header"
            )
        yield row


def _tsv(file: TextIO) -> Iterator[Row]:
    return _csv(file, delimiter="\t")


def _json_lines(file: TextIO) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield _object(json.loads(line), f"line {number}")


def _json(file: TextIO) -> Iterator[Row]:
    values = json.load(file)
    if not isinstance(values, list):
        raise ValueError("a .json file must hold a list of objects (one object a line: .jsonl)")
    for number, value in enumerate(values, start=1):
        yield _object(value, f"entry {number}")


def _object(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is not an object with named fields")
    return value


_READERS: dict[str, Callable[[TextIO], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json,
}
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
