import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sgc.finetune.config import ConfigError
from sgc.problems import LAWS, sparse_problem
from sgc.registry import create
from sgc.results import Result
from studies import precision
from studies.cli import app
from studies.figures.intervals import wilson
from studies.figures.precision import counts, figure, table
from studies.plugins import ensembles, solvers
from studies.precision import PRECISIONS, STAGES, Config, RoundedOperator, keep_bits, trial
from studies.study import find

SMALL = Config(precision="bf16", d=256, k=64, sparsity=4, signals=60)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_seven_bits_are_bf16_and_ten_are_halfs_mantissa():
    x = torch.randn(20_000, generator=seeded(0)) * torch.logspace(-30, 30, 20_000)
    assert torch.equal(keep_bits(x, bits=7), x.bfloat16().float())
    near = torch.randn(20_000, generator=seeded(1)).abs() + 0.01  # float16 is normal there
    assert torch.equal(keep_bits(near, bits=10), near.half().float())
    few = torch.tensor([1.0, -1.0625, 1.1875, 0.0, torch.inf, -torch.inf])
    ties = torch.tensor([1.0, -1.0, 1.25, 0.0, torch.inf, -torch.inf])  # to even
    assert torch.equal(keep_bits(few, bits=3), ties)
    assert keep_bits(torch.tensor([torch.nan]), bits=10).isnan().all()


@pytest.mark.parametrize("name", PRECISIONS)
def test_rounding_is_half_a_unit_of_the_last_place_and_keeps_what_it_has(name):
    rounding = PRECISIONS[name]
    x = torch.rand(5000, generator=seeded(0)) + 0.5
    once = rounding.round(x)
    relative = ((once - x).abs() / x).max()
    assert relative <= 2.0 ** -(rounding.bits + 1)
    assert torch.equal(rounding.round(once), once)
    if rounding.bits < 23:
        assert relative > 2.0 ** -(rounding.bits + 2)


def test_operator_rounds_the_factors_and_nothing_else():
    A = torch.randn(32, 80, generator=seeded(0))
    x, y = torch.randn(5, 80, generator=seeded(1)), torch.randn(5, 32, generator=seeded(2))
    operator = RoundedOperator(A, PRECISIONS["bf16"])
    short, r = A.bfloat16().double().numpy(), y.bfloat16().double().numpy()
    assert operator.rmatvec(y).numpy() == pytest.approx(r @ short, abs=1e-5)
    expected = x.bfloat16().double().numpy() @ short.T
    assert operator.matvec(x).numpy() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(operator.columns(torch.tensor([[3, 7]]))[0], A[:, [3, 7]])
    assert torch.equal(operator.to_dense(), A)
    norms = np.linalg.norm(A.numpy(), axis=0)
    assert operator.column_norms().numpy() == pytest.approx(norms, rel=1e-6)
    with pytest.raises(ValueError, match="dimension of 80"):
        operator.matvec(y)


@pytest.mark.parametrize("solver", solvers())
def test_solvers_correlate_through_the_rounded_operator(solver):
    """An operator that is not stored as a matrix keeps solvers off their own dense path."""
    problem = sparse_problem(64, 32, 3, signals=4, dtype=torch.float32)
    calls = []

    class Watched(RoundedOperator):
        def rmatvec(self, y):
            calls.append(len(y))
            return super().rmatvec(y)

    operator = Watched(problem.A.to_dense(), PRECISIONS["float32"])
    found = create("recovery", solver).solve(operator, problem.y, sparsity=3)
    assert calls
    assert found.support.shape == (4, 3)


def test_float32_does_what_a_plain_matrix_does():
    config = replace(SMALL, precision="float32")
    found = trial(config, seeded(4))
    problem = sparse_problem(
        256, 64, 4, signals=60, seed=seeded(4).initial_seed(), dtype=torch.float32
    )
    plain = create("recovery", "omp").solve(problem.A, problem.y, sparsity=4)
    hits = int((plain.support.sort(1).values == problem.support.sort(1).values).all(1).sum())
    assert {stage: found["stages"][stage]["found"] for stage in STAGES} == dict.fromkeys(
        STAGES, hits
    )
    for stage in STAGES:
        assert 1e-8 < found["stages"][stage]["error_kept"] < 1e-6
    assert found["float64"]["error"] < 1e-14


def test_a_few_bits_break_measuring_before_correlating():
    found = {p: trial(replace(SMALL, precision=p), seeded(0)) for p in ("tf32", "bf16", "3-bit")}
    for stage in ("measurement", "both", "stored"):
        errors = [found[p]["stages"][stage]["error_kept"] for p in found]
        assert errors[0] < errors[1] / 4 < errors[2] / 16  # 3 and 4 bits apart
        kept = [found[p]["stages"][stage]["kept"] for p in found]
        assert kept[0] >= kept[1] > kept[2]
    # What is fitted with exact columns is exact: rounding only matters for which are picked.
    assert all(f["stages"]["correlation"]["error_kept"] < 1e-6 for f in found.values())
    worst = found["3-bit"]["stages"]
    assert worst["correlation"]["kept"] > worst["measurement"]["kept"]


def test_a_matrix_that_its_format_holds_is_not_rounded():
    """Entries ±1/√64 are powers of two: stored A is A, and rounding it does nothing."""
    config = replace(SMALL, ensemble="rademacher", precision="3-bit")
    found = trial(config, seeded(2))["stages"]
    assert found["stored"] == found["both"]
    gaussian = trial(replace(config, ensemble="gaussian"), seeded(2))["stages"]
    assert gaussian["stored"] != gaussian["both"]


def test_scale_breaks_float16_alone():
    def error(name, scale):
        config = replace(SMALL, precision=name, scale=scale)
        return trial(config, seeded(1))["stages"]["both"]["error_kept"]

    assert error("bf16", 1e-5) == pytest.approx(error("bf16", 1.0), rel=0.3)
    assert error("tf32", 1e-5) == pytest.approx(error("tf32", 1.0), rel=0.3)
    assert error("float16", 1e-5) > 5 * error("float16", 1.0)


def test_a_solver_that_answers_with_one_row_is_refused(monkeypatch):
    class One:
        def solve(self, A, y, *, sparsity):
            return create("recovery", "omp").solve(A, y[:1], sparsity=sparsity)

    monkeypatch.setattr(precision, "create", lambda *names: One())
    with pytest.raises(ValueError, match=r"shape \(1, 4\), not \(60, 4\)"):
        trial(SMALL, seeded(0))


@pytest.mark.parametrize("solver", solvers())
def test_every_solver_keeps_its_accounts(solver):
    config = replace(SMALL, solver=solver, law="signs", signals=30)
    found = trial(config, seeded(0))
    json.dumps(found, allow_nan=False)
    assert list(found["stages"]) == list(STAGES)
    for stage in found["stages"].values():
        assert 0 <= stage["kept"] <= min(stage["found"], found["float64"]["found"])
        assert stage["kept"] <= stage["same"] <= 30
        assert stage["same"] / 30 <= stage["overlap"] <= 1
        assert stage["found"] / 30 <= stage["hits"] <= 1


def test_shared_counts_columns_and_no_empty_slots():
    a = torch.tensor([[1, 2, 3], [4, -1, -1]])
    b = torch.tensor([[3, 9, 1], [4, -1, -1]])
    assert precision._shared(a, b).tolist() == [2, 1]


def test_points_that_are_paired_meet_equal_signals():
    study = find("precision")
    other = replace(SMALL, solver="cosamp", precision="tf32", scale=1e-5, ensemble="srht")
    assert study.generator(SMALL, 0).initial_seed() == study.generator(other, 0).initial_seed()
    assert study.generator(SMALL, 0).initial_seed() != study.generator(SMALL, 1).initial_seed()
    before = torch.random.get_rng_state()
    assert study.trial(SMALL, 0) == study.trial(SMALL, 0) != study.trial(SMALL, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "bf15"}, "unknown precision 'bf15'.*bf16"),
        ({"law": "sign"}, "unknown law 'sign'.*signs"),
        ({"sparsity": 300}, "sparsity=300 exceeds d=256"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"scale": 0.0}, "scale=0 leaves the range of float32"),
    ],
)
def test_config_says_what_is_wrong(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)


def test_default_preset_has_every_part_and_both_sizes():
    configs = precision.PRESETS["default"].configs()
    assert {c.solver for c in configs} == set(solvers())
    assert {c.ensemble for c in configs} == set(ensembles())
    assert {c.precision for c in configs} == set(PRECISIONS)
    assert {c.law for c in configs} == set(LAWS)
    assert {(c.d, c.k, c.sparsity) for c in configs} == {(2048, 217, 31), (4096, 56, 8)}
    assert len(configs) == len(set(configs))


def made():
    rows = []
    points = [replace(SMALL, precision=p) for p in ("float32", "tf32", "bf16", "3-bit")]
    points += [replace(SMALL, solver="iht"), replace(SMALL, scale=1e-5)]
    for config in points:
        for seed in range(2):
            bits, found = PRECISIONS[config.precision].bits, 0 if config.solver == "iht" else 50
            kept = min(found, 2 * bits + 10)
            error = 2.0**-bits if kept else None
            stage = {"kept": kept, "same": 40, "overlap": 0.9, "error_kept": error}
            metrics = {"float64": {"found": found}, "stages": dict.fromkeys(STAGES, stage)}
            rows.append(
                Result(
                    run_id=f"{config}{seed}",
                    kind="study-precision",
                    config=asdict(config),
                    seed=seed,
                    metrics=metrics,
                    environment={},
                )
            )
    return rows


def test_figure_and_table_from_rows():
    rows = made()
    assert counts(rows[4:6], "both") == (48, 100)
    picture = figure(rows)
    picture.draw_without_rendering()
    by_stage, by_law, errors, by_solver = picture.axes
    for axes in (by_stage, by_law, errors):
        assert "mantissa" in axes.get_xlabel()
        assert axes.get_ylabel()
    bars = [bar.get_segments() for bar in by_law.collections]
    low, high = wilson(48, 100)
    ends = [sorted(segment[:, 1]) for segments in bars for segment in segments]
    assert any(np.allclose(end, [100 * low, 100 * high]) for end in ends)
    assert errors.get_yscale() == "log"
    for axes in (by_stage, errors):
        said = [text.get_text() for text in axes.get_legend().get_texts()]
        assert len(said) == len(STAGES)
        assert "both products rounded" in said
    titles = {axes.get_title().partition("s = 4")[2] for axes in (by_stage, errors)}
    assert len(titles) == 2
    assert "float64 finds none" in [text.get_text() for text in by_solver.texts]
    lines = table(rows)
    assert len(lines.rows) == 6
    assert "48.0" in list(lines.columns[8].cells)
    assert "gaussian × 1e-05" in list(lines.columns[3].cells)


def test_smoke_preset(tmp_path):
    done = CliRunner().invoke(
        app, ["run", "precision", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    file = tmp_path / "precision-smoke.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["config"]["solver"] for row in rows} == set(solvers())
    assert all(len(json.dumps(row["metrics"])) < 1000 for row in rows)
    assert (tmp_path / "precision-smoke.png").stat().st_size > 10_000
