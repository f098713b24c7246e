"""A long trial that was stopped goes on from the parts that it kept."""

import pytest
from typer.testing import CliRunner

from sgc.finetune import job
from studies import ablation
from studies import study as registry
from studies.cli import app
from studies.runner.parts import code
from studies.study import Study, find
from tests.studies import toy


@pytest.fixture
def parts(monkeypatch):
    """Parts that were done by a trial of three, which breaks once, in its second."""
    done, broken = [], []

    def trial(config, generator, scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        for part in range(3):
            place = scratch / str(part)
            if not place.exists():
                if part == 1 and not broken:
                    broken.append(part)
                    raise OSError("no space left")
                place.touch()
                done.append(part)
        return {"drawn": [0.0], "answer": float(len(list(scratch.iterdir())))}

    monkeypatch.setattr(toy, "trial", trial)
    monkeypatch.setattr(registry, "STUDIES", {"toy": "tests.studies.toy"})
    monkeypatch.setattr("studies.cli.STUDIES", registry.STUDIES)
    one = registry.Preset(configs=lambda: [toy.Config(value=1)])
    monkeypatch.setitem(toy.PRESETS, "smoke", one)
    return done


def ask(folder, *more):
    arguments = ("run", "toy", "--preset", "smoke", "--jobs", "1", "--out", str(folder))
    return CliRunner().invoke(app, [*arguments, *more])


def test_what_was_done_is_not_done_again_and_goes_with_the_row(parts, tmp_path):
    assert ask(tmp_path).exit_code == 1
    assert parts == [0]
    assert (tmp_path / "toy-smoke.parts").is_dir()
    again = ask(tmp_path)
    assert again.exit_code == 0, again.output
    assert parts == [0, 1, 2]
    assert not (tmp_path / "toy-smoke.parts").exists()


def test_fresh_and_other_code_begin_anew(parts, tmp_path, monkeypatch):
    ask(tmp_path)
    ask(tmp_path, "--fresh")
    assert parts == [0, 0, 1, 2]

    (tmp_path / "toy-smoke.jsonl").unlink()
    here = registry.Study("toy", toy)
    kept = tmp_path / "toy-smoke.parts" / f"{here.run_id(toy.Config(value=1), 0)}-older"
    kept.mkdir(parents=True)
    (kept / "0").touch()
    ask(tmp_path)
    assert parts == [0, 0, 1, 2, 0, 1, 2]
    assert not kept.exists()


def test_a_revision_that_does_not_say_all_is_told_apart_by_the_source(tmp_path, monkeypatch):
    assert code("a1b2") == "a1b2"
    monkeypatch.setattr("studies.runner.parts._SOURCE", [tmp_path])
    seen = set()
    for text in ("x = 1", "x = 2"):
        (tmp_path / "question.py").write_text(text)
        seen |= {code("a1b2-dirty"), code(None)}
    assert len(seen) == 4
    assert code(None) in seen


def test_a_trial_asked_for_by_hand_leaves_nothing(parts):
    study = Study("toy", toy)
    with pytest.raises(OSError, match="no space"):
        study.trial(toy.Config(value=1), 0)
    assert study.trial(toy.Config(value=1), 0)["answer"] == 3
    assert parts == [0, 0, 1, 2]


def test_the_ablation_keeps_trainings_that_ended(tmp_path, monkeypatch):
    trained = []

    def carry_out(config, *rest, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append((config.lr, config.seed, config.evaluate))
        return before(config, *rest, **options)

    before = job._carry_out
    study = find("ablation")
    point = next(c for c in ablation.PRESETS["smoke"].configs() if c.patience)
    whole = study.trial(point, 0)
    monkeypatch.setattr(job, "_carry_out", carry_out)
    with pytest.raises(KeyboardInterrupt):
        study.trial(point, 0, tmp_path)
    first = list(trained)
    trained.append(("stopped",))
    assert study.trial(point, 0, tmp_path) == whole
    assert len(first) == 2
    assert not set(first) & set(trained[3:])
    assert len(trained) - 1 == len(whole["tried"]) + point.repeats
