import itertools
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sgc.finetune.config import ConfigError
from sgc.registry import create
from sgc.results import Result
from studies import rip
from studies.cli import app
from studies.figures.intervals import wilson
from studies.figures.rip import figure, table
from studies.measures.rip_theory import THEOREMS, typical_delta, union_bound, welch
from studies.plugins import ensembles
from studies.rip import Config, extremes, trial
from studies.study import find

SMALL = {"d": 20, "k": 12, "sparsity": 2, "supports": 60, "grown": 4, "signals": 20}
OMP, L1 = THEOREMS


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def matrix(config, seed):
    A = create("projection", config.ensemble, config.k, config.d, seed=seed, dtype=torch.float64)
    return A.to_dense().numpy()


def brute_force(A, order):
    """δ by definition, all supports, with NumPy's singular values."""
    worst = 0.0
    for support in itertools.combinations(range(A.shape[1]), order):
        sigma = np.linalg.svd(A[:, support], compute_uv=False)
        worst = max(worst, sigma[0] ** 2 - 1, 1 - sigma[-1] ** 2)
    return worst


@pytest.mark.parametrize("ensemble", ensembles())
def test_bounds_enclose_the_exact_constant(ensemble):
    config = Config(ensemble=ensemble, **SMALL)
    found = trial(config, seeded(3))
    A = matrix(config, 3)
    unit = A / np.linalg.norm(A, axis=0)
    for name, columns in (("given", A), ("unit", unit)):
        for order in (3, 4):
            row = found[name][str(order)]
            assert row["exact"] == pytest.approx(brute_force(columns, order), abs=2e-6)
            assert row["typical"] < row["random"] <= row["exact"] + 2e-6
            assert row["grown"] <= row["exact"] + 2e-6
            assert row["exact"] <= row["upper"] + 2e-6
            assert max(row["random"], row["grown"]) > 0.8 * row["exact"]
    gram = np.abs(unit.T @ unit - np.eye(config.d))
    assert found["coherence"] == pytest.approx(gram.max(), abs=2e-6)
    for order in (3, 4):
        assert found["unit"][str(order)]["upper"] <= (order - 1) * gram.max() + 2e-6
        discs = np.sort(gram, axis=0)[::-1][: order - 1].sum(0).max()
        assert found["unit"][str(order)]["upper"] == pytest.approx(discs, abs=2e-6)


@pytest.mark.parametrize("ensemble", ensembles())
def test_no_scale_of_a_has_a_smaller_constant_than_the_scaled_bound(ensemble):
    config = Config(ensemble=ensemble, **SMALL)
    A = matrix(config, 5)
    unit = A / np.linalg.norm(A, axis=0)
    bound = trial(config, seeded(5))["unit"]["3"]["scaled"]
    best = min(brute_force(c * unit, 3) for c in np.linspace(0.6, 1.2, 13))
    assert 0.5 * best < bound <= best + 2e-6


def test_order_two_of_unit_columns_is_the_coherence():
    found = trial(Config(ensemble="gaussian", d=300, k=16, sparsity=1, signals=20), seeded(1))
    row = found["unit"]["2"]
    # δ_2 = μ: both bounds meet it, so the worst pair was found.
    assert row["grown"] == row["upper"] == found["coherence"]


def test_large_d_takes_the_same_way_in_float32():
    atoms = torch.nn.functional.normalize(torch.randn(9000, 6, generator=seeded(0)).double())
    found = rip._largest_inner_products(atoms, 1)[:, 0]
    some = torch.arange(0, 9000, 1000)
    inner = (atoms[some] @ atoms.T).abs()
    inner[torch.arange(len(some)), some] = 0
    assert torch.allclose(found[some], inner.amax(1), atol=1e-6)


def test_extremes_are_numpys_singular_values():
    atoms = torch.randn(30, 12, generator=seeded(0), dtype=torch.float64)
    supports = torch.tensor([[0, 3, 4], [29, 1, 7]])
    low, high = extremes(atoms, supports)
    for i, support in enumerate(supports):
        sigma = np.linalg.svd(atoms.numpy()[support], compute_uv=False)
        assert high[i] == pytest.approx(sigma[0] ** 2)
        assert low[i] == pytest.approx(sigma[-1] ** 2)


def test_supports_have_no_column_twice():
    drawn = rip._draw(40, 12, 500, seeded(2))
    atoms = torch.randn(40, 16, generator=seeded(0), dtype=torch.float64)
    starts = rip._pairs(atoms, rip._largest_inner_products(atoms, 3)[:, 0], 8)
    for supports in (drawn, rip._aligned(atoms, starts, 12), rip._dependent(atoms, starts, 12)):
        assert supports.shape[1] == 12
        assert all(len(set(row)) == 12 for row in supports.tolist())
    assert drawn.shape[0] == 500
    counts = torch.bincount(drawn.flatten(), minlength=40)
    assert counts.min() > 100  # 150 each; 4 standard deviations below are 109
    assert len({tuple(sorted(pair)) for pair in starts.tolist()}) == len(starts)


def test_grown_supports_are_worse_than_random_ones():
    found = trial(Config(ensemble="gaussian", d=256, k=64, sparsity=8, supports=300), seeded(0))
    for order in ("9", "16"):
        row = found["unit"][order]
        assert row["grown"] > 1.3 * row["random"]
    # They find dependence, too: σ_min² of the grown ones lies below that of any random one.
    atoms = torch.nn.functional.normalize(torch.randn(256, 64, generator=seeded(0)).double())
    starts = rip._pairs(atoms, rip._largest_inner_products(atoms, 1)[:, 0], 8)
    bad, _ = extremes(atoms, rip._dependent(atoms, starts, 9))
    random, _ = extremes(atoms, rip._draw(256, 9, 2000, seeded(1)))
    assert bad.min() < random.min()


def test_a_planted_dependent_column_is_found():
    atoms = torch.nn.functional.normalize(torch.randn(100, 40, generator=seeded(4)).double())
    atoms[77] = torch.nn.functional.normalize(atoms[5] + atoms[60], dim=0)
    inner = rip._largest_inner_products(atoms, 3)
    starts = rip._pairs(atoms, inner[:, 0], 8)
    low, _ = extremes(atoms, rip._dependent(atoms, starts, 3))
    assert low.min() < 1e-12


def test_repeated_columns_of_signs_defeat_one_sparse_recovery():
    """2⁸ sign patterns, 2000 columns: most have a twin, which OMP cannot tell from them."""
    config = Config(ensemble="rademacher", d=2000, k=8, sparsity=1, supports=50, signals=100)
    found = trial(config, seeded(0))
    assert found["coherence"] == 1
    assert found["unit"]["2"]["grown"] == 1
    assert max(found["omp"].values()) < 50
    gaussian = trial(Config(**{**asdict(config), "ensemble": "gaussian"}), seeded(0))
    assert gaussian["omp"] == {"gaussian": 100, "signs": 100}
    assert gaussian["coherence"] < 1


def test_theory():
    # The singular values of one large Gaussian matrix reach up to 1 + √(1/3).
    A = np.random.default_rng(0).standard_normal((900, 300)) / math.sqrt(900)
    assert np.linalg.norm(A, 2) ** 2 - 1 == pytest.approx(typical_delta(300, 900), rel=0.05)
    # The union bound holds for the exact δ of small A, and is written out once.
    t = math.sqrt(2 * math.log(2 * math.comb(20, 3) / 0.05) / 12)
    assert union_bound(20, 12, 3) == pytest.approx((1 + math.sqrt(3 / 12) + t) ** 2 - 1)
    exact = trial(Config(ensemble="gaussian", **SMALL), seeded(0))["given"]["3"]["exact"]
    assert exact < union_bound(20, 12, 3)
    # Welch is met by equiangular lines: three vectors of the plane at 120°.
    assert welch(3, 2) == pytest.approx(0.5)
    assert welch(4, 4) == 0
    assert (OMP.order(31), L1.order(31)) == (32, 62)
    assert OMP.limit(3) == pytest.approx(0.5)
    assert L1.limit(3) == pytest.approx(1 / math.sqrt(2))
    low, high = wilson(18, 100)  # R: prop.test(18, 100, correct = FALSE)
    assert low == pytest.approx(0.1170, abs=1e-4)
    assert high == pytest.approx(0.2667, abs=1e-4)


def test_the_limit_of_omp_is_sharp():
    """A matrix with δ_{s+1} = 1/√(s+1) on which a wrong atom is as good as the right ones.

    Mo & Shen (2012): ``√(s/(s+1)) I`` beside a column with ``1/√(s(s+1))`` s times and a 1.
    """
    s = 4
    A = np.eye(s + 1)
    A[:s, :s] *= math.sqrt(s / (s + 1))
    A[:s, s] = 1 / math.sqrt(s * (s + 1))
    assert brute_force(A, OMP.order(s)) == pytest.approx(OMP.limit(s))
    correlation = A.T @ A[:, :s].sum(1)
    assert correlation == pytest.approx(correlation[0])


def test_trial_is_a_function_of_config_and_seed():
    study = find("rip")
    config = Config(ensemble="srht", **SMALL)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = study.trial(config, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert study.trial(config, 0) == first != study.trial(config, 1)
    json.dumps(first, allow_nan=False)
    # Equal supports meet every ensemble.
    other = Config(**{**asdict(config), "ensemble": "gaussian"})
    assert study.generator(config, 0).initial_seed() == study.generator(other, 0).initial_seed()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"supports": 0}, "supports must be at least 1, got 0"),
        ({"sparsity": 11}, "order 22, more than d=20"),
    ],
)
def test_config_says_what_is_wrong(change, message):
    with pytest.raises(ConfigError, match=message):
        Config(ensemble="gaussian", **{**SMALL, **change})


def test_presets_have_every_ensemble_and_the_papers_sizes():
    for name, preset in rip.PRESETS.items():
        configs = preset.configs()
        assert {config.ensemble for config in configs} == set(ensembles()), name
    sizes = {(c.d, c.k, c.sparsity) for c in rip.PRESETS["default"].configs()}
    assert {(2048, 217, 31), (4096, 56, 8), (4096, 64, 8), (65536, 8, 1)} <= sizes


def made(d=64, kappas=(4, 8), seeds=2, exact=None):
    rows = []
    for kappa, seed, ensemble in itertools.product(kappas, range(seeds), ("gaussian", "srht")):
        delta = {"typical": 0.5, "random": 0.8, "grown": 1.5, "scaled": 0.9, "upper": 2 + seed}
        orders = {"5": {**delta, "exact": exact}, "8": {**delta, "exact": exact}}
        metrics = {"coherence": 0.4, "omp": {"gaussian": 45, "signs": 10}}
        metrics |= {"given": orders, "unit": orders}
        config = Config(ensemble=ensemble, d=d, k=4 * kappa, sparsity=4, signals=50)
        rows.append(
            Result(
                run_id=f"{kappa}{seed}{ensemble}",
                kind="study-rip",
                config=asdict(config),
                seed=seed,
                metrics=metrics,
                environment={},
            )
        )
    return rows


def test_figure_shows_bounds_limits_and_omp():
    picture = figure(made())
    picture.draw_without_rendering()
    bounds, longer, record = picture.axes
    assert bounds.get_ylabel() == "δ, order 5"
    assert longer.get_ylabel() == "δ, order 8"
    assert record.get_xlabel() == "κ = k/s"
    assert "%" in record.get_ylabel()
    limits = [line for line in bounds.lines if set(line.get_ydata()) == {OMP.limit(4)}]
    assert len(limits) == 1
    heights = [bar.get_segments()[0] for bar in record.collections]
    low, high = wilson(90, 100)  # two seeds of 45 in 50
    assert any(np.allclose(sorted(h[:, 1]), [100 * low, 100 * high]) for h in heights)


def test_one_nonzero_shows_its_one_constant_once():
    """Of orders s + 1 = 2s, and with one limit."""
    rows = []
    for row in made():
        orders = {"2": row.metrics["unit"]["5"]}
        config = {**row.config, "sparsity": 1}
        metrics = {**row.metrics, "unit": orders, "given": orders}
        rows.append(replace(row, config=config, metrics=metrics))
    bounds, again, record = figure(rows).axes
    assert bounds.get_ylabel() == "δ, order 2"
    assert not again.axison
    assert "ℓ1 at s = 1" in again.texts[0].get_text()
    assert record.axison


def test_figure_of_sizes_with_exact_constants_alone():
    assert len(figure(made(exact=1.6)).axes) == 3


def test_tables_have_a_line_for_each_point():
    tables = table(made(exact=1.6))
    assert [len(t.rows) for t in tables] == [4, 4]
    assert "1.60" in list(tables[0].columns[9].cells)


def test_smoke_preset(tmp_path):
    done = CliRunner().invoke(
        app, ["run", "rip", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "rip-smoke.jsonl").read_text().splitlines()]
    assert len(rows) == len(rip.PRESETS["smoke"].configs())
    assert (tmp_path / "rip-smoke.png").stat().st_size > 10_000
    for row in rows:
        assert len(json.dumps(row["metrics"])) < 1000
        for order in row["metrics"]["unit"].values():
            assert max(order["random"], order["grown"]) <= order["upper"] + 2e-6
