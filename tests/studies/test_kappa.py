import io
import json
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.integrate import quad
from scipy.optimize import linprog, minimize_scalar
from sklearn.linear_model import LogisticRegression, orthogonal_mp
from typer.testing import CliRunner

from sgc.finetune.config import ConfigError
from sgc.problems import LAWS
from sgc.registry import available, create
from sgc.results import Result, ResultStore
from studies import kappa as study
from studies.captured import GRADIENTS, VARIABLE, Captured, digest, using
from studies.cli import app
from studies.intervals import (
    coefficients,
    donoho_tanner,
    fit_logistic,
    l1_kappa,
    omp_kappa,
    soft_threshold_risk,
    wilson,
)
from studies.kappa import PRESETS, Config, laws, trial
from studies.kappa_curves import curves
from studies.kappa_figure import figure
from studies.kappa_tables import table
from studies.plugins import solvers
from studies.study import Study, find

STUDY = find("kappa")
SMALL = Config(d=64, k=24, sparsity=3, signals=40)


def made(config, *, exact, seed=0):
    counts = {"signals": config.signals, "exact": exact, "accurate": exact, "statuses": {}}
    metrics = {**counts, "energy": exact / config.signals, "seconds_per_signal": 0.002}
    return Result(
        run_id=STUDY.run_id(config, seed),
        kind=STUDY.kind,
        config=asdict(config),
        seed=seed,
        metrics=metrics,
        environment={},
    )


def same(config, seed=0):
    """The metrics less the time."""
    found = STUDY.trial(config, seed)
    return {name: value for name, value in found.items() if name != "seconds_per_signal"}


# Intervals and fits


def test_wilson_solves_its_quadratic_and_covers():
    z = 1.959963984540054
    for good, n in ((0, 7), (3, 7), (7, 7), (512, 1024)):
        low, high = wilson(good, n)
        for end in (low, high):
            assert abs(good / n - end) == pytest.approx(z * (end * (1 - end) / n) ** 0.5, abs=1e-9)
        assert 0 <= low < high <= 1
    draw = np.random.default_rng(5)
    for p in (0.02, 0.5, 0.97):
        ends = [wilson(int(x), 50) for x in draw.binomial(50, p, 2000)]
        assert np.mean([low <= p <= high for low, high in ends]) > 0.92
    for wrong in ((1, 0), (8, 7), (-1, 7)):
        with pytest.raises(ValueError, match="successes must lie"):
            wilson(*wrong)


def test_the_logistic_fit_is_the_likelihoods_maximum():
    x = np.array([3.0, 4, 5, 6, 7, 8, 10])
    n = np.full(7, 4000)
    draw = np.random.default_rng(2)
    good = draw.binomial(n, 1 / (1 + np.exp(-(-14 + 8 * np.log(x)))))
    fit = fit_logistic(x, good, n)
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    features, labels = np.repeat(np.log(x), 2)[:, None], np.tile([1, 0], 7)
    oracle.fit(features, labels, sample_weight=np.stack([good, n - good], 1).ravel())
    assert fit.slope == pytest.approx(oracle.coef_[0, 0], rel=2e-3)  # the prior is one trial
    assert fit.intercept == pytest.approx(oracle.intercept_[0], rel=2e-3)
    for level in (0.5, 0.9, 0.95):
        truth = np.exp((14 + np.log(level / (1 - level))) / 8)
        found = fit.crossing(level)
        assert found.low < truth < found.high
        assert found.high - found.low < 0.5
        assert fit.rate(found.at) == pytest.approx(level)


def test_many_fits_at_once_are_the_fits_one_by_one():
    x, draw = [3.0, 5, 8, 12], np.random.default_rng(6)
    n = draw.integers(1, 60, (20, 4))
    good = draw.binomial(n, [0.0, 0.2, 0.9, 1.0])
    good[0], good[1] = 0, n[1]
    good[2], n[2] = (0, 3, 0, 0), (0, 7, 0, 0)  # one x says nothing of a slope
    found = coefficients(x, good, n)
    assert np.isnan(found[:3]).all()
    for got, a, b in zip(found[3:], good[3:], n[3:], strict=True):
        fit = fit_logistic(x, a.tolist(), b.tolist())
        assert got == pytest.approx((fit.intercept, fit.slope), rel=1e-6)


def test_the_intervals_of_crossings_cover():
    x, n = np.array([3.0, 4, 5, 6, 7, 8]), np.full(6, 60)
    draw, truth, inside = np.random.default_rng(8), np.exp((14 + np.log(9)) / 9), 0
    for _ in range(100):
        good = draw.binomial(n, 1 / (1 + np.exp(-(-14 + 9 * np.log(x)))))
        found = fit_logistic(x, good, n).crossing(0.9)
        inside += found.low < truth < found.high
    assert inside >= 88


def test_a_fit_without_overlap_is_finite_and_says_what_is_not_reached():
    x = [3, 4, 5, 6]
    sharp = fit_logistic(x, [0, 0, 10, 10], [10] * 4)
    assert 4 < sharp.crossing(0.5).at < 5
    assert 0 < sharp.slope < 100
    low = fit_logistic(x, [0, 0, 1, 2], [10] * 4)
    assert low.crossing(0.95) is None
    assert fit_logistic(x, [0] * 4, [10] * 4) is fit_logistic(x, [10] * 4, [10] * 4) is None
    with pytest.raises(ValueError, match="two positive x"):
        fit_logistic([3, 3], [1, 2], [4, 4])


# Theory


def test_the_l1_threshold_has_its_known_value_and_limits():
    assert donoho_tanner(0.5) == pytest.approx(0.3858, abs=3e-4)
    assert donoho_tanner(1 - 1e-9) == pytest.approx(1, abs=1e-2)
    for d, s in ((2048, 31), (4096, 8), (100, 20)):  # the two forms are one curve
        delta = s * l1_kappa(d, s) / d
        assert donoho_tanner(delta) == pytest.approx(1 / l1_kappa(d, s), rel=1e-4)
    ratios = [l1_kappa(10**n, 1) / (2 * np.log(10**n)) for n in (3, 6, 9)]
    assert ratios == sorted(ratios)  # 2 ln(d/s) as s/d → 0, from below
    assert 0.75 < ratios[-1] < 1
    assert soft_threshold_risk(1 - 1e-9) == pytest.approx(1, abs=1e-4)
    assert omp_kappa(2048, 31) == pytest.approx(15.22, abs=0.01)


@pytest.mark.parametrize("delta", [0.25, 0.6])
def test_basis_pursuit_passes_from_success_to_failure_there(delta):
    draw, d = np.random.default_rng(4), 100
    k = round(delta * d)

    def solved(s):
        A, x = draw.standard_normal((k, d)), np.zeros(d)
        x[:s] = draw.standard_normal(s)
        split = linprog(np.ones(2 * d), A_eq=np.hstack([A, -A]), b_eq=A @ x).x
        return np.abs(split[:d] - split[d:] - x).max() < 1e-5

    threshold = donoho_tanner(delta) * k
    assert sum(solved(round(0.7 * threshold)) for _ in range(10)) >= 8
    assert sum(solved(round(1.35 * threshold)) for _ in range(10)) <= 2


def test_the_risk_is_that_of_soft_thresholding():
    """By integration: E(η(Z) − 0)² off the support, 1 + τ² far out on it."""

    def risk(tau):
        normal = lambda z: (abs(z) - tau) ** 2 * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)  # noqa: E731
        return 0.1 * (1 + tau**2) + 0.9 * 2 * quad(normal, tau, 30)[0]

    assert soft_threshold_risk(0.1) == pytest.approx(minimize_scalar(risk, (0.5, 1.5)).fun)


# The trial


@pytest.mark.parametrize("law", list(LAWS))
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_counts_are_those_of_scikit_learns_omp(law, noise):
    config = replace(SMALL, k=14, law=law, noise=noise, matrices=1)
    generator = STUDY.generator(config, 0)
    found, seed = trial(config, generator), generator.initial_seed()
    support, values, _ = study._signals(config, seed)
    A = create("projection", "gaussian", 14, 64, seed=study.derived_seed(seed, "A", 0))
    A = A.to_dense().double().numpy()
    norms = np.linalg.norm(A, axis=0)
    x = np.zeros((40, 64))
    np.put_along_axis(x, support.numpy(), values.numpy(), 1)
    y = x @ A.T
    direction = study._directions(40, 14, study.derived_seed(seed, "noise", 0)).double().numpy()
    assert np.linalg.norm(direction, axis=1) == pytest.approx(1, abs=1e-6)
    y = y + noise * np.linalg.norm(y, axis=1, keepdims=True) * direction
    exact, errors, energy = 0, [], []
    for row, true in zip(y, x, strict=True):
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


def test_the_spot_values_are_met():
    """OMP, Gaussian A: rates measured once with other code and other draws."""
    for d, k, s, law, known in ((2048, 217, 31, "signs", 0.176), (4096, 56, 8, "gaussian", 0.863)):
        config = Config(d=d, k=k, sparsity=s, law=law, signals=384, matrices=2)
        found = trial(config, STUDY.generator(config, 0))
        low, high = wilson(found["exact"], 384, level=0.999)
        assert low < known < high


def test_equal_problems_meet_every_solver_and_the_first_signals_stay():
    fields = {"solver": "niht", "ensemble": "srht", "noise": 0.1, "signals": 80}
    seed = STUDY.generator(SMALL, 0).initial_seed()
    for name, value in fields.items():
        assert STUDY.generator(replace(SMALL, **{name: value}), 0).initial_seed() == seed
    for name, value in {"d": 63, "k": 23, "sparsity": 2, "law": "signs"}.items():
        assert STUDY.generator(replace(SMALL, **{name: value}), 0).initial_seed() != seed
    few, many = (study._signals(replace(SMALL, signals=n), seed)[1] for n in (40, 80))
    assert torch.equal(few, many[:40])
    assert torch.equal(study._directions(3, 5, 1), study._directions(6, 5, 1)[:3])
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


# Captured gradients


@pytest.fixture
def gradients(monkeypatch):
    draw = np.random.default_rng(1)
    kept = []
    for step in (1, 2):
        whole = draw.standard_normal((10, 20)).astype(np.float32).ravel()
        order = np.argsort(-np.abs(whole))[:150]
        entries = {"index": order.astype(np.int64), "values": whole[order]}
        energy = float((whole**2).sum())
        kept.append(
            Captured(name="w", step=step, shape=(10, 20), numel=200, energy=energy, **entries)
        )
    monkeypatch.setattr(study, "captured", lambda: kept)
    return kept


def test_captured_signals_are_the_largest_entries_of_each_chunk(gradients):
    assert laws()[-1] == "captured"
    config = Config(d=64, k=24, sparsity=3, law="captured", signals=8)
    support, values, sources = study._signals(config, 3)
    assert support.shape == (8, 3)  # ⌈200/64⌉ = 4 chunks of 50, of both gradients
    for n, one in enumerate(gradients):
        largest = values[sources == n].abs().max()
        assert largest == np.abs(one.values).max()
    assert support.max() < 50
    wanted = []
    for n, one in enumerate(gradients):
        cut = create("chunker", "permuted", chunks=4, seed=study.derived_seed(3, "cut", n))
        flat = np.zeros(200, np.float32)
        flat[one.index] = one.values
        parts = cut.split(torch.from_numpy(flat)).numpy()
        wanted += [sorted(np.abs(part))[-3:] for part in parts]
    found = values.abs().sort(1).values.numpy()
    assert np.array(sorted(map(tuple, found))) == pytest.approx(
        np.array(sorted(map(tuple, wanted)))
    )
    found = same(config)
    assert found["signals"] == 8
    assert found["by_gradient"]["signals"] == [4, 4]
    for what in ("exact", "accurate"):
        assert sum(found["by_gradient"][what]) == found[what]
    assert same(replace(config, signals=100))["signals"] == 8  # there are no more
    assert "by_gradient" not in same(SMALL)
    with pytest.raises(ConfigError, match="fewer nonzeros"):
        study._signals(replace(config, k=50, sparsity=50), 3)


def test_the_gradients_are_counted_one_by_one(gradients, monkeypatch):
    """Those of the second are of zeros but for one entry a chunk, and too easy to miss."""
    config = Config(d=64, k=64, sparsity=1, law="captured", ensemble="srht", signals=8)
    assert same(config)["by_gradient"]["exact"] == [4, 4]
    few = replace(gradients[1], index=gradients[1].index[:2], values=gradients[1].values[:2])
    monkeypatch.setattr(study, "captured", lambda: [gradients[0], few])
    counts = same(config)["by_gradient"]
    assert counts["signals"][0] == 4
    assert 1 <= counts["signals"][1] <= 2


def test_which_gradients_are_read_is_a_part_of_the_trial(tmp_path):
    config = replace(SMALL, law="captured")
    assert study.inputs(SMALL) == ""
    assert study.inputs(config) == digest()
    with np.load(GRADIENTS) as file:
        arrays = dict(file)
    arrays["values"] = 2 * arrays["values"]
    np.savez(tmp_path / "other.npz", **arrays)
    there = STUDY.run_id(config, 0)
    with using(tmp_path / "other.npz"):
        assert STUDY.run_id(config, 0) != there


def test_without_gradients_the_law_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.npz"))
    with pytest.warns(UserWarning, match="no captured gradients"):
        assert laws() == list(LAWS)
    with pytest.warns(UserWarning, match="left out"):
        assert {c.law for c in PRESETS["smoke"].configs()} == set(LAWS)


# Presets, command, figure


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


def rows_of(law, rates, **fields):
    return [
        made(Config(d=64, k=4 * kappa, sparsity=4, law=law, signals=100, **fields), exact=good)
        for kappa, good in rates.items()
    ]


def test_the_figure_and_the_table_read_rows_only(tmp_path):
    rows = [
        *rows_of("gaussian", {3: 10, 5: 60, 7: 99, 9: 100}),
        *rows_of("signs", {3: 0, 5: 1, 7: 20, 9: 70}),
        *rows_of("signs", {3: 0, 5: 0, 7: 0, 9: 0}, solver="iht"),
        *rows_of("gaussian", {3: 0, 7: 60}, noise=0.1),
        *[made(replace(SMALL, k=k, sparsity=1), exact=40) for k in (3, 7)],
    ]
    again = made(Config(d=64, k=12, sparsity=4, signals=100), exact=30, seed=1)
    first, *_ = curves([*rows, again])
    assert (first.kappas, first.exact, first.signals) == (
        [3, 5, 7, 9],
        [40, 60, 99, 100],
        [200, 100, 100, 100],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = figure(rows)
        picture.savefig(tmp_path / "x.png")
        figure(rows[:4]).savefig(tmp_path / "x.png")
        figure(rows[-2:]).savefig(tmp_path / "x.png")  # one nonzero only
    axes = picture.axes
    assert [one.get_title().partition("\n")[0] for one in axes] == [
        "omp by law of the nonzeros",
        "by solver, ±1 nonzeros",
        "omp with noise",
    ]
    assert axes[0].get_ylabel() == "share of supports found exactly"
    assert all("κ = k/s" in one.get_xlabel() for one in axes)
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["Gaussian (n 100)", "±1 (n 100)"]
    assert all(one.get_legend() for one in axes)
    lines = {round(float(line.get_xdata()[0]), 3) for line in axes[0].lines}
    assert {round(omp_kappa(64, 4), 3), round(l1_kappa(64, 4), 3)} <= lines
    choice, clean, noisy, single = table(rows)
    cells = {c.header: list(c.cells) for c in clean.columns}
    ends = [wilson(good, 100) for good in (99, 20, 0)]
    spread = [
        f"{rate} ±{f'{(high - low) / 2:.3f}'[1:]}"
        for rate, (low, high) in zip((".990", ".200", ".000"), ends, strict=True)
    ]
    assert cells["κ 7"][:3] == spread
    assert cells["κ 5"][:3] == [".60", ".01", ".00"]
    assert cells["energy"][:3] == [".990", ".200", ".000"]
    assert first.energy == pytest.approx([0.2, 0.6, 0.99, 1])
    fit = curves(rows)[0].fit("exact").crossing(0.5)
    assert cells["κ of 50 %"][0] == f"{fit.at:.1f} ({fit.low:.1f}–{fit.high:.1f})"
    assert cells["κ of 95 %"][1:3] == ["> 9", "> 9"]
    assert next(c for c in single.columns if c.header == "κ of 50 %")._cells == ["< 3"]
    assert [one.row_count for one in (clean, noisy, single)] == [3, 1, 1]
    chosen = {c.header: list(c.cells) for c in choice.columns}
    assert chosen["solver"] == ["omp", "iht"]
    assert chosen["±1"] == spread[1:]
    assert chosen["Gaussian"] == [spread[0], ""]
    assert chosen["ms a signal"] == ["2.0", "2.0"]


def test_a_grid_of_ones_own_has_its_rates_and_the_papers_stands_for_one_that_is_too_fine():
    rows = rows_of("gaussian", {2: 10, 9: 70, 15: 99})
    cells = {c.header: list(c.cells) for c in table(rows)[0].columns}
    low, high = wilson(70, 100)
    assert [cells[f"κ {k}"][0][:4] for k in (2, 9, 15)] == [".100", ".700", ".990"]
    assert cells["κ 9"][0].endswith(f"±{(high - low) / 2:.3f}".replace("0.", "."))
    assert "energy" not in cells
    many = rows_of("gaussian", dict.fromkeys(range(3, 15), 50))
    heads = [c.header for c in table(many)[0].columns]
    assert [head for head in heads if head.startswith("κ ") and "of" not in head] == [
        *("κ 5", "κ 6", "κ 7", "κ 8")
    ]


def test_solvers_with_the_same_counts_share_a_line():
    rates = {3: 0, 7: 60, 9: 90}
    rows = [*rows_of("signs", rates), *rows_of("signs", rates, solver="omp-inverse-cholesky")]
    axes = figure(rows).axes[1]
    (label,) = [text.get_text() for text in axes.get_legend().get_texts()]
    assert label == "omp =\nomp-inverse-cholesky\n(n 100)"


def test_the_committed_rows_fit_the_width_of_a_pipe():
    path = GRADIENTS.with_name("kappa.jsonl")
    console = Console(width=140, file=io.StringIO())
    for one in table(ResultStore(path).load()):
        console.print(one)
    text = console.file.getvalue()
    assert "κ of 95 %" in text
    assert "…" not in text


# Chunks of a gradient, which are alike


def grouped(counts, of):
    """Rows of captured signals: κ → exact of each gradient."""
    for kappa, exact in counts.items():
        config = Config(d=64, k=4 * kappa, sparsity=4, law="captured", signals=len(exact) * of)
        row = made(config, exact=sum(exact))
        each = {"signals": [of] * len(exact), "exact": exact, "accurate": exact}
        yield replace(row, metrics={**row.metrics, "by_gradient": each})


def test_intervals_of_captured_signals_are_those_of_gradients():
    """A gradient's chunks all succeed or all fail: 24 trials, not 24 × 40."""
    alike = {3: [0] * 24, 7: [40] * 12 + [0] * 12, 9: [40] * 20 + [0] * 4}
    (curve,) = curves(list(grouped(alike, 40)))
    share, low, high = curve.rates("exact")[1]
    assert share == 0.5
    narrow, wide = wilson(480, 960), wilson(12, 24)
    assert high - low > 5 * (narrow[1] - narrow[0])
    assert (low, high) == pytest.approx(wide, abs=0.03)
    assert curve.rates("exact")[0] == (0.0, *wilson(0, 960))  # where a bootstrap says nothing
    independent = curve.fit("exact").crossing(0.5)
    found = curve.crossing("exact", 0.5)
    assert found.at == independent.at
    assert found.low < independent.low < independent.high < found.high
    even = {3: [0] * 24, 7: [20] * 24, 9: [35] * 24}
    (curve,) = curves(list(grouped(even, 40)))
    assert curve.rates("exact")[1][1:] == wilson(480, 960)  # and never narrower than that
    assert curve.crossing("exact", 0.99) is None
    again = curves(list(grouped(alike, 40)))[0]
    assert again.rates("exact")[1] == (share, low, high)


def test_the_intervals_of_gradients_cover():
    draw, inside = np.random.default_rng(3), {"gradients": 0, "chunks": 0}
    for _ in range(100):
        exact = draw.binomial(40, draw.beta(1.5, 1.5, 24)).tolist()
        (curve,) = curves(list(grouped({3: exact, 7: exact}, 40)))
        _, low, high = curve.rates("exact")[0]
        inside["gradients"] += low < 0.5 < high
        low, high = wilson(sum(exact), 960)
        inside["chunks"] += low < 0.5 < high
    assert inside["gradients"] >= 88
    assert inside["chunks"] < 60


def test_rows_without_their_gradients_are_refused():
    rows = [replace(r, metrics={**r.metrics}) for r in grouped({3: [0, 1], 7: [3, 4]}, 4)]
    del rows[0].metrics["by_gradient"]
    with pytest.raises(ConfigError, match="too narrow: measure them again"):
        curves(rows)


def test_the_question_is_the_first_line():
    assert isinstance(STUDY, Study)
    assert STUDY.question.startswith("how many measurements")
