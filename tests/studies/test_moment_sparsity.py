"""Moments are those that the optimizer keeps, and sparsity is counted as it is defined."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("transformers", reason="needs pip install transformers")

import sgc
from sgc.finetune.config import ConfigError
from sgc.results import ResultStore
from studies import moment_sparsity as study
from studies.cli import app
from studies.figures.moment_sparsity import figure
from studies.figures.moment_sparsity_tables import critical_scale, holds, select, table, values
from studies.measures.moment_statistics import energy_count, hit_rate, largest, participation
from studies.measures.moment_watch import Watch
from studies.moment_sparsity import Config, trial
from tests.finetune.conftest import tiny_csv, tiny_model  # noqa: F401 - fixtures

SMALL = Config(
    **{"steps": 4, "measure": (1, 2, 4), "cells": ((8, 2), (4, 5)), "kappas": (4, 8)},
    **{"betas": ((0.0, 0.0), (0.5, 0.9), (0.9, 0.99)), "recovered": ((0.0, 0.0), (0.9, 0.99))},
    **{"scales": (1e-9, 1e-4, 1.0), "epsilons": (1e-8,), "decode_kappa": 4},
    chunker="contiguous",
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def watched():
    """A watch after four steps, with the gradients it saw."""
    weights = [torch.nn.Parameter(torch.zeros(32, 32)) for _ in range(2)]
    watch, seen = Watch(weights, SMALL, seed=7), []
    for step in range(1, 5):
        for i, p in enumerate(weights):
            p.grad = 1e-3 * normal(32, 32, seed=10 * step + i).float()
        seen.append([p.grad.clone() for p in weights])
        watch.look(step)
    return watch, seen


def by_hand(seen, chunks, kept, beta1, beta2):
    """M and V of every chunk in float64 NumPy."""
    M = V = 0.0
    for gradients in seen:
        g = np.stack([x.double().numpy().reshape(chunks, -1) for x in gradients])
        g = g.reshape(-1, g.shape[-1])
        order = np.argsort(-np.abs(g), axis=1)[:, kept:]
        np.put_along_axis(g, order, 0.0, axis=1)
        M, V = beta1 * M + (1 - beta1) * g, beta2 * V + (1 - beta2) * g**2
    return M, V


def test_entries_that_hold_the_energy_by_numpy():
    x = np.random.default_rng(0).standard_t(2, (20, 200))
    x[3] = 0
    for share in (0.5, 0.9, 0.99, 1.0):
        for scale in (1.0, 1e-12, 1e12):
            found = energy_count(torch.from_numpy(scale * x), share).tolist()
            for row, count in zip(x, found, strict=True):
                squares = np.sort(row**2)[::-1]
                enough = np.cumsum(squares) >= share * squares.sum() * (1 - 1e-11)
                assert count == (np.argmax(enough) + 1 if row.any() else 0)
    exact = torch.tensor([[3.0, 1.0, 0.0]])  # 9 of 10: the share itself is enough
    assert energy_count(exact, 0.9).tolist() == [1]
    assert energy_count(exact, 0.91).tolist() == [2]
    assert energy_count(exact, 1.0, most=2).tolist() == [2]


def test_participation_is_the_number_of_equal_entries():
    x = torch.zeros(3, 50)
    x[0, :7] = -2e-15  # whose fourth powers leave float32
    x[1] = torch.linspace(1, 2, 50)
    wanted = [7, np.sum(x[1].numpy() ** 2.0) ** 2 / np.sum(x[1].numpy() ** 4.0), 0]
    assert participation(x).tolist() == pytest.approx(wanted, rel=1e-6)


def test_hits_count_the_true_places():
    true = torch.tensor([[4, 1, -1], [2, 3, 5]])
    found = torch.tensor([[1, 9, -1], [5, 2, 3]])
    assert hit_rate(found, true) == pytest.approx(4 / 5)
    places, sizes = largest(torch.tensor([[0.0, -5.0, 0.0], [1.0, 2.0, -3.0]]), 2)
    assert places.tolist() == [[1, -1], [2, 1]]
    assert sizes.tolist() == [[5, 0], [3, 2]]


def test_moments_are_those_of_the_sparsified_gradients(watched):
    watch, seen = watched
    for cell in watch.cells:
        for (beta1, beta2), M in cell.M.items():
            wanted, second = by_hand(seen, cell.chunks, cell.kept, beta1, beta2)
            assert M.numpy() == pytest.approx(wanted, rel=1e-5, abs=1e-12)
            assert cell.V[beta1, beta2].numpy() == pytest.approx(second, rel=1e-5, abs=1e-15)


def test_measured_moments_are_what_the_optimizer_keeps(watched):
    """A M of the watch is the exp_avg of MESGC with the same seed, step by step."""
    watch, seen = watched
    weights = [torch.nn.Parameter(torch.zeros(32, 32)) for _ in range(2)]
    cell, options = watch.cells[0], {"chunks": 8, "sparsity": 16, "kappa": 8}
    mesgc = sgc.create("compressor", "mesgc", chunker="contiguous", seed=7, **options)
    optimizer = sgc.CompressedAdamW(weights, betas=(0.9, 0.99), compressor=mesgc)
    for gradients in seen:
        for p, g in zip(weights, gradients, strict=True):
            p.grad = g.clone()
        optimizer.step()
    A = watch.sketch(cell, 8)
    for name, moments in (("exp_avg", cell.M), ("exp_avg_sq", cell.V)):
        kept = torch.cat([optimizer.state[p][name] for p in weights])
        ours = A.matvec(moments[0.9, 0.99])
        assert torch.allclose(kept, ours, rtol=1e-4, atol=1e-6 * float(ours.abs().max()))


def test_records_say_what_numpy_says(watched):
    watch, seen = watched
    found = watch.found
    M, V = by_hand(seen, 8, 2, 0.9, 0.99)
    (one,) = (r for r in found["moments"] if (r["step"], r["s"], r["beta1"]) == (4, 2, 0.9))
    top = [np.sort(np.abs(x), axis=1)[:, ::-1] for x in (M, V)]
    assert one["m_top"] == pytest.approx(
        np.mean((top[0][:, :2] ** 2).sum(1) / (M**2).sum(1)), rel=1e-3
    )
    assert one["v_nonzero"] == pytest.approx(np.mean((V > 0).sum(1)), rel=1e-3)
    best = [set(np.argsort(-np.abs(x), axis=1)[i, :2]) for x in (M, V) for i in range(16)]
    overlap = np.mean([len(m & v) / 2 for m, v in zip(best[:16], best[16:], strict=True)])
    assert one["overlap"] == pytest.approx(overlap, rel=1e-3)
    assert [r["m_90"] <= 2 for r in found["moments"] if r["s"] == 2 and r["beta1"] == 0] == [1] * 3
    for r in found["recovery"]:
        assert r["k"] == r["kappa"] * r["s"] <= 1024 / r["chunks"] / 2
        assert r["error"] >= 1 - r["best"] - 1e-3  # nothing with s atoms is nearer
        assert r["energy"] <= r["best"] + 1e-3


def test_a_sparse_moment_is_found_and_a_dense_one_is_not():
    """At the first step M is s_c-sparse; sixteen steps of moving supports are not."""
    plan = dataclasses.replace(
        SMALL, steps=16, measure=(1, 16), cells=((4, 3),), kappas=(40,), decode_kappa=40
    )
    p = torch.nn.Parameter(torch.zeros(64, 64))
    watch = Watch([p], plan, seed=1)
    for step in range(1, 17):
        p.grad = normal(64, 64, seed=step).float()
        watch.look(step)
    first, last = (
        next(r for r in watch.found["recovery"] if r["step"] == t and r["beta1"] == 0.9)
        for t in (1, 16)
    )
    assert first["hit_m"] == first["hit_v"] == 1
    assert first["error"] < 1e-8
    assert first["no_v"] == first["negative_v"] == 0
    assert holds(first)
    assert last["error"] > 0.3
    gradient = [r for r in watch.found["recovery"] if r["beta1"] == 0][-1]
    assert gradient["hit_m"] == 1
    counts = [r["m_90"] for r in watch.found["moments"] if r["beta1"] == 0.9]
    assert counts[1] > 5 * counts[0]


def test_literal_grows_with_the_gradient_and_joint_does_not(watched):
    records = watched[0].found["decodes"]
    assert {r["decode"] for r in records} == set(sgc.available("decode"))
    most = {(r["s"], r["decode"], r["scale"]): r["max"] for r in records}
    for s in (2, 5):
        assert most[s, "literal", 1.0] == pytest.approx(1e4 * most[s, "literal", 1e-4], rel=0.2)
        assert most[s, "literal", 1.0] > 1e3
        assert most[s, "joint", 1.0] <= 1.0
        small = [most[s, decode, 1e-9] for decode in ("literal", "joint")]  # ε decides: M/√ε
        assert small[0] == pytest.approx(small[1], rel=1e-3)


@pytest.mark.parametrize(
    ("error", "best", "held"),
    [
        (0.39, 0.7, True),  # 0.09 above the s_c best entries, which leave 0.3
        (0.41, 0.7, False),
        (0.3, 0.7, True),
        (0.09, 1.0, True),
        (0.11, 1.0, False),
        (0.95, 0.1, True),  # nearly as good as anything with s_c entries
    ],
)
def test_held_is_a_tenth_above_the_best_entries(error, best, held):
    assert holds({"error": error, "best": best}) is held


def test_where_the_largest_entry_passes_ten():
    assert critical_scale([1.0, 1e-2, 1e-4], [1e3, 1e1 * 0.1, 1e-1]) == pytest.approx(
        10 ** (-4 / 3)
    )
    assert critical_scale([1.0, 1e-2], [9.0, 1.0]) is None
    assert critical_scale([1.0, 1e-2], [90.0, 11.0]) == 1e-2


@pytest.fixture
def tiny(tiny_model, tiny_csv, monkeypatch):  # noqa: F811
    """The smoke preset on a model of one layer with 32×32 matrices."""
    smoke = study.PRESETS["smoke"].configs()[0]
    config = dataclasses.replace(smoke, model=str(tiny_model), data=str(tiny_csv))
    monkeypatch.setitem(study.PRESETS, "smoke", study.Preset(configs=lambda: [config]))
    return config


def test_the_command_trains_watches_and_draws(tiny, tmp_path):
    ask = ["run", "moment-sparsity", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ask)
    assert done.exit_code == 0, done.output
    assert "Which (s, κ) hold a moment" in done.output
    assert (tmp_path / "moment-sparsity-smoke.png").read_bytes().startswith(b"\x89PNG")
    (row,) = ResultStore(tmp_path / "moment-sparsity-smoke.jsonl").load()
    json.dumps(row.metrics, allow_nan=False)
    assert len(row.metrics["losses"]) == len(row.metrics["rms"]) == tiny.steps
    assert row.metrics["length"] == {"16": 64}
    assert len(row.metrics["matrices"]) == 2
    mean, error = values([row], "recovery", "hit_m", step=1, s=3, beta1=0.0)
    assert (0 <= mean <= 1, error) == (True, 0)
    assert len(select(row, "moments", step=3)) == len(tiny.betas)

    others = [dataclasses.replace(row, seed=seed) for seed in (1, 2)]
    picture = figure([row, *others])
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in picture.axes)
    assert "3 seeds" in picture.get_suptitle()
    _, hits, failures, decoded = picture.axes
    assert failures.get_ylim() == hits.get_ylim()  # shares end at 1
    assert len(decoded.containers) == 2  # bars of both decodes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture.savefig(tmp_path / "x.png")
    held, sparse, diverging = table([row, *others])
    assert held.row_count == len({r["kappa"] for r in row.metrics["recovery"]}) == 1
    assert sparse.row_count == len(tiny.betas)
    assert diverging.row_count == 2


def test_a_trial_depends_on_config_and_seed_and_not_on_what_is_watched(tiny):
    def run(config, seed=5):
        return trial(config, torch.Generator().manual_seed(seed))

    first = run(tiny)
    assert run(tiny) == first
    more = run(dataclasses.replace(tiny, cells=((8, 2),), measure=(2,)))
    assert more["losses"] == first["losses"] != run(tiny, seed=6)["losses"]
    assert {r["chunks"] for r in more["moments"]} == {8}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"measure": (0, 3)}, "steps count from 1 to steps=4"),
        ({"measure": (9,)}, "steps count from 1 to steps=4"),
        ({"recovered": ((0.3, 0.3),)}, "not among betas"),
        ({"betas": ((0.9, 1.0),)}, r"lie in \[0, 1\)"),
        ({"kappas": ()}, "kappas is empty"),
        ({"cells": ((0, 1),)}, "at least 1"),
        ({"examples": -1}, "examples must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(SMALL, **change)


def test_matrices_of_several_shapes_are_refused():
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((8, 8), (8, 16))]
    with pytest.raises(ConfigError, match="one shape"):
        Watch(weights, SMALL, seed=0)
