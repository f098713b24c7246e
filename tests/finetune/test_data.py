"""Data files and their split."""

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sgc.finetune.config import FinetuneConfig
from sgc.finetune.data import load_data, make_data
from sgc.finetune.readers import DataError, data_path, read_table


def as_csv(rows: list[dict], delimiter: str = ",") -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode("utf-8-sig")


def as_lines(rows: list[dict]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


FORMATS: dict[str, Callable[[list[dict]], bytes]] = {
    "a.csv": as_csv,
    "a.tsv": lambda rows: as_csv(rows, "\t"),
    "a.jsonl": as_lines,
    "a.json": lambda rows: json.dumps(rows).encode(),
    "my.films.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "a.jsonl.bz2": lambda rows: bz2.compress(as_lines(rows)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, rows: list) -> None:
    (tmp_path / name).write_bytes(FORMATS[name](rows))
    assert read_table(tmp_path / name) == rows


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", b"", "no rows"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"text,label\ngood\n", "line 2 has not the 2 fields"),
        ("a.csv", b"text,label\ngood,1,2\n", "line 2 has not the 2 fields"),
        ("a.csv", "text,label\nnaïve,1\n".encode("latin-1"), "not UTF-8"),
        ("a.jsonl", b'{"text": 1}\n{"text"', "cannot be read as jsonl"),
        ("a.jsonl", b"[1]\n", "line 1 is not an object"),
        ("a.json", b"{}", "list of objects"),
        ("a.csv.gz", b"text,label\n", "cannot be read as csv"),
        ("a.xlsx", b"", "does not end in .csv"),
        ("a", b"", "does not end in .csv"),
    ],
)
def test_broken_files_say_why(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        read_table(tmp_path / name)


def test_a_missing_file_names_the_embedded_one() -> None:
    with pytest.raises(DataError, match="rotten-tomatoes"):
        data_path("no-such.csv")


def test_groups_stay_on_one_side(rows: list) -> None:
    film = {row["text"]: set() for row in rows}
    for row in rows:
        film[row["text"]].add(row["film"])
    data = make_data(rows, text_column="text", label_column="label", group_column="film")
    train, test = (
        {f for text in part.texts if len(film[text]) == 1 for f in film[text]}
        for part in (data.train, data.test)
    )
    assert train
    assert test
    assert not train & test
    assert len(data.train) + len(data.test) == len(rows)
    assert len(data.train) % 6 == 0 == len(data.test) % 6  # whole films


def test_the_split_knows_no_order_and_no_repetition(rows: list) -> None:
    once = make_data(rows, text_column="text", label_column="label")
    turned = make_data(rows[::-1] + rows, text_column="text", label_column="label")
    assert set(once.test.texts) == set(turned.test.texts)
    assert not set(once.test.texts) & set(once.train.texts)
    assert once.label_names == ("fresh", "rotten")


@pytest.mark.parametrize("group", [None, "film"])
def test_a_validation_part_shares_nothing_and_moves_no_test_row(rows: list, group) -> None:
    rows = [*rows, *({**row, "film": "a film of its own"} for row in rows[::5])]
    rows = [{**row, "id": f"{i}"} for i, row in enumerate(rows)]
    options = {"text_column": "text", "label_column": "label", "group_column": group}
    two, three = make_data(rows, **options), make_data(rows, **options, validation=True)
    assert two.validation is None
    assert three.validation is not None
    assert three.test == two.test
    parts = (three.train, three.validation, three.test)
    assert all(len(part) > 5 for part in parts)
    assert 0.05 < len(three.validation) / len(two.train) < 0.4
    texts = [set(part.texts) for part in parts]
    assert not texts[0] & texts[1]
    assert not (texts[0] | texts[1]) & texts[2]
    if group is None:
        assert len(three.train) + len(three.validation) == len(two.train)
        return
    named = make_data([{**r, "text": f"{r['film']} {r['id']}"} for r in rows], **options)
    split = make_data(
        [{**r, "text": f"{r['film']} {r['id']}"} for r in rows], **options, validation=True
    )
    assert split.validation is not None
    films = [
        {text.rpartition(" ")[0] for text in part.texts}
        for part in (split.train, split.validation, split.test)
    ]
    assert not films[0] & films[1]
    assert not (films[0] | films[1]) & films[2]
    assert sorted(split.train.texts + split.validation.texts) == sorted(named.train.texts)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: [{**r, "label": "fresh"} for r in rows], "one class only, 'fresh'"),
        (lambda rows: [{**r, "label": f"{i}"} for i, r in enumerate(rows)], "120 classes in 120"),
        (lambda rows: [{"text": "a"}, *rows], "row 1 has no column 'label'; it has 'text'"),
        (lambda rows: [*rows, {"text": " ", "label": "fresh"}], "row 121 has nothing in column"),
        (lambda rows: [{**r, "text": "same"} for r in rows], "more different texts are needed"),
    ],
)
def test_unusable_tables_say_why(change: Callable, complaint: str, rows: list) -> None:
    with pytest.raises(DataError, match=complaint):
        make_data(change(rows), text_column="text", label_column="label")


def test_a_class_without_training_rows_is_named(rows: list) -> None:
    held_out = make_data(rows, text_column="text", label_column="label").test.texts[0]
    rows += [{"text": held_out, "label": "rare"}]
    with pytest.raises(DataError, match="class 'rare' has test rows but no training rows"):
        make_data(rows, text_column="text", label_column="label")


def test_some_examples_are_the_same_for_everybody_and_part_of_more(tiny_csv: Path) -> None:
    def parts(**changes):
        config = FinetuneConfig(method="sign-sgd", lr=1e-3, data=str(tiny_csv), **changes)
        data = load_data(config)
        return set(zip(data.train.texts, data.train.labels, strict=True)), data

    every, whole = parts()
    few, data = parts(examples=20, seed=3)
    more, _ = parts(examples=50, test_examples=5)
    assert len(data.train) == 20
    assert data.test == whole.test
    assert few <= more <= every
    assert parts(examples=20, seed=0)[1] == data
    limited = parts(test_examples=5, evaluate="validation")[1]
    assert len(limited.test) == len(limited.validation) == 5
    assert parts(examples=10_000)[1] == whole
    with pytest.raises(DataError, match="has test rows but no training rows"):
        parts(examples=1)
    plain = FinetuneConfig(method="sign-sgd", lr=1e-3)
    assert plain.replace(examples=5).run_id != plain.run_id
