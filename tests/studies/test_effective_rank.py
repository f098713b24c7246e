import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("transformers", reason="needs pip install transformers")

from sgc.finetune.config import ConfigError
from sgc.results import Result, ResultStore
from studies import effective_rank as study
from studies.cli import app
from studies.effective_rank import ADAMW, PRESETS
from studies.figures.effective_rank import curve, figure, summaries
from studies.measures.captured import GRADIENTS
from studies.measures.rank_watch import THRESHOLDS
from studies.measures.spectra import needed_ranks
from studies.runner.grid import missing, points
from studies.study import Preset, find
from tests.finetune.conftest import tiny_csv, tiny_model  # noqa: F401 - fixtures

STUDY = find("effective-rank")
SMOKE = {config.method: config for config in PRESETS["smoke"].configs()}
ADA = [name for name in SMOKE if name != ADAMW]
SIDE, MATRICES, LARGEST = 32, 2, 32  # of the tiny model; the presets' largest rank


@pytest.fixture
def tiny(tiny_model, tiny_csv, monkeypatch):  # noqa: F811
    """The smoke preset on a model of one layer."""
    places = {"model": str(tiny_model), "data": str(tiny_csv)}
    configs = {name: replace(config, **places) for name, config in SMOKE.items()}
    monkeypatch.setitem(PRESETS, "smoke", Preset(configs=lambda: list(configs.values())))
    return configs


def trial(config, seed=0):
    return study.trial(config, torch.Generator().manual_seed(seed))


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
    return Result(
        run_id=STUDY.run_id(SMOKE[method], seed),
        kind=STUDY.kind,
        config=asdict(SMOKE[method]),
        seed=seed,
        metrics=metrics,
        environment={},
    )


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


def test_the_command_follows_every_method_and_draws(tmp_path, tiny):
    ask = ["run", "effective-rank", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ask)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "effective-rank-smoke.png").read_bytes().startswith(b"\x89PNG")
    lines = ResultStore(tmp_path / "effective-rank-smoke.jsonl").load()
    assert [line.config["method"] for line in lines] == list(tiny)
    for line in lines:
        found = line.metrics
        assert found["steps"] == [1, 2, 4]
        assert found["probe"]["steps"] == [1, 4]
        assert len(found["loss"]) == 3
        assert 0 <= found["accuracy"] <= 1
        assert found["train_examples"] == tiny[ADAMW].examples
        assert found["full"] == MATRICES * 2 * SIDE**2
        assert set(found["needed"]) == set(found["probe"]["needed"]) == set(THRESHOLDS)
        for ranks in found["needed"].values():
            assert len(ranks) == MATRICES
            assert all(len(one) == 3 and min(one) >= 1 for one in ranks.values())
        assert len(found["live"]) == (0 if line.config["method"] == ADAMW else MATRICES)
    # The first gradient comes before any method has done anything: order, head, dropout and probe
    # are the same for all.
    firsts = [(one.metrics["loss"][0], one.metrics["needed"]["0.1"]) for one in lines]
    assert len({loss for loss, _ in firsts}) == 1
    assert len({tuple(ranks[0] for ranks in needed.values()) for _, needed in firsts}) == 1
    said = done.output.splitlines()
    tabled = [name for line in said for name in tiny if line.strip().startswith(name)]
    assert tabled == [ADAMW, *tiny]  # AdamW at both thresholds


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


@pytest.mark.parametrize("change", [{"every": 0}, {"probe_every": 3}, {"probe": 0}])
def test_settings_that_cannot_be_are_refused(change):
    with pytest.raises(ConfigError):
        replace(SMOKE[ADAMW], **change)


def test_the_presets_compare_methods_at_equal_settings():
    for preset in PRESETS.values():
        configs = preset.configs()
        assert [config.method for config in configs] == [ADAMW, *ADA]
        for config in configs:
            assert config == replace(configs[0], method=config.method, spec=config.spec)


def test_the_committed_rows_are_those_of_the_default_preset():
    rows = ResultStore(GRADIENTS.parent / "effective-rank.jsonl").load()
    assert not missing(STUDY, rows, points(STUDY, "default"))
    accuracies = {line[0]: line[2] for line in summaries(rows)}
    assert accuracies[ADAMW] == "79.0 ± 0.3 %"  # as the module says
