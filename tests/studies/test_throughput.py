import importlib.util
import sys
from dataclasses import asdict, replace

import pytest
import torch
from typer.testing import CliRunner

import sgc
from sgc.finetune.config import ConfigError
from sgc.registry import MissingDependencyError
from sgc.results import Result, ResultStore
from sgc.specs import Spec
from studies.cli import app
from studies.figures.throughput import FULL, PAPER, figure, ratios, table, verdicts
from studies.measures import iterations, llama
from studies.measures.captured import GRADIENTS
from studies.measures.iterations import pooled, stamp, timed_iterations
from studies.measures.methods import training
from studies.measures.passes import there_and_back
from studies.runner.grid import missing, points
from studies.study import STUDIES, find
from studies.throughput import PRESETS, one_pass, trial

STUDY = find("throughput")
(SMOKE,) = PRESETS["smoke"].configs()
(DEFAULT,) = PRESETS["default"].configs()
SPECS = {name: Spec.parse(spec) for name, spec in SMOKE.methods}
CPU = torch.device("cpu")
HAS_PEFT = importlib.util.find_spec("peft") is not None
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs pip install transformers"
)
needs_peft = pytest.mark.skipif(not HAS_PEFT, reason="needs pip install peft")


def timed(name, seconds, amortised):
    spread = {"median": seconds, "low": seconds - 0.01, "high": seconds + 0.02}
    times = {"iteration_s": spread, "optimizer_s": {**spread, "median": 0.05}}
    sizes = {"refresh_s": 1.0, "state_bytes": 1, "peak_bytes": None}
    return {"method": name, **times, "amortised_s": amortised, **sizes}


def made(*methods, config=DEFAULT, left_out=None):
    """A row of a comparison on an H200."""
    return Result(
        run_id="x",
        kind=STUDY.kind,
        config=asdict(config),
        seed=0,
        metrics={"methods": list(methods), "left_out": left_out or {}},
        environment={"gpu": "H200", "cpu": "x"},
    )


def cells(made, column):
    return list(made.columns[column].cells)


def tiny(device=CPU, **options):
    options = {"dtype": "bfloat16", "seed": 0, "gradient_checkpointing": False, **options}
    return llama.build(llama.TINY, device=device, **options)


@needs_transformers
def test_the_command_measures_every_method_and_draws(tmp_path, device):
    ask = ["run", "throughput", "--preset", "smoke", "--device", str(device), "--jobs", "2"]
    done = CliRunner().invoke(app, [*ask, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "one trial runs at a time" in done.output
    assert (tmp_path / "throughput-smoke.png").read_bytes().startswith(b"\x89PNG")
    (row,) = ResultStore(tmp_path / "throughput-smoke.jsonl").load()
    methods = [name for name in SPECS if HAS_PEFT or name != "lora"]
    assert [one["method"] for one in row.metrics["methods"]] == methods
    assert list(row.metrics["left_out"]) == [name for name in SPECS if name not in methods]
    for one in row.metrics["methods"]:
        whole, step, rest = (
            one[f"{what}_s"] for what in ("iteration", "optimizer", "forward_backward")
        )
        assert 0 < whole["low"] <= whole["median"] <= whole["high"]
        parts = zip(step["samples"], rest["samples"], whole["samples"], strict=True)
        assert all(a > 0 and b > 0 and a + b == pytest.approx(c) for a, b, c in parts)
        assert len(whole["samples"]) == SMOKE.repeats
        assert (one["refresh_s"] is None) == (one["method"] not in ("galore", "cesgc"))
        assert (one["peak_bytes"] is None) == (device.type == "cpu")
        share = (one["refresh_s"] or 0) / 200
        assert one["amortised_s"] == pytest.approx(whole["median"] + share)
    assert "4.45" in done.output  # the paper's MESGC against its full fine-tuning
    assert "at most" not in done.output  # the target is for the 7B model


@needs_transformers
def test_a_missing_package_leaves_its_method_out_and_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    methods = (("lora", "lora:rank=4"), (FULL, "adamw"))
    config = replace(SMOKE, methods=methods, repeats=2)
    found = trial(config, torch.Generator().manual_seed(0))
    assert [one["method"] for one in found["methods"]] == [FULL]
    assert found["left_out"] == {"lora": "LoRA needs peft; install it: pip install peft"}
    row = made(timed(FULL, 1.0, 1.0), left_out=found["left_out"])
    assert "lora is left out: LoRA needs peft" in table([row])[0].caption


@needs_transformers
def test_a_pass_refreshes_subspaces_at_its_two_ends_only(monkeypatch):
    config = replace(SMOKE, warmup=2, repeats=6)
    seen = []
    step = sgc.CompressedAdamW.step

    def watched(self):
        step(self)
        bases = [state["basis_step"].item() for state in self.state.values()]
        seen.append(set(bases))

    monkeypatch.setattr(sgc.CompressedAdamW, "step", watched)
    samples = one_pass(SPECS["galore"], tiny(), config=config, seed=0)
    assert seen == [{1.0}] * 5 + [{6.0}]
    assert len(samples["iteration"]) == len(samples["optimizer"]) == 3


@needs_transformers
def test_sizes_are_those_of_table_1():
    sizes, matrices, side = {}, 4, 64
    names = [name for name in SPECS if HAS_PEFT or name != "lora"]
    model, config = tiny(), replace(SMOKE, repeats=2)
    for name in names:
        sizes[name] = one_pass(SPECS[name], model, config=config, seed=0)["sizes"]
    full = matrices * side**2
    assert sizes["full"]["trained"] == sizes["mesgc"]["trained"] == full
    assert sizes["full"]["moments"] == 2 * full
    assert sizes["full"]["state_bytes"] == 2 * full * 2 + matrices * 4  # bf16, and the steps
    assert sizes["mesgc"]["moments"] == matrices * 2 * 8 * 8
    assert sizes["cesgc"]["moments"] == matrices * 2 * 4 * 16
    assert sizes["galore"]["moments"] == matrices * 2 * 4 * side
    if HAS_PEFT:
        assert sizes["lora"]["trained"] == matrices * 2 * 4 * side
        assert sizes["lora"]["moments"] == 2 * sizes["lora"]["trained"]


@needs_transformers
@pytest.mark.parametrize("name", [pytest.param("lora", marks=needs_peft), "full", "cesgc"])
def test_a_method_trains_its_own_and_leaves_the_model_frozen_and_bare(name, device):
    model = tiny(device)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ids = llama.tokens(llama.TINY, batch=2, length=8, device=device, seed=0)
    with training(SPECS[name], model, lr=0.1, device=device, seed=0) as trained:
        model(input_ids=ids, labels=ids).loss.backward()
        assert all(p.grad is not None for p in trained.parameters)
        with_gradient = sum(p.grad is not None for p in model.parameters())
        assert with_gradient == len(trained.parameters)
        trained.optimizer.step()
    after = model.state_dict()
    assert list(after) == list(before)
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    targets = {key for key in after if "q_proj" in key or "v_proj" in key}
    assert changed == (set() if name == "lora" else targets)


@needs_transformers
def test_checkpointed_activations_give_the_same_gradients():
    gradients, forwards = [], []
    for checkpointing in (False, True):
        model = tiny(gradient_checkpointing=checkpointing, dtype="float32")
        layer = model.model.layers[0].mlp
        layer.register_forward_pre_hook(lambda *_, which=checkpointing: forwards.append(which))
        ids = llama.tokens(llama.TINY, batch=2, length=8, device=CPU, seed=0)
        with llama.query_and_value(model) as matrices:
            model(input_ids=ids, labels=ids).loss.backward()
            gradients.append([p.grad for p in matrices])
    assert forwards == [False, True, True]
    for plain, again in zip(*gradients, strict=True):
        assert plain.any()
        torch.testing.assert_close(plain, again)


@needs_transformers
def test_the_seed_makes_the_model():
    first, again, other = tiny(), tiny(), tiny(seed=1)
    for (name, a), b, c in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c) == ("norm" in name)


def test_the_refresh_is_shared_by_the_iterations_until_the_next():
    one = {"iteration": [3.0, 5.0], "optimizer": [1.0, 1.0], "first_step": 9.0, "loss": 1.0}
    two = {"iteration": [4.0, 4.0], "optimizer": [1.0, 2.0], "first_step": 7.0, "loss": 0.5}
    passes = [{**one, "last_step": 11.0}, {**two, "last_step": 31.0}]
    metrics = pooled(passes, refresh_every=200)
    assert metrics["iteration_s"] == {
        **{"median": 4.0, "low": 3.0, "high": 5.0},
        "samples": [3.0, 5.0, 4.0, 4.0],
    }
    assert metrics["forward_backward_s"]["samples"] == [2.0, 4.0, 3.0, 2.0]
    assert (metrics["refresh_s"], metrics["amortised_s"]) == (20.0, 4.1)
    assert (metrics["first_step_s"], metrics["loss"]) == (7.0, 0.5)
    without = pooled(passes, refresh_every=None)
    assert (without["refresh_s"], without["amortised_s"]) == (None, 4.0)


def test_warm_up_and_the_last_refresh_are_no_samples(monkeypatch):
    made = []

    class Count:
        """The n-th stamp; a duration names its two ends."""

        def __init__(self, device):
            self.number = len(made)
            made.append(self)

        def until(self, later):
            return self.number, later.number

    monkeypatch.setattr(iterations, "stamp", Count)
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([w], lr=0.1)
    losses, steps = [], []
    optimizer.register_step_pre_hook(lambda *_: steps.append(len(made)))

    def loss():
        losses.append(len(made))
        return w.square().sum()

    samples = timed_iterations(loss, optimizer, warmup=2, repeats=3, device=CPU)
    # Iteration i has the stamps 3i, 3i + 1 and 3i + 2: of 0 … 5, those that count are 2, 3, 4.
    assert samples["iteration"] == [(6, 8), (9, 11), (12, 14)]
    assert samples["optimizer"] == [(7, 8), (10, 11), (13, 14)]
    assert (samples["first_step"], samples["last_step"]) == ((1, 2), (16, 17))
    assert losses == [1, 4, 7, 10, 13, 16]  # after the first stamp of each, before the second
    assert steps == [2, 5, 8, 11, 14, 17]


def test_times_of_a_broken_training_are_refused():
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([w], lr=1.0)

    def broken():
        return (w * torch.nan).sum()

    with pytest.raises(FloatingPointError, match="the loss became nan"):
        timed_iterations(broken, optimizer, warmup=1, repeats=1, device=CPU)


def test_the_figure_places_the_papers_ratios_on_our_seconds():
    wanted = ((FULL, 0.2), ("mesgc", 0.3), ("mesgc-residual", 0.4))
    row = made(*(timed(name, seconds, seconds + 0.001) for name, seconds in wanted))
    (axes,) = figure([row]).axes
    (markers,) = (line for line in axes.lines if line.get_marker() == "D")
    assert markers.get_xdata() == pytest.approx([0.201, 0.201 * 7.52 / 1.69])
    assert list(markers.get_ydata()) == [0, 1]  # the paper has no residual
    ends = [max(bar.get_x() + bar.get_width() for bar in bars) for bars in axes.containers[:3]]
    assert ends == pytest.approx([0.35, 0.4, 0.401])
    assert "H200" in axes.get_xlabel()
    assert "seconds" in axes.get_xlabel()
    assert len(figure([row, row]).axes) == 2  # a panel a trial


def test_ratios_and_verdicts_are_with_the_share_of_a_refresh():
    methods = timed(FULL, 2.0, 2.0), timed("mesgc", 1.99, 1.99), timed("cesgc", 2.0, 2.08)
    row = made(*methods)
    assert ratios(row) == pytest.approx({FULL: 1, "mesgc": 0.995, "cesgc": 1.04})
    assert verdicts(row) == [
        "mesgc: at most 1.03 × full: 0.995, met",
        "cesgc: at most 1.03 × full: 1.040, not met",
    ]
    (shown,) = table([row])
    assert cells(shown, 0) == [FULL, "mesgc", "cesgc"]
    assert cells(shown, 4) == ["1.000", "0.995", "1.040"]
    assert "cesgc: at most 1.03 × full: 1.040, not met" in shown.caption
    assert verdicts(made(*methods, config=SMOKE)) == []  # the target is for the 7B model


def test_passes_go_there_and_back_and_leave_out_what_cannot_run():
    order = []

    def one_pass(letter):
        order.append(letter)
        if letter == "B":
            raise MissingDependencyError("b needs bee")
        return {"letter": letter}

    done, left_out = there_and_back({"a": "A", "b": "B", "c": "C"}, one_pass)
    assert done == {"a": 2 * [{"letter": "A"}], "c": 2 * [{"letter": "C"}]}
    assert "".join(order) == "ABCCA"
    assert left_out == {"b": "b needs bee"}


def test_the_presets_are_the_papers_sizes():
    for preset in ("default", "paper"):
        (config,) = PRESETS[preset].configs()
        specs = dict(config.methods)
        assert set(PAPER) <= set(specs)
        assert (config.model.hidden, config.model.layers) == (4096, 32)
        assert "chunks=256,sparsity=256,kappa=8" in specs["mesgc"]
        for spec in map(Spec.parse, specs.values()):
            if spec.name not in ("adamw", "lora"):
                compressor = sgc.create("compressor", spec.name, **spec.options)
                assert compressor.refuses((4096, 4096)) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"repeats": 3}, "give 2 or 4"),
        ({"repeats": 0}, "repeats must be at least 2, got 0"),
        ({"methods": (("lora", "lora:rank=4"),)}, "methods are lora: each once, and full"),
        ({"methods": ((FULL, "adamw"), (FULL, "none"))}, "each once"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        replace(SMOKE, **change)


def test_seven_billion_weights_are_not_made_where_there_is_no_gpu(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = CliRunner().invoke(app, ["run", "throughput", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "device 'cuda' cannot be used" in done.output
    assert "--preset smoke" in done.output
    assert not list(tmp_path.iterdir())


def test_the_committed_row_is_that_of_the_default_preset():
    rows = ResultStore(GRADIENTS.parent / "throughput.jsonl").load()
    assert not missing(STUDY, rows, points(STUDY, "default"))
    assert list(ratios(rows[-1])) == [name for name, _ in DEFAULT.methods]
    assert len(verdicts(rows[-1])) == 2


def test_every_study_is_listed_with_its_question():
    said = CliRunner().invoke(app, ["list"]).output
    assert "throughput what does one training iteration cost" in " ".join(said.split())
    assert len(said.splitlines()) == len(STUDIES)


def test_stamps_measure_seconds(device):
    start = stamp(device)
    work = torch.zeros(64, 64, device=device)
    for _ in range(100):
        work = work @ work
    end = stamp(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    assert 0 < start.until(end) < 10
