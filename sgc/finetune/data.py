"""Labelled texts, split once and for all into a training and a test part."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sgc.finetune.config import FinetuneConfig
from sgc.finetune.readers import EMBEDDED, DataError, data_path, read_table

__all__ = ["TEST_SHARE", "DataError", "Examples", "TextData", "load_data", "make_data"]

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Examples:
    """Texts with their labels, as indices into :attr:`TextData.label_names`."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextData:
    """A data set: ``train``, ``test``, and the sorted names of the classes."""

    train: Examples
    test: Examples
    label_names: tuple[str, ...]


def load_data(config: FinetuneConfig) -> TextData:
    """Read and split the data set that ``config`` names.

    Raises:
        DataError: see :func:`make_data` and :func:`sgc.finetune.readers.read_table`.
    """
    rows = read_table(data_path(config.data))
    text, label, group = config.text_column, config.label_column, config.group_column
    if config.data == EMBEDDED:
        # Plot summaries carry no opinion; all snippets on one film go to the same side.
        rows = [row for row in rows if row["category"] != "plot"]
        label, group = label or "category", group or "movie_name"
    return make_data(
        rows, text_column=text or "text", label_column=label or "label", group_column=group
    )


def make_data(
    rows: Sequence[dict[str, Any]],
    *,
    text_column: str,
    label_column: str,
    group_column: str | None = None,
) -> TextData:
    """Split rows by a hash of their group (or text): no seed, no order, no file position matters.

    Equal texts fall on the same side, so a repeated row never leaks into the test part.

    Args:
        rows: at least one row on either side of the split.
        text_column: name of the column with the texts.
        label_column: name of the column with the classes; they are compared as text.
        group_column: rows that share a value stay together; None splits by text.

    Raises:
        DataError: a missing column, an empty cell, fewer than two classes, as many classes as a
            free-text column has, an empty side, or a class that only the test part has.
    """
    texts = _column(rows, text_column, option="--text-column")
    labels = _column(rows, label_column, option="--label-column")
    groups = _column(rows, group_column, option="--group-column") if group_column else texts
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise DataError(f"column {label_column!r} has one class only, {names[0]!r}; two are needed")
    if len(names) > max(2, len(rows) // 2):
        raise DataError(
            f"column {label_column!r} has {len(names)} classes in {len(rows)} rows: "
            "is it the text, or a number to be predicted? Give the class with --label-column"
        )
    index = {name: i for i, name in enumerate(names)}
    sides: tuple[list[int], list[int]] = ([], [])
    for i, group in enumerate(groups):
        sides[_is_test(group)].append(i)
    train, test = (
        Examples(tuple(texts[i] for i in side), tuple(index[labels[i]] for i in side))
        for side in sides
    )
    _check_sides(train, test, names, what="groups" if group_column else "different texts")
    return TextData(train, test, names)


def majority_share(labels: Sequence[int]) -> float:
    """Accuracy of always naming the most frequent class."""
    return max(Counter(labels).values()) / len(labels)


def _is_test(key: str) -> bool:
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def _column(rows: Sequence[dict[str, Any]], name: str, *, option: str) -> list[str]:
    values = []
    for number, row in enumerate(rows, start=1):
        if name not in row:
            have = ", ".join(map(repr, row)) or "none"
            raise DataError(
                f"row {number} has no column {name!r}; it has {have}: choose with {option}"
            )
        value = row[name]
        text = value if isinstance(value, str) else "" if value is None else str(value)
        if not text.strip():
            raise DataError(f"row {number} has nothing in column {name!r}: fill it or drop the row")
        values.append(text)
    return values


def _check_sides(train: Examples, test: Examples, names: Sequence[str], *, what: str) -> None:
    if not train.texts or not test.texts:
        raise DataError(
            f"the split gave {len(train)} training and {len(test)} test rows "
            f"({TEST_SHARE:.0%} of the {what} are for the test): more {what} are needed"
        )
    unseen = set(test.labels) - set(train.labels)
    if unseen:
        raise DataError(
            f"class {names[min(unseen)]!r} has test rows but no training rows: give more rows of it"
        )
