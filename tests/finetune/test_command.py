"""``sgc finetune`` and ``sgc compare`` from the outside."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner, Result

from sgc.cli import app
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.model import load_model
from sgc.results import ResultStore

CESGC = "cesgc:rank=8,chunks=4,sparsity=16,kappa=4"
METHODS = ("frozen", "adamw", "sign-sgd", "galore", "mesgc", "mesgc:residual=0.1", CESGC, "sgc")


@pytest.fixture
def sgc(tiny_model: Path, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call a command on the tiny task, its output folder being ``tmp_path / "out"``."""
    monkeypatch.setenv("COLUMNS", "200")
    common = ["--model", tiny_model, "--data", tiny_csv, "--steps", 6, "--batch-size", 8]
    common += ["--device", "cpu", "--out", tmp_path / "out"]

    def call(command: str, *arguments: object) -> Result:
        return CliRunner().invoke(app, [command, *map(str, [*common, *arguments])])

    return call


def results(tmp_path: Path) -> list:
    return ResultStore(tmp_path / "out" / "results.jsonl").load()


def test_a_run_leaves_a_table_a_plot_and_one_line(sgc, tmp_path: Path) -> None:
    done = sgc("finetune", "--compressor", "mesgc:residual=0.1", "--recovery", "omp")
    assert done.exit_code == 0, done.output
    assert "mesgc:residual=0.1" in done.output
    assert "accuracy_vs_states.png" in done.output
    assert (tmp_path / "out" / "accuracy_vs_states.png").read_bytes().startswith(b"\x89PNG")
    (result,) = results(tmp_path)
    assert 0 <= result.metrics["test_accuracy"] <= 1
    assert result.metrics["states"] == 2 * (2 * 384)  # two matrices, M and V of 8·48 numbers
    assert "recovery=omp" in result.config["method"]
    assert not list((tmp_path / "out" / "checkpoints").iterdir())


def test_the_second_identical_run_does_not_train(sgc, tmp_path: Path, monkeypatch) -> None:
    assert sgc("finetune", "--compressor", "adamw").exit_code == 0
    monkeypatch.setattr("sgc.finetune.job.train", None)
    again = sgc("finetune", "--compressor", "adamw")
    assert again.exit_code == 0, again.output
    assert "not run again" in again.output
    assert len(results(tmp_path)) == 1


def test_another_setting_is_another_run(sgc, tmp_path: Path) -> None:
    for lr in (1e-3, 2e-3):
        assert sgc("finetune", "--compressor", "adamw", "--lr", lr).exit_code == 0
    first, second = results(tmp_path)
    assert first.run_id != second.run_id
    # One task: the table of the second run shows the first as well.
    shown = sgc("finetune", "--compressor", "frozen").output
    assert "adamw:lr=0.001" in shown
    assert "adamw:lr=0.002" in shown
    assert "adamw" not in sgc("finetune", "--compressor", "frozen", "--steps", 5).output


def test_changed_data_are_another_run(sgc, tmp_path: Path, tiny_csv: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_bytes(tiny_csv.read_bytes())
    assert sgc("finetune", "--compressor", "frozen").exit_code == 0
    assert "not run again" in sgc("finetune", "--compressor", "frozen", "--data", copy).output
    copy.write_bytes(tiny_csv.read_bytes() + b"good film,fresh,new\n")
    assert "not run again" not in sgc("finetune", "--compressor", "frozen", "--data", copy).output
    assert len(results(tmp_path)) == 2


def test_compare_takes_every_method_and_the_same_start(sgc, tmp_path: Path) -> None:
    done = sgc("compare", *METHODS, "--seeds", 1)
    assert done.exit_code == 0, done.output
    found = results(tmp_path)
    assert len(found) == len(METHODS)
    by_method = {r.config["method"].partition(":")[0]: r.metrics for r in found}
    assert by_method["frozen"]["states"] == by_method["sign-sgd"]["states"] == 0
    assert by_method["adamw"]["states"] == 2 * 2 * 32 * 32
    assert by_method["adamw"]["states_percent"] == 100
    assert "8/8" in done.output
    assert "sampling error" in done.output


def test_compare_goes_on_and_averages(sgc, tmp_path: Path) -> None:
    assert sgc("compare", "frozen", "--seeds", 1).exit_code == 0
    done = sgc("compare", "frozen", "adamw", "--seeds", 2)
    assert done.exit_code == 0, done.output
    assert done.output.count("not run again") == 1
    assert "standard error over the seeds" in done.output
    scores = [
        r.metrics["test_accuracy"] for r in results(tmp_path) if r.config["method"] == "adamw"
    ]
    first, second = scores
    shown = f"{(first + second) / 2:.3f} ± {abs(first - second) / 2:.3f}"
    assert shown in done.output


def test_compare_refuses_what_does_not_fit_before_any_training(sgc, tmp_path: Path) -> None:
    done = sgc("compare", "adamw", "cesgc")
    assert done.exit_code == 2
    assert "chunks=16" in done.output
    assert not results(tmp_path)


def test_json_lines_with_own_columns(sgc, tmp_path: Path) -> None:
    rows = [{"body": f"good film {i}", "stars": 5} for i in range(40)]
    rows += [{"body": f"bad film {i}", "stars": 1} for i in range(40)]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    columns = ("--text-column", "body", "--label-column", "stars")
    done = sgc("finetune", "--compressor", "adamw", "--data", path, *columns)
    assert done.exit_code == 0, done.output


def test_a_saved_model_gives_the_same_answers(sgc, tmp_path: Path, tiny_model: Path) -> None:
    saved = tmp_path / "saved"
    done = sgc("finetune", "--compressor", "adamw", "--pooling", "model", "--save-model", saved)
    assert done.exit_code == 0, done.output
    with torch.random.fork_rng():  # transformers draws a head even where it loads one
        model = AutoModelForSequenceClassification.from_pretrained(saved)
        start = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    assert model.config.id2label == {0: "fresh", 1: "rotten"}
    assert AutoTokenizer.from_pretrained(saved)("good").input_ids
    before = start.state_dict()
    changed = {n for n, p in model.state_dict().items() if not torch.equal(p, before[n])}
    body = {n for n in changed if ".pooler." not in n and not n.startswith("classifier")}
    layer = "bert.encoder.layer.0.attention.self"
    assert body == {f"{layer}.query.weight", f"{layer}.value.weight"}


def test_a_folder_with_something_in_it_takes_no_model(sgc, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    done = sgc("finetune", "--compressor", "adamw", "--save-model", tmp_path / "mine")
    assert done.exit_code == 2
    assert "not empty" in done.output


def test_llama_directories_work(sgc, tmp_path: Path, tiny_llama: Path) -> None:
    done = sgc("finetune", "--compressor", "galore:rank=2", "--model", tiny_llama)
    assert done.exit_code == 0, done.output
    (result,) = results(tmp_path)
    assert result.metrics["target_matrices"] == 3 * 2
    assert result.metrics["states_full"] == 2 * 3 * (32 * 32 + 16 * 32)  # v_proj has half the heads
    pairs = ("--text-column", "text,film", "--model", tiny_llama)
    assert sgc("finetune", "--compressor", "lora", *pairs).exit_code == 0
    lora = results(tmp_path)[-1].metrics
    assert lora["extra_weight_bytes"] == 4 * 3 * ((32 + 32) + (32 + 16))
    none = sgc("finetune", "--compressor", "bitfit", "--model", tiny_llama)
    assert none.exit_code == 2
    assert "this model has none" in none.output


def test_a_saved_mean_pooling_model_goes_on(sgc, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    first = sgc("finetune", "--compressor", "adamw", "--pooling", "mean", "--save-model", saved)
    assert first.exit_code == 0, first.output
    config = FinetuneConfig(method="adamw", lr=1e-3, model=str(saved))
    model = load_model(config, label_names=("fresh", "rotten"), pad_token_id=0)
    assert type(model).__name__ == "MeanPoolingClassifier"
    other = load_model(config.replace(seed=1), label_names=("fresh", "rotten"), pad_token_id=0)
    assert torch.equal(model.classifier.weight, other.classifier.weight)  # loaded, not drawn


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--compressor", "mesgz"), "did you mean 'mesgc'"),
        (("--compressor", "mesgc:sparsty=3"), "did you mean 'sparsity'"),
        (("--compressor", "mesgc:sparsity=47"), "47"),
        (("--compressor", "mesgc", "--recovery", "ompp"), "did you mean 'omp'"),
        (("--compressor", "adamw", "--lr", "-1"), "lr must be a number above 0"),
        (("--compressor", "adamw:rank=1"), "no options but lr"),
        (("--compressor", "adamw", "--text-column", "body"), "no column 'body'"),
        (("--compressor", "adamw", "--targets", "nothing"), "bert.encoder.layer.N"),
        (("--compressor", "adamw", "--pooling", "max"), "pooling is one of"),
        (("--compressor", "adamw", "--precision", "half"), "precision is one of full, autocast"),
        (("--compressor", "lora:rank=64"), "rank=64 is more than the shorter side of 32×32"),
        (("--compressor", "adamw", "--model", "/no/where"), "not a Hugging Face model directory"),
        (("--compressor", "adamw", "--data", "none.csv"), "no data file"),
        (("--compressor", "adamw", "--device", "warp"), "device 'warp' cannot be used"),
        (("--compressor", "galore:rank=64"), "rank"),
    ],
)
def test_mistakes_end_in_one_sentence(sgc, arguments: tuple, complaint: str) -> None:
    done = sgc("finetune", *arguments)
    assert done.exit_code == 2, done.output
    assert complaint in done.output
    assert "Traceback" not in done.output
    assert isinstance(done.exception, SystemExit)


def test_list_names_every_kind() -> None:
    done = CliRunner().invoke(app, ["list"])
    assert done.exit_code == 0, done.output
    for word in ("projection", "recovery", "chunker", "decode", "compressor", "srht", "omp-cupy"):
        assert word in done.output
    wrong = CliRunner().invoke(app, ["list", "recoverry"])
    assert wrong.exit_code == 2
    assert "did you mean 'recovery'" in wrong.output
