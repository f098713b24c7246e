"""The studies' runner: every trial once, the same whatever happened before, and nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sgc.finetune.checkpoint import CheckpointError
from sgc.finetune.config import ConfigError
from sgc.finetune.train import Interrupted
from sgc.results import ResultStore
from studies import study as registry
from studies.cli import app, main
from studies.runner.grid import missing, points
from studies.study import Study, find
from tests.studies import toy

TOY = Study("toy", toy)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(registry, "STUDIES", {"toy": "tests.studies.toy"})
    monkeypatch.setattr("studies.cli.STUDIES", registry.STUDIES)


def sgc_study(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows(path):
    """What does not change from run to run, by run id; no trial is there twice."""
    found = ResultStore(path).load()
    for row in found:
        assert row.metrics.pop("trial_s") >= 0
    kept = {row.run_id: (row.kind, row.config, row.seed, row.metrics) for row in found}
    assert len(kept) == len(found)
    return kept


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_trial_has_a_row(jobs, tmp_path):
    done = sgc_study("run", "toy", "--preset", "smoke", "--jobs", jobs, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    found = rows(tmp_path / "toy-smoke.jsonl")
    assert len(found) == 8
    again = {
        TOY.run_id(p.config, p.seed): TOY.trial(p.config, p.seed) for p in points(TOY, "smoke")
    }
    assert {i: row[3] for i, row in found.items()} == again
    assert (tmp_path / "toy-smoke.png").stat().st_size > 1000
    assert "answer" in done.output


def test_equal_problems_meet_every_paired_value():
    drawn = {}
    for p in points(TOY, "smoke"):
        drawn.setdefault((p.config.value, p.seed), set()).add(
            tuple(TOY.trial(p.config, p.seed)["drawn"])
        )
    assert all(len(same) == 1 for same in drawn.values())
    assert len({next(iter(same))[0] for same in drawn.values()}) == 4  # values and seeds differ
    a, b = (toy.Config(value=3, device=where) for where in ("cpu", "cuda"))
    assert TOY.generator(a, 0).initial_seed() == TOY.generator(b, 0).initial_seed()
    assert TOY.run_id(a, 0) != TOY.run_id(b, 0)


@pytest.mark.parametrize(("own", "asked", "used"), [(1, (), 1), (3, ("--jobs", 2), 2)])
def test_a_preset_may_say_how_many_trials_run_at_a_time(own, asked, used, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setitem(toy.PRESETS, "smoke", replace(toy.PRESETS["smoke"], jobs=own))
    monkeypatch.setattr("studies.runner.job.run", lambda *a, jobs, **more: seen.append(jobs) or {})
    sgc_study("run", "toy", "--preset", "smoke", *asked, "--out", tmp_path)
    assert seen == [used]


def test_what_is_there_is_not_run_again(tmp_path):
    ask = ("run", "toy", "--preset", "smoke", "--jobs", 1, "--out", tmp_path)
    sgc_study(*ask, "--seeds", 1)
    before = (tmp_path / "toy-smoke.jsonl").read_bytes()
    more = sgc_study(*ask)
    assert "4 trials are already in" in more.output
    after = (tmp_path / "toy-smoke.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(rows(tmp_path / "toy-smoke.jsonl")) == 8
    sgc_study(*ask, "--fresh")
    assert (tmp_path / "toy-smoke.jsonl").read_bytes().count(b"\n") == 16


def test_a_row_that_was_changed_is_measured_again(tmp_path):
    ask = ("run", "toy", "--preset", "smoke", "--jobs", 1, "--out", tmp_path)
    sgc_study(*ask)
    path = tmp_path / "toy-smoke.jsonl"
    whole, lines = rows(path), [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["config"]["value"], lines[4]["seed"] = 7, 9
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = sgc_study(*ask)
    assert "6 trials are already in" in again.output
    latest = {row.run_id: (row.config, row.seed) for row in ResultStore(path).load()}
    assert latest == {i: (config, seed) for i, (_, config, seed, _) in whole.items()}


def test_a_full_disk_within_a_trial_stops_the_study(tmp_path, monkeypatch):
    def trial(config, generator):
        asked.append(config)
        raise CheckpointError("the checkpoint could not be written (No space left on device)")

    asked = []
    monkeypatch.setattr(toy, "trial", trial)
    done = sgc_study("run", "toy", "--preset", "smoke", "--jobs", 1, "--out", tmp_path)
    assert done.exit_code == 1
    assert "No space left" in done.output
    assert len(asked) == 1


def test_a_failed_trial_costs_nobody_else(tmp_path):
    done = sgc_study("run", "toy", "--jobs", 1, "--out", tmp_path)
    assert done.exit_code == 1
    assert len(rows(tmp_path / "toy.jsonl")) == 2
    assert "1 of 3 trials failed, the first with ArithmeticError: thirteen" in done.output


@pytest.mark.parametrize("name", ["inputs", "trial_s"])
def test_metrics_of_the_runner_are_not_a_trials(name, tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "trial", lambda config, generator: {name: 1.0})
    done = sgc_study("run", "toy", "--preset", "smoke", "--jobs", 1, "--out", tmp_path)
    assert done.exit_code == 1
    assert f"metric '{name}' is the runner's own" in done.output


def test_a_killed_study_ends_as_an_undisturbed_one(tmp_path):
    sgc_study("run", "toy", "--preset", "slow", "--jobs", 1, "--out", tmp_path / "whole")
    whole = rows(tmp_path / "whole" / "toy-slow.jsonl")
    assert len(whole) == 40
    path = tmp_path / "killed" / "toy-slow.jsonl"
    script = (
        "import signal, sys; from studies import cli, study; "
        # what is started in the background of a shell ignores it
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "cli.STUDIES = study.STUDIES = {'toy': 'tests.studies.toy'}; cli.main(sys.argv[1:])"
    )
    ask = [sys.executable, "-c", script, "run", "toy", "--preset", "slow", "--jobs", "1"]
    for number in (signal.SIGKILL, signal.SIGINT):
        before = path.read_bytes().count(b"\n") if path.exists() else 0
        process = subprocess.Popen(
            [*ask, "--out", str(path.parent)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < before + 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(30)
    assert process.returncode == 130  # Ctrl-C, in one sentence
    assert 10 <= path.read_bytes().count(b"\n") < 40
    with path.open("ab") as file:
        file.write(b'{"run_id": "half a li')
    with pytest.warns(UserWarning, match="not a whole result"):
        done = sgc_study(
            "run", "toy", "--preset", "slow", "--jobs", 1, "--out", path.parent, "--seeds", 2
        )
    assert done.exit_code == 0, done.output
    with pytest.warns(UserWarning, match="not a whole result"):
        assert rows(path) == whole


def test_figures_read_files_only(tmp_path, monkeypatch):
    ask = ("toy", "--preset", "smoke", "--out", tmp_path)
    nothing = sgc_study("figure", *ask)
    assert nothing.exit_code == 2
    assert "first sgc study run" in nothing.output
    sgc_study("run", *ask, "--jobs", 1)
    picture = tmp_path / "toy-smoke.png"
    picture.unlink()
    monkeypatch.setattr(toy, "trial", None)
    done = sgc_study("figure", *ask)
    assert done.exit_code == 0, done.output
    assert picture.exists()


def test_wrong_names_are_answered_with_the_right_ones(tmp_path):
    for arguments, answer in (
        (("run", "toi"), "did you mean 'toy'?"),
        (("run", "toy", "--preset", "smok"), "did you mean 'smoke'?"),
    ):
        done = sgc_study(*arguments, "--out", tmp_path)
        assert done.exit_code == 2
        assert answer in done.output


def test_missing_points_are_those_without_rows(tmp_path):
    sgc_study("run", "toy", "--preset", "smoke", "--jobs", 1, "--out", tmp_path, "--seeds", 1)
    there = ResultStore(tmp_path / "toy-smoke.jsonl").load()
    wanted = points(TOY, "smoke")
    assert missing(TOY, there, wanted) == [p for p in wanted if p.seed == 1]
    with pytest.raises(ConfigError, match="no preset 'tiny'"):
        points(TOY, "tiny")


def test_the_name_alone_runs_a_study(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["toy", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)])
    assert left.value.code == 0
    assert len(rows(tmp_path / "toy-smoke.jsonl")) == 8
    line = json.loads((tmp_path / "toy-smoke.jsonl").read_text().splitlines()[0])
    assert {"git", "packages", "cpu"} <= set(line["environment"])


def test_every_registered_study_answers_the_contract(monkeypatch):
    monkeypatch.undo()
    for name in registry.STUDIES:
        study = find(name)
        assert study.question.endswith("?"), name
        assert {"smoke", "default", "paper"} <= set(study.module.PRESETS)
        for preset in study.module.PRESETS:
            wanted = points(study, preset)
            assert len({study.run_id(p.config, p.seed) for p in wanted}) == len(wanted)


def test_a_device_that_is_not_there_is_refused_before_the_work(tmp_path):
    done = sgc_study("run", "toy", "--preset", "smoke", "--device", "abacus", "--out", tmp_path)
    assert done.exit_code == 2
    assert "device 'abacus' cannot be used" in done.output
    assert not list(tmp_path.glob("*.jsonl"))


def test_trials_that_measure_the_machine_run_alone(tmp_path, monkeypatch):
    """In this process, where the list is, and again on another machine."""
    ran, real = [], toy.trial
    monkeypatch.setattr(toy, "ALONE", True, raising=False)
    monkeypatch.setattr(toy, "trial", lambda *given: ran.append(given) or real(*given))
    ask = ("run", "toy", "--preset", "smoke", "--jobs", 2, "--out", tmp_path)
    done = sgc_study(*ask)
    assert done.exit_code == 0, done.output
    assert "one trial runs at a time" in done.output
    assert len(ran) == 8
    sgc_study(*ask)
    assert len(ran) == 8
    path = tmp_path / "toy-smoke.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[:3]:
        line["environment"]["gpu"] = "another"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sgc_study(*ask)
    assert len(ran) == 8 + 3


def test_ctrl_c_within_a_training_ends_the_study(tmp_path, monkeypatch):
    real = toy.trial

    def trial(config, generator):
        if config.value == 2:
            raise Interrupted("stopped by SIGINT after step 1")
        return real(config, generator)

    monkeypatch.setattr(toy, "trial", trial)
    done = sgc_study("run", "toy", "--preset", "smoke", "--jobs", 1, "--out", tmp_path)
    assert done.exit_code == 130
    assert "the same command goes on" in done.output
    assert len(rows(tmp_path / "toy-smoke.jsonl")) == 2


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ({"answer": float("nan")}, "ValueError: metric 'answer': Out of range"),
        ({"answer": {1: 2, "1": 3}}, "TypeError: metric 'answer': '<' not supported"),
        ({"answer": torch.float32}, "TypeError: metric 'answer': Object of type dtype"),
        ({1: 2}, "TypeError: a trial returns a dict of names and JSON values, this one {1: 2}"),
        ([1, 2], "TypeError: a trial returns a dict of names and JSON values, this one [1, 2]"),
        (None, "TypeError: a trial returns a dict of names and JSON values, this one None"),
    ],
)
def test_what_a_line_cannot_hold_fails_its_trial_alone(returned, said, tmp_path, monkeypatch):
    real = toy.trial
    monkeypatch.setattr(toy, "trial", lambda c, g: returned if c.value == 2 else real(c, g))
    done = sgc_study("run", "toy", "--preset", "smoke", "--jobs", 1, "--out", tmp_path)
    assert done.exit_code == 1
    assert f"4 of 8 trials failed, the first with {said}" in done.output
    assert len(rows(tmp_path / "toy-smoke.jsonl")) == 4


def test_rows_that_cannot_be_drawn_stop_no_other_study_and_hide_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "STUDIES", dict.fromkeys(("toy", "toy2"), "tests.studies.toy"))
    monkeypatch.setattr("studies.cli.STUDIES", registry.STUDIES)
    monkeypatch.setattr(toy, "trial", lambda c, g: {} if c.value == 1 else 1 / 0)
    done = sgc_study("run", "toy", "toy2", "--jobs", 1, "--out", tmp_path)
    assert done.exit_code == 1
    for name in ("toy", "toy2"):
        assert f"{name}: 2 of 3 trials failed, the first with ZeroDivisionError" in done.output
        assert f"{name}: its rows in {tmp_path / name}.jsonl cannot be drawn" in done.output
    assert "(KeyError: 'answer'); were they made by other code? --fresh" in done.output
    assert "not whole: toy, toy2" in done.output
    drawn = sgc_study("figure", "toy", "--out", tmp_path)
    assert drawn.exit_code == 2
    assert "cannot be drawn" in drawn.output
