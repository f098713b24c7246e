"""Stopping at any step changes no number; what random numbers are drawn touches nobody else's."""

import os
import signal
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from rich.console import Console

from sgc.finetune import FinetuneConfig, checkpoint, job, resolve_method, run
from sgc.finetune import train as training
from sgc.finetune.batches import Order, Tokens
from sgc.finetune.checkpoint import CheckpointError
from sgc.finetune.evaluate import Score
from sgc.finetune.job import RunBusyError
from sgc.finetune.task import load_task, locate
from sgc.finetune.train import Interrupted, linear_schedule

QUIET = Console(quiet=True)
MEASURED = {"ms_per_step"}
CESGC = "cesgc:rank=8,chunks=4,sparsity=16,kappa=4"


@pytest.fixture
def config(tiny_model: Path, tiny_csv: Path):
    def make(spec: str, **changes: object) -> FinetuneConfig:
        method = resolve_method(spec)
        config = FinetuneConfig(
            method=method.spec,
            lr=method.lr,
            model=str(tiny_model),
            data=str(tiny_csv),
            steps=8,
            batch_size=8,
        )
        return config.replace(**changes)

    return make


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGINT) -> None:
    """Send the signal to ourselves in the middle of a step."""
    real = training.batch_loss
    calls = iter(range(1, 1000))

    def loss(*arguments):
        if next(calls) == step:
            os.kill(os.getpid(), number)
        return real(*arguments)

    monkeypatch.setattr(training, "batch_loss", loss)


@pytest.mark.parametrize(
    "spec",
    [
        *("adamw", "mesgc:residual=0.1", CESGC, "galore", "frozen", "bitfit"),
        *("lora:dropout=0.1", "relora:merge_every=2", "relora:merge_every=5"),
    ],
)
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    spec: str, config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(config(spec), folder=tmp_path / "a", console=QUIET, save_to=tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        with pytest.raises(Interrupted, match="SIGINT after step 5"):
            run(config(spec), folder=tmp_path / "b", console=QUIET)
    assert list((tmp_path / "b" / "checkpoints").glob("*.pt"))
    parts = run(config(spec), folder=tmp_path / "b", console=QUIET, save_to=tmp_path / "parts")
    assert {k: v for k, v in parts.metrics.items() if k not in MEASURED} == {
        k: v for k, v in whole.metrics.items() if k not in MEASURED
    }
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    assert not list((tmp_path / "b" / "checkpoints").iterdir())


def test_sigterm_saves_too_and_the_handlers_come_back(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupt_at(monkeypatch, 2, signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM after step 2"):
        run(config("adamw"), folder=tmp_path, console=QUIET)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_broken_checkpoint_is_named(config, tmp_path: Path) -> None:
    place = tmp_path / "checkpoints" / f"{locate(config('adamw')).run_id}.pt"
    place.parent.mkdir()
    place.write_bytes(b"half")
    with pytest.raises(CheckpointError, match="delete it to start that run afresh"):
        run(config("adamw"), folder=tmp_path, console=QUIET)


def test_two_processes_do_not_share_a_run(config, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    lock = tmp_path / "checkpoints" / f"{locate(config('adamw')).run_id}.lock"
    with FileLock(lock), pytest.raises(RunBusyError, match="another process"):
        run(config("adamw"), folder=tmp_path, console=QUIET)
    # Another run in the same folder may go on.
    run(config("frozen"), folder=tmp_path, console=QUIET)


def test_nobody_elses_random_numbers_change(config, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        before = torch.random.get_rng_state()
        first = run(config("mesgc"), folder=tmp_path / "a", console=QUIET)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(8)
        second = run(config("mesgc"), folder=tmp_path / "b", console=QUIET)
    assert first.metrics["train_loss"] == second.metrics["train_loss"]
    third = run(config("mesgc", seed=1), folder=tmp_path / "b", console=QUIET)
    assert third.metrics["train_loss"] != first.metrics["train_loss"]


def test_bfloat16_trains(config, tmp_path: Path) -> None:
    result = run(config("mesgc", dtype="bfloat16"), folder=tmp_path, console=QUIET)
    assert result.metrics["status"] == "finished"


def test_autocast_is_another_run_with_other_numbers(config, tmp_path: Path) -> None:
    full = run(config("adamw"), folder=tmp_path, console=QUIET)
    low = run(config("adamw", precision="autocast"), folder=tmp_path, console=QUIET)
    assert low.run_id != full.run_id
    assert low.metrics["train_loss"] != full.metrics["train_loss"]
    assert low.metrics["train_loss"] == pytest.approx(full.metrics["train_loss"], rel=0.02)
    assert low.metrics["state_bytes"] == full.metrics["state_bytes"]  # weights are float32


def test_a_validation_run_leaves_the_test_part_alone(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config("adamw", evaluate="validation", group_column="film")
    test = load_task(locate(config("adamw", group_column="film"))).test
    seen = []

    def score(model, tokens, **_):
        seen.append(tokens)
        return Score(0.25, 0.75)

    monkeypatch.setattr(job, "score", score)
    found = run(asked, folder=tmp_path, console=QUIET).metrics
    assert (found["validation_accuracy"], found["test_accuracy"]) == (0.25, None)
    assert (found["validation_loss"], found["test_loss"]) == (0.75, None)
    (held,) = seen
    assert found["validation_examples"] == len(held) > 0
    assert found["test_examples"] == len(test)
    assert not set(held.ids) & set(test.ids)
    again = run(asked, folder=tmp_path, console=QUIET)
    assert again.metrics == found
    assert len(seen) == 1


def test_a_divergence_is_recorded_as_one(config, tmp_path: Path) -> None:
    result = run(config("adamw", lr=1e20, warmup=0.0), folder=tmp_path, console=QUIET)
    assert result.metrics["status"] == "diverged"
    assert result.metrics["diverged_at_step"] >= 2
    assert result.metrics["test_accuracy"] is None


def test_checkpoints_replace_the_earlier_one_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.pt"
    assert checkpoint.load(path) is None
    for step in (1, 2):
        snapshot = checkpoint.Snapshot(
            step=step,
            weights={"w": torch.full((3,), float(step))},
            optimizer={"state": {0: {"step": torch.tensor(1.0)}}},
            scheduler={},
            losses=[0.5] * step,
        )
        checkpoint.save(path, snapshot)
    found = checkpoint.load(path)
    assert found is not None
    assert (found.step, found.losses, found.weights["w"].tolist()) == (2, [0.5, 0.5], [2.0] * 3)
    assert [p.name for p in path.parent.iterdir()] == ["run.pt"]


def test_every_epoch_shows_each_row_once_in_a_new_order() -> None:
    tokens = Tokens(tuple((0,) * (1 + i % 7) for i in range(40)), (0,) * 40, pad=0)
    order = Order(tokens, batch_size=8, seed=3)
    epochs = [[order.rows(5 * e + i) for i in range(5)] for e in range(2)]
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch) == list(range(40))
    assert epochs[0] != epochs[1]
    assert Order(tokens, batch_size=8, seed=3).rows(7) == epochs[1][2]
    assert Order(tokens, batch_size=8, seed=4).rows(0) != epochs[0][0]
    assert sorted(Order(tokens, batch_size=64, seed=0).rows(9)) == list(range(40))


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [linear_schedule(t, steps=100, warmup=0.06) for t in range(101)]
    assert max(rates) == rates[5] == rates[6] == 1
    assert rates[:6] == sorted(rates[:6])
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert rates[100] == 0 < rates[0]
    assert linear_schedule(0, steps=1, warmup=0.0) == 1
