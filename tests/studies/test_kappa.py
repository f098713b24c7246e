import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp
from typer.testing import CliRunner

from sgc.finetune.config import ConfigError
from sgc.finetune.randomness import derived_seed
from sgc.problems import LAWS
from sgc.registry import available, create
from studies import kappa as study
from studies.cli import app
from studies.figures.intervals import wilson
from studies.kappa import PRESETS, Config, laws, trial
from studies.measures.kappa_signals import directions, draw
from studies.plugins import solvers
from studies.study import Study, find

STUDY = find("kappa")
SMALL = Config(d=64, k=24, sparsity=3, signals=40)


def same(config, seed=0):
    """The metrics less the time."""
    found = STUDY.trial(config, seed)
    return {name: value for name, value in found.items() if name != "seconds_per_signal"}


# The trial


def drawn(config, seed):
    c = config
    return draw(c.law, c.d, c.sparsity, signals=c.signals, seed=seed)


@pytest.mark.parametrize("law", list(LAWS))
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_counts_are_those_of_scikit_learns_omp(law, noise):
    """Signals 0, 2, … by a first A and 1, 3, … by a second, each with a noise of its own."""
    config = replace(SMALL, k=14, law=law, noise=noise, matrices=2)
    generator = STUDY.generator(config, 0)
    found, seed = trial(config, generator), generator.initial_seed()
    support, values, *_ = drawn(config, seed)
    x = np.zeros((40, 64))
    np.put_along_axis(x, support.numpy(), values.numpy(), 1)
    exact, errors, energy = 0, [], []
    for i in (0, 1):
        A = create("projection", "gaussian", 14, 64, seed=derived_seed(seed, "A", i))
        A = A.to_dense().double().numpy()
        norms = np.linalg.norm(A, axis=0)
        y = x[i::2] @ A.T
        direction = directions(20, 14, derived_seed(seed, "noise", i)).double().numpy()
        assert np.linalg.norm(direction, axis=1) == pytest.approx(1, abs=1e-6)
        y = y + noise * np.linalg.norm(y, axis=1, keepdims=True) * direction
        for row, true in zip(y, x[i::2], strict=True):
            coded = orthogonal_mp(A / norms, row / np.linalg.norm(row), n_nonzero_coefs=3)
            got = coded * np.linalg.norm(row) / norms
            exact += set(np.flatnonzero(got)) == set(np.flatnonzero(true))
            errors.append(np.linalg.norm(got - true) / np.linalg.norm(true))
            energy.append((true[got != 0] ** 2).sum() / (true**2).sum())
    assert 0 < exact < 40
    assert found["exact"] == exact
    assert found["accurate"] == (np.array(errors) <= max(1e-3, noise)).sum()
    assert found["energy"] == pytest.approx(np.mean(energy), abs=1e-5)
    middle = sorted(errors)[19]  # torch's median is the lower one
    assert found["median_error"] == pytest.approx(middle, rel=1e-3, abs=1e-5)
    assert sum(found["statuses"].values()) == found["signals"] == 40


def test_a_solver_that_answers_with_one_row_is_refused(monkeypatch):
    """Its row would be compared with all ten signals, and be right for none or one of them."""

    class One:
        def solve(self, A, y, *, sparsity):
            found = create("recovery", "omp").solve(A, y[:1], sparsity=sparsity)
            assert len(found.support) == 1
            return found

        def forget(self):
            pass

    monkeypatch.setattr(
        study,
        "create",
        lambda kind, *a, **o: One() if kind == "recovery" else create(kind, *a, **o),
    )
    with pytest.raises(
        ValueError, match=r"'omp' answers 10 signals .*shape \(1, 3\), not \(10, 3\)"
    ):
        STUDY.trial(SMALL, 0)
    assert STUDY.trial(replace(SMALL, signals=4), 0)["signals"] == 4  # one a matrix, as it says


def test_the_spot_values_are_met():
    """OMP, columns of norm one: rates measured once with other code and other draws."""
    paper, small = (2048, 217, 31), (4096, 56, 8)
    rates = {
        **{(paper, "gaussian"): 0.992, (paper, "signs"): 0.176},
        **{(small, "gaussian"): 0.863, (small, "signs"): 0.039},
    }
    for ((d, k, s), law), known in rates.items():
        config = Config(
            d=d, k=k, sparsity=s, law=law, ensemble="spherical", signals=384, matrices=2
        )
        found = trial(config, STUDY.generator(config, 0))
        low, high = wilson(found["exact"], 384, level=0.999)
        assert low < known < high


def test_unequal_norms_of_columns_help_where_coefficients_are_equal():
    """The same signals, and directions of columns: a Gaussian A finds more than a spherical one."""
    config = Config(d=4096, k=56, sparsity=8, law="signs", signals=4096, matrices=4)
    gaussian, spherical = (
        trial(own, STUDY.generator(own, 0))["exact"]
        for own in (replace(config, ensemble=name) for name in ("gaussian", "spherical"))
    )
    # 0.0245 ± 0.0036 of 6,000 other signals
    assert 0.01 * 4096 < gaussian - spherical < 0.04 * 4096


def test_equal_problems_meet_every_solver_and_the_first_signals_stay():
    fields = {"solver": "niht", "ensemble": "srht", "noise": 0.1, "signals": 80}
    seed = STUDY.generator(SMALL, 0).initial_seed()
    for name, value in fields.items():
        assert STUDY.generator(replace(SMALL, **{name: value}), 0).initial_seed() == seed
    for name, value in {"d": 63, "k": 23, "sparsity": 2, "law": "signs"}.items():
        assert STUDY.generator(replace(SMALL, **{name: value}), 0).initial_seed() != seed
    few, many = (drawn(replace(SMALL, signals=n), seed)[1] for n in (40, 80))
    assert torch.equal(few, many[:40])
    assert torch.equal(directions(3, 5, 1), directions(6, 5, 1)[:3])
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert same(SMALL) == same(SMALL) != same(SMALL, seed=1)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("solver", solvers())
def test_every_solver_succeeds_with_all_measurements_and_fails_with_none_to_spare(solver):
    """On ±1: k = d has no coherence to speak of in an orthonormal SRHT; k = s has nothing else."""
    whole = replace(SMALL, k=64, ensemble="srht", law="signs", solver=solver)
    assert same(whole)["exact"] == same(whole)["accurate"] == 40
    least = same(replace(SMALL, k=3, law="signs", solver=solver))
    assert least["exact"] < 8
    json.dumps(least, allow_nan=False)


def test_of_one_nonzero_only_ensembles_with_distinct_columns_recover():
    """Eight signs have 2⁷ = 128 columns up to sign; of 4096 columns each has 32 copies."""
    one = Config(d=4096, k=8, sparsity=1, signals=64)
    assert same(one)["exact"] == 64
    assert same(replace(one, ensemble="rademacher"))["exact"] < 16


# Presets, command


def test_the_presets_hold_the_papers_sizes_for_each_law_and_every_solver():
    for name in ("default", "paper"):
        configs = PRESETS[name].configs()
        assert len(configs) == len(set(configs))
        points = {(c.d, c.k, c.sparsity, c.law, c.solver) for c in configs if not c.noise}
        for law in laws():
            for solver in solvers():
                for kappa in (5, 6, 7, 8):
                    assert (2048, 31 * kappa, 31, law, solver) in points
                assert (4096, 56, 8, law, solver) in points
                assert (65536, 8, 1, law, solver) in points
        assert {c.ensemble for c in configs} == set(available("projection")) - {"identity"}
    spot = [c for c in PRESETS["default"].configs() if c.k in {217, 56} and c.solver == "omp"]
    assert {c.signals for c in spot} == {1024}


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 2},
        {"k": 65},
        {"law": "gausian"},
        {"noise": 1.0},
        {"noise": -0.1},
        {"matrices": 0},
        {"signals": 3},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(SMALL, **wrong)


def test_the_smoke_preset_runs_and_draws(tmp_path):
    arguments = ["run", "kappa", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "kappa-smoke.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len(PRESETS["smoke"].configs())
    assert {row["config"]["solver"] for row in rows} == set(solvers())
    assert {row["config"]["law"] for row in rows} == set(laws())
    assert max(len(json.dumps(row["metrics"])) for row in rows) < 1000
    assert (tmp_path / "kappa-smoke.png").read_bytes().startswith(b"\x89PNG")
    assert "κ of 95 %" in done.output


def test_the_question_is_the_first_line():
    assert isinstance(STUDY, Study)
    assert STUDY.question.startswith("how many measurements")
