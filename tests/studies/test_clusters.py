"""Signals of captured gradients, and intervals of their rates, which come in clusters."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from sgc.finetune.config import ConfigError
from sgc.finetune.randomness import derived_seed
from sgc.problems import LAWS
from sgc.registry import create
from sgc.results import Result
from studies import kappa as study
from studies.figures.clusters import Clusters
from studies.figures.intervals import fit_logistic, wilson
from studies.figures.kappa_curves import curves
from studies.kappa import PRESETS, Config, laws
from studies.measures import kappa_signals
from studies.measures.captured import GRADIENTS, VARIABLE, Captured, digest, using
from studies.study import find

STUDY = find("kappa")
SMALL = Config(d=64, k=24, sparsity=3, signals=40)


def drawn(config, seed):
    c = config
    return kappa_signals.draw(c.law, c.d, c.sparsity, signals=c.signals, seed=seed)


def same(config):
    """The metrics less the time."""
    found = STUDY.trial(config, 0)
    return {name: value for name, value in found.items() if name != "seconds_per_signal"}


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
    monkeypatch.setattr(kappa_signals, "captured", lambda: kept)
    return kept


def test_captured_signals_are_the_largest_entries_of_each_chunk(gradients):
    assert laws()[-1] == "captured"
    config = Config(d=64, k=24, sparsity=3, law="captured", signals=8)
    support, values, sources, _ = drawn(config, 3)
    assert support.shape == (8, 3)  # ⌈200/64⌉ = 4 chunks of 50, of both gradients
    for n, one in enumerate(gradients):
        largest = values[sources == n].abs().max()
        assert largest == np.abs(one.values).max()
    assert support.max() < 50
    wanted = []
    for n, one in enumerate(gradients):
        cut = create("chunker", "permuted", chunks=4, seed=derived_seed(3, "cut", n))
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
        drawn(replace(config, k=50, sparsity=50), 3)


def test_the_gradients_are_counted_one_by_one(gradients, monkeypatch):
    """Those of the second are of zeros but for one entry a chunk, and too easy to miss."""
    config = Config(d=64, k=64, sparsity=1, law="captured", ensemble="srht", signals=8)
    assert same(config)["by_gradient"]["exact"] == [4, 4]
    few = replace(gradients[1], index=gradients[1].index[:2], values=gradients[1].values[:2])
    monkeypatch.setattr(kappa_signals, "captured", lambda: [gradients[0], few])
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


def test_a_chunk_with_just_s_entries_is_a_signal_and_one_with_fewer_is_none(gradients, monkeypatch):
    few = [
        replace(g, index=g.index[:n], values=g.values[:n])
        for g, n in zip(gradients, (3, 2), strict=True)
    ]
    monkeypatch.setattr(kappa_signals, "captured", lambda: few)
    config = Config(d=200, k=60, sparsity=3, law="captured", signals=8)  # one chunk a gradient
    _, values, sources, count = drawn(config, 3)
    assert (sources.tolist(), count) == ([0], 2)
    assert values.abs().sort().values.tolist() == [np.sort(np.abs(few[0].values)).tolist()]
    config = replace(config, sparsity=2)
    assert sorted(drawn(config, 3).sources.tolist()) == [0, 1]
    with pytest.raises(ConfigError, match="no captured gradient has a chunk of 200 with 4"):
        drawn(replace(config, sparsity=4), 3)


# Chunks of a gradient, which are alike


def grouped(counts, of):
    """Rows of captured signals: κ → exact of each gradient."""
    for kappa, exact in counts.items():
        config = Config(d=64, k=4 * kappa, sparsity=4, law="captured", signals=len(exact) * of)
        counts = {"signals": config.signals, "exact": sum(exact), "accurate": sum(exact)}
        each = {"signals": [of] * len(exact), "exact": exact, "accurate": exact}
        metrics = {**counts, "energy": 1.0, "seconds_per_signal": 0.002, "by_gradient": each}
        yield Result(
            run_id=STUDY.run_id(config, 0),
            kind=STUDY.kind,
            config=asdict(config),
            seed=0,
            metrics=metrics,
            environment={},
        )


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


def test_the_bootstrap_is_of_whole_clusters_of_unequal_size():
    """Its spread is that of a ratio of sums: Var = Σ (rᵢ − p nᵢ)²/(Σ n)² (Cochran 1977, §2.11)."""
    draw, x = np.random.default_rng(9), [3.0, 5.0, 8.0]
    trials = draw.integers(5, 60, (3, 80))
    good = draw.binomial(trials, draw.beta(1, 1, 80) ** [[3.0], [1.0], [0.3]])
    for (share, low, high), r, n in zip(
        Clusters(x, good, trials).rates(), good, trials, strict=True
    ):
        assert share == r.sum() / n.sum()
        spread = 1.96 * np.sqrt(((r - share * n) ** 2).sum()) / n.sum()
        assert high - low == pytest.approx(2 * spread, rel=0.1)
        assert (low + high) / 2 == pytest.approx(share, abs=0.2 * spread)


def test_equal_clusters_have_the_intervals_of_independent_trials():
    """All draws are alike: nothing is narrower than the fit's own interval, or Wilson's."""
    x, trials = [3.0, 5.0, 8.0], np.full((3, 30), 10)
    good = np.repeat([[1], [5], [9]], 30, axis=1)
    found, (a, b, c) = Clusters(x, good, trials), good.sum(1).tolist()
    fit = fit_logistic(x, [a, b, c], [300] * 3)
    assert found.crossing(fit, 0.7) == fit.crossing(0.7)
    assert [ends[1:] for ends in found.rates()] == [wilson(r, 300) for r in (a, b, c)]


def test_overdispersion_of_the_fit_stays_in_the_intervals_of_clusters():
    """Equal clusters whose rates lie off the curve: only the deviance says so."""
    x, trials = [2.0, 3.0, 5.0, 8.0], np.full((4, 30), 10)
    good = np.repeat([[1], [7], [3], [9]], 30, axis=1)
    total = good.sum(1).tolist()
    fit = fit_logistic(x, total, [300] * 4)
    near = fit_logistic(x, [300 * fit.rate(at) for at in x], [300] * 4)
    found, narrow = Clusters(x, good, trials).crossing(fit, 0.6), near.crossing(0.6)
    assert np.log(found.high / found.low) > 3 * np.log(narrow.high / narrow.low)
