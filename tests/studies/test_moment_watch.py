"""What the watch reports of M, V and N, against hand computation and float64 NumPy."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs pip install transformers")

from projections import as_projection
from recovery import RecoveryResult
from studies.figures.moment_sparsity_tables import critical_scale
from studies.measures.moment_statistics import compare
from studies.measures.moment_watch import Watch
from studies.moment_sparsity import Config

# Two steps of one chunk of 32 with s_c = 1, by hand

FIRST, SECOND = 3, 5  # where the gradient is 2 at step 1, and 1.5 at step 2
SCALES, EPSILONS = (1e-7, 1e-5, 1e-3, 1e-1), (1e-12, 1e-8)


@pytest.fixture
def two_steps():
    """M = ½·(½·2, 1.5) = (0.5, 0.75), V = ¼·(¾·4, 2.25) = (0.75, 0.5625), else 0.

    After 1 − β^2 = 0.75 and 0.4375, M̂ = (2/3, 1) and V̂ = (12/7, 9/7): V's largest entry is not
    M's. The gradients' root mean square is √(6.25/64) = 5/16. The first 16 columns of A are those
    of I, so what OMP finds first is the largest entry, with its value.
    """
    plan = Config(
        **{"steps": 2, "measure": (1, 2), "cells": ((1, 1),), "kappas": (16,), "decode_kappa": 16},
        **{"betas": ((0.5, 0.75),), "recovered": ((0.5, 0.75),), "chunker": "contiguous"},
        **{"scales": SCALES, "epsilons": EPSILONS},
    )
    p = torch.nn.Parameter(torch.zeros(8, 4))
    watch = Watch([p], plan, seed=0)
    others = torch.randn(16, 16, generator=torch.Generator().manual_seed(1)).sign() / 4
    watch.made[16, 32] = as_projection(torch.cat([torch.eye(16), others], 1))
    for step, place, value in ((1, FIRST, 2.0), (2, SECOND, -1.5)):
        p.grad = torch.zeros(8, 4)
        p.grad.view(-1)[place] = value
        watch.look(step)
    return watch


def test_moments_of_two_steps_are_those_by_hand(two_steps):
    watch = two_steps
    assert watch.found["rms"] == pytest.approx([(4 / 32) ** 0.5, (2.25 / 32) ** 0.5], rel=1e-3)
    first, second = watch.found["moments"]
    assert (first["m_nonzero"], first["m_top"], first["overlap"]) == (1, 1, 1)
    assert (second["m_nonzero"], second["v_nonzero"]) == (2, 2)
    assert second["m_top"] == pytest.approx(9 / 13, rel=1e-3)  # 0.75² of 0.5² + 0.75²
    assert second["v_top"] == pytest.approx(16 / 25, rel=1e-3)  # 0.75² of 0.75² + 0.5625²
    assert second["m_participation"] == pytest.approx(169 / 97, rel=1e-3)
    assert (second["m_90"], second["overlap"]) == (2, 0)


def test_a_matrix_without_gradients_leaves_every_number_finite(two_steps):
    plan = replace(two_steps.plan, steps=1, measure=(1,))
    parameters = [torch.nn.Parameter(torch.zeros(8, 4)) for _ in range(2)]
    watch = Watch(parameters, plan, seed=0)
    parameters[0].grad, parameters[1].grad = torch.ones(8, 4), torch.zeros(8, 4)
    watch.look(1)
    assert watch.found["decodes"]
    json.dumps(watch.found, allow_nan=False)


def test_recovery_of_two_steps_is_that_by_hand(two_steps):
    """One atom each: M's, with 9/13 of the energy, and V's, which is another place."""
    first, second = two_steps.found["recovery"]
    assert (first["k"], first["hit_m"], first["hit_v"], first["no_v"]) == (16, 1, 1, 0)
    assert (first["energy"], first["best"]) == (1, 1)
    assert first["error"] < 1e-12
    assert (second["hit_m"], second["hit_v"], second["no_v"]) == (1, 1, 1)
    assert second["negative_v"] == 0
    assert second["energy"] == second["best"] == pytest.approx(9 / 13, rel=1e-3)
    assert second["error"] == pytest.approx(4 / 13, rel=1e-3)


def test_entries_of_n_are_those_by_hand(two_steps):
    """literal reads V = 0 at M's atom; joint reads V̂ there, which is above M̂²."""
    records = two_steps.found["decodes"]
    assert len(records) == 2 * len(SCALES) * len(EPSILONS)
    for r in records:
        g, eps = r["scale"] / (5 / 16), r["eps"]
        v = {"literal": 0.0, "joint": 9 / 7}[r["decode"]]
        wanted = g / np.sqrt(g**2 * v + eps)
        assert r["max"] == pytest.approx(wanted, rel=1e-3), r
        assert r["median"] == r["max"]
        assert r["large"] == (wanted > 10)
    for eps in EPSILONS:
        most = {
            name: [r["max"] for r in records if (r["decode"], r["eps"]) == (name, eps)]
            for name in ("literal", "joint")
        }
        assert critical_scale(SCALES, most["literal"]) == pytest.approx(
            10 * 5 / 16 * eps**0.5, rel=1e-3
        )
        assert critical_scale(SCALES, most["joint"]) is None


# Answers of a solver, by hand


def answer(support, values):
    none = torch.zeros(1)
    return RecoveryResult(
        torch.tensor([support]), torch.tensor([values]), none, none.long(), none.long()
    )


def dense(entries):
    x = torch.zeros(1, 32)
    for place, value in entries.items():
        x[0, place] = value
    return x


def test_a_wrong_answer_is_measured_against_the_right_one():
    M, V = dense({0: 4.0, 1: -3.0, 2: 2.0, 9: 1.0}), dense({1: 5.0, 9: 4.0, 2: 1.0})
    found = compare(M, V, answer([1, 2], [-2.0, 2.0]), answer([2, 9], [-1.0, 3.0]), 2)
    assert found == {
        "hit_m": 0.5,  # 1 of 0 and 1
        "hit_v": 0.5,  # 9 of 1 and 9; none of M's 0 and 1
        "energy": pytest.approx(13 / 30, rel=1e-3),
        "best": pytest.approx(25 / 30, rel=1e-3),
        "error": pytest.approx((16 + 1 + 1) / 30, rel=1e-3),
        "negative_v": 0.5,
        "no_v": 1.0,  # 1 is missed, 2 negative
    }


def test_a_value_of_zero_or_less_is_no_v_and_unused_slots_are_nothing():
    x, support = dense({4: 1.0, 5: 1.0, 6: 1.0}), [4, 5, 6, -1]
    m = answer(support, [1.0, 1.0, 1.0, 0.0])
    found = compare(x, x, m, answer(support, [1.0, 0.0, -1.0, 0.0]), 2)
    assert found["no_v"] == pytest.approx(2 / 3, rel=1e-3)
    assert found["negative_v"] == pytest.approx(1 / 3, rel=1e-3)
    v = answer([4, 5, -1, -1], [1.0, 1.0, 0.0, 0.0])
    assert compare(x, x, m, v, 2)["no_v"] == pytest.approx(1 / 3, rel=1e-3)


# Three steps of two matrices whose gradients differ in size, by NumPy

PLAN = Config(
    **{"steps": 3, "measure": (2, 3), "cells": ((4, 2), (2, 3)), "kappas": (4, 8)},
    **{"betas": ((0.0, 0.0), (0.5, 0.9)), "recovered": ((0.0, 0.0), (0.5, 0.9))},
    **{"scales": (1e-6, 1e-3, 1.0), "epsilons": (1e-8, 1e-4), "decode_kappa": 8},
    chunker="contiguous",
)


@pytest.fixture(scope="module")
def three_steps():
    weights = [torch.nn.Parameter(torch.zeros(16, 16)) for _ in range(2)]
    watch, draw, seen = Watch(weights, PLAN, seed=3), np.random.default_rng(4), []
    for step in (1, 2, 3):
        G = draw.standard_t(4, (2, 256)) * np.array([[1e-3], [3e-2]])
        seen.append(G.astype(np.float32).astype(np.float64))
        for p, g in zip(weights, seen[-1], strict=True):
            p.grad = torch.from_numpy(g).float().view(16, 16)
        watch.look(step)
    return watch, seen


def cut(G, c, s):
    """The s largest entries of each of c consecutive chunks of both matrices."""
    parts = G.reshape(2 * c, -1).copy()
    np.put_along_axis(parts, np.argsort(-np.abs(parts), axis=1)[:, s:], 0.0, axis=1)
    return parts


def exact(seen, c, s, beta1, beta2):
    """M and V as sums: the gradient of step i has weight (1 − β)·β^(t−i)."""
    t, parts = len(seen), [cut(G, c, s) for G in seen]
    M = sum((1 - beta1) * beta1 ** (t - 1 - i) * g for i, g in enumerate(parts))
    V = sum((1 - beta2) * beta2 ** (t - 1 - i) * g**2 for i, g in enumerate(parts))
    return M, V


def omp(A, y, s):
    """Support and coefficients of one signal by orthogonal matching pursuit."""
    support, residual = [], y
    for _ in range(s):
        score = np.abs(A.T @ residual) / np.linalg.norm(A, axis=0)
        score[support] = 0
        support.append(int(score.argmax()))
        coded = np.linalg.lstsq(A[:, support], y, rcond=None)[0]
        residual = y - A[:, support] @ coded
    return support, coded


def matrix(watch, c, s, k):
    (cell,) = (one for one in watch.cells if (one.chunks, one.kept) == (c, s))
    return watch.made[k, cell.length].to_dense().double().numpy()


def test_recovery_records_are_those_of_numpy(three_steps):
    watch, seen = three_steps
    records = watch.found["recovery"]
    assert len(records) == 2 * 2 * 2 * 2  # steps, cells, κ, β
    kinds = set()
    for r in records:
        s = r["s"]
        A = matrix(watch, r["chunks"], s, r["k"])
        M, V = exact(seen[: r["step"]], r["chunks"], s, r["beta1"], r["beta2"])
        rows = []
        for m, v in zip(M, V, strict=True):
            top_m, top_v = (set(np.argsort(-np.abs(x))[:s].tolist()) for x in (m, v))
            support_m, coded_m = omp(A, A @ m, s)
            support_v, coded_v = omp(A, A @ v, s)
            answer = np.zeros_like(m)
            answer[support_m] = coded_m
            positive = {j for j, value in zip(support_v, coded_v, strict=True) if value > 0}
            rows.append(
                {
                    "hit_m": len(top_m & set(support_m)) / s,
                    "hit_v": len(top_v & set(support_v)) / s,
                    "energy": (m[support_m] ** 2).sum() / (m**2).sum(),
                    "best": (m[list(top_m)] ** 2).sum() / (m**2).sum(),
                    "error": ((answer - m) ** 2).sum() / (m**2).sum(),
                    "negative_v": np.mean(coded_v < 0),
                    "no_v": 1 - len(positive & set(support_m)) / s,
                }
            )
        for name in rows[0]:
            wanted = np.mean([row[name] for row in rows])
            assert r[name] == pytest.approx(wanted, rel=1e-3, abs=1e-6), (name, r)
        kinds |= {name for name in ("negative_v", "no_v") if r[name]}
        kinds |= {"missed"} if r["energy"] < 0.99 * r["best"] else set()
    assert kinds == {"negative_v", "no_v", "missed"}  # the oracle had something to say


def test_decode_records_are_those_of_numpy(three_steps):
    """A decode reads A·(M̂ g/rms) and A·(V̂ g²/rms²), rms of each matrix over all three steps."""
    watch, seen = three_steps
    records, (beta1, beta2) = watch.found["decodes"], PLAN.recovered[-1]
    rms = np.sqrt(np.mean(np.square(seen), axis=(0, 2)))
    assert rms[1] > 20 * rms[0]
    assert len(records) == 2 * 2 * 3 * 2  # cells, decodes, scales, ε
    for r in records:
        c, s, g = r["chunks"], r["s"], r["scale"]
        A = matrix(watch, c, s, 8 * s)
        M, V = exact(seen, c, s, beta1, beta2)
        sizes = []
        for row, (m, v) in enumerate(zip(M, V, strict=True)):
            unit = rms[row // c]
            y, z = (A @ (x / unit**n * g**n) for x, n in ((m, 1), (v, 2)))
            y, z = y / (1 - beta1**3), z / (1 - beta2**3)
            support, coded = omp(A, y, s)
            if r["decode"] == "joint":
                there = np.linalg.lstsq(A[:, support], z, rcond=None)[0]
                there = np.maximum(there, coded**2)
            else:
                other = dict(zip(*omp(A, z, s), strict=True))
                there = np.array([max(0.0, other.get(j, 0.0)) for j in support])
            sizes += (np.abs(coded) / np.sqrt(there + r["eps"])).tolist()
        assert r["max"] == pytest.approx(max(sizes), rel=2e-3), r
        assert r["median"] == pytest.approx(sorted(sizes)[(len(sizes) - 1) // 2], rel=2e-3), r
        assert r["large"] == pytest.approx(np.mean(np.array(sizes) > 10), rel=1e-3), r
    assert any(0 < r["large"] < 1 for r in records)


def test_what_compresses_nothing_is_neither_recovered_nor_decoded():
    """2k > d_c: κ = 4 is left of a chunk of 16 with s_c = 2, and κ = 5 decodes nothing."""
    plan = replace(PLAN, cells=((16, 2),), kappas=(4, 5), decode_kappa=5)
    p = torch.nn.Parameter(torch.zeros(16, 16))
    watch = Watch([p], plan, seed=0)
    for step in (1, 2, 3):
        p.grad = torch.randn(16, 16, generator=torch.Generator().manual_seed(step))
        watch.look(step)
    assert {r["kappa"] for r in watch.found["recovery"]} == {4}
    assert watch.found["decodes"] == []
