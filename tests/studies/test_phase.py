import json
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp
from typer.testing import CliRunner

from sgc.finetune.config import ConfigError
from sgc.problems import sparse_problem
from sgc.registry import create
from sgc.results import Result
from studies import phase
from studies.cli import app
from studies.figures.intervals import fit_logistic
from studies.figures.phase import diagrams, figure, table
from studies.measures.thresholds import donoho_tanner
from studies.phase import PRESETS, Config, trial
from studies.plugins import solvers
from studies.study import find

STUDY = find("phase")
POINT = Config(d=64, delta=0.5, rho=0.2, signals=24)


def made(config, *, accurate, seed=0, milliseconds=2.0):
    metrics = {
        "k": config.k,
        "sparsity": config.sparsity,
        "signals": config.signals,
        "exact": accurate,
        "accurate": accurate,
        "statuses": {"CONVERGED": accurate, "MAX_ITERATIONS": config.signals - accurate},
        "cpu_seconds_per_signal": milliseconds / 1000,
    }
    return Result(
        run_id=STUDY.run_id(config, seed),
        kind=STUDY.kind,
        config=asdict(config),
        seed=seed,
        metrics=metrics,
        environment={},
    )


def plane(rates, **fields):
    """Rows of a plane: δ → successes out of 24 at ρ = 0.1, 0.2, 0.4, 0.6."""
    return [
        made(replace(POINT, delta=delta, rho=rho, d=200, **fields), accurate=good)
        for delta, counts in rates.items()
        for rho, good in zip((0.1, 0.2, 0.4, 0.6), counts, strict=True)
    ]


def test_k_and_s_are_rounded_and_at_least_one():
    assert (POINT.k, POINT.sparsity) == (32, 6)
    assert replace(POINT, rho=0.001).sparsity == 1
    whole = replace(POINT, delta=1.0, rho=1.0)
    assert (whole.k, whole.sparsity) == (64, 64)


def test_counts_are_those_of_scikit_learns_omp():
    config = replace(POINT, rho=0.3)
    generator = STUDY.generator(config, 0)
    found = trial(config, generator)
    seed = generator.initial_seed()
    problem = sparse_problem(64, 32, 10, signals=24, seed=seed)
    A, x = problem.A.to_dense().numpy(), problem.x().numpy()
    norms = np.linalg.norm(A, axis=0)
    exact = accurate = 0
    for y, true in zip(problem.y.numpy(), x, strict=True):
        got = orthogonal_mp(A / norms, y / np.linalg.norm(y), n_nonzero_coefs=10)
        got = got * np.linalg.norm(y) / norms
        exact += set(np.flatnonzero(got)) == set(np.flatnonzero(true))
        accurate += np.linalg.norm(got - true) <= 1e-3 * np.linalg.norm(true)
    assert 0 < accurate < 24
    assert found["accurate"] == accurate
    assert found["exact"] == exact
    assert sum(found["statuses"].values()) == found["signals"] == 24
    assert found["cpu_seconds_per_signal"] > 0


def test_a_solver_that_answers_with_one_row_is_refused(monkeypatch):
    class One:
        def solve(self, A, y, *, sparsity):
            return create("recovery", "omp").solve(A, y[:1], sparsity=sparsity)

    monkeypatch.setattr(phase, "create", lambda *names: One())
    with pytest.raises(ValueError, match=r"shape \(1, 6\), not \(24, 6\)"):
        STUDY.trial(POINT, 0)


@pytest.mark.parametrize("solver", solvers())
def test_every_solver_succeeds_in_the_easy_corner_and_fails_in_the_hard_one(solver):
    easy = replace(POINT, delta=0.9, rho=0.02, solver=solver)
    hard = replace(POINT, delta=0.3, rho=0.95, solver=solver)
    assert STUDY.trial(easy, 0)["accurate"] >= 22  # sparsity 1 of 58
    assert STUDY.trial(hard, 0)["accurate"] <= 2


def test_points_have_seeds_of_their_own_that_solvers_share():
    seed = STUDY.generator(POINT, 0).initial_seed()
    for change in ({"solver": "niht"}, {"signals": 3}):
        assert STUDY.generator(replace(POINT, **change), 0).initial_seed() == seed
    for change in ({"delta": 0.6}, {"rho": 0.3}, {"law": "signs"}, {"d": 65}):
        assert STUDY.generator(replace(POINT, **change), 0).initial_seed() != seed
    assert STUDY.generator(POINT, 1).initial_seed() != seed
    before = torch.random.get_rng_state()
    first, second = (STUDY.trial(POINT, 0) for _ in range(2))
    times = ("cpu_seconds_per_signal",)
    assert {k: v for k, v in first.items() if k not in times} == {
        k: v for k, v in second.items() if k not in times
    }
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "wrong", [{"delta": 0}, {"rho": 1.1}, {"law": "sings"}, {"signals": 0}, {"delta": 0.001}]
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(POINT, **wrong)


def test_a_diagram_adds_seeds_and_its_contours_are_the_fits():
    rows = plane({0.3: (24, 12, 0, 0), 0.8: (24, 24, 20, 1)})
    rows.append(replace_seed(rows[1], accurate=24))
    (one,) = diagrams(rows)
    assert one.deltas == [0.3, 0.8]
    assert one.rhos == [0.1, 0.2, 0.4, 0.6]
    assert one.rates() == pytest.approx(np.array([[1, 1], [0.75, 1], [0, 20 / 24], [0, 1 / 24]]))
    assert one.milliseconds() == pytest.approx(np.full((4, 2), 2.0))
    assert one.seconds == pytest.approx(9 * 24 * 0.002)
    k = 60
    shares = [round(rho * k) / k for rho in (0.1, 0.2, 0.4, 0.6)]
    wanted = fit_logistic(shares, [24, 36, 0, 0], [24, 48, 24, 24]).crossing(0.5)
    low, high = one.crossings(0.5)
    assert low == wanted
    assert 0.4 < high.at < 0.6
    assert one.crossings(0.9)[0].at < low.at < one.crossings(0.1)[0].at  # more ρ, less success
    assert one.statuses == {"CONVERGED": 129, "MAX_ITERATIONS": 87}


def replace_seed(row, *, accurate):
    config = Config(**row.config)
    return made(config, accurate=accurate, seed=1)


def test_the_figure_and_the_table_read_rows_only(tmp_path):
    rows = [
        *plane({0.3: (24, 12, 0, 0), 0.8: (24, 24, 20, 1)}),
        *plane({0.3: (0, 0, 0, 0), 0.8: (24, 24, 24, 24)}, solver="iht"),
        *plane({0.3: (20, 2, 0, 0), 0.8: (24, 20, 2, 0)}, law="signs"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = figure(rows)
        picture.savefig(tmp_path / "x.png")
        figure(rows[:3]).savefig(tmp_path / "x.png")
    panels = picture.axes[:4]
    assert [axes.get_title() for axes in panels[:2]] == ["omp", "iht"]
    assert [axes.get_ylabel() for axes in (panels[0], panels[2])] == ["ρ = s/k"] * 2
    assert all(axes.get_xlabel() == "δ = k/d" for axes in panels[2:])
    labels = panels[0].get_legend_handles_labels()[1]
    assert {
        *(f"{level} % of signals recovered" for level in (90, 50, 10)),
        *("50 %, ±1 nonzeros", "ℓ1 (Donoho–Tanner)"),
    } == set(labels)
    assert "one thread of a CPU" in picture.get_suptitle()
    theory = next(one for one in panels[0].lines if "ℓ1" in str(one.get_label()))
    at = dict(zip(np.round(theory.get_xdata(), 2), theory.get_ydata(), strict=True))
    assert at[0.5] == pytest.approx(donoho_tanner(0.5))
    cells = {column.header: list(column.cells) for column in table(rows).columns}
    assert cells["δ = 0.3"][2] == "< 0.1"
    assert cells["δ = 0.8"][2] == "> 0.6"
    fit = diagrams(rows)[0].crossings(0.5)[1]
    assert cells["δ = 0.8"][1] == f"{fit.at:.3f} ({fit.low:.3f}–{fit.high:.3f})"
    assert cells["δ = 0.8"][0] == f"{donoho_tanner(0.8):.3f}"


def test_the_smoke_preset_runs_and_draws(tmp_path):
    arguments = ["run", "phase", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "phase-smoke.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len(PRESETS["smoke"].configs())
    assert {row["config"]["solver"] for row in rows} == set(solvers())
    assert (tmp_path / "phase-smoke.png").read_bytes().startswith(b"\x89PNG")


def test_the_default_plane_is_whole_for_every_solver():
    for name in ("default", "paper"):
        configs = PRESETS[name].configs()
        planes = {}
        for one in configs:
            planes.setdefault((one.law, one.solver), set()).add((one.delta, one.rho))
        assert {solver for _, solver in planes} == set(solvers())
        assert len({frozenset(points) for points in planes.values()}) == 1
        assert len(configs) == len(set(configs))
