"""Multiple choice: a question, the answers to choose from, and which one is right."""

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from sgc.finetune.readers import DataError

__all__ = ["answers_of", "is_choice", "letters", "right_answer"]


def is_choice(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> bool:
    """Whether the second of two text columns holds lists of answers."""
    return len(columns) == 2 and any(isinstance(row.get(columns[1]), list) for row in rows[:1])


def answers_of(rows: Sequence[dict[str, Any]], column: str) -> list[tuple[str, ...]]:
    """The answers of every row, equally many.

    Raises:
        DataError: a row without them, with an empty one, or with another number of them.
    """
    count = len(rows[0][column])
    if not 2 <= count <= len(ascii_uppercase):
        raise DataError(f"column {column!r} has {count} answers a row; 2 to 26 can be chosen from")
    found = []
    for number, row in enumerate(rows, start=1):
        answers = row.get(column)
        if not isinstance(answers, list) or len(answers) != count:
            have = len(answers) if isinstance(answers, list) else "no"
            raise DataError(
                f"row {number} has {have} answers in column {column!r}, the first one has {count}: "
                "each needs a list of as many"
            )
        texts = tuple(str(answer).strip() for answer in answers)
        if not all(texts):
            raise DataError(f"row {number} has an empty answer in column {column!r}")
        found.append(texts)
    return found


def letters(count: int) -> tuple[str, ...]:
    """A, B, …: names of so many answers."""
    return tuple(ascii_uppercase[:count])


def right_answer(answers: Sequence[str], label: str, *, row: int) -> int:
    """Which one a label means: its letter, its text, or its place counted from 0.

    Raises:
        DataError: none of them, or a text that stands there twice.
    """
    label = label.strip()
    if answers.count(label) == 1:
        return answers.index(label)
    names = letters(len(answers))
    if label in names:
        return names.index(label)
    if label.isdigit() and int(label) < len(answers):
        return int(label)
    raise DataError(
        f"the label {label!r} of row {row} is no letter up to {names[-1]}, no place from 0 to "
        f"{len(answers) - 1}, and not one of its answers"
    )
