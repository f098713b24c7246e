import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom
from typer.testing import CliRunner

from sgc.finetune.config import ConfigError
from sgc.registry import create
from sgc.results import Result
from studies import capture, chunk_error
from studies.chunk_error import PRESETS, Config, trial
from studies.cli import app
from studies.figures.chunk_error import figure, pooled, table, totals
from studies.measures import captured as captured_module
from studies.measures.chunk_bounds import selections
from studies.measures.gradient_laws import LAWS
from studies.plugins import chunkers
from tests.studies.sorting import HOLDS, draw, oracle


def config(**changes):
    return Config(**{"law": "laplace", "chunker": "contiguous", "chunks": 8, "sparsity": 64,
                     "cases": 64, **changes})  # fmt: skip


def test_a_hot_chunk_breaks_the_printed_bound_in_every_case_and_no_other():
    found = trial(config(law="hot-chunk", chunks=64), draw())
    assert found["violations"] == {"printed": 64, **dict.fromkeys((*HOLDS, "contraction"), 0)}
    assert found["error"]["mean"] > 10 * found["printed"]
    assert found["missed"] == {"mean": 63 / 64, "sd": 0.0, "q05": 63 / 64, "q95": 63 / 64}
    # Over a floor of 1 with entries of 30 to 60 nearly nothing comes back: error + kept is 1.
    assert found["error"]["mean"] + found["kept"]["mean"] == pytest.approx(1, abs=0.02)
    for name in ("strided", "permuted"):  # a row's entries go to one chunk each
        assert trial(config(law="hot-chunk", chunks=64, chunker=name), draw())["error"]["q95"] == 0
    turned = trial(config(law="hot-column", chunks=64, chunker="strided"), draw())
    assert turned["violations"]["printed"] == 64


@pytest.mark.parametrize("law", ["laplace", "student-t", "uniform"])
@pytest.mark.parametrize("chunks", [4, 32])
def test_independent_entries_miss_what_the_hypergeometric_law_says(law, chunks):
    """Not 0, as the paper has it for entries that are spread uniformly."""
    count = hypergeom(1024, 32, 1024 // chunks)  # of the top s in one chunk
    n, own = np.arange(33), 32 // chunks
    expected = chunks * float((np.maximum(n - own, 0) * count.pmf(n)).sum()) / 32
    for name in chunkers():
        point = config(
            law=law, chunks=chunks, chunker=name, sparsity=32, rows=32, columns=32, cases=225
        )
        made = trial(point, draw(3))
        missed = made["missed"]
        assert missed["mean"] == pytest.approx(expected, abs=5 * missed["sd"] / 15)
        assert made["error"]["mean"] > 0.03


def test_a_plateau_comes_within_a_tenth_of_a_percent_of_the_bounds():
    made = trial(config(law="plateau", chunks=64), draw())
    assert 0.997 < made["tightest"]["corrected"] < 1
    assert 0.999 < made["tightest"]["contraction"] <= 1 + 1e-12


@pytest.mark.parametrize("law", LAWS)
def test_laws_give_gradients_of_the_shape_and_equal_seeds_equal_ones(law):
    first, again = (LAWS[law](draw(4), 5, 8, 12, 12) for _ in range(2))
    assert first.shape == (5, 8, 12)
    assert first.dtype == torch.float64
    assert bool(first.isfinite().all())
    assert torch.equal(first, again)
    hot = {"hot-chunk": (1, 12), "plateau": (1, 12), "hot-column": (2, 8)}  # rows or columns
    if law in hot:
        lines, width = hot[law]
        tall = first.mT if law == "hot-column" else first
        top = tall.abs() >= tall.abs().flatten(1).topk(lines * width).values[:, -1, None, None]
        assert top.any(-1).sum(-1).tolist() == [lines] * 5


def test_chunkers_meet_equal_gradients():
    kept = {name: trial(config(law="clustered", chunks=1, chunker=name), draw(9)) for name in
            ("contiguous", "strided")}  # fmt: skip
    assert kept["contiguous"] == kept["strided"]
    assert kept["contiguous"]["error"]["mean"] == 0
    assert "chunker" in chunk_error.PAIRED


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Three heavy-tailed 32 × 32 gradients, the 128 largest entries of each captured."""
    random = np.random.default_rng(7)
    whole = random.standard_t(2, (3, 32, 32)).astype(np.float32)
    whole[:, 5] *= 8
    kept = [
        {"name": f"m{i}", "step": 1, **capture.largest_entries(torch.from_numpy(G), 128)}
        for i, G in enumerate(whole)
    ]
    stacked = {key: np.stack([np.asarray(one[key]) for one in kept]) for key in kept[0]}
    np.savez(tmp_path / "gradients.npz", metadata=np.array("{}"), **stacked)
    monkeypatch.setattr(captured_module, "GRADIENTS", tmp_path / "gradients.npz")
    return whole.reshape(3, -1).astype(np.float64)


@pytest.mark.parametrize("name", chunkers())
def test_of_captured_gradients_the_error_is_known_between_two_limits(stored, name):
    made = config(law="captured", chunker=name, chunks=16, sparsity=64, rows=32, columns=32)
    found = trial(made, draw(2))
    chunker = create("chunker", name, chunks=16, seed=draw(2).initial_seed())
    errors, kept, shares, outside = [], [], [], 0
    for g in stored:
        top, chunked = oracle(g.tolist(), chunker, 64)
        norm = sum(g[i] ** 2 for i in top)
        shares.append(norm / (g**2).sum())
        errors.append(sum(g[i] ** 2 for i in top ^ chunked) / norm)
        kept.append(sum(g[i] ** 2 for i in chunked) / norm)
        outside += len(chunked - set(np.argsort(-np.abs(g))[:128].tolist()))
    assert found["unknown"] == pytest.approx(outside / 3)
    assert outside > 0  # the limits are apart
    assert found["error_low"] < np.mean(errors) < found["error"]["mean"]
    assert np.mean(kept) < found["kept"]["mean"]
    assert found["share"]["mean"] == pytest.approx(np.mean(shares), rel=1e-4)
    assert found["violations"]["corrected"] == found["violations"]["contraction"] == 0


@pytest.mark.parametrize("name", chunkers())
def test_captured_inequalities_are_taken_where_what_is_unknown_breaks_least_and_holds_least(
    stored, name
):
    """Selected entries that are unknown: 0 in the error and as large as can be on the right of the
    printed bound; 0 in what the contractions' ‖G̃'‖² takes from ‖G‖². Chunks are padded, to 1032.
    """
    made = config(law="captured", chunker=name, chunks=12, sparsity=120, rows=32, columns=32)
    found = trial(made, draw(2))
    chunker = create("chunker", name, chunks=12, seed=draw(2).initial_seed())
    sides = {which: [] for which in (*HOLDS, "printed", "contraction")}
    for g in stored:
        order = np.argsort(-np.abs(g), kind="stable")
        filled = np.abs(g)
        filled[order[128:]] = filled[order[127]]
        top, chunked = oracle(filled.tolist(), chunker, 120)
        of_top, of_chunked, error, unknown = (
            (filled[list(places)] ** 2).sum()
            for places in (top, chunked, top ^ chunked, chunked - set(order[:128].tolist()))
        )
        assert unknown > 0
        whole = (g**2).sum()
        lost = whole - (of_chunked - unknown)
        for which, left, right in (
            ("printed", error - unknown, 2 * (1 - 120 / 1024) * of_chunked),
            ("contraction", lost, (1 - 120 / 1024) * whole),
            ("padded", lost, (1 - 120 / 1032) * whole),
            ("corrected", error, 2 * (1 - 1 / 12) * of_top),
            ("sharp", error, 2 * (1 - 120 / 1032) * of_top),
            ("repaired", error, (1032 / 120 - 1) * of_chunked),
        ):
            sides[which].append(left / right)
    wanted = {which: max(shares) for which, shares in sides.items()}
    assert found["tightest"] == pytest.approx(wanted, rel=1e-5)
    assert found["violations"] == {
        which: sum(share > 1 for share in shares) for which, shares in sides.items()
    }


def test_the_spread_is_that_of_a_sample():
    """√(Σ(x − 3)²/(n − 1)) of 0, 1, 4, 7: 30/3; quantiles between neighbours; one case has none."""
    found = chunk_error._spread(torch.tensor([7.0, 0.0, 1.0, 4.0]))
    quantiles = {"q05": 0.15, "q95": 6.55}
    assert found == pytest.approx({"mean": 3, "sd": 10**0.5, **quantiles})
    assert chunk_error._spread(torch.tensor([2.0]))["sd"] == 0
    point = config(cases=7, chunker="permuted")
    G = LAWS["laplace"](draw(1), 7, 64, 64, 64).flatten(1)
    top, chunked = selections(G, create("chunker", "permuted", chunks=8, seed=1), 64)
    errors = ((G**2 * (top ^ chunked)).sum(1) / (G**2 * top).sum(1)).numpy()
    made = trial(point, draw(1))["error"]
    assert made["sd"] == pytest.approx(np.std(errors, ddof=1))


def test_what_was_not_captured_is_said(stored):
    with pytest.raises(ConfigError, match="only 128 entries"):
        trial(config(law="captured", chunks=1, sparsity=129, rows=32, columns=32), draw())
    with pytest.raises(ConfigError, match=r"of shape \(64, 64\), most are of \(32, 32\)"):
        trial(config(law="captured"), draw())


def test_the_captured_points_follow_the_file(stored, tmp_path, monkeypatch):
    real = [p for p in PRESETS["default"].configs() if p.law == "captured"]
    assert {(p.rows, p.columns) for p in real} == {(32, 32)}
    assert chunk_error.inputs(real[0]) == captured_module.digest()
    assert chunk_error.inputs(config()) == ""
    monkeypatch.setattr(captured_module, "GRADIENTS", tmp_path / "none.npz")
    with pytest.warns(UserWarning, match="no captured gradients"):
        assert {p.law for p in PRESETS["default"].configs()} == set(LAWS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"law": "laplac"}, "did you mean"),
        ({"sparsity": 60}, "no multiple of chunks=8; e.g. 64"),
        ({"chunks": 0}, "chunks must be at least 1, got 0"),
        ({"rows": 4, "columns": 4}, "at most 16 of 16 numbers"),
        ({"rows": 1, "columns": 4}, "at most 4"),
        ({"cases": 0}, "cases must be at least 1, got 0"),
    ],
)
def test_a_config_outside_of_its_limits_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        config(**change)


def test_the_default_preset_has_the_cases_that_were_asked_for():
    points = PRESETS["default"].configs()
    drawn = [p for p in points if p.law != "captured"]
    assert sum(p.cases for p in drawn) >= 1e5
    assert {p.law for p in points} == {*LAWS, "captured"}
    assert {p.chunker for p in points} == set(chunkers())
    assert any(p.numel % p.chunks for p in points)


def made_row(law, chunker, chunks, mean, *, printed=1.5, seed=0, broken=0):
    settings = config(law=law, chunker=chunker, chunks=chunks)
    metrics = trial(config(chunks=chunks, cases=2), draw())
    metrics["error"] = {"mean": mean, "sd": 0.1, "q05": mean / 2, "q95": mean + 0.1}
    metrics.update(error_low=mean, printed=printed, cases=100)
    metrics["violations"] |= {"printed": broken}
    metrics["tightest"] |= {"printed": mean / printed}
    metrics["inputs"] = "0123456789ab"
    made = settings.__dict__ | {"chunks": chunks}
    return Result(run_id="a", kind="study-chunk-error", config=made, seed=seed, metrics=metrics,
                  environment={})  # fmt: skip


def test_figure_and_tables_tell_where_the_printed_bound_is_broken():
    rows = [
        made_row("hot-chunk", "contiguous", 2, 0.4),
        made_row("hot-chunk", "contiguous", 4, 0.8, printed=0.2, broken=90),
        made_row("hot-chunk", "contiguous", 4, 0.6, printed=0.2, broken=80, seed=1),
        made_row("hot-chunk", "strided", 4, 0.35),
        made_row("laplace", "contiguous", 4, 0.3),
    ]
    setting = ("hot-chunk", 64, 64, 64)
    curve = pooled(rows, law="hot-chunk", chunker="contiguous", setting=setting)
    assert [r.metrics["error"]["mean"] for r in curve] == [0.4, pytest.approx(0.7)]
    assert curve[1].metrics["cases"] == 200
    sums = totals(rows)
    assert (sums["cases"], sums["points"], sums["broken"]) == (500, 5, 2)
    assert sums["violations"]["printed"] == 170
    assert sums["worst"] is rows[1]
    errors, counts, shares = table(rows)
    assert list(shares.columns[0].cells) == ["hot-chunk", "laplace"]
    assert list(shares.columns[3].cells)[1] == f"{rows[-1].metrics['share']['mean']:.3f}"
    won = next(c for c in errors.columns if c.header == "won back")
    assert list(won.cells) == ["–", "50 %", "–"]
    assert list(counts.columns[1].cells) == ["400", "100", "500"]
    picture = figure(rows)
    panels = [axes for axes in picture.axes if axes.axison]
    assert len(panels) == 2
    assert all(axes.get_xlabel() for axes in panels)
    assert panels[0].get_ylabel()
    lines = panels[0].get_lines()
    dotted = [line for line in lines if line.get_linestyle() == ":"]
    assert len(dotted) == 1
    assert dotted[0].get_ydata() == pytest.approx([1.5, 0.2])
    starts = [line.get_xdata()[-1] for line in lines if line.get_marker() in {"o", "s"}]
    assert starts[0] == 4 < starts[1]  # what coincides lies side by side
    bound = next(line for line in lines if line.get_color() == "black")
    assert bound.get_ydata()[0] == pytest.approx(1.0)


def test_the_smoke_preset(tmp_path):
    arguments = ["run", "chunk-error", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "Counterexample" in done.output
    assert (tmp_path / "chunk-error-smoke.png").stat().st_size > 10_000
    lines = (tmp_path / "chunk-error-smoke.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len(PRESETS["smoke"].configs())
    violated = {name: sum(r["metrics"]["violations"][name] for r in rows) for name in HOLDS}
    assert violated == dict.fromkeys(HOLDS, 0)
    assert all(math.isfinite(r["metrics"]["error"]["mean"]) for r in rows)
