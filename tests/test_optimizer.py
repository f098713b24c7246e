"""CompressedAdamW as a torch optimizer: the rows that torch.optim.AdamW passes."""

import copy
import io
import warnings

import pytest
import torch

import sgc
from tests.helpers import every_compressor, normal, small, steps, weights_like


def save_and_load(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("compressor", [None, "none"])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"maximize": True}])
def test_without_compressor_it_is_torchs_adamw_bit_for_bit(dtype, compressor, options, device):
    ours = weights_like((24, 16), (24,), (), dtype=dtype, device=device)
    theirs = copy.deepcopy(ours)
    a = sgc.CompressedAdamW(ours, lr=1e-2, betas=(0.8, 0.99), compressor=compressor, **options)
    b = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.8, 0.99), **{"weight_decay": 0.0, **options})
    steps(a, ours, 50)
    steps(b, theirs, 50)
    assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))


@every_compressor
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resume_is_exact(name, dtype):
    """Save, load into a new optimizer, go on: the same bits. Dtypes of the state survive."""

    def fresh():
        weights = weights_like((24, 16), (24, 16), (7,), dtype=dtype)
        groups = [
            {"params": weights[:2], "compressor": small(name)},
            {"params": weights[2:], "compressor": None},
        ]
        return weights, sgc.CompressedAdamW(groups, lr=1e-2, weight_decay=0.01)

    straight, optimizer = fresh()
    steps(optimizer, straight, 14)

    first, before = fresh()
    steps(before, first, 7)
    saved = save_and_load({"weights": first, "optimizer": before.state_dict()})
    second, after = fresh()
    with torch.no_grad():
        for w, value in zip(second, saved["weights"], strict=True):
            w.copy_(value)
    after.load_state_dict(saved["optimizer"])
    for w, v in zip(first, second, strict=True):
        for key, value in before.state[w].items():
            assert after.state[v][key].dtype == value.dtype
            assert torch.equal(after.state[v][key], value)
    steps(after, second, 7, start=7)
    assert all(torch.equal(x, y) for x, y in zip(straight, second, strict=True))


@every_compressor
def test_loading_your_own_state_changes_nothing(name):
    """Accelerate does this round trip, and replaces the dictionaries in param_groups."""
    straight, turned = weights_like((24, 16)), weights_like((24, 16))
    a = sgc.CompressedAdamW(straight, compressor=small(name))
    b = sgc.CompressedAdamW(turned, compressor=small(name))
    steps(a, straight, 6)
    steps(b, turned, 3)
    b.load_state_dict(b.state_dict())
    steps(b, turned, 3, start=3)
    assert torch.equal(straight[0], turned[0])


@every_compressor
def test_state_dict_holds_tensors_and_plain_values(name):
    weights = weights_like((24, 16))
    optimizer = sgc.CompressedAdamW(weights, compressor=small(name))
    assert optimizer.state_dict()["state"] == {}  # nothing before the first step
    steps(optimizer, weights, 1)
    state = optimizer.state_dict()
    assert all(
        isinstance(v, torch.Tensor) for entry in state["state"].values() for v in entry.values()
    )
    step = state["state"][0]["step"]
    assert step.shape == ()
    assert step.dtype == torch.float32
    plain = (int, float, bool, str, tuple, list, type(None))
    assert all(isinstance(v, plain) for group in state["param_groups"] for v in group.values())


def test_a_state_of_another_compressor_is_refused():
    weights = weights_like((24, 16))
    mesgc = sgc.CompressedAdamW(weights, compressor=small("mesgc"))
    steps(mesgc, weights, 1)
    other = sgc.CompressedAdamW(weights, compressor=small("mesgc", seed=1))
    with pytest.raises(ValueError, match=r'"seed": 0.*"seed": 1'):
        other.load_state_dict(mesgc.state_dict())
    plain = torch.optim.AdamW(weights)
    steps(plain, weights, 1)
    with pytest.raises(ValueError, match="None"):
        other.load_state_dict(plain.state_dict())


@every_compressor
def test_survives_copies(name):
    weights = weights_like((24, 16))
    optimizer = sgc.CompressedAdamW(weights, compressor=small(name))
    steps(optimizer, weights, 3)
    twins, twin = copy.deepcopy((weights, optimizer))
    steps(optimizer, weights, 3, start=3)
    steps(twin, twins, 3, start=3)
    assert torch.equal(weights[0], twins[0])


def test_schedulers_clipping_and_scaler_work():
    weights = weights_like((24, 16))
    optimizer = sgc.CompressedAdamW(weights, lr=0.1, compressor=small("mesgc"))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.0 if t else 1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((weights[0] * 1e3 * normal(24, 16)).sum()).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    assert abs(weights[0].grad.norm() - 1) < 1e-3
    scaler.step(optimizer)
    assert not torch.equal(weights[0], normal(24, 16))
    scheduler.step()
    moved = weights[0].detach().clone()
    steps(optimizer, weights, 2)
    assert torch.equal(weights[0], moved)  # lr is 0 now, and it is read at every step


@every_compressor
def test_lr_may_be_a_tensor(name, device):
    numbers, tensors = (weights_like((24, 16), device=device) for _ in range(2))
    a = sgc.CompressedAdamW(numbers, lr=1e-2, weight_decay=0.1, compressor=small(name))
    b = sgc.CompressedAdamW(
        tensors, lr=torch.tensor(1e-2, device=device), weight_decay=0.1, compressor=small(name)
    )
    steps(a, numbers, 3)
    steps(b, tensors, 3)
    torch.testing.assert_close(numbers[0], tensors[0])


@every_compressor
def test_maximize_walks_the_other_way(name, device):
    down, up = (weights_like((24, 16), device=device) for _ in range(2))
    a = sgc.CompressedAdamW(down, compressor=small(name))
    b = sgc.CompressedAdamW(up, compressor=small(name), maximize=True)
    steps(a, down, 1)
    steps(b, up, 1)
    start = normal(24, 16, device=device)
    torch.testing.assert_close(up[0] - start, start - down[0], rtol=1e-4, atol=1e-7)


def test_weight_decay_is_decoupled(device):
    weights = weights_like((24, 16), device=device)
    optimizer = sgc.CompressedAdamW(weights, lr=0.1, weight_decay=0.5, compressor=small("mesgc"))
    weights[0].grad = torch.zeros(24, 16, device=device)
    optimizer.step()
    torch.testing.assert_close(weights[0].detach(), normal(24, 16, device=device) * (1 - 0.1 * 0.5))


def test_closure_runs_with_gradients():
    weights = weights_like((24, 16))
    optimizer = sgc.CompressedAdamW(weights, compressor=small("mesgc"))

    def closure():
        optimizer.zero_grad(set_to_none=True)
        loss = weights[0].square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).requires_grad


def test_groups_override_and_can_be_added_in_mid_run(device):
    weights = weights_like((24, 16), (24, 16), device=device)
    optimizer = sgc.CompressedAdamW(weights[:1], lr=1e-3, compressor=small("mesgc"))
    steps(optimizer, weights, 2)
    optimizer.add_param_group({"params": weights[1:], "lr": 0.5, "compressor": "sign-sgd"})
    before = weights[1].detach().clone()
    steps(optimizer, weights, 1)
    moved = (weights[1] - before).abs()
    torch.testing.assert_close(moved, torch.full((24, 16), 0.5, device=device))
    assert int(optimizer.state[weights[0]]["step"]) == 3
    assert int(optimizer.state[weights[1]]["step"]) == 1


@every_compressor
def test_parameters_without_gradients_are_left_alone(name, device):
    weights = weights_like((24, 16), (24, 16), device=device)
    optimizer = sgc.CompressedAdamW(weights, compressor=small(name))
    steps(optimizer, weights[:1], 3)
    assert torch.equal(weights[1], normal(24, 16, seed=1, device=device))
    assert weights[1] not in optimizer.state
    steps(optimizer, weights, 2)  # they join later, with a step count of their own
    assert int(optimizer.state[weights[1]]["step"]) == 2


def test_small_parameters_get_adamw_with_one_warning_and_large_ones_are_refused():
    bias, matrix = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(24, 16))
    with pytest.warns(UserWarning, match=r"1 parameter.*plain AdamW.*not a matrix") as caught:
        optimizer = sgc.CompressedAdamW([matrix, bias], compressor=small("galore"))
    assert len(caught) == 1
    twin = torch.nn.Parameter(torch.ones(3))
    reference = torch.optim.AdamW([twin], weight_decay=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in range(5):
            matrix.grad, bias.grad = normal(24, 16, seed=t), normal(3, seed=t)
            twin.grad = normal(3, seed=t)
            optimizer.step()
            reference.step()
    assert torch.equal(bias, twin)
    with pytest.raises(ValueError, match="rank=4 exceeds.*2×2"):
        sgc.CompressedAdamW([torch.nn.Parameter(torch.ones(2, 2))], compressor=small("galore"))
    with pytest.raises(ValueError, match="rank=4 exceeds"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2, 2))]})
    assert len(optimizer.param_groups) == 1  # the refused group left nothing behind


def test_unsupported_flags_and_bad_options_are_refused():
    w = weights_like((24, 16))
    for flag in ("capturable", "differentiable", "fused", "amsgrad"):
        with pytest.raises(ValueError, match=flag):
            sgc.CompressedAdamW(w, **{flag: True})
        sgc.CompressedAdamW(w, compressor=None, **{flag: False})
    with pytest.raises(TypeError, match="colour"):
        sgc.CompressedAdamW(w, colour="red")
    for options in ({"lr": -1.0}, {"eps": -1.0}, {"weight_decay": -1.0}, {"betas": (0.9, 1.0)}):
        with pytest.raises(ValueError, match="must"):
            sgc.CompressedAdamW(w, compressor=None, **options)
        with pytest.raises(ValueError, match="must"):
            sgc.CompressedAdamW([{"params": w, **options}], compressor=None)
    with pytest.raises(LookupError, match="did you mean 'mesgc'"):
        sgc.CompressedAdamW(w, compressor="mesgcc")
    with pytest.raises(TypeError, match="int"):
        sgc.CompressedAdamW(w, compressor=3)
    with pytest.raises(ValueError, match="complex"):
        sgc.CompressedAdamW(
            [torch.nn.Parameter(torch.ones(24, 16, dtype=torch.complex64))],
            compressor=small("mesgc"),
        )


def test_sparse_gradients_are_refused_with_the_way_out():
    table = torch.nn.Embedding.from_pretrained(normal(24, 16), freeze=False, sparse=True)
    table(torch.tensor([1, 2])).sum().backward()
    optimizer = sgc.CompressedAdamW(table.parameters(), compressor=small("mesgc"))
    with pytest.raises(RuntimeError, match="SparseAdam"):
        optimizer.step()


@every_compressor
def test_same_numbers_whatever_was_drawn_before(name):
    def train():
        weights = weights_like((24, 16))
        steps(sgc.CompressedAdamW(weights, compressor=small(name)), weights, 3)
        return weights[0]

    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = train()
        torch.rand(100)
        assert torch.equal(first, train())


@every_compressor
def test_distributed_checkpointing_round_trip(name):
    """Its first move is a step with zero gradients and lr 0, on an optimizer without state."""
    checkpoint = pytest.importorskip("torch.distributed.checkpoint.state_dict")

    def fresh():
        model = torch.nn.Linear(16, 24, bias=False)
        with torch.no_grad():
            model.weight.copy_(normal(24, 16))
        return model, sgc.CompressedAdamW(model.parameters(), lr=1e-2, compressor=small(name))

    with torch.random.fork_rng():
        straight, optimizer = fresh()
        steps(optimizer, [straight.weight], 6)
        saved_model, saved = fresh()
        steps(saved, [saved_model.weight], 3)
        state = checkpoint.get_optimizer_state_dict(saved_model, saved)
        model, resumed = fresh()
    model.load_state_dict(saved_model.state_dict())
    checkpoint.set_optimizer_state_dict(model, resumed, state)
    steps(resumed, [model.weight], 3, start=3)
    assert torch.equal(model.weight, straight.weight)


def test_loading_copies(device):
    weights = weights_like((24, 16), (24, 16), device=device)
    a = sgc.CompressedAdamW(weights[:1], compressor=small("mesgc"))
    b = sgc.CompressedAdamW(weights[1:], compressor=small("mesgc"))
    steps(a, weights[:1], 2)
    saved = a.state_dict()
    before = saved["state"][0]["exp_avg"].clone()
    b.load_state_dict(saved)
    steps(b, weights[1:], 1)
    assert torch.equal(saved["state"][0]["exp_avg"], before)


def test_a_state_of_torchs_adamw_loads_without_compressor():
    weights, twins = weights_like((24, 16)), weights_like((24, 16))
    torchs, ours = torch.optim.AdamW(weights, weight_decay=0.0), None
    steps(torchs, weights, 3)
    ours = sgc.CompressedAdamW(twins, compressor=None)
    with torch.no_grad():
        twins[0].copy_(weights[0])
    ours.load_state_dict({**torchs.state_dict(), "param_groups": ours.state_dict()["param_groups"]})
    steps(torchs, weights, 3, start=3)
    steps(ours, twins, 3, start=3)
    assert torch.equal(weights[0], twins[0])


def test_a_misspelt_group_option_is_refused():
    weights = weights_like((24, 16))
    with pytest.raises(TypeError, match="did you mean 'compressor'"):
        sgc.CompressedAdamW([{"params": weights, "compresor": None}])
