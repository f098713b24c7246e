"""Adam-mini by hand."""

import pytest
import torch

import sgc
from sgc.rules.adam_mini import AdamMini
from sgc.rules.base import Step
from tests.helpers import compressed, normal, run, steps

LR, EPS, BETA1, BETA2 = 1e-2, 1e-8, 0.9, 0.999


def by_hand(gradients, w, second_moment):
    """AdamW whose v is updated with second_moment(g), in float64."""
    m = v = torch.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * second_moment(g)
        w = w - LR * (m / (1 - BETA1**t)) / ((v / (1 - BETA2**t)).sqrt() + EPS)
    return w


def block_means(g, block_rows):
    """g² as a matrix, each entry replaced by the mean over its block of rows."""
    rows = g.reshape(g.shape[0], -1) if g.ndim > 1 else g.reshape(1, -1)
    squares = rows.square()
    for start in range(0, rows.shape[0], block_rows):
        squares[start : start + block_rows] = squares[start : start + block_rows].mean()
    return squares.reshape(g.shape)


@pytest.mark.parametrize("block_rows", [1, 2, 5, 100])
@pytest.mark.parametrize("shape", [(6, 4), (7, 4), (7,), (5, 3, 2, 2), ()], ids=str)
def test_adam_mini_by_hand(shape, block_rows, device):
    """Also with a last block that is shorter; a vector, or a number, is one block."""
    gradients = [normal(*shape, seed=t + 1, dtype=torch.float64) for t in range(12)]
    w = run(
        compressed(sgc.create("compressor", "adam-mini", block_rows=block_rows), lr=LR),
        steps=12,
        shape=shape,
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
        device=device,
    )
    start = normal(*shape).double()
    expected = by_hand(gradients, start, lambda g: block_means(g, block_rows))
    torch.testing.assert_close(w, expected, rtol=1e-11, atol=1e-13)


def test_adam_mini_of_single_numbers_is_adamw():
    """Blocks of one number: a column is a matrix whose rows are numbers."""
    options = {"shape": (24, 1), "dtype": torch.float64, "steps": 20}
    mini = run(compressed("adam-mini"), **options)
    torch.testing.assert_close(mini, run(compressed(None), **options), rtol=1e-12, atol=1e-14)


def test_adam_mini_keeps_one_number_a_block():
    w = torch.nn.Parameter(normal(7, 4))
    optimizer = sgc.CompressedAdamW(
        [w], compressor=sgc.create("compressor", "adam-mini", block_rows=2)
    )
    steps(optimizer, [w], 1)
    assert optimizer.state[w]["exp_avg"].shape == (7, 4)
    assert optimizer.state[w]["exp_avg_sq"].shape == (4,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_of_half_precision_gradients_do_not_vanish(dtype, device):
    """1e-4 squared is 0 in float16, and three digits of it are lost in bfloat16."""
    gradient = (1e-4 * normal(6, 64)).to(dtype)
    rule = AdamMini(block_rows=2)
    state = rule.init_state((1, 6, 64), device, torch.float32)
    moments = rule.accumulate(
        [{key: value[0] for key, value in state.items()}],
        gradient.to(device)[None],
        None,
        step=Step(1),
    )
    expected = gradient.double().square().reshape(3, -1).mean(1).repeat_interleave(2)
    torch.testing.assert_close(
        moments.second.flatten().double().cpu(), expected, rtol=1e-5, atol=0.0
    )


@pytest.mark.parametrize("block_rows", [0, -1])
def test_adam_mini_refuses_empty_blocks(block_rows):
    with pytest.raises(ValueError, match="block_rows must be at least 1"):
        sgc.create("compressor", "adam-mini", block_rows=block_rows)


def test_adam_mini_in_a_subspace_by_hand(device):
    """Full rank: Adam-mini of the rotated gradient, whose row norms a rotation keeps."""
    gradients = [normal(24, 16, seed=t + 1, dtype=torch.float64) for t in range(12)]
    inside, plain = (
        run(
            compressed(compressor, lr=LR),
            steps=12,
            dtype=torch.float64,
            gradient=lambda t: gradients[t],
            device=device,
        )
        for compressor in (
            sgc.create("compressor", "galore", rank=16, inner="adam-mini"),
            "adam-mini",
        )
    )
    torch.testing.assert_close(inside, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0,)])
def test_adam_mini_takes_empty_parameters(shape):
    w = torch.nn.Parameter(torch.zeros(shape))
    optimizer = sgc.CompressedAdamW([w], compressor="adam-mini")
    w.grad = torch.zeros(shape)
    optimizer.step()
