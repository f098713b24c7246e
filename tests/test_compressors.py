"""Laws of every registered compressor."""

import copy

import pytest
import torch

import sgc
from sgc.compressors.base import Compressor, Moments, Step
from tests.helpers import (
    compressed,
    every_compressor,
    normal,
    run,
    small,
    takes,
)


@every_compressor
def test_contract(name, device):
    compressor = small(name)
    assert isinstance(compressor, Compressor)
    assert compressor.refuses((24, 16)) is None
    shape = compressor.moment_shape((24, 16))
    state = compressor.init_state((24, 16), device, torch.float32)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    gradients, states = (
        [normal(24, 16, seed=i, device=device) for i in (0, 1)],
        [state, copy.deepcopy(state)],
    )
    compressed = compressor.compress(gradients, states, step=Step(1))
    p, q = compressed.p, compressed.q
    assert p.shape == (2, *shape)
    assert q is None or q.shape == (2, *shape)
    moments = Moments(p, p * p if q is None else q)
    update = compressor.decompress(moments, compressed, states, step=Step(1))
    assert update.to_dense((24, 16)).shape == (2, 24, 16)
    assert update.to_dense((24, 16)).isfinite().all()


@every_compressor
def test_description_tells_configurations_apart(name):
    assert small(name).describe() == small(name).describe()
    for option, other in {"seed": 5, "alpha": 3.0, "rank": 2, "decode": "literal"}.items():
        if takes(name, option):
            assert small(name).describe() != small(name, **{option: other}).describe()


@every_compressor
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_trains_a_regression(name, dtype, device):
    """Six weights have to be found: the loss falls to less than two thirds in 150 steps."""
    target, inputs = torch.zeros(16, 24), normal(64, 16, seed=1).to(device, dtype)
    target.view(-1)[::64] = torch.tensor([1.0, -1.0, 0.8, -0.6, 1.2, 0.7])
    target = target.to(device, dtype)
    w = torch.nn.Parameter(torch.zeros(16, 24, dtype=dtype, device=device))
    optimizer = sgc.CompressedAdamW([w], lr=3e-2, compressor=small(name))
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (inputs @ (w - target)).float().square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.67 * losses[0]
    if not small(name).native:
        moments = {t.dtype for k, t in optimizer.state[w].items() if k.startswith("exp_avg")}
        assert moments <= {torch.float64 if dtype == torch.float64 else torch.float32}


@every_compressor
def test_survives_zero_gradients(name, device):
    """Ten zero gradients change nothing and spoil nothing: what follows is a normal first step."""
    compressor = small(name)
    zeros = run(
        compressed(compressor), steps=10, gradient=lambda t: torch.zeros(24, 16), device=device
    )
    assert torch.equal(zeros, normal(24, 16))
    later = run(
        compressed(compressor),
        steps=14,
        device=device,
        gradient=lambda t: torch.zeros(24, 16) if t < 10 else normal(24, 16, seed=t),
    )
    assert later.isfinite().all()
    assert not torch.equal(later, normal(24, 16))


@every_compressor
def test_broken_gradients_show_in_the_weights(name, device):
    """As with AdamW: a NaN gradient is not swallowed, so the loss tells."""
    gradient = normal(24, 16)
    gradient[3, 5] = torch.nan
    w = run(compressed(small(name)), steps=1, gradient=lambda t: gradient, device=device)
    assert not w.isfinite().all()


@every_compressor
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
def test_finite_at_every_gradient_scale(name, scale, device):
    w = run(
        compressed(small(name)),
        gradient=lambda t: normal(24, 16, seed=t) * scale,
        steps=20,
        device=device,
    )
    assert w.isfinite().all()
    if not takes(name, "decode"):
        return
    bound = 20 * 1e-3 * small(name).alpha  # |N| ≤ 1 an entry and step under the joint decode
    if not takes(name, "rank"):
        assert (w - normal(24, 16)).abs().max() <= bound * 1.01


@every_compressor
def test_non_contiguous_weights_and_gradients(name, device):
    def train(transposed):
        base = normal(24, 16, device=device)
        w = torch.nn.Parameter(base.T.contiguous().T if transposed else base.clone())
        assert w.is_contiguous() != transposed
        optimizer = sgc.CompressedAdamW([w], compressor=small(name))
        for step in range(6):
            gradient = normal(24, 16, seed=step + 1, device=device)
            w.grad = gradient.T.contiguous().T if transposed else gradient
            optimizer.step()
        return w.detach()

    torch.testing.assert_close(train(True), train(False), rtol=1e-5, atol=1e-7)


@every_compressor
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (12, 30), (30, 12)])
def test_other_shapes(name, shape, device):
    """Convolutions are matrices of (first dimension)×(rest); both orientations work."""
    w = run(compressed(small(name)), shape=shape, steps=7, device=device)
    assert w.shape == shape
    assert w.isfinite().all()


@every_compressor
def test_state_is_what_the_report_says(name):
    w = torch.nn.Parameter(normal(24, 16))
    optimizer = sgc.CompressedAdamW([w], compressor=small(name))
    assert sgc.state_report(optimizer).state_bytes == 0  # nothing before the first step
    w.grad = normal(24, 16)
    optimizer.step()
    report = sgc.state_report(optimizer)
    alive = list(optimizer.state[w].values())
    assert report.state_bytes == sum(t.numel() * t.element_size() for t in alive)
    moments = {k: t for k, t in optimizer.state[w].items() if k.startswith("exp_avg")}
    assert report.moments == sum(t.numel() for t in moments.values())
    assert report.full_moments == 2 * 24 * 16
    assert report.bytes == report.state_bytes + report.shared_bytes
    for key, tensor in moments.items():
        assert report.to_dict()["by_kind"][key] == tensor.nbytes
    assert "moments" in str(report)


def test_table_1_of_the_paper():
    """MESGC and CESGC hold 2k = 2κs numbers, GaLore 2rn, whatever the rest is."""
    w = torch.nn.Parameter(normal(64, 64))
    for name, options, moments, basis in [
        ("mesgc", {"sparsity": 16, "chunks": 4, "kappa": 7}, 2 * 7 * 16, 0),
        ("cesgc", {"sparsity": 16, "chunks": 4, "kappa": 7, "rank": 8}, 2 * 7 * 16, 8 * 64),
        ("galore", {"rank": 3}, 2 * 3 * 64, 3 * 64),
        ("sign-sgd", {}, 0, 0),
        ("none", {}, 2 * 64 * 64, 0),
    ]:
        optimizer = sgc.CompressedAdamW([w], compressor=sgc.create("compressor", name, **options))
        w.grad = normal(64, 64)
        optimizer.step()
        report = sgc.state_report(optimizer)
        assert report.moments == moments
        assert sum(r.count for r in report.rows if r.what == "basis") == basis


def test_a_is_shared_by_all_parameters_of_a_shape():
    weights = [torch.nn.Parameter(normal(24, 16, seed=i)) for i in range(5)]
    compressor = small("mesgc")
    optimizer = sgc.CompressedAdamW(weights, compressor=compressor)
    for w in weights:
        w.grad = normal(24, 16)
    optimizer.step()
    matrix = 4 * 16 * 192  # float32, k_c × d_c
    rows = [r for r in sgc.state_report(optimizer).rows if r.owner == "shared"]
    assert [r.bytes for r in rows if r.what.startswith("A ")] == [matrix]


def test_scratch_is_measured():
    """AdamW's temporaries on the CPU are known: a few tensors of the parameter's size, not none."""
    w = torch.nn.Parameter(normal(64, 64))
    optimizer = sgc.CompressedAdamW([w], compressor=None)
    w.grad = normal(64, 64)
    optimizer.step()
    peak = sgc.peak_scratch(optimizer.step)
    assert w.nbytes <= peak <= 4 * w.nbytes
    assert sgc.peak_scratch(lambda: None) == 0
    assert sgc.peak_scratch(lambda: torch.ones(1000) + 1) == 8000
