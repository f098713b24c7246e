"""Labelled texts, split once and for all into a training and a test part."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sgc.finetune.choices import answers_of, is_choice, letters, right_answer
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.embedded import DATA
from sgc.finetune.readers import DataError, data_path, read_table

__all__ = ["TEST_SHARE", "DataError", "Examples", "TextData", "load_data", "make_data"]

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2  # of what is not for the test


@dataclass(frozen=True)
class Examples:
    """Texts with their labels, as indices into :attr:`TextData.label_names`.

    Where the examples are pairs, ``texts`` are the first ones and ``seconds`` the others. Of a
    multiple choice ``texts`` are the questions, with equally many ``answers`` each, and a label is
    the place of the right one.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    seconds: tuple[str, ...] | None = None
    answers: tuple[tuple[str, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def columns(self) -> list[tuple[str, ...]]:
        """All that is told of the examples, a column or two of text."""
        if self.answers is not None:
            return [self.texts, tuple("\n".join(own) for own in self.answers)]
        return [self.texts] if self.seconds is None else [self.texts, self.seconds]

    def take(self, rows: Sequence[int]) -> "Examples":
        """Some of them, in this order."""
        return Examples(
            tuple(self.texts[i] for i in rows),
            tuple(self.labels[i] for i in rows),
            self.seconds and tuple(self.seconds[i] for i in rows),
            self.answers and tuple(self.answers[i] for i in rows),
        )


@dataclass(frozen=True)
class TextData:
    """A data set: its parts and the sorted names of the classes.

    ``validation`` is a part for choosing settings, where one was asked for.
    """

    train: Examples
    test: Examples
    label_names: tuple[str, ...]
    validation: Examples | None = None


def load_data(config: FinetuneConfig) -> TextData:
    """Read and split the data set that ``config`` names.

    Raises:
        DataError: see :func:`make_data` and :func:`sgc.finetune.readers.read_table`.
    """
    rows = read_table(data_path(config.data))
    text, label, group = config.text_column, config.label_column, config.group_column
    if config.data in DATA:
        known = DATA[config.data]
        rows = known.rows(rows)
        text, label, group = text or known.text, label or known.label, group or known.group
    whole = make_data(
        rows,
        text_column=text or "text",
        label_column=label or "label",
        group_column=group,
        validation=config.evaluate == "validation",
    )
    held = config.test_examples
    validation = whole.validation and _some(whole.validation, held)
    train, test = _some(whole.train, config.examples), _some(whole.test, held)
    _check_sides(train, test, whole.label_names, what="--examples")
    return replace(whole, train=train, test=test, validation=validation)


def make_data(
    rows: Sequence[dict[str, Any]],
    *,
    text_column: str,
    label_column: str,
    group_column: str | None = None,
    validation: bool = False,
) -> TextData:
    """Split rows by a hash of their group (or text): no seed, no order, no file position matters.

    Equal texts fall on the same side, so a repeated row never leaks into the test part; with
    groups, which may share texts, that holds for groups. With a validation part a text that comes
    again in a group of another part stays in the test part, or else in the validation part, only.

    Args:
        rows: at least one row on either side of the split.
        text_column: name of the column with the texts; two names with a comma between make pairs,
            or, where the second column holds lists, questions with answers to choose from.
        label_column: name of the column with the classes; they are compared as text. Of a choice:
            the right answer's letter, its place from 0, or the answer.
        group_column: rows that share a value stay together; None splits by text (of a pair, by the
            second one, which several questions may be asked about).
        validation: cut a validation part off the training part; the test part stays what it is.

    Raises:
        DataError: a missing column, an empty cell, fewer than two classes, as many classes as a
            free-text column has, an empty side, or a class that only the test part has.
    """
    columns = _text_columns(rows, text_column)
    labels = _column(rows, label_column, option="--label-column")
    if is_choice(rows, columns):
        whole, names = _choices(rows, columns, labels)
    else:
        whole, names = _classes(rows, columns, labels, label_column=label_column)
    texts = whole.columns()
    groups = _column(rows, group_column, option="--group-column") if group_column else texts[-1]
    sides: dict[str, list[int]] = {"test": [], "validation": [], "train": []}
    for i, group in enumerate(groups):
        sides[_side(group, validation=validation)].append(i)
    if validation:
        sides = _without_repetitions(sides, list(zip(*texts, strict=True)))
    train, test, held = (whole.take(sides[side]) for side in ("train", "test", "validation"))
    what = "groups" if group_column else "different texts"
    _check_sides(train, test, names, what=what)
    if validation:
        _check_sides(train, held, names, what=what, held="validation", share=VALIDATION_SHARE)
    return TextData(train, test, names, held if validation else None)


def _classes(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    labels: Sequence[str],
    *,
    label_column: str,
) -> tuple[Examples, tuple[str, ...]]:
    texts = [tuple(_column(rows, name, option="--text-column")) for name in columns]
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise DataError(f"column {label_column!r} has one class only, {names[0]!r}; two are needed")
    if len(names) > max(2, len(rows) // 2):
        raise DataError(
            f"column {label_column!r} has {len(names)} classes in {len(rows)} rows: "
            "is it the text, or a number to be predicted? Give the class with --label-column"
        )
    index = {name: i for i, name in enumerate(names)}
    seconds = texts[1] if len(texts) == 2 else None
    return Examples(texts[0], tuple(index[label] for label in labels), seconds), names


def _choices(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], labels: Sequence[str]
) -> tuple[Examples, tuple[str, ...]]:
    questions = tuple(_column(rows, columns[0], option="--text-column"))
    answers = tuple(answers_of(rows, columns[1]))
    right = tuple(
        right_answer(own, label, row=number)
        for number, (own, label) in enumerate(zip(answers, labels, strict=True), start=1)
    )
    return Examples(questions, right, answers=answers), letters(len(answers[0]))


def _some(part: Examples, count: int) -> Examples:
    """So many of a part, in their order; which ones, the texts alone decide. 0 takes all."""
    if not 0 < count < len(part):
        return part
    columns = [*part.columns(), ("",) * len(part)][:2]
    rank = [_share_of(f"some\0{a}\0{b}") for a, b in zip(*columns, strict=True)]
    return part.take(sorted(sorted(range(len(part)), key=rank.__getitem__)[:count]))


def majority_share(labels: Sequence[int]) -> float:
    """Accuracy of always naming the most frequent class."""
    return max(Counter(labels).values()) / len(labels)


def _side(key: str, *, validation: bool) -> str:
    if _share_of(key) < TEST_SHARE:
        return "test"
    if validation and _share_of(f"validation\0{key}") < VALIDATION_SHARE:
        return "validation"
    return "train"


def _share_of(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def _without_repetitions(
    sides: dict[str, list[int]], texts: Sequence[tuple[str, ...]]
) -> dict[str, list[int]]:
    """Each side without the texts of those before it."""
    seen: set[tuple[str, ...]] = set()
    kept = {}
    for side, places in sides.items():
        kept[side] = [i for i in places if texts[i] not in seen]
        seen.update(texts[i] for i in places)
    return kept


def _text_columns(rows: Sequence[dict[str, Any]], given: str) -> list[str]:
    if any(given in row for row in rows[:1]):
        return [given]
    names = [part.strip() for part in given.split(",")]
    if len(names) > 2 or not all(names):
        raise DataError(f"--text-column is one column, or two for text pairs; got {given!r}")
    return names


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
        text = text.lower() if isinstance(value, bool) else text  # as JSON writes them
        if not text.strip():
            raise DataError(f"row {number} has nothing in column {name!r}: fill it or drop the row")
        values.append(text)
    return values


def _check_sides(
    train: Examples,
    test: Examples,
    names: Sequence[str],
    *,
    what: str,
    held: str = "test",
    share: float = TEST_SHARE,
) -> None:
    if not train.texts or not test.texts:
        raise DataError(
            f"the split gave {len(train)} training and {len(test)} {held} rows "
            f"({share:.0%} of the {what} are for the {held}): more {what} are needed"
        )
    unseen = set(test.labels) - set(train.labels)
    if unseen and train.answers is None:
        raise DataError(
            f"class {names[min(unseen)]!r} has {held} rows but no training rows: give more rows of "
            "it"
        )
