"""Factored second moments: what is exact, what stays finite, and what works behind them."""

import pytest
import torch

import sgc
from tests.helpers import compressed, normal, one_step, run, small, steps, weights_like


def adafactor(**options):
    return sgc.create("compressor", "adafactor", **options)


def test_squares_of_rank_one_are_exact():
    """V̂ = G² then: N is the sign of G, at the first step and as long as |G| stays."""
    size = normal(24, dtype=torch.float64).exp()[:, None] * normal(16, seed=1).double().exp()
    signs = [normal(24, 16, seed=t, dtype=torch.float64).sign() for t in range(5)]
    w = run(
        compressed(adafactor(), lr=1.0),
        steps=5,
        dtype=torch.float64,
        gradient=lambda t: size * signs[t],
    )
    expected = normal(24, 16).double() - sum(signs)
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=1e-12)


def test_two_steps_by_hand():
    """Algorithm 4's block 3 with its sums; β̂₂ = 1 − 2^−0.8 at the second step, and clipping."""
    gradients = [normal(24, 16, seed=t, dtype=torch.float64) * 10**t for t in (0, 1)]
    w = run(
        compressed(adafactor(eps1=1e-3, clip=0.7), lr=0.1),
        steps=2,
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
    )
    expected = normal(24, 16).double()
    R, C = torch.zeros(24, 1).double(), torch.zeros(1, 16).double()
    for t, G in enumerate(gradients, 1):
        beta = 1 - t**-0.8
        R = beta * R + (1 - beta) * (G**2 + 1e-3).sum(1, keepdim=True)
        C = beta * C + (1 - beta) * (G**2 + 1e-3).sum(0, keepdim=True)
        U = G / (R @ C / R.sum()).sqrt()
        rms = U.square().mean().sqrt()
        assert rms > 0.7
        expected = expected - 0.1 * U / (rms / 0.7)
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inner", ["sgd", "sgd-momentum", "none"])
def test_what_is_stored(inner):
    weights = weights_like((24, 16), (6, 4, 3, 3), (7,))
    optimizer = sgc.CompressedAdamW(weights, compressor=adafactor(inner=inner))
    steps(optimizer, weights, 1)
    matrix, convolution, vector = (optimizer.state[w] for w in weights)
    assert matrix["exp_avg_sq_row"].shape == (24,)
    assert matrix["exp_avg_sq_col"].shape == (16,)
    assert convolution["exp_avg_sq_row"].shape == (6,)
    assert convolution["exp_avg_sq_col"].shape == (36,)
    assert vector["exp_avg_sq_full"].shape == (7,)
    own = {"sgd": 0, "sgd-momentum": 1, "none": 2}[inner] * (384 + 216 + 7)
    assert sgc.state_report(optimizer).moments == 40 + 42 + 7 + own


def test_convolutions_are_matrices():
    gradient = normal(6, 4, 3, 3, dtype=torch.float64)
    as_matrix = one_step(adafactor(), gradient.view(6, 36))
    assert torch.equal(one_step(adafactor(), gradient).view(6, 36), as_matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-12, 1.0, 1e12, 1e25, 3e37])
def test_finite_with_empty_rows_at_every_scale(scale, dtype, device):
    """Rows and columns of zeros beside it: 0·∞ must not come up."""

    def gradient(t):
        G = (normal(24, 16, seed=t).clamp(-4, 4) * scale).to(dtype)
        G[3:9] = 0
        G[:, 2:5] = 0
        G[20, 10] = 0 if t % 2 else 1e-3  # a lone small number
        return G

    for inner in ("sgd", "sgd-momentum", "none"):
        w = run(
            compressed(adafactor(inner=inner), lr=1.0),
            steps=6,
            dtype=dtype,
            gradient=gradient,
            device=device,
        )
        assert w.isfinite().all()
        still = torch.zeros(24, 16, dtype=torch.bool)
        still[3:9] = still[:, 2:5] = True
        assert torch.equal(w[still], normal(24, 16).to(dtype)[still])


def test_a_row_that_wakes_up_takes_a_step_of_ordinary_size():
    gradients = [normal(24, 16, seed=t, dtype=torch.float64) for t in range(9)]
    for gradient in gradients[:-1]:
        gradient[4] = 0
    w = [
        run(
            compressed(adafactor(), lr=1.0),
            steps=t,
            dtype=torch.float64,
            gradient=gradients.__getitem__,
        )
        for t in (8, 9)
    ]
    # Its V̂ has (1 − β̂₂) of the square: 1/√(9^−0.8) = 2.4 times as far, before clipping.
    assert 0.1 < (w[1] - w[0])[4].square().mean().sqrt() < 2.5


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("shape", [(24, 16), (7,)])
def test_broken_gradients_show(value, shape):
    gradient = normal(*shape)
    gradient.view(-1)[3] = value
    w = run(compressed(adafactor()), steps=1, shape=shape, gradient=lambda t: gradient)
    assert w.isnan().any()


def test_the_scale_of_the_parameter():
    """max(ε₂, rms(W)) times N, each parameter its own; weight decay is not scaled."""
    weights = weights_like((24, 16), (24, 16), dtype=torch.float64)
    with torch.no_grad():
        weights[0].mul_(5)
        weights[1].mul_(1e-9)
    start = [w.detach().clone() for w in weights]
    compressor = adafactor(scale_parameter=True, eps2=1e-2)
    optimizer = sgc.CompressedAdamW(weights, lr=0.1, weight_decay=0.5, compressor=compressor)
    gradients = [normal(24, 16, seed=t, dtype=torch.float64) for t in (7, 8)]
    for w, gradient in zip(weights, gradients, strict=True):
        w.grad = gradient
    optimizer.step()
    scales = [start[0].square().mean().sqrt(), 1e-2]
    for w, before, gradient, scale in zip(weights, start, gradients, scales, strict=True):
        expected = 0.95 * before - 0.1 * scale * one_step(adafactor(), gradient)
        torch.testing.assert_close(w.detach(), expected, rtol=1e-10, atol=1e-14)


def test_the_scale_reaches_the_residual_of_an_inner_compressor():
    gradient = normal(24, 16, dtype=torch.float64)
    inner = small("explicit-sparse", residual=0.3)
    w = torch.nn.Parameter(torch.full((24, 16), 2.0, dtype=torch.float64))
    w.grad = gradient
    compressor = adafactor(inner=inner, scale_parameter=True)
    sgc.CompressedAdamW([w], lr=0.1, compressor=compressor).step()
    expected = 2 - 0.1 * 2 * one_step(adafactor(inner=inner), gradient)
    torch.testing.assert_close(w.detach(), expected)


@pytest.mark.parametrize("name", ["mesgc", "explicit-sparse", "gwt", "galore"])
@pytest.mark.parametrize("residual", [0.3, "raw", "fira"])
def test_the_inner_residual_is_of_u(name, residual):
    """The step is what the inner compressor does with U for a gradient."""
    gradient = normal(24, 16, dtype=torch.float64)
    inner = small(name, residual=residual)
    U = one_step(adafactor(), gradient)
    expected = one_step(inner, U)
    assert (expected != 0).all()
    torch.testing.assert_close(one_step(adafactor(inner=inner), gradient), expected)


def test_factored_v_with_a_sketched_momentum(device):
    """V of rows and columns, M of measurements; a first step is 1 − β₁ of U's largest entries."""
    compressor = adafactor(inner=small("mesgc", rule="momentum", kappa=20))
    gradient = normal(24, 16, dtype=torch.float64, device=device)
    update = one_step_on(compressor, gradient, device)
    U = one_step(adafactor(), gradient.cpu()).to(device)
    (there,) = update.flatten().nonzero(as_tuple=True)
    assert len(there) == 8
    torch.testing.assert_close(update.flatten()[there], 0.1 * U.flatten()[there])


def one_step_on(compressor, gradient, device):
    w = torch.nn.Parameter(torch.zeros(gradient.shape, dtype=gradient.dtype, device=device))
    w.grad = gradient
    sgc.CompressedAdamW([w], lr=1.0, compressor=compressor).step()
    return -w.detach()


def test_in_a_subspace_it_is_adarankgrads_algorithm_4():
    """Block 3 on R = G B, lifted by B."""
    gradient = normal(24, 16, dtype=torch.float64)
    compressor = sgc.create(
        "compressor", "subspace", rank=3, inner="adafactor", **{"inner.clip": 0.5}
    )
    basis = torch.linalg.svd(gradient)[2][:3].T
    expected = one_step(adafactor(clip=0.5), gradient @ basis) @ basis.T
    torch.testing.assert_close(one_step(compressor, gradient), expected, rtol=1e-8, atol=1e-10)


def test_a_spec_reaches_the_inner_compressor_and_its_size():
    options = {"inner": "explicit-sparse", "inner.entries": 9}
    compressor = adafactor(**options)
    assert compressor.inner.entries == 9
    assert compressor.size(5) == {"inner.entries": 5}
    assert adafactor(**{**options, **compressor.size(5)}).inner.entries == 5
    assert adafactor().size(5) is None
    assert compressor.describe() != adafactor(inner="explicit-sparse").describe()


def test_options_that_do_not_fit_are_refused():
    for option in ({"clip": 0.0}, {"eps1": 0.0}, {"decay_rate": 0.5}, {"eps2": -1.0}):
        with pytest.raises(ValueError, match=next(iter(option))):
            adafactor(**option)
    with pytest.raises(ValueError, match="Adafactor inside Adafactor"):
        adafactor(inner="adafactor")
    assert "entries=999" in adafactor(inner="explicit-sparse", **{"inner.entries": 999}).refuses(
        (4, 4)
    )


@pytest.mark.parametrize("outer", ["galore", "gwt"])
@pytest.mark.parametrize("residual", [0.0, 0.1])
def test_the_parameter_scale_reaches_through_a_stage(outer, residual):
    """``max(ε₂, RMS(W))`` times the step without it, whatever stands before (Algorithm 4's α_t)."""
    options = {"rank": 4} if outer == "galore" else {"level": 1}
    moved = []
    for scale in (False, True):
        compressor = sgc.create(
            "compressor",
            outer,
            inner="adafactor",
            residual=residual,
            **options,
            **{"inner.scale_parameter": scale},
        )
        w = torch.nn.Parameter(normal(24, 16, dtype=torch.float64) * 0.25)
        start = w.detach().clone()
        w.grad = normal(24, 16, seed=1, dtype=torch.float64)
        sgc.CompressedAdamW([w], lr=1e-2, compressor=compressor).step()
        moved.append(w.detach() - start)
    torch.testing.assert_close(moved[1], moved[0] * start.square().mean().sqrt())
