"""What goes wrong in a race: a method that breaks, lines that are not whole, other tasks' times."""

import dataclasses
import json

import pytest
from rich.console import Console

import sgc
from sgc.compressors.none import NoCompression
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.methods.bitfit import BitFit
from sgc.finetune.race import Race, race, show_race
from sgc.finetune.targets import TargetError
from sgc.results import ResultStore

METHODS = {"sign": "sign-sgd", "broken": "test-breaks", "galore": "galore"}


class Breaks(NoCompression):
    """Fails at its third step, under each seed."""

    def __init__(self) -> None:
        super().__init__(rule="momentum")

    def compress(self, gradients, states, *, step):
        if step.number == 3:
            raise ArithmeticError("no such thing")
        return super().compress(gradients, states, step=step)


@pytest.fixture
def broken():
    sgc.register("compressor", "test-breaks", Breaks)
    yield
    sgc.registry.unregister("compressor", "test-breaks")


@pytest.fixture
def plan(tiny_model, tiny_csv):
    config = FinetuneConfig(
        method="adamw",
        lr=1e-3,
        model=str(tiny_model),
        data=str(tiny_csv),
        group_column="film",
        steps=4,
        batch_size=4,
    )
    return Race(
        config=config,
        budgets=(10_000,),
        methods={"sign": "sign-sgd"},
        references={},
        grid=(1e-3,),
        seeds=1,
    )


def quiet():
    return Console(quiet=True)


@pytest.mark.usefixtures("broken")
def test_a_method_that_breaks_is_left_out_and_the_others_race(plan, tmp_path, capsys):
    report = race(
        dataclasses.replace(plan, methods=METHODS), folder=tmp_path, console=Console(width=200)
    )
    assert "test-breaks, lr 0.001, seed 1000 failed: ArithmeticError" in capsys.readouterr().out
    assert {e.label for e in report.entries} == {"sign", "galore"}
    assert report.refused["broken"][10_000] == "a run failed: ArithmeticError: no such thing"


@pytest.mark.usefixtures("broken")
def test_where_every_run_fails_the_error_is_raised(plan, tmp_path):
    alone = dataclasses.replace(plan, methods={"broken": "test-breaks"})
    with pytest.raises(ArithmeticError, match="no such thing"):
        race(alone, folder=tmp_path, console=quiet())


def test_a_race_in_which_everybody_diverges_is_reported_and_drawn(plan, tmp_path):
    wild = dataclasses.replace(plan, methods={"sgd": "sgd"}, grid=(1e30, 1e35))
    report = race(wild, folder=tmp_path, console=quiet())
    assert [e.accuracy for e in report.entries] == [None]
    show_race(report, tmp_path / "race.json", console=quiet())
    assert (tmp_path / "race.png").stat().st_size > 5_000


def test_a_result_that_is_not_whole_is_made_again(plan, tmp_path):
    first = race(plan, folder=tmp_path, console=quiet())
    file = tmp_path / "results.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["metrics"] = {"status": "finished"}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = race(plan, folder=tmp_path, console=quiet())
    assert [e.accuracies for e in again.entries] == [e.accuracies for e in first.entries]


def test_a_budget_that_is_repeated_counts_once(plan, tmp_path):
    twice = dataclasses.replace(plan, budgets=(10_000, 500, 10_000))
    report = race(twice, folder=tmp_path, console=quiet())
    assert report.budgets == (500, 10_000)
    assert [e.budgets for e in report.entries] == [(500, 10_000)]


def test_times_of_another_task_in_the_folder_are_not_taken(plan, tmp_path):
    race(plan, folder=tmp_path, console=quiet(), jobs=2)
    wide = dataclasses.replace(plan, config=plan.config.replace(batch_size=8))
    race(wide, folder=tmp_path, console=quiet(), jobs=2)
    timed = [
        r.config["batch_size"]
        for r in ResultStore(tmp_path / "results.jsonl").load()
        if r.kind == "finetune-timing"
    ]
    assert timed == [4, 8]


def test_a_method_that_the_model_has_nothing_for_is_left_out(plan, tmp_path, monkeypatch):
    def prepare(self, model, targets):
        raise TargetError("no bias vectors here")

    monkeypatch.setattr(BitFit, "planned", prepare)
    both = dataclasses.replace(plan, methods={"sign": "sign-sgd", "bitfit": "bitfit"})
    report = race(both, folder=tmp_path, console=quiet())
    assert [entry.label for entry in report.entries] == ["sign"]
    assert report.refused == {"bitfit": {10_000: "no bias vectors here"}}
