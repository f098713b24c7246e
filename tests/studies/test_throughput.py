import importlib.util
import json
import sys
from dataclasses import asdict, replace

import pytest
import torch
from typer.testing import CliRunner

import sgc
from sgc.finetune.config import ConfigError
from sgc.registry import MissingDependencyError
from sgc.results import ResultStore
from sgc.specs import Spec
from studies import iterations, llama, throughput, throughput_command
from studies.cli import app
from studies.iterations import pooled, stamp, timed_iterations
from studies.methods import training
from studies.passes import there_and_back
from studies.rows import finished, row, run_id
from studies.study import COMMANDS, STUDIES
from studies.throughput_command import _device, _table

SMOKE = {config.method: config for config in throughput.PRESETS["smoke"]}
CPU = torch.device("cpu")
HAS_PEFT = importlib.util.find_spec("peft") is not None
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs pip install transformers"
)
needs_peft = pytest.mark.skipif(not HAS_PEFT, reason="needs pip install peft")


def command(*arguments, revision="abc"):
    env = {"COLUMNS": "200", "SGC_REVISION": revision}
    done = CliRunner().invoke(app, ["throughput", *arguments], env=env)
    return done.exit_code, done.output


def tabled(said):
    """Methods in the table's order."""
    first = [line.split()[0] for line in said.splitlines() if line.split()]
    return [word for word in first if word in SMOKE]


def timed(name, seconds, amortised):
    spread = {"median": seconds, "low": seconds - 0.01, "high": seconds + 0.02}
    step = {**spread, "median": 0.05}
    times = {"iteration_s": spread, "optimizer_s": step, "amortised_s": amortised}
    sizes = {"refresh_s": 1.0, "state_bytes": 1, "peak_bytes": None}
    return row("throughput", SMOKE[name], {**times, **sizes}, here={"gpu": "H200", "cpu": "x"})


def written(path):
    return path.read_text(encoding="utf-8").splitlines()


def tiny(device=CPU, **options):
    options = {"dtype": "bfloat16", "seed": 0, "gradient_checkpointing": False, **options}
    return llama.build(llama.TINY, device=device, **options)


@needs_transformers
def test_the_command_measures_every_method_once_and_draws(tmp_path, device):
    out, figure = tmp_path / "new" / "rows.jsonl", tmp_path / "bars.png"
    ask = ["--preset", "smoke", "--device", str(device), "--out", str(out), "--figure", str(figure)]
    code, said = command(*ask)
    assert code == 0, said
    methods = [name for name in SMOKE if HAS_PEFT or name != "lora"]
    assert HAS_PEFT or "lora is left out: LoRA needs peft; install it: pip install peft" in said
    assert figure.read_bytes().startswith(b"\x89PNG")
    lines = {line["config"]["method"]: line for line in map(json.loads, written(out))}
    assert list(lines) == methods[::-1]  # the second pass goes backwards
    for name, line in lines.items():
        times = line["metrics"]
        assert line["kind"] == "throughput"
        assert line["config"] == asdict(replace(SMOKE[name], device=str(device)))
        whole, step, rest = (
            times[f"{what}_s"] for what in ("iteration", "optimizer", "forward_backward")
        )
        assert 0 < whole["low"] <= whole["median"] <= whole["high"]
        parts = zip(step["samples"], rest["samples"], whole["samples"], strict=True)
        assert all(a > 0 and b > 0 and a + b == pytest.approx(c) for a, b, c in parts)
        assert len(whole["samples"]) == SMOKE[name].repeats
        assert (times["refresh_s"] is None) == (name not in ("galore", "cesgc"))
        assert (times["peak_bytes"] is None) == (device.type == "cpu")
        share = (times["refresh_s"] or 0) / 200
        assert times["amortised_s"] == pytest.approx(whole["median"] + share)
    assert "4.45" in said  # the paper's MESGC against its full fine-tuning
    assert tabled(said) == methods
    assert "at most" not in said  # the target is for the 7B model

    code, said = command(*ask)
    assert said.count("not measured again") == len(methods)
    assert tabled(said) == methods
    assert len(written(out)) == len(methods)
    command(*ask, "--method", "full", "--fresh")
    assert len(written(out)) == len(methods) + 1
    command(*ask, "--method", "full", "--repeats", "2")
    assert len(written(out)) == len(methods) + 2


@needs_transformers
def test_a_missing_package_leaves_its_method_out_and_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    ask = ["--preset", "smoke", "--device", "cpu", "--out", str(tmp_path / "rows.jsonl")]
    code, said = command(*ask, "--method", "lora")
    assert code == 1
    assert said.count("lora is left out: LoRA needs peft; install it: pip install peft") == 1
    code, said = command(*ask, "--method", "lora", "--method", "full")
    assert code == 0
    assert len(written(tmp_path / "rows.jsonl")) == 1
    assert (tmp_path / "rows.png").exists()


@needs_transformers
def test_a_pass_refreshes_subspaces_at_its_two_ends_only(monkeypatch):
    config = replace(SMOKE["galore"], device="cpu", warmup=2, repeats=6)
    seen = []
    step = sgc.CompressedAdamW.step

    def watched(self):
        step(self)
        bases = [state["basis_step"].item() for state in self.state.values()]
        seen.append(set(bases))

    monkeypatch.setattr(sgc.CompressedAdamW, "step", watched)
    samples = throughput.trial(config, tiny())
    assert seen == [{1.0}] * 5 + [{6.0}]
    assert len(samples["iteration"]) == len(samples["optimizer"]) == 3


@needs_transformers
def test_sizes_are_those_of_table_1():
    sizes, matrices, side = {}, 4, 64
    names = [name for name in SMOKE if HAS_PEFT or name != "lora"]
    model = tiny()
    for name in names:
        sizes[name] = throughput.trial(replace(SMOKE[name], repeats=2, device="cpu"), model)[
            "sizes"
        ]
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
    with training(Spec.parse(SMOKE[name].spec), model, lr=0.1, device=device, seed=0) as trained:
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
    wanted = (("full", 0.2), ("mesgc", 0.3), ("mesgc-residual", 0.4))
    rows = [timed(name, seconds, seconds + 0.001) for name, seconds in wanted]
    (axes,) = throughput.figure(rows).axes
    (markers,) = (line for line in axes.lines if line.get_marker() == "D")
    assert markers.get_xdata() == pytest.approx([0.201, 0.201 * 7.52 / 1.69])
    assert list(markers.get_ydata()) == [0, 1]  # the paper has no residual
    ends = [max(bar.get_x() + bar.get_width() for bar in bars) for bars in axes.containers[:3]]
    assert ends == pytest.approx([0.35, 0.4, 0.401])
    assert "H200" in axes.get_xlabel()
    assert "seconds" in axes.get_xlabel()


def test_ratios_and_verdicts_are_with_the_share_of_a_refresh():
    rows = [timed("full", 2.0, 2.0), timed("mesgc", 1.99, 1.99), timed("cesgc", 2.0, 2.08)]
    assert throughput.ratios(rows) == pytest.approx({"full": 1, "mesgc": 0.995, "cesgc": 1.04})
    assert throughput.verdicts(rows) == [
        "mesgc: at most 1.03 × full: 0.995, met",
        "cesgc: at most 1.03 × full: 1.040, not met",
    ]
    assert list(_table(rows).columns[4].cells) == ["1.000", "0.995", "1.040"]
    assert throughput.verdicts(rows[1:]) == []
    assert list(_table(rows[1:]).columns[4].cells) == ["–", "–"]


@pytest.mark.parametrize("revision", ["abc", "abc-dirty"])
def test_the_7b_presets_print_a_verdict_and_the_presets_order(tmp_path, monkeypatch, revision):
    def measured(configs, **_):
        for i, config in enumerate(reversed(configs)):
            yield config, timed(config.method, 1.0, 1.0 + 0.01 * i).metrics

    monkeypatch.setattr(throughput, "run", measured)
    out, drawn = tmp_path / "rows.jsonl", []
    monkeypatch.setattr(throughput_command, "_save", lambda rows, path: drawn.append(rows))
    ask = ["--device", "cpu", "--out", str(out), "--figure", str(tmp_path / "x.png")]
    code, said = command(*ask, revision=revision)
    assert code == 0, said
    order = ["full", "lora", "galore", "mesgc", "mesgc-residual", "cesgc"]
    assert tabled(said) == order
    assert [one.config["method"] for one in drawn[0]] == order
    assert "mesgc: at most 1.03 × full: 0.971, met" in said  # 1.02 / 1.05
    assert "cesgc: at most 1.03 × full: 0.952, met" in said  # 1.00 / 1.05
    command(*ask, revision=revision)
    assert len(written(out)) == (6 if revision == "abc" else 12)


def test_a_table_in_a_pipe_has_a_width_of_its_own(tmp_path, monkeypatch):
    metrics = timed("full", 1.0, 1.0).metrics
    monkeypatch.setattr(throughput, "run", lambda configs, **_: [(c, metrics) for c in configs])
    out = ["--out", str(tmp_path / "rows.jsonl")]
    said = []
    for columns in ("40", "200"):
        ask = ["throughput", "--preset", "smoke", "--device", "cpu", "--fresh", *out]
        said.append(CliRunner().invoke(app, ask, env={"COLUMNS": columns}).output)
    assert said[0] == said[1]
    assert "1000.0 (990.0–1020.0)" in said[0]


def test_passes_go_there_and_back_and_leave_out_what_cannot_run():
    order, why, broken = [], [], "b"

    def trial(name):
        if name == broken:
            raise MissingDependencyError("b needs bee")
        return {"name": name}

    done = there_and_back("abc", trial, progress=order.append, left_out=lambda *x: why.append(x))
    assert [(name, len(passes)) for name, passes in done] == [("c", 2), ("a", 2)]
    assert "".join(order) == "abcca"
    assert [(name, str(error)) for name, error in why] == [("b", "b needs bee")]


def test_a_row_counts_for_an_equal_config_revision_and_gpu_only(tmp_path):
    store, config = ResultStore(tmp_path / "rows.jsonl"), SMOKE["full"]
    here = {"git": "abc", "gpu": None}
    store.append(row("throughput", config, {"round": 1}, here=here))
    store.append(row("throughput", config, {"round": 2}, here=here))
    assert finished(store, "throughput", config, here=here).metrics == {"round": 2}
    assert finished(store, "other", config, here=here) is None
    assert finished(store, "throughput", replace(config, seed=1), here=here) is None
    assert finished(store, "throughput", config, here={**here, "git": "abd"}) is None
    assert finished(store, "throughput", config, here={**here, "gpu": "H200"}) is None
    assert run_id(config) == run_id(replace(config)) != run_id(replace(config, seed=1))


@pytest.mark.parametrize("git", [None, "abc-dirty"])
def test_a_row_of_unknown_code_is_never_reused(tmp_path, git):
    store, here = ResultStore(tmp_path / "rows.jsonl"), {"git": git, "gpu": None}
    store.append(row("throughput", SMOKE["full"], {}, here=here))
    assert finished(store, "throughput", SMOKE["full"], here=here) is None


def test_the_presets_are_the_papers_sizes():
    for preset in ("default", "paper"):
        configs = {config.method: config for config in throughput.PRESETS[preset]}
        assert set(throughput.PAPER) <= set(configs)
        model = next(iter(configs.values())).model
        assert (model.hidden, model.layers) == (4096, 32)
        assert "chunks=256,sparsity=256,kappa=8" in configs["mesgc"].spec
        for config in configs.values():
            assert config == replace(configs["full"], method=config.method, spec=config.spec)
            spec = Spec.parse(config.spec)
            if spec.name not in ("adamw", "lora"):
                compressor = sgc.create("compressor", spec.name, **spec.options)
                assert compressor.refuses((4096, 4096)) is None


@pytest.mark.parametrize(("repeats", "say"), [(3, "give 2 or 4"), (0, "at least 2, got 0")])
def test_repeats_are_shared_out_evenly(repeats, say):
    with pytest.raises(ConfigError, match=say):
        replace(SMOKE["full"], repeats=repeats)


def test_wrong_names_are_corrected_before_any_work(tmp_path, monkeypatch):
    out = ["--out", str(tmp_path / "rows.jsonl")]
    assert command("--preset", "smoek", *out)[0] == 2
    assert "did you mean 'smoke'?" in command("--preset", "smoek", *out)[1]
    assert "did you mean 'cesgc'?" in command("--preset", "smoke", "--method", "cesg", *out)[1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, said = command(*out)
    assert (code, "--preset smoke" in said) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_refused_with_the_way_out(tmp_path, monkeypatch):
    out = ["--out", str(tmp_path / "rows.jsonl")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for ask, say in (
        (("--preset", "smoke", "--device", "cuda"), "no GPU here: take --device cpu"),
        (("--device", "cuda:0"), "no GPU here: take --preset smoke --device cpu"),
        (("--preset", "smoke", "--device", "cdua"), "did you mean 'cuda'?"),
        (("--preset", "smoke", "--device", "mps"), "there are: auto, cpu, cuda"),
    ):
        code, said = command(*ask, *out)
        assert (code, say in said) == (2, True), said
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="no such GPU; there are: cuda:0, cuda:1"):
        _device("cuda:2", "smoke")
    assert [_device(name, "paper") for name in ("auto", "cuda:1", "cpu")] == [
        *("cuda", "cuda:1", "cpu")
    ]
    assert not list(tmp_path.iterdir())


def test_the_help_says_what_can_be_chosen():
    said = " ".join(command("--help")[1].replace("│", " ").split())
    for name, configs in throughput.PRESETS.items():
        assert f"{name}: " in said
        assert f"{name} {configs[0].repeats}" in said
        assert all(config.method in said for config in configs)
    assert "an even number" in said


def test_every_study_is_listed_with_its_question():
    said = CliRunner().invoke(app, ["list"]).output
    assert "throughput what does one training iteration cost" in " ".join(said.split())
    assert len(said.splitlines()) == len(STUDIES) + len(COMMANDS)


def test_stamps_measure_seconds(device):
    start = stamp(device)
    work = torch.zeros(64, 64, device=device)
    for _ in range(100):
        work = work @ work
    end = stamp(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    assert 0 < start.until(end) < 10
