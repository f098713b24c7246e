import json

import pytest
import threadpoolctl
import torch
from typer.testing import CliRunner

import sgc
from recovery.omp import OMP
from sgc.bench import cpu
from sgc.bench.timing import Timing, interleaved, single_thread, timed
from sgc.cli import app

TINY = (cpu.BenchSize(64, 32, 3, 8, 4), cpu.BenchSize(48, 24, 2, 5, 2))


def test_bench_measures_every_omp_variant_and_writes_the_file(tmp_path):
    class Variant(OMP):
        oracle = "omp"

    sgc.register("recovery", "test-variant", Variant)
    try:
        calls = []
        report = cpu.run(TINY, repeats=2, progress=lambda *call: calls.append(call))
    finally:
        sgc.unregister("recovery", "test-variant")
    for size in TINY:
        names = [row.name for row in report.rows if row.size == size]
        assert names[:2] == ["floor", "scikit-learn"]
        assert {"omp", "test-variant"} <= set(names)
        assert not {"cosamp", "auto"} & set(names)  # on the CPU, auto is omp
        done = [done for what, done, total in calls if what == str(size)]
        assert done == list(range(1, 3 * len(names) + 1))
    assert len(report.targets) == 2 * len(TINY)

    path = tmp_path / "new" / "bench.json"
    cpu.write(report, path)
    cpu.write(report, path)
    assert [p.name for p in path.parent.iterdir()] == ["bench.json"]
    written = json.loads(path.read_text(encoding="utf-8"))
    assert len(written["rows"]) == len(report.rows)
    assert all(len(row["timing"]["samples"]) == 2 for row in written["rows"])
    assert {"git", "packages", "cpu", "python"} <= set(written["environment"])


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "bench.json"
    path.write_text("old")
    report = cpu.BenchReport((), (), 1, 0, {"bad": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        cpu.write(report, path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["bench.json"]


@pytest.mark.parametrize(
    ("over_floor", "speedup", "met"),
    [(1.4, 11.0, [True, True]), (1.6, 9.0, [False, False]), (1.5, 10.0, [True, True])],
)
def test_targets_are_judged_as_the_limits_say(monkeypatch, over_floor, speedup, met):
    size = cpu.BenchSize(64, 32, 3, 8, 10)
    times = {"floor": 1.0, "omp": over_floor, "scikit-learn": over_floor * speedup}
    monkeypatch.setattr(
        cpu,
        "interleaved",
        lambda contestants, **_: {name: Timing((times.get(name, 9.0),)) for name in contestants},
    )
    report = cpu.run([size], repeats=1)
    assert [target.met for target in report.targets] == met
    (omp,) = (row for row in report.rows if row.name == "omp")
    assert omp.microseconds == pytest.approx(1e6 * over_floor / 8)


def test_the_floor_is_s_products_and_argmaxes():
    A = torch.eye(3)
    assert cpu.floor(torch.tensor([[1.0, -5.0, 2.0]]), A, sparsity=2).tolist() == [1]


def test_the_command_prints_targets_and_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu.run.__wrapped__, "__defaults__", (TINY,))
    out = tmp_path / "bench.json"
    arguments = ["bench", "cpu", "--repeats", "1", "--out", str(out)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert done.output.count("× the floor") == len(TINY)
    assert "faster than scikit-learn" in done.output
    assert json.loads(out.read_text(encoding="utf-8"))["repeats"] == 1


def test_interleaving_turns_the_order_and_does_not_count_the_first_round():
    order = []
    timings = interleaved({n: lambda n=n: order.append(n) for n in "abc"}, repeats=2)
    assert "".join(order) == "abcbcacab"
    assert {name: len(timing.samples) for name, timing in timings.items()} == dict.fromkeys(
        "abc", 2
    )
    with pytest.raises(ValueError, match="got 0"):
        interleaved({}, repeats=0)


def test_ratios_are_taken_within_a_round():
    slow_second_round, rival = Timing((2.0, 20.0, 2.0)), Timing((1.0, 10.0, 1.0))
    ratio = slow_second_round.over(rival)
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="zip"):
        slow_second_round.over(Timing((1.0,)))


def test_what_is_slow_is_timed_once():
    runs = []
    assert timed(lambda: runs.append(0) or "answer", repeats=3, budget=60)[0] == "answer"
    assert len(runs) == 3
    timed(lambda: runs.append(0), repeats=3, budget=0)
    assert len(runs) == 4


def test_one_thread_inside_and_as_before_outside():
    def blas():
        return [p["num_threads"] for p in threadpoolctl.threadpool_info()]

    before, blas_before = torch.get_num_threads(), blas()

    def interrupted():
        with single_thread():
            assert torch.get_num_threads() == 1
            assert set(blas()) <= {1}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.get_num_threads() == before
    assert blas() == blas_before
