"""The GPU benchmark on tiny sizes and on the CPU: what it counts and reports, not its speed."""

import dataclasses
import json
import sys
import types

import pytest
import torch
from typer.testing import CliRunner

from sgc.bench import contestants, device_timing, gpu, gpu_solvers, gpu_steps, roofline
from sgc.bench.contestants import CONTESTANTS, RIVAL, Contestant
from sgc.bench.device_timing import DeviceTiming, interleaved_on_device
from sgc.bench.files import as_json, write_json
from sgc.bench.gpu_solvers import measure_solvers
from sgc.bench.gpu_targets import SOLVER_TARGETS, STEP_TARGETS, Target, judge
from sgc.bench.solver_problem import SolverSize, draw_problem
from sgc.bench.solver_trials import Trial
from sgc.bench.step_work import Workload, adamw_work, cesgc_work, galore_work, mesgc_work
from sgc.bench.timing import Timing
from sgc.bench.work import Floors, Work, measure_floors, tf32_products
from sgc.cli import app
from sgc.problems import draw_signals

CPU = torch.device("cpu")
LOAD = Workload(matrices=2, side=32)
SIZE = SolverSize(64, 32, 3, 12)
#: AdamW, GaLore of rank 4, MESGC and CESGC, small enough for the matrices here.
METHODS = (
    *gpu_steps.METHODS[:2],
    dataclasses.replace(
        gpu_steps.METHODS[3], options={"chunks": 8, "sparsity": 8, "kappa": 8, "residual": 0.1}
    ),
    dataclasses.replace(
        gpu_steps.METHODS[6], options={"rank": 4, "chunks": 2, "sparsity": 4, "kappa": 7}
    ),
)
TOO_LARGE = dataclasses.replace(gpu_steps.METHODS[6], name="too large")
FLOORS = Floors(4e9, 2e9, {"bf16": 8e9, "tf32": 4e9, "float32": 2e9}, 1, 1, {})


def timing_of(samples):
    return DeviceTiming(*[Timing(samples)] * 3)


@pytest.fixture(scope="module")
def report():
    return gpu.run(
        CPU,
        load=LOAD,
        methods=(*METHODS, TOO_LARGE),
        sizes=[SIZE],
        repeats=2,
        buffer_bytes=2**12,
        product_side=8,
    )


def test_a_report_holds_every_method_and_solver(report):
    assert [row.name for row in report.steps] == [method.name for method in METHODS]
    assert "sparsity=1984" in report.left_out["too large"]
    assert [row.name for row in report.solvers] == [c.name for c in CONTESTANTS]
    assert {row.name for row in report.solvers if row.agreement == 1} >= {
        "omp",
        "omp-inverse-cholesky",
        "scikit-learn, CPU, one thread",
    }
    assert len(report.targets) == 10
    (tf32,) = (row for row in report.solvers if row.name == "omp, TF32 products")
    assert tf32.outcome == "TF32 products need a GPU"


def test_a_step_row_says_what_was_measured(report):
    adamw, galore, mesgc, cesgc = report.steps
    assert adamw.over_reference.samples == (1.0, 1.0)
    assert adamw.state_bytes == 2 * LOAD.params * 2 + 2 * 4  # bf16 M and V; float32 counters
    assert mesgc.shared_bytes >= 4 * 8 * 128  # A in float32
    assert mesgc.peak_extra_bytes > 0
    assert adamw.refresh is mesgc.refresh is None
    assert mesgc.amortised == mesgc.timing.device.median
    assert len(galore.refresh.warm.samples) == 3
    assert galore.peak_extra_bytes >= galore.refresh.peak_extra_bytes > 0
    assert len(cesgc.refresh.warm.samples) == 3
    step, refresh = galore.timing.device.median, galore.refresh.warm.median
    assert galore.amortised == pytest.approx((199 * step + refresh) / 200)
    assert galore.bandwidth * step == pytest.approx(galore.work.bytes)


def test_a_refresh_is_shared_by_the_steps_of_its_period(monkeypatch):
    def constructed(contestants, **_):
        samples = dict(zip(contestants, [(1.0, 1.0, 4.0), (2.0, 6.0, 8.0)], strict=True))
        return {name: timing_of(taken) for name, taken in samples.items()}

    refresh = gpu_steps.Refresh(9000.0, Timing((1206.0,)), 2**40)
    monkeypatch.setattr(gpu_steps, "interleaved_on_device", constructed)
    monkeypatch.setattr(gpu_steps, "_refresh", lambda *_: refresh)
    (adamw, galore), _ = gpu_steps.measure_steps(LOAD, FLOORS, device=CPU, methods=METHODS[:2])
    # Within rounds 2, 6 and 2 times slower, at a median of 6 seconds.
    assert galore.over_reference.median == 2
    assert galore.amortised == pytest.approx((199 * 6 + 1206) / 200)
    assert galore.amortised_over_reference == pytest.approx(2 * 12 / 6)
    assert adamw.amortised_over_reference == 1
    assert galore.peak_extra_bytes == 2**40


def test_every_method_is_given_both_gradients_by_turns(monkeypatch):
    seen = {}

    def spied(contestants, **options):
        def spy(name):
            (group,) = contestants[name].__self__.param_groups
            seen.setdefault(name, []).append(group["params"][0].grad.clone())

        calls = {name: lambda name=name: spy(name) for name in contestants}
        return interleaved_on_device(calls, **options)

    monkeypatch.setattr(gpu_steps, "interleaved_on_device", spied)
    gpu_steps.measure_steps(LOAD, FLOORS, device=CPU, methods=METHODS[:3], repeats=3)
    assert len(seen) == 3
    for first, second, *others in seen.values():
        assert not torch.equal(first, second)
        for number, gradient in enumerate(others):
            assert torch.equal(gradient, (first, second)[number % 2])


def test_every_compressor_of_the_table_takes_its_matrices():
    weights = [torch.nn.Parameter(torch.empty(4096, 4096, dtype=torch.bfloat16, device="meta"))]
    for method in gpu_steps.METHODS[1:]:
        method.optimizer(weights)
        assert method.work(Workload(), method.options).bytes > 0


def test_the_report_survives_json_and_is_drawn_from_it(report, tmp_path):
    path = tmp_path / "new" / report.file_name()
    assert path.name == "bench-gpu-cpu.json"
    write_json(report.to_dict(), path)
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values == report.to_dict()
    timing = values["steps"][0]["timing"]["device"]
    assert timing["low"] <= timing["median"] <= timing["high"]
    assert len(timing["samples"]) == 2

    left, right = roofline.figure(values).axes
    assert left.get_xlabel().endswith("(flop per byte)")
    assert "Tflop/s" in left.get_ylabel()
    assert len(right.patches) == len(report.steps)
    assert {"omp", "omp-inverse-cholesky"} <= set(left.get_legend_handles_labels()[1])
    (alone,) = roofline.figure({**values, "steps": [], "workload": None}).axes
    assert alone.lines
    assert roofline.figure({**values, "solvers": []}).axes
    roofline.save(roofline.figure(values), tmp_path / "pictures" / "roofline.png")
    assert (tmp_path / "pictures" / "roofline.png").stat().st_size > 10_000


def test_bytes_as_counted_by_hand():
    load = Workload()  # 64 matrices of 2²⁴ numbers: 2³⁰ parameters
    n = 2**30
    assert adamw_work(load, {}).bytes == 14 * n
    options = {"chunks": 256, "sparsity": 256, "kappa": 8}
    # 16,384 chunks of 65,536 numbers; 8 numbers in M and in V of each; A is 8×65,536.
    sketch = 16 * 16384 * 8 + 4 * 8 * 65536
    assert mesgc_work(load, options).bytes == 2 * n + sketch
    assert mesgc_work(load, {**options, "residual": 0.1}).bytes == 8 * n + sketch
    assert mesgc_work(load, options).flops == 2 * 16384 * 65536 * 8
    assert mesgc_work(load, options).unit == galore_work(load, {"rank": 4}).unit == "bf16"
    assert mesgc_work(load, options).comparisons == 16384 * 65536
    # 64 bases of 4096×4; as many numbers in M and in V.
    low_rank = galore_work(load, {"rank": 4})
    assert low_rank.bytes == 6 * n + 4 * 64 * 4096 * 4 + 16 * 64 * 4096 * 4
    assert low_rank.flops == 4 * n * 4
    cesgc = cesgc_work(load, {"rank": 32, "chunks": 64, "sparsity": 1984, "kappa": 7})
    # 4,096 chunks of 2,048 numbers, k = 217; 64 bases of 4096×32.
    assert cesgc.bytes == 6 * n + 4 * 64 * 4096 * 32 + 16 * 4096 * 217 + 4 * 217 * 2048
    assert cesgc.flops == 4 * n * 32 + 2 * 4096 * 2048 * 217 * 31
    assert cesgc.unit == "bf16"
    units = {c.name: c.unit for c in CONTESTANTS}
    assert units["omp-cupy"] == units["omp-cupy, tf32"] == "bf16"
    assert (units["omp"], units["omp, TF32 products"]) == ("float32", "tf32")
    solver = SolverSize(2048, 217, 31, 4096).work("bf16")
    assert solver.bytes == 4 * 217 * (2048 + 4096) + 12 * 4096 * 31
    assert solver.flops == 2 * 4096 * 2048 * 217 * 31


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (Work(8_000_000_000, 1, "tf32"), 2.0),  # the better of copy and read
        (Work(1, 12_000_000_000, "tf32"), 3.0),
        (Work(1, 12_000_000_000, "float32"), 6.0),
        (Work(1, 1, "tf32", comparisons=4_000_000_000), 4.0),
    ],
)
def test_the_floor_is_the_slowest_of_memory_arithmetic_and_choice(work, seconds):
    assert work.floor(FLOORS) == pytest.approx(seconds)


def test_floors_are_measured_and_the_precision_is_left_as_it_was():
    before = torch.get_float32_matmul_precision()
    floors = measure_floors(CPU, buffer_bytes=2**12, side=8, repeats=2)
    assert torch.get_float32_matmul_precision() == before
    assert floors.copy == 2 * 2**12 / floors.timings["copy"].low
    assert floors.read == 2**12 / floors.timings["read"].low
    assert floors.rates["bf16"] == 2 * 8**3 / floors.timings["bf16"].low


def test_rounds_on_the_device_turn_and_are_run_three_ways():
    order = []
    timings = interleaved_on_device(
        {name: lambda name=name: order.append(name) for name in "ab"},
        device=CPU,
        repeats=2,
        warmup=1,
    )
    assert "".join(order) == "ab" + "abba" + "abba"
    for timing in timings.values():
        for side in (timing.device, timing.host, timing.latency):
            assert len(side.samples) == 2
        assert all(h <= w for h, w in zip(timing.host.samples, timing.latency.samples, strict=True))
    assert interleaved_on_device({}, device=CPU, repeats=1) == {}
    with pytest.raises(ValueError, match="got 0 and 3"):
        interleaved_on_device({}, device=CPU, repeats=0)


def test_signals_are_summed_from_columns_as_a_dense_product_would():
    problem = draw_problem(SIZE, device=CPU, seed=3)
    support, values = draw_signals(SIZE.d, SIZE.sparsity, signals=SIZE.signals, seed=3)
    x = torch.zeros(SIZE.signals, SIZE.d, dtype=torch.float64).scatter_(1, support, values)
    y = x @ problem.A.to_dense().double().T
    torch.testing.assert_close(problem.y, y / y.norm(dim=1, keepdim=True))
    torch.testing.assert_close(problem.unit_columns.norm(dim=0), torch.ones(SIZE.d))
    assert problem.first(5, CPU).y32.shape == (5, SIZE.k)


def test_what_others_answer_is_recorded_not_trusted(monkeypatch):
    def run_omp(X, y, n_nonzero_coefs, *, normalize, fit_intercept, alg, precompute=True):
        assert precompute is (True if alg == "v0" else None)  # naive needs no Gram matrix
        assert not normalize
        assert not fit_intercept
        if alg == "naive":
            raise ZeroDivisionError("as some do\nwith a second line")
        dense = torch.zeros(len(y), X.shape[1])
        dense[:, :n_nonzero_coefs] = 1
        dense[0, 0] = torch.nan
        return dense

    module = types.SimpleNamespace(run_omp=run_omp)
    monkeypatch.setitem(sys.modules, RIVAL.replace("-", "_"), module)
    names = ("omp", f"{RIVAL}, v0", f"{RIVAL}, naive")
    chosen = [c for c in CONTESTANTS if c.name in names]
    omp, wrong, broken = measure_solvers(
        FLOORS, device=CPU, sizes=[SIZE], contestants=chosen, repeats=1
    )
    assert omp.outcome == wrong.outcome == "ok"
    assert omp.speedup.samples == (1.0,)
    assert wrong.broken == pytest.approx(1 / 12)
    assert wrong.agreement < 1
    assert broken.outcome == "ZeroDivisionError: as some do"
    assert broken.timing is broken.agreement is None

    monkeypatch.setitem(sys.modules, RIVAL.replace("-", "_"), None)
    (row,) = measure_solvers(FLOORS, device=CPU, sizes=[SIZE], contestants=[chosen[1]], repeats=1)
    assert row.outcome.endswith(f"pip install {RIVAL}")


def test_a_solver_is_compared_with_the_fastest_of_each_kind():
    names = ("omp", "omp, TF32 products", "omp-cupy")
    chosen = {c.name: c for c in CONTESTANTS if c.name in names}
    slow, fast = (
        dataclasses.replace(chosen["omp"], name=name, host_signals=4, installable=True)
        for name in ("slow", "fast")
    )
    few = dataclasses.replace(SIZE, signals=4)
    seconds = {"omp": 24.0, "omp, TF32 products": 12.0, "omp-cupy": 3.0, "slow": 40.0, "fast": 20.0}
    for host in ([slow, fast], [fast, slow]):
        trials = [
            *(Trial(chosen[name], SIZE) for name in names),
            *(Trial(contestant, few) for contestant in host),
        ]
        timings = {name: timing_of((taken, taken)) for name, taken in seconds.items()}
        rows = {row.name: row for row in gpu_solvers._rows(trials, timings, FLOORS)}
        cupy = rows["omp-cupy"]
        assert cupy.speedup.median == 8
        assert cupy.speedup_over_plain.median == 4
        assert cupy.speedup_over_cpu == (20 / 4) / (3 / 12)
        assert rows["slow"].speedup_over_cpu == 0.5
        target = dataclasses.replace(SOLVER_TARGETS[0], size=SIZE)
        (verdict,) = judge([target], list(rows.values()))
        assert verdict.value == 4
        assert "faster plain torch form" in verdict.what


def test_tf32_is_allowed_during_a_call_only():
    before = torch.get_float32_matmul_precision()

    def interrupted():
        with tf32_products():
            assert torch.get_float32_matmul_precision() == "high"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.get_float32_matmul_precision() == before


def test_the_plain_solver_runs_with_tf32_products(monkeypatch):
    seen = []

    def solve():
        seen.append(torch.get_float32_matmul_precision())
        raise ZeroDivisionError

    monkeypatch.setattr(contestants, "_ours", lambda _: lambda _: solve)
    (tf32,) = (c for c in CONTESTANTS if c.name == "omp, TF32 products")
    before = torch.get_float32_matmul_precision()
    call = tf32.make(types.SimpleNamespace(y=types.SimpleNamespace(device=torch.device("cuda"))))
    with pytest.raises(ZeroDivisionError):
        call()
    assert seen == ["high"]
    assert torch.get_float32_matmul_precision() == before


def test_rivals_on_the_cpu_say_their_threads_and_take_all_signals():
    def names(threads):
        return [c.name for c in contestants._scikit_learns(threads)]

    assert names(16) == ["scikit-learn, CPU, 16 threads", "scikit-learn, CPU, one thread"]
    assert names(1) == ["scikit-learn, CPU, one thread"]
    memory = {}
    for algorithm in ("v0", "naive"):
        (c,) = (c for c in CONTESTANTS if c.name == f"{RIVAL}, {algorithm}, CPU")
        assert c.host_signals == gpu_solvers.SIZES[0].signals
        memory[algorithm] = c.memory(gpu_solvers.SIZES[0])
    assert memory["v0"] == 4 * (2048**2 + 4096 * 2048 * 36)
    assert memory["naive"] == 4 * (2 * 4096 * 2048 + 4096 * 31 * 217 + 217 * 2048)


def test_what_does_not_fit_is_not_tried_and_what_is_slow_is_not_repeated(monkeypatch):
    calls = []
    omp = CONTESTANTS[0]

    def counting(problem):
        call = omp.make(problem)
        return lambda: calls.append(0) or call()

    slow = Contestant("slow", counting, omp.support)
    huge = Contestant("huge", counting, omp.support, memory=lambda _: 2**50, host_signals=2)
    monkeypatch.setattr(gpu_solvers, "_SLOW", 0.0)
    rows = measure_solvers(FLOORS, device=CPU, sizes=[SIZE], contestants=[slow, huge], repeats=5)
    assert len(calls) == 2
    assert len(rows[0].timing.device.samples) == 1
    assert rows[1].outcome == "not tried: needs about 1048576 of 10 GiB"
    assert rows[1].signals == 2


def test_targets_are_limits_and_nothing_measured_is_not_met():
    rows = [types.SimpleNamespace(name="a", size=SIZE, x=2.0)]
    targets = [
        Target("small", "a", lambda r: r.x, 2.0, size=SIZE),
        Target("large", "a", lambda r: r.x, 2.5, at_most=False, size=SIZE),
        Target("elsewhere", "a", lambda r: r.x, 2.0),
    ]
    verdicts = judge(targets, rows)
    assert [verdict.met for verdict in verdicts] == [True, False, False]
    assert [verdict.value for verdict in verdicts] == [2.0, 2.0, None]
    names = [method.name for method in gpu_steps.METHODS if method.compressor == "mesgc"]
    assert [t.row for t in STEP_TARGETS if "GiB" in t.what] == names


def test_a_machine_without_gpu_is_told_what_is_needed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(app, ["bench", "gpu"])
    assert done.exit_code == 1
    assert "needs an NVIDIA GPU" in done.stderr
    assert done.stdout == ""


def test_a_full_gpu_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tiny")
    monkeypatch.setattr(gpu, "free_bytes", lambda _: 17 * 2**30)
    with pytest.raises(gpu.DeviceError, match=r"17 GiB of the memory of Tiny .* about 18"):
        gpu.find_device(Workload())
    assert gpu.find_device(None).type == "cuda"
    assert device_timing.free_bytes(CPU) is None


def test_the_command_writes_prints_and_draws(report, monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(gpu, "find_device", lambda load: CPU)
    monkeypatch.setattr(gpu, "run", lambda device, **options: asked.update(options) or report)
    out, picture, again = (tmp_path / name for name in ("a.json", "a.png", "b.png"))
    arguments = ["bench", "gpu", "--only", "steps", "--matrices", "3", "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--plot", str(picture)], env={"COLUMNS": "250"})
    assert done.exit_code == 0, done.output
    assert asked["parts"] == ("steps",)
    assert asked["load"] == Workload(matrices=3)
    assert "AdamW, fused" in done.output
    assert "nothing measured, not met" in done.output
    assert json.loads(out.read_text(encoding="utf-8"))["repeats"] == 2
    done = CliRunner().invoke(app, ["bench", "plot", str(out), str(again)])
    assert done.exit_code == 0, done.output
    assert picture.stat().st_size == again.stat().st_size > 0

    out.write_text("{}", encoding="utf-8")
    done = CliRunner().invoke(app, ["bench", "plot", str(out), str(again)])
    assert done.exit_code == 1
    assert "is no report" in done.output


def test_timings_in_json_carry_their_statistics():
    assert as_json({"a": (Timing((1.0, 3.0)),)}) == {
        "a": [{"median": 2.0, "low": 1.0, "high": 3.0, "samples": [1.0, 3.0]}]
    }
