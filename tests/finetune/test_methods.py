"""Methods of the table: what trains, what it costs, what is left when it is over."""

import importlib.util
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForSequenceClassification

import sgc
from sgc.finetune import FinetuneConfig, methods, resolve_method, run
from sgc.finetune.batches import collate
from sgc.finetune.forward import logits
from sgc.finetune.job import prepare
from sgc.finetune.methods import METHODS
from sgc.finetune.randomness import seeded
from sgc.finetune.train import batch_loss
from sgc.specs import SpecError

QUIET = Console(quiet=True)
TABLE = ("adamw", "bitfit", "frozen", "lora:rank=3", "relora:merge_every=3")
NESTED = "galore:rank=8,inner=mesgc,inner.chunks=4,inner.sparsity=16,inner.kappa=4"
COMPRESSORS = ("galore:rank=2", "mesgc", "apollo", NESTED)
LAYER = "bert.encoder.layer.0.attention.self"


@pytest.fixture
def config(tiny_model: Path, tiny_csv: Path):
    def make(spec: str, **changes: object) -> FinetuneConfig:
        method = resolve_method(spec)
        config = FinetuneConfig(
            method=method.spec,
            lr=method.lr,
            model=str(tiny_model),
            data=str(tiny_csv),
            pooling="model",
            steps=8,
            batch_size=8,
        )
        return config.replace(**changes)

    return make


def train_steps(ready, steps: int) -> None:
    batch = collate(ready.task.train, range(8))
    ready.model.train()
    for step in range(steps):
        with seeded(0, "dropout", step):
            loss = batch_loss(ready.model, batch)
        loss.backward()
        ready.optimizer.step()
        ready.recipe.after_step(ready.optimizer, step + 1, steps=100)
        ready.optimizer.zero_grad()


def answers(ready) -> torch.Tensor:
    ready.model.eval()
    with torch.inference_mode():
        return logits(ready.model, collate(ready.task.train, range(16)))


def test_the_specs_cover_the_table() -> None:
    assert {spec.partition(":")[0] for spec in TABLE} == set(METHODS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", [*TABLE, *COMPRESSORS])
def test_the_cost_is_known_before_the_run(spec: str, dtype: str, config, tmp_path: Path) -> None:
    fresh = prepare(config("adamw", dtype=dtype))
    before = [name for name, _ in fresh.model.named_parameters()]
    cost = resolve_method(spec).recipe().cost(fresh.model, fresh.targets)
    assert [name for name, _ in fresh.model.named_parameters()] == before
    found = run(config(spec, dtype=dtype), folder=tmp_path, console=QUIET).metrics
    for what in ("state_bytes", "shared_bytes", "extra_weight_bytes"):
        assert found[what] == getattr(cost, what), what
    assert cost.bytes == sum(vars(cost).values())
    assert found["states_full"] == 2 * 2 * 32 * 32
    assert found["states_percent"] == 100 * found["states"] / found["states_full"]


def test_adapters_count_as_states_and_as_weights(config, tmp_path: Path) -> None:
    found = run(config("lora:rank=3"), folder=tmp_path, console=QUIET).metrics
    adapters = 2 * 3 * (32 + 32)  # two matrices, A and B
    assert found["states"] == 2 * adapters
    assert found["extra_weight_bytes"] == 4 * adapters
    assert found["state_bytes"] == 4 * found["states"] + 4 * 4  # and a step counter each
    assert resolve_method("lora").recipe().size(5) == {"rank": 5}
    assert resolve_method("galore").recipe().size(5) == {"rank": 5}
    assert resolve_method("bitfit").recipe().size(5) is None


@pytest.mark.parametrize("spec", TABLE)
def test_nothing_else_moves(spec: str, config) -> None:
    ready = prepare(config(spec))
    frozen = {n: p.clone() for n, p in ready.model.named_parameters() if not p.requires_grad}
    moving = {n: p.clone() for n, p in ready.model.named_parameters() if p.requires_grad}
    train_steps(ready, 2)
    now = dict(ready.model.named_parameters())
    assert all(torch.equal(now[name], old) for name, old in frozen.items())
    assert {id(now[n]) for n in moving} == {
        id(p) for part in (ready.tuned, ready.head) for p in part.values()
    }
    assert any(not torch.equal(now[name], old) for name, old in moving.items())
    assert set(ready.tuned) <= set(moving)


def test_bitfit_trains_the_biases_of_the_body(config) -> None:
    tuned = prepare(config("bitfit")).tuned
    assert f"{LAYER}.query.bias" in tuned
    assert all(name.startswith("bert.") and name.endswith("bias") for name in tuned)
    assert not any("pooler" in name for name in tuned)  # the head's, which trains by itself


def test_adapters_start_as_nothing_by_the_seed(config) -> None:
    bare, first, again, other = (
        prepare(config(spec, seed=seed))
        for spec, seed in (("frozen", 0), ("lora", 0), ("lora", 0), ("lora", 1))
    )
    assert torch.equal(answers(bare), answers(first))
    name = f"{LAYER}.query.lora_A.default.weight"
    assert torch.equal(first.tuned[name], again.tuned[name])
    assert not torch.equal(first.tuned[name], other.tuned[name])


def test_adapters_draw_nobody_elses_random_numbers(config) -> None:
    with torch.random.fork_rng():
        before = torch.random.get_rng_state()
        train_steps(prepare(config("relora:merge_every=1")), 2)
        assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("rank", [1, 4])
def test_the_scale_of_lora_is_2_at_every_rank_if_nothing_is_said(rank: int, config) -> None:
    ready = prepare(config(f"lora:rank={rank}"))
    scales = [layer.scaling["default"] for layer in ready.recipe.layers()]
    assert scales == [2.0] * len(ready.targets)


@pytest.mark.parametrize("spec", ["lora:rank=2,alpha=8", "relora:rank=2,merge_every=2"])
def test_merging_changes_no_answer(spec: str, config, tiny_model: Path) -> None:
    ready = prepare(config(spec, lr=1e-2))
    start = {n: p.clone() for n, p in ready.targets.items()}
    names = [name for name, _ in prepare(config("adamw")).model.named_parameters()]
    train_steps(ready, 3)
    before = answers(ready)
    ready.recipe.merge(ready.model)
    assert [name for name, _ in ready.model.named_parameters()] == names
    assert torch.allclose(answers(ready), before, atol=1e-5)
    for name, old in start.items():
        moved = torch.linalg.matrix_rank(ready.model.get_parameter(name) - old, rtol=1e-4)
        assert moved == (2 if spec.startswith("lora") else 4), name


def test_a_restart_changes_no_answer_and_forgets_the_moments(config) -> None:
    ready = prepare(config("relora:merge_every=4", lr=1e-2))
    train_steps(ready, 3)
    adapters = list(ready.tuned.values())
    before, weights = answers(ready), [p.clone() for p in ready.targets.values()]
    assert all(p in ready.optimizer.state for p in adapters)
    ready.recipe.after_step(ready.optimizer, 4, steps=4)  # the last step of a run: no restart
    assert all(map(torch.equal, weights, ready.targets.values()))
    ready.recipe.after_step(ready.optimizer, 4, steps=8)
    assert not any(map(torch.equal, weights, ready.targets.values()))
    assert torch.allclose(answers(ready), before, atol=1e-5)
    assert not any(p in ready.optimizer.state for p in adapters)
    assert all(p in ready.optimizer.state for p in ready.head.values())


def test_a_saved_lora_run_is_a_plain_model(config, tmp_path: Path, tiny_model: Path) -> None:
    saved = tmp_path / "saved"
    run(config("lora", lr=1e-2), folder=tmp_path / "runs", console=QUIET, save_to=saved)
    assert not (saved / "adapter_config.json").exists()
    with torch.random.fork_rng():
        model = AutoModelForSequenceClassification.from_pretrained(saved)
        start = AutoModelForSequenceClassification.from_pretrained(tiny_model).state_dict()
    assert set(model.state_dict()) == set(start)
    body = {n for n, p in model.state_dict().items() if not torch.equal(p, start[n])}
    body = {n for n in body if ".pooler." not in n and not n.startswith("classifier")}
    assert body == {f"{LAYER}.query.weight", f"{LAYER}.value.weight"}
    for name in body:
        assert torch.linalg.matrix_rank(model.get_parameter(name) - start[name], rtol=1e-4) == 1


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("bitfit:rank=2", "no options but lr, got rank"),
        ("lora:rnk=2", "did you mean 'rank'"),
        ("lora:rank=0", "rank must be at least 1, got 0"),
        ("lora:dropout=1.0", "dropout must be below 1"),
        ("relora:merge_every=0", "merge_every must be at least 1"),
    ],
)
def test_wrong_options_say_why(spec: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        resolve_method(spec)


def test_a_rank_above_the_matrix_is_refused(config) -> None:
    with pytest.raises(SpecError, match="rank=33 is more than the shorter side of 32×32"):
        prepare(config("lora:rank=33"))
    ready = prepare(config("adamw"))
    with pytest.raises(ValueError, match="rank=33"):
        resolve_method("lora:rank=33").recipe().cost(ready.model, ready.targets)


def test_an_unknown_method_lists_the_table_and_the_compressors() -> None:
    with pytest.raises(sgc.UnknownPluginError, match="did you mean 'relora'.*bitfit.*galore"):
        resolve_method("reloro")


def test_missing_peft_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="lora: it needs the package peft.*extra demo"):
        resolve_method("lora")


def test_the_seed_reaches_every_part() -> None:
    assert resolve_method("mesgc").compressor(seed=7).seed == 7
    assert resolve_method(NESTED).compressor(seed=7).inner.seed == 7
    assert resolve_method(f"{NESTED},inner.seed=3").compressor(seed=7).inner.seed == 3
    assert resolve_method("frugal").compressor(seed=7).source.seed == 7
    assert resolve_method("frugal:source=svd").compressor(seed=7).source is not None
    both = resolve_method("subspace:source=random,source.seed=2,inner=adjoint").compressor(seed=7)
    assert (both.source.seed, both.inner.seed) == (2, 7)
    assert "seed" not in resolve_method("mesgc").spec


def test_rates_to_start_from() -> None:
    rates = {name: resolve_method(name).lr for name in ("sgd", "lora", "frozen", "mesgc")}
    assert rates == {"sgd": 0.1, "lora": 3e-3, "frozen": 1e-3, "mesgc": 1e-2}
    assert resolve_method("mesgc:residual=0.1").lr == 3e-3
    assert resolve_method("galore:residual=sign").lr == 1e-3
    assert methods.trains("lora")
    assert not resolve_method("frozen").tunable
