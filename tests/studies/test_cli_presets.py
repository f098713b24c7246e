"""Presets that some studies lack, and row files of other presets than the one asked for."""

import sys
from types import ModuleType

import pytest
from typer.testing import CliRunner

from studies import study as registry
from studies.cli import app
from studies.study import Preset, product
from tests.studies import toy


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """``toy``, and ``rare`` with a preset that ``toy`` lacks."""
    rare = ModuleType("tests.studies.rare_toy", toy.__doc__)
    vars(rare).update({k: v for k, v in vars(toy).items() if not k.startswith("__")})
    few = Preset(configs=lambda: product(toy.Config, value=[1, 2]))
    rare.PRESETS = {**toy.PRESETS, "rarely": few}
    monkeypatch.setitem(sys.modules, rare.__name__, rare)
    names = {"toy": toy.__name__, "second": toy.__name__, "rare": rare.__name__}
    monkeypatch.setattr(registry, "STUDIES", names)
    monkeypatch.setattr("studies.cli.STUDIES", names)


@pytest.fixture
def study(tmp_path):
    def call(command, *arguments):
        jobs = ["--jobs", "1"] if command == "run" else []
        return CliRunner().invoke(app, [command, *arguments, *jobs, "--out", str(tmp_path)])

    return call


def test_of_all_studies_those_without_the_preset_are_skipped(study, tmp_path):
    for command in ("run", "figure"):
        done = study(command, "all", "--preset", "rarely")
        assert done.exit_code == 0, done.output
        assert "skipped, without a preset 'rarely': toy, second\n" in done.output
        assert "not whole" not in done.output
        assert (tmp_path / "rare-rarely.png").stat().st_size > 1000
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["rare-rarely.jsonl"]


def test_all_studies_that_have_the_preset_run_without_a_word(study, tmp_path):
    done = study("run", "all", "--preset", "smoke")
    assert done.exit_code == 0, done.output
    assert "skipped" not in done.output
    assert len(list(tmp_path.glob("*-smoke.jsonl"))) == 3


def test_a_failure_is_still_one(study):
    done = study("run", "all", "--preset", "default")
    assert done.exit_code == 1
    assert "not whole: toy, second, rare" in done.output


@pytest.mark.parametrize("command", ["run", "figure"])
def test_a_preset_that_no_study_has_is_refused_before_the_work(command, study, tmp_path):
    done = study(command, "all", "--preset", "rarly")
    assert done.exit_code == 2
    assert "unknown preset 'rarly' (did you mean 'rarely'?)" in done.output
    assert "there are: smoke, default, slow, rarely" in done.output
    assert not list(tmp_path.iterdir())


def test_a_study_that_was_named_must_have_the_preset(study, tmp_path):
    done = study("run", "rare", "toy", "--preset", "rarely")
    assert done.exit_code == 2
    assert "the study toy has no preset 'rarely'" in done.output
    assert not list(tmp_path.iterdir())


def test_a_figure_without_rows_names_the_presets_that_have_some(study, tmp_path):
    nothing = study("figure", "rare", "--preset", "slow")
    assert nothing.exit_code == 2
    assert nothing.output.endswith("has no row of the preset 'slow': first sgc study run\n")
    for preset in ("smoke", "rarely"):
        study("run", "rare", "--preset", preset)
    study("run", "toy", "--preset", "smoke")
    (tmp_path / "rare.jsonl").touch()  # of no rows
    done = study("figure", "rare", "--preset", "slow")
    assert done.exit_code == 2
    assert (
        f"{tmp_path / 'rare-slow.jsonl'} has no row of the preset 'slow' "
        "(the folder has rows of smoke, rarely): first sgc study run, or choose with --preset"
    ) in done.output
    done = study("figure", "rare", "--preset", "rarely", "--device", "cuda")
    assert "and the device 'cuda' (the folder has rows of smoke)" in done.output
