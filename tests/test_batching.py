"""Alike parameters are worked on as one tensor: the numbers are those of each one alone."""

import copy
import itertools
import json

import pytest
import torch

import sgc
from tests.helpers import every_compressor, normal, run, small, steps, takes, weights_like

SHAPES = {"tall": (24, 16), "wide": (12, 30)}


def options_of(name):
    return [{}, *([{"residual": 0.1}] if takes(name, "residual") else [])]


def alone(make, weights, gradients_of, count):
    """Each parameter under an optimizer of its own; the k-th step of each is its own k-th."""
    for i, w in enumerate(weights):
        optimizer = make([w])
        for t in range(count):
            w.grad = gradients_of(i, t)
            if w.grad is not None:
                optimizer.step()
    return [w.detach() for w in weights]


def together(make, weights, gradients_of, count):
    optimizer = make(weights)
    for t in range(count):
        for i, w in enumerate(weights):
            w.grad = gradients_of(i, t)
        optimizer.step()
    return [w.detach() for w in weights]


@every_compressor
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_three_at_once_are_three_alone(name, shape, dtype, device):
    for options in options_of(name):

        def make(weights, options=options):
            compressor = small(name, **options)
            return sgc.CompressedAdamW(weights, lr=1e-2, weight_decay=0.1, compressor=compressor)

        def gradient(i, t):
            return normal(*shape, seed=100 * i + t + 7).to(device, dtype)

        these, those = (weights_like(shape, shape, shape, dtype=dtype, device=device) for _ in "12")
        batched, single = together(make, these, gradient, 12), alone(make, those, gradient, 12)
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
        for ours, theirs in zip(batched, single, strict=True):
            torch.testing.assert_close(ours, theirs, **tolerance)


@every_compressor
def test_a_parameter_that_joins_every_other_step(name, device):
    """The members of a block change from step to step: copies are taken and put back."""

    def make(weights):
        return sgc.CompressedAdamW(weights, lr=1e-2, compressor=small(name))

    def gradient(i, t):
        return None if i == 1 and t % 2 else normal(24, 16, seed=100 * i + t, device=device)

    shapes = [(24, 16)] * 4
    these, those = (weights_like(*shapes, device=device) for _ in "12")
    batched, single = together(make, these, gradient, 12), alone(make, those, gradient, 12)
    for ours, theirs in zip(batched, single, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@every_compressor
def test_moments_of_alike_parameters_share_one_block_also_after_loading(name):
    if small(name).native:
        pytest.skip("torch's AdamW keeps them apart")
    weights = weights_like((24, 16), (24, 16), (24, 16))
    optimizer = sgc.CompressedAdamW(weights, compressor=small(name))
    steps(optimizer, weights, 2)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, weights, 1)
    for key in {"exp_avg", "exp_avg_sq", "step"} & set(optimizer.state[weights[0]]):
        tensors = [optimizer.state[w][key] for w in weights]
        assert len({t.untyped_storage().data_ptr() for t in tensors}) == 1, key
        assert sum(t.nbytes for t in tensors) == tensors[0].untyped_storage().nbytes()


def test_different_shapes_and_dtypes_do_not_mix(device):
    weights = [
        *weights_like((24, 16), (16, 24), (24, 16), device=device),
        *weights_like((24, 16), dtype=torch.bfloat16, device=device),
    ]
    optimizer = sgc.CompressedAdamW(weights, compressor=small("mesgc", residual=0.1))
    steps(optimizer, weights, 3)
    assert all(w.isfinite().all() for w in weights)
    assert all(int(optimizer.state[w]["step"]) == 3 for w in weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("residual", [0.0, 0.1])
def test_scratch_does_not_grow_with_the_number_of_parameters(dtype, residual):
    """Of MESGC's temporaries only those of the size of the moments are for all at once."""

    def peak(count):
        weights = weights_like(*[(1024, 1024)] * count, dtype=dtype)
        compressor = sgc.create(
            "compressor", "mesgc", sparsity=16, chunks=16, kappa=4, residual=residual
        )
        optimizer = sgc.CompressedAdamW(weights, weight_decay=0.1, compressor=compressor)
        steps(optimizer, weights, 1)
        return sgc.peak_scratch(optimizer.step)

    assert abs(peak(4) - peak(1)) < 1024 * 1024 / 8


@every_compressor
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_never_waits_for_the_gpu(name, device):
    """Nothing in the hot path asks the device for a number (a subspace refresh does)."""
    if device.type != "cuda":
        pytest.skip("the CPU waits for itself")
    for dtype, options in itertools.product((torch.float32, torch.bfloat16), options_of(name)):
        weights = weights_like((24, 16), (24, 16), (12, 30), dtype=dtype, device=device)
        # The one option that looks at a number at every step.
        without = {"convergence": 0.0} if takes(name, "convergence") else {}
        compressor = small(name, **options, **without)
        optimizer = sgc.CompressedAdamW(
            weights,
            lr=torch.tensor(1e-3, device=device) if options else 1e-3,
            weight_decay=0.1,
            compressor=compressor,
            rounding="nearest" if compressor.native else "stochastic",
        )
        steps(optimizer, weights, 2)
        try:
            torch.cuda.set_sync_debug_mode("error")
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_loaded_state_lacks_a_later_option():
    weights = weights_like((24, 16))
    optimizer = sgc.CompressedAdamW(weights, compressor=small("mesgc"))
    steps(optimizer, weights, 1)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["rounding"], group["seed"]
    optimizer.load_state_dict(saved)
    steps(optimizer, weights, 1, start=1)
    expected = run(
        lambda p: sgc.CompressedAdamW(p, compressor=small("mesgc")),
        steps=2,
        gradient=lambda t: normal(24, 16, seed=t),
    )
    assert torch.equal(weights[0].detach(), expected)


@every_compressor
@pytest.mark.parametrize("first", ["contiguous", "transposed"])
def test_layouts_may_be_mixed(name, first, device):
    """Alike parameters share a shape, not strides."""

    def weights(mixed):
        made = weights_like((24, 16), (24, 16), device=device)
        turn = 1 if first == "contiguous" else 0
        if mixed:
            made[turn] = torch.nn.Parameter(made[turn].detach().T.contiguous().T)
        return made

    def make(these):
        return sgc.CompressedAdamW(these, lr=1e-2, weight_decay=0.1, compressor=small(name))

    def gradient(i, t):
        return normal(24, 16, seed=10 * t + i).to(device)

    for mine, theirs in zip(
        together(make, weights(True), gradient, 3),
        together(make, weights(False), gradient, 3),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_a_state_from_before_an_option_loads():
    """Options that a saved description does not know are newer; the solver's name is OMP's."""
    w = weights_like((24, 16))
    optimizer = sgc.CompressedAdamW(w, compressor=small("galore"))
    w[0].grad = normal(24, 16)
    optimizer.step()
    saved = optimizer.state_dict()
    description = json.loads(saved["param_groups"][0]["compressor"])
    del description["svd"]
    saved["param_groups"][0]["compressor"] = json.dumps(description)
    optimizer.load_state_dict(saved)
    description["rank"] += 1
    saved["param_groups"][0]["compressor"] = json.dumps(description)
    with pytest.raises(ValueError, match="saved with the compressor"):
        optimizer.load_state_dict(saved)
    assert small("mesgc").describe() == small("mesgc", recovery="omp").describe()
