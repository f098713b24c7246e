"""Residual rules for weights of every dtype, rounding, shape and stride."""

import warnings

import pytest
import torch

import sgc
from sgc.registry import option_names
from tests.conftest import makeable
from tests.helpers import compressed, normal, run
from tests.residuals import every_pair, every_rule, made


@every_pair
@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (6, 4, 3, 3)], ids=str)
def test_half_precision_takes_the_step_of_double(rule, name, shape, device):
    """The same numbers in bf16: weights at zero, so that only the step is rounded."""
    gradient = normal(*shape).to(torch.bfloat16)
    taken = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        w = torch.nn.Parameter(torch.zeros(shape, dtype=dtype, device=device))
        w.grad = gradient.to(device, dtype)
        sgc.CompressedAdamW([w], lr=0.1, compressor=made(name, rule)).step()
        taken[dtype] = w.detach().cpu().double()
    # On CUDA the basis has the gradient's precision, and what that leaves has no sign; and OMP in
    # float32 fits v to a few parts in ten thousand.
    cuda = device.type == "cuda"
    half = 0.15 if cuda and rule == "sign" else 1e-2
    for dtype, tolerance in {
        torch.bfloat16: half,
        torch.float16: half,
        torch.float32: 1e-3 if cuda else 1e-4,
    }.items():
        error = (taken[dtype] - taken[torch.float64]).norm() / taken[torch.float64].norm()
        assert error < tolerance, (dtype, float(error))


@every_rule
@pytest.mark.parametrize("name", ["mesgc", "galore"])
def test_stochastic_rounding_is_right_on_average(rule, name, device):
    """A step of 1e-4 on bf16 weights of 1, lost when rounded to the nearest."""
    moved = {}
    gradient = normal(256, 128)
    for rounding, dtype in [("nearest", torch.float32), ("stochastic", torch.bfloat16)]:
        w = torch.nn.Parameter(torch.ones(256, 128, dtype=dtype, device=device))
        w.grad = gradient.to(device, dtype)
        compressor = made(name, rule)
        sgc.CompressedAdamW([w], lr=1e-4, compressor=compressor, rounding=rounding).step()
        moved[rounding] = (1 - w.detach().double()).cpu() * gradient.sign()
    means = moved["nearest"].mean(), moved["stochastic"].mean()
    assert means[1] == pytest.approx(float(means[0]), rel=0.1)


def test_signs_of_small_entries_of_half_precision_gradients_count(device):
    """What is covered is computed in float32: a thousandth of the largest entry is no noise."""
    gradient = 1e-3 * normal(64, 32, device=device)
    gradient[0] *= 1e3
    w = torch.nn.Parameter(torch.zeros(64, 32, dtype=torch.bfloat16, device=device))
    w.grad = gradient.to(torch.bfloat16)
    sgc.CompressedAdamW([w], lr=1.0, compressor=sgc.create("compressor", "frugal", rank=1)).step()
    assert (w.detach()[1:].abs() > 0.5).float().mean() > 0.98


@every_pair
def test_weights_and_gradients_of_other_strides(rule, name, device):
    def train(transposed):
        base = normal(24, 16, device=device)
        w = torch.nn.Parameter(base.T.contiguous().T if transposed else base)
        optimizer = sgc.CompressedAdamW([w], compressor=made(name, rule))
        for t in range(6):
            gradient = normal(24, 16, seed=t + 1, device=device)
            w.grad = gradient.T.contiguous().T if transposed else gradient
            optimizer.step()
        return w.detach()

    torch.testing.assert_close(train(True), train(False), rtol=1e-5, atol=1e-6)


@every_rule
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (40, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("name", ["galore", "mesgc"])
def test_a_convolution_is_its_matrix(rule, shape, name, device):
    flat = (shape[0], 36 if shape[0] == 6 else 8)
    w = [
        run(
            compressed(made(name, rule)),
            steps=7,
            shape=s,
            gradient=lambda t, s=s: normal(*flat, seed=t).reshape(s),
            device=device,
        ).reshape(flat)
        - normal(*s).reshape(flat)
        for s in (shape, flat)
    ]
    torch.testing.assert_close(*w, rtol=1e-4, atol=1e-6)


@every_rule
@pytest.mark.parametrize("name", makeable("compressor"))
def test_the_smallest_parameters(rule, name, device):
    """One number, and none: a compressor takes them, leaves them to AdamW or says no at once."""
    least = {"entries": 1, "measurements": 1, "sparsity": 1, "chunks": 1, "kappa": 1, "rank": 1}
    options = {key: least[key] for key in least if key in option_names("compressor", name)}
    try:
        compressor = sgc.create("compressor", name, residual=rule, **options)
    except (TypeError, ValueError):
        pytest.skip("it has no residual")
    for shape in ((), (1,), (0,), (0, 3), (1, 1)):
        w = torch.nn.Parameter(torch.ones(shape, device=device))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # some go to plain AdamW
            try:
                optimizer = sgc.CompressedAdamW([w], lr=0.1, compressor=compressor)
            except ValueError:
                assert shape == (0, 3)
                continue
        for _ in range(2):
            w.grad = torch.full_like(w, 0.5)
            optimizer.step()
        assert w.isfinite().all()
        assert (w < 1).all()
