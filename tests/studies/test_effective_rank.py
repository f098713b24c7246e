import json
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("transformers", reason="needs pip install transformers")

from sgc.finetune.config import ConfigError
from studies import effective_rank as study
from studies.cli import app
from studies.effective_rank import ADAMW, PRESETS, THRESHOLDS, trial
from studies.effective_rank_figure import curve, figure, summaries
from studies.rows import row
from studies.spectra import needed_ranks
from tests.finetune.conftest import tiny_csv, tiny_model  # noqa: F401 - fixtures

HERE = {"git": "abc", "gpu": None}
SMOKE = {config.method: config for config in PRESETS["smoke"]}
ADA = [name for name in SMOKE if name != ADAMW]
SIDE, MATRICES, LARGEST = 32, 2, 32  # of the tiny model; the presets' largest rank


@pytest.fixture
def tiny(tiny_model, tiny_csv, monkeypatch):  # noqa: F811
    """The smoke preset on a model of one layer."""
    places = {"model": str(tiny_model), "data": str(tiny_csv)}
    configs = tuple(replace(config, **places) for config in PRESETS["smoke"])
    monkeypatch.setitem(PRESETS, "smoke", configs)
    return {config.method: config for config in configs}


def command(*arguments, revision="abc"):
    env = {"COLUMNS": "200", "SGC_REVISION": revision}
    done = CliRunner().invoke(app, ["effective-rank", *arguments], env=env)
    return done.exit_code, done.output


def written(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def made(method, *, seed, live, needed, loss=(0.7, 0.5), accuracy=0.75):
    """A row of two matrices, measured at two steps."""
    held = 2 * 3 * 32 * 32
    metrics = {
        "steps": [1, 10],
        "loss": list(loss),
        "needed": {name: {"q": needed, "v": [2 * r for r in needed]} for name in THRESHOLDS},
        "live": {"q": live, "v": live} if live else {},
        "in_use": [2 * 3 * 32 * r for r in live],
        "held": held if live else 0,
        "full": 4 * 32 * 32,
        "accuracy": accuracy,
        "probe": {"steps": [1], "needed": {name: {"q": [4], "v": [6]} for name in THRESHOLDS}},
    }
    return row(study.KIND, replace(SMOKE[method], seed=seed), metrics, here=HERE)


@pytest.fixture
def rows():
    return [
        *(made(ADAMW, seed=s, live=[], needed=[8, 6], accuracy=0.7 + s / 10) for s in (0, 1)),
        *(made(ADA[0], seed=s, live=[8 + 4 * s, 4], needed=[8, 4]) for s in (0, 1)),
    ]


def test_the_needed_rank_of_a_spectrum_made_by_hand():
    draw = torch.Generator().manual_seed(3)
    U, _ = torch.linalg.qr(torch.randn(7, 7, generator=draw, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(5, 5, generator=draw, dtype=torch.float64))
    energy = torch.tensor([50.0, 25.0, 15.0, 9.0, 1.0], dtype=torch.float64)  # of 100
    G = U[:, :5] @ torch.diag(energy.sqrt()) @ V.T
    asked = {0.6: 1, 0.49: 2, 0.3: 2, 0.24: 3, 0.09: 4, 0.005: 5, 0.0: 5}
    for scale in (1.0, 1e-12, 1e12):
        for matrix in (G, G.T):
            assert needed_ranks(scale * matrix, thresholds=[*asked]) == [*asked.values()]
    assert needed_ranks(G.float(), thresholds=[0.3]) == [2]
    exact = torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0]))  # 9 of 12: the share itself is enough
    assert needed_ranks(exact, thresholds=[0.25]) == [1]
    assert needed_ranks(torch.zeros(3, 4), thresholds=[0.1, 0.0]) == [0, 0]


def test_the_command_follows_every_method_draws_and_does_not_repeat(tmp_path, tiny):
    out, picture = tmp_path / "new" / "rows.jsonl", tmp_path / "ranks.png"
    ask = ["--preset", "smoke", "--out", str(out), "--figure", str(picture)]
    code, said = command(*ask)
    assert code == 0, said
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = {line["config"]["method"]: line for line in written(out)}
    assert list(lines) == list(tiny)
    for name, line in lines.items():
        found = line["metrics"]
        assert (line["kind"], line["seed"]) == ("effective-rank", 0)
        assert line["config"] == asdict(tiny[name])
        assert line["environment"]["git"] == "abc"
        assert found["steps"] == [1, 2, 4]
        assert found["probe"]["steps"] == [1, 4]
        assert len(found["loss"]) == 3
        assert 0 <= found["accuracy"] <= 1
        assert (found["train_examples"], found["full"]) == (64, MATRICES * 2 * SIDE**2)
        assert set(found["needed"]) == set(found["probe"]["needed"]) == set(THRESHOLDS)
        for ranks in found["needed"].values():
            assert len(ranks) == MATRICES
            assert all(len(one) == 3 and min(one) >= 1 for one in ranks.values())
        assert len(found["live"]) == (0 if name == ADAMW else MATRICES)
    tabled = [name for line in said.splitlines() for name in tiny if line.strip().startswith(name)]
    assert tabled == [ADAMW, *tiny]  # AdamW at both thresholds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "trial", lambda *_, **__: pytest.fail("trained again"))
        code, again = command(*ask)
        assert code == 0, again
        assert again.count("not run again") == len(tiny)
        assert len(written(out)) == len(tiny)
        picture.unlink()
        code, said = command(*ask, "--draw-only", revision="other")
        assert (code, picture.exists()) == (0, True), said


def test_an_interrupted_study_goes_on_with_the_trials_that_are_missing(
    tmp_path, tiny, monkeypatch, rows
):
    ran = []

    def interrupted(config, **_):
        ran.append(config.method)
        if len(ran) == 2:
            raise KeyboardInterrupt
        done = rows[0] if config.method == ADAMW else rows[2]
        return done.metrics

    monkeypatch.setattr(study, "trial", interrupted)
    out = tmp_path / "rows.jsonl"
    ask = ["--preset", "smoke", "--out", str(out)]
    assert command(*ask)[0] == 130
    assert command(*ask)[0] == 0
    assert ran == [ADAMW, ADA[0], ADA[0], ADA[1]]
    assert len(written(out)) == len(tiny)
    command(*ask, revision="abc-dirty")  # unknown code is always run
    assert len(written(out)) == 2 * len(tiny)


def test_live_ranks_are_those_the_gradient_needs_when_they_are_sought(tiny):
    found = trial(tiny[ADA[0]])
    needed = found["needed"][ADA[0].partition("=")[2]]
    compared = 0
    for name, ranks in found["live"].items():
        for step, rank, sought in zip(
            found["steps"], ranks, found["basis_step"][name], strict=True
        ):
            if sought == step:
                at = found["steps"].index(step)
                assert abs(rank - needed[name][at]) <= 1  # subspace iteration is not exact
                compared += 1
    assert compared >= MATRICES
    assert found["held"] == MATRICES * 3 * SIDE * LARGEST
    sums = [sum(ranks) for ranks in zip(*found["live"].values(), strict=True)]
    assert found["in_use"] == [3 * SIDE * ranks for ranks in sums]


def test_measuring_does_not_change_the_training(tiny):
    config = replace(tiny[ADA[1]], every=1, probe_every=1)
    often, seldom = trial(config), trial(replace(config, every=4, probe_every=4, probe=1))
    assert np.mean(often["loss"][1:]) == pytest.approx(seldom["loss"][1], abs=1e-12)
    assert often["steps"] == [1, 2, 3, 4]
    assert seldom["steps"] == [1, 4]
    assert often["accuracy"] == seldom["accuracy"]
    for name, ranks in seldom["live"].items():
        assert ranks == [often["live"][name][0], often["live"][name][3]]


def test_a_method_that_trains_something_else_is_refused(tiny):
    with pytest.raises(ConfigError, match="does not train the targets"):
        trial(replace(tiny[ADAMW], spec="bitfit"))


def test_a_curve_is_the_mean_over_seeds_with_its_standard_error(rows):
    found = curve(rows[2:], lambda one: one.metrics["live"]["q"])
    assert found.mean == pytest.approx([10, 4])
    assert found.error == pytest.approx([np.std([8, 12], ddof=1) / 2**0.5, 0])
    assert curve(rows[:1], lambda one: one.metrics["loss"]).error == pytest.approx([0, 0])


def test_the_figure_reads_rows_only(rows, tmp_path):
    picture = figure(rows)
    first, second, sizes, losses = picture.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in first.lines}
    assert lines["AdaRankGrad: live rank (at most 32, which 0 % have)"] == pytest.approx([10, 4])
    assert lines["AdaRankGrad: gradient"] == pytest.approx([12, 6])  # of 8 and 16, 4 and 8
    assert lines["AdamW: gradient"] == pytest.approx([12, 9])
    assert next(iter(second.lines)).get_label() == "AdamW: gradient"  # no row of η = 0.3
    used = {line.get_label(): list(line.get_ydata()) for line in sizes.lines}
    assert used["η = 0.1: in use, 22 % on average"] == pytest.approx([31.25, 12.5])
    assert "rank 32" in sizes.get_ylabel()
    labels = [text.get_text() for text in losses.get_legend().get_texts()]
    assert labels == ["AdamW: 75.0 ± 5.0 % accuracy", "AdaRankGrad η=0.1: 75.0 ± 0.0 % accuracy"]
    assert "2 seeds" in picture.get_suptitle()
    picture.savefig(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure(rows[:1]).savefig(tmp_path / "x.png")  # AdamW alone


def test_the_summary_gives_start_middle_and_end(rows):
    adamw, other, adaptive = summaries(rows)
    assert adamw[:4] == (ADAMW, "0.1", "75.0 ± 5.0 %", "–")
    assert other[1] == "0.3"
    assert adaptive[3] == "10.0 → 10.0 → 4.0 (mean 7.0)"
    assert adaptive[6] == "31.2 → 31.2 → 12.5"


def test_wrong_names_are_corrected_before_any_work(tmp_path):
    out = ["--out", str(tmp_path / "rows.jsonl")]
    assert command("--preset", "smoek", *out)[0] == 2
    assert "did you mean 'smoke'?" in command("--preset", "smoek", *out)[1]
    code, said = command("--preset", "smoke", "--method", "adamw", *out)
    assert (code, "did you mean 'AdamW'?" in said) == (2, True)
    code, said = command("--draw-only", *out)
    assert (code, "has no trial of the preset default" in said) == (1, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"every": 0}, {"probe_every": 3}, {"probe": 0}])
def test_settings_that_cannot_be_are_refused(change):
    with pytest.raises(ConfigError):
        replace(SMOKE[ADAMW], **change)


def test_the_presets_differ_in_method_and_seed_only():
    store = {name: {(c.method, c.seed) for c in configs} for name, configs in PRESETS.items()}
    assert store["default"] == store["epochs"]
    assert len(store["default"]) == 3 * len(SMOKE)
    for configs in PRESETS.values():
        for config in configs:
            same = {"method": config.method, "spec": config.spec, "seed": config.seed}
            assert config == replace(configs[0], **same)


def test_the_list_names_the_study():
    said = CliRunner().invoke(app, ["list"]).output
    assert "effective-rank does the rank a gradient needs fall" in " ".join(said.split())
