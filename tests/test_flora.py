"""FLoRA: momentum through random matrices, by hand."""

import pytest
import torch

import sgc
from sgc.sources.random import Random
from tests.helpers import compressed, normal, one_step, run, steps, weights_like


def flora(**options):
    return sgc.create("compressor", "flora", **options)


@pytest.mark.parametrize("shape", [(24, 16), (12, 30)])
def test_by_hand_over_resamplings(shape):
    """The algorithm in dense matrices: seven steps, B replaced at the third and the sixth."""
    gradients = [normal(*shape, seed=t, dtype=torch.float64) for t in range(7)]
    w = run(
        compressed(flora(rank=5, refresh_every=3, clip=0.8, seed=2), lr=0.1, betas=(0.7, 0.9)),
        steps=7,
        shape=shape,
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
    )
    # U of Adafactor, unclipped: what it does to weights of zero at a learning rate of one.
    zero = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    adafactor = sgc.create("compressor", "adafactor", clip=1e9)
    optimizer = sgc.CompressedAdamW([zero], lr=1.0, compressor=adafactor)
    source, turn = Random(orthonormal=False, seed=2), 1
    expected, past = normal(*shape).double(), torch.zeros(shape, dtype=torch.float64)
    for t, gradient in enumerate(gradients, 1):
        before = zero.detach().clone()
        zero.grad = gradient
        optimizer.step()
        U = before - zero.detach()
        N = 0.3 * U + 0.7 * past
        expected = expected - 0.1 * N / max(1, N.square().mean().sqrt() / 0.8)
        new = t if t % 3 == 0 else turn
        B = source.find([gradient], 5, start=None, states=[{}], turn=new)[0]
        P = B @ B.T
        mix = 0.7 * past + 0.3 * U if new != turn else None
        if shape[0] < shape[1]:
            past = P @ mix if mix is not None else 0.7 * past + 0.3 * P @ U
        else:
            past = mix @ P if mix is not None else 0.7 * past + 0.3 * U @ P
        turn = new
    torch.testing.assert_close(w, expected, rtol=1e-10, atol=1e-12)


def test_state_is_the_small_momentum_and_the_factors():
    weights = weights_like((24, 16), (12, 30))
    optimizer = sgc.CompressedAdamW(weights, compressor=flora(rank=4))
    steps(optimizer, weights, 2)
    tall, wide = (optimizer.state[w] for w in weights)
    assert tall["exp_avg"].shape == (24, 4)
    assert wide["exp_avg"].shape == (4, 30)
    report = sgc.state_report(optimizer)
    assert report.moments == 24 * 4 + 24 + 16 + 4 * 30 + 12 + 30
    assert report.shared_bytes == 4 * (16 * 4 + 12 * 4)  # the matrices in use, drawn not stored


def test_the_first_update_is_a_tenth_of_adafactors():
    """M is zero then, and nothing corrects for it."""
    gradient = normal(24, 16, dtype=torch.float64)
    adafactor = sgc.create("compressor", "adafactor", clip=1e9)
    torch.testing.assert_close(one_step(flora(), gradient), 0.1 * one_step(adafactor, gradient))


def test_a_resampling_lets_the_momentum_grow_by_the_root_of_side_over_rank():
    """So κ steps of decay must make up for it, or M grows for ever: see the class."""
    growth = []
    for seed in range(60):
        weights = weights_like((64, 64))
        compressor = flora(rank=4, refresh_every=2, seed=seed)
        optimizer = sgc.CompressedAdamW(weights, betas=(0.5, 0.999), compressor=compressor)
        norms = []
        for gradient in (normal(64, 64, seed=seed), torch.zeros(64, 64)):
            weights[0].grad = gradient
            optimizer.step()
            norms.append(optimizer.state[weights[0]]["exp_avg"].norm().item())
        growth.append((norms[1] / norms[0] / 0.5) ** 2)
    assert sum(growth) / len(growth) == pytest.approx((64 + 4 + 1) / 4, rel=0.2)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="source=SVD looks at gradients.*leave source out"):
        flora(source="svd")
    with pytest.raises(ValueError, match="rank must be at least 1"):
        flora(rank=0)
    with pytest.raises(ValueError, match="clip must be above 0"):
        flora(clip=0)
    assert "rank=9 exceeds the shorter side of a 8×20" in flora(rank=9).refuses((8, 20))
    assert "not a matrix" in flora().refuses((20,))
