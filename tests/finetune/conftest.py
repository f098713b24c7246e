"""A tiny encoder, a tiny decoder, a tiny tokenizer and a tiny table: a whole run takes a second."""

import csv
import random
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer, LlamaConfig, LlamaForCausalLM

WORDS = ("good", "bad", "film", "plot", "great", "awful", "very", "not", "actor", "scene")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer with 32×32 matrices."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of three layers with 32×32 query and 16×32 value matrices; the BERT's tokenizer."""
    folder = tmp_path_factory.mktemp("llama")
    ours = shutil.ignore_patterns("config.json", "*.safetensors")
    shutil.copytree(tiny_model, folder, ignore=ours, dirs_exist_ok=True)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_rows(count: int = 120) -> list[dict[str, str]]:
    """Texts whose class is that of the one telling word in them; six to a film."""
    draw = random.Random(0)
    rows = []
    for i in range(count):
        label = draw.choice(("fresh", "rotten"))
        telling = draw.choice(("good", "great") if label == "fresh" else ("bad", "awful"))
        others = draw.choices(("film", "plot", "actor", "scene", "very"), k=draw.randint(2, 6))
        words = [telling, *others]
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": label, "film": f"film {i // 6}"})
    return rows


@pytest.fixture
def rows() -> list[dict[str, str]]:
    """120 rows with text, label and film."""
    return make_rows()


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:func:`make_rows` as a CSV file."""
    path = tmp_path_factory.mktemp("data") / "films.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label", "film"])
        writer.writeheader()
        writer.writerows(make_rows())
    return path
