"""Multiple choice: questions with answers to choose from, by a head or by likelihood."""

import json
import math
import random

import pytest
import torch
from rich.console import Console
from transformers import AutoTokenizer

from sgc.finetune import FinetuneConfig, run
from sgc.finetune.batches import Tokens, by_length, collate, passes, tokenise
from sgc.finetune.choices import right_answer
from sgc.finetune.data import DataError, Examples, load_data, make_data
from sgc.finetune.evaluate import score
from sgc.finetune.forward import logits
from sgc.finetune.model import ModelError
from sgc.finetune.prepare import prepare
from sgc.finetune.targets import head_parameters
from sgc.finetune.train import backward

QUIET = Console(quiet=True)


def choice_rows(count: int = 150) -> list[dict[str, object]]:
    """The right one of three answers has a telling word."""
    draw = random.Random(0)
    rows: list[dict[str, object]] = []
    for i in range(count):
        answers = [" ".join(draw.choices(("film", "plot", "actor"), k=2)) for _ in range(3)]
        right = draw.randrange(3)
        answers[right] = f"great {answers[right]} good"
        question = f"{draw.choice(['very', 'scene', 'not'])} {i}"
        rows.append({"asked": question, "said": answers, "right": "ABC"[right], "film": i // 3})
    return rows


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Settings of a choice in a file of an own."""
    path = tmp_path_factory.mktemp("choices") / "choices.jsonl"
    path.write_text("\n".join(map(json.dumps, choice_rows())), "utf-8")
    return {
        **{"data": str(path), "text_column": "asked,said", "label_column": "right"},
        **{"group_column": "film", "max_length": 16, "batch_size": 8, "lr": 1e-2},
    }


def test_rows_become_questions_with_answers(task):
    config = FinetuneConfig(method="adamw", evaluate="validation", **task)
    data = load_data(config)
    assert data.label_names == ("A", "B", "C")
    parts = (data.train, data.validation, data.test)
    assert sum(map(len, parts)) == 150
    for part in parts:
        for answers, label in zip(part.answers, part.labels, strict=True):
            assert answers[label].startswith("great")
    some = load_data(config.replace(examples=20)).train
    more = load_data(config.replace(examples=40)).train
    assert len(some) == 20
    assert set(zip(some.texts, some.answers, strict=True)) <= set(
        zip(more.texts, more.answers, strict=True)
    )


@pytest.mark.parametrize(("label", "place"), [("B", 1), ("1", 1), ("no ", 1), ("B is right", 2)])
def test_a_label_is_a_letter_a_place_or_the_answer(label, place):
    assert right_answer(("yes", "no", "B is right"), label, row=1) == place


def test_what_is_no_choice_is_refused():
    rows = choice_rows(30)
    told = {"text_column": "asked,said", "label_column": "right"}
    cases = {
        "row 2 has 2 answers.*the first one has 3": {"said": ["a", "b"]},
        "row 2 has no answers": {"said": "a"},
        "row 2 has an empty answer": {"said": ["a", " ", "c"]},
        "'D' of row 2 is no letter up to C": {"right": "D"},
    }
    for message, change in cases.items():
        broken = [rows[0], {**rows[1], **change}, *rows[2:]]
        with pytest.raises(DataError, match=message):
            make_data(broken, **told)
    with pytest.raises(DataError, match="1 answers a row; 2 to 26"):
        make_data([{**row, "said": ["a"]} for row in rows], **told)


CHOICE = Examples(
    ("good film", "bad"),
    (1, 0),
    answers=(("plot", "very great scene"), ("not good", "actor")),
)


def test_the_answers_to_a_question_lie_together(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = tokenise(tokenizer, CHOICE, max_length=9)
    assert (len(tokens), tokens.choices, len(tokens.ids)) == (2, 2, 4)
    assert [tokens.length(row) for row in (0, 1)] == [8, 6]
    batch = collate(tokens, [1, 0])
    words = [tokenizer.decode(ids, skip_special_tokens=True) for ids in batch.ids]
    assert words == ["bad not good", "bad actor", "good film plot", "good film very great scene"]
    assert batch.labels.tolist() == [0, 1]
    assert passes(tokens, [0, 1], size=1) == [[1], [0]]
    assert [b.labels.tolist() for b in by_length(tokens, batch_size=1)] == [[0], [1]]


def test_likelihood_is_the_mean_of_an_answers_tokens(tiny_llama, task):
    config = FinetuneConfig(method="adamw", model=str(tiny_llama), **task)
    ready = prepare(config)
    assert type(ready.model).__name__ == "LlamaForCausalLM"
    assert not head_parameters(ready.model)
    tokens = ready.task.train
    ready.model.eval().double()
    with torch.inference_mode():
        found = logits(ready.model, collate(tokens, [3, 0, 5]))
        for row, own in zip((3, 0, 5), found, strict=True):
            for place, logit in zip(tokens.places(row), own, strict=True):
                ids, types = tokens.ids[place], tokens.types[place]
                told = ready.model(torch.tensor([ids])).logits[0].log_softmax(-1)
                each = [told[i - 1, ids[i]].item() for i in range(1, len(ids)) if types[i]]
                assert logit.item() == pytest.approx(sum(each) / len(each), abs=1e-5)


def test_a_plain_decoder_tokenizer_tells_question_and_answer_apart(tmp_path):
    """As Llama's: no special tokens, no token types."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = ["[PAD]", *["good", "film", "bad", "plot", "very", "great", "scene", "not", "actor"]]
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[PAD]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]")
    tokens = tokenise(tokenizer, CHOICE, max_length=9)
    assert tokens.types is not None
    for ids, types, answer in zip(
        tokens.ids, tokens.types, [a for row in CHOICE.answers or () for a in row], strict=True
    ):
        told = [words[i] for i, of in zip(ids, types, strict=True) if of]
        assert [word for word in told if word.strip()] == answer.split()


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_a_choice_in_parts_has_the_gradient_of_the_whole(tiny_model, task, micro_batch):
    found = {}
    for size in (None, micro_batch):
        config = FinetuneConfig(method="adamw", model=str(tiny_model), micro_batch=size, **task)
        ready = prepare(config)
        ready.model.eval()  # dropout is drawn for each part
        loss = backward(ready.model, ready.task.train, list(range(8)), config, step=0)
        found[size] = [loss, *(p.grad for p in ready.tuned.values())]
    for whole, part in zip(*found.values(), strict=True):
        torch.testing.assert_close(whole, part, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("pooling", ["mean", "model", "likelihood"])
def test_the_right_answer_is_learnt(pooling, tiny_model, tiny_llama, task, tmp_path):
    model = tiny_llama if pooling == "likelihood" else tiny_model
    config = FinetuneConfig(
        **{**task, "batch_size": 16}, method="adamw", model=str(model), pooling=pooling, steps=60
    )
    found = run(config, folder=tmp_path, console=QUIET).metrics
    assert found["test_accuracy"] > 0.8  # of three
    assert found["test_loss"] < math.log(3)
    assert (found["head_parameters"] == 0) == (pooling == "likelihood")


def test_a_frozen_language_model_is_only_asked(tiny_llama, task, tmp_path):
    config = FinetuneConfig(method="frozen", model=str(tiny_llama), steps=2, **task)
    found = run(config, folder=tmp_path, console=QUIET).metrics
    before = prepare(config)
    asked = score(before.model, before.task.test, device="cpu")
    assert (found["test_accuracy"], found["test_loss"]) == tuple(asked)


def test_likelihood_needs_answers_and_a_language_model(tiny_model, tiny_llama, tiny_csv, task):
    with pytest.raises(ModelError, match="needs a language model"):
        prepare(FinetuneConfig(method="adamw", model=str(tiny_model), pooling="likelihood", **task))
    with pytest.raises(ModelError, match="needs answers to choose from"):
        prepare(
            FinetuneConfig(
                method="adamw",
                lr=1e-3,
                model=str(tiny_llama),
                data=str(tiny_csv),
                pooling="likelihood",
            )
        )


def test_likelihood_needs_to_know_the_answer(tiny_llama, task):
    ready = prepare(FinetuneConfig(method="adamw", model=str(tiny_llama), **task))
    tokens = ready.task.train
    untold = Tokens(tokens.ids, tokens.labels, tokens.pad, None, tokens.choices)
    with pytest.raises(DataError, match="apart: take a fast one"):
        logits(ready.model, collate(untold, [0]))
