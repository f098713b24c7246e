"""Stochastic rounding: unbiased, repeatable, the same everywhere."""

import copy

import pytest
import torch

import sgc
from sgc.hashing import lowbias32
from sgc.rounding import NEAREST, Rounding, stochastic
from tests.helpers import every_compressor, normal, small, steps, weights_like


def test_the_hash_is_the_same_for_integers_and_tensors(device):
    numbers = [0, 1, 2**31, 2**32 - 1, 2**32, 2**33 + 5, 123456789]
    hashed = lowbias32(torch.tensor(numbers, device=device)).tolist()
    assert hashed == [lowbias32(n) for n in numbers]
    assert hashed[1] == 1753845952
    assert all(0 <= h < 2**32 for h in hashed)


def test_rounding_by_hand(device):
    """Bits plus the high half of the hash of (place + key), cut off below bf16."""
    x = normal(1000, device=device)
    for start in (0, 2**32 - 500):
        got = Rounding((7, 11)).run(x, torch.bfloat16, parameter=1, start=start)
        for place in (0, 3, 499, 500, 999):
            bits = int(x[place].view(torch.int32)) & 0xFFFFFFFF
            noise = lowbias32((start + place + 11) % 2**32) >> 16
            expected = ((bits + noise) % 2**32) >> 16
            assert int(got[place].view(torch.int16)) & 0xFFFF == expected
    index = torch.tensor([[5, 3], [999, 500]], device=device)
    ours = Rounding((7, 11)).at(x[index], torch.bfloat16, index)
    assert torch.equal(ours[1], Rounding((7, 11)).run(x, torch.bfloat16, parameter=1)[index[1]])


def test_parameters_of_different_groups_have_different_noise():
    """A parameter's place in the optimizer counts over all groups."""
    groups = [{"params": weights_like((24, 16), dtype=torch.bfloat16)} for _ in range(2)]
    weights = [group["params"][0] for group in groups]
    with torch.no_grad():
        weights[1].copy_(weights[0])
    compressor = small("galore")
    optimizer = sgc.CompressedAdamW(groups, lr=1e-3, compressor=compressor, rounding="stochastic")
    for w in weights:
        w.grad = normal(24, 16).to(torch.bfloat16)
    optimizer.step()
    assert not torch.equal(weights[0], weights[1])
    torch.testing.assert_close(weights[0], weights[1], rtol=2**-6, atol=2**-6)


def test_it_is_unbiased(device):
    x = torch.full((2**20,), 1 + 2**-7 * 0.3, device=device)
    rounded = Rounding((5,)).run(x, torch.bfloat16, parameter=0).float()
    assert set(rounded.unique().tolist()) == {1.0, 1 + 2**-7}
    up = float((rounded > 1).float().mean())
    assert abs(up - 0.3) < 5 * (0.3 * 0.7 / 2**20) ** 0.5


def test_exact_and_broken_numbers_stay(device):
    x = torch.tensor([0.0, -1.5, torch.nan, torch.inf, -torch.inf], device=device).repeat(100)
    rounded = Rounding((5,)).run(x, torch.bfloat16, parameter=0)
    torch.testing.assert_close(rounded.float(), x, rtol=0, atol=0, equal_nan=True)
    for dtype in (torch.float32, torch.float64):
        y = normal(100, dtype=dtype, device=device)
        assert Rounding((5,)).run(y, dtype, parameter=0) is y
    assert not NEAREST.stochastic(torch.bfloat16)


def test_keys_tell_seed_step_and_position_apart():
    keys = {
        key
        for seed in range(5)
        for step in range(1, 20)
        for key in stochastic(seed, step, range(64)).keys
    }
    assert len(keys) == 5 * 19 * 64
    assert stochastic(-3, 1, [4]).keys == stochastic(-3, 1, [4]).keys


@pytest.mark.parametrize("name", ["mesgc", "galore", "sign-sgd"])
def test_steps_too_small_for_the_nearest_add_up(name, device):
    """A tenth of half a unit: to the nearest nothing ever moves; by lot the mean does."""

    def moved(rounding):
        w = torch.nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16, device=device))
        optimizer = sgc.CompressedAdamW(
            [w], lr=2e-4, weight_decay=1.0, compressor=small(name), rounding=rounding
        )
        for _ in range(50):
            w.grad = torch.zeros_like(w)
            optimizer.step()
        return float(1 - w.detach().float().mean())

    assert moved("nearest") == 0.0
    assert abs(moved("stochastic") - 50 * 2e-4) < 1e-3


@every_compressor
def test_resume_is_exact(name):
    """And the noise does not depend on how parameters are grouped, only on position and step."""
    if small(name).native:
        pytest.skip("plain AdamW rounds to the nearest")

    def fresh(seed=3):
        weights = weights_like((24, 16), (24, 16), (7,), dtype=torch.bfloat16)
        groups = [
            {"params": weights[:2], "compressor": small(name), "rounding": "stochastic"},
            {"params": weights[2:], "compressor": None},
        ]
        return weights, sgc.CompressedAdamW(groups, lr=1e-2, weight_decay=0.01, seed=seed)

    straight, optimizer = fresh()
    steps(optimizer, straight, 10)
    first, before = fresh()
    steps(before, first, 5)
    second, after = fresh()
    with torch.no_grad():
        for w, value in zip(second, first, strict=True):
            w.copy_(value)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    steps(after, second, 5, start=5)
    assert all(torch.equal(x, y) for x, y in zip(straight, second, strict=True))
    other, another = fresh(seed=4)
    steps(another, other, 10)
    assert not torch.equal(other[0], straight[0])


def test_what_cannot_be_rounded_is_refused_when_the_group_is_added():
    half = weights_like((24, 16), dtype=torch.float16)
    with pytest.raises(ValueError, match="float16"):
        sgc.CompressedAdamW(half, compressor=small("mesgc"), rounding="stochastic")
    bf16 = weights_like((24, 16), dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"compressor=None.*24, 16.*rounding='nearest'"):
        sgc.CompressedAdamW(bf16, compressor=None, rounding="stochastic")
    with pytest.raises(ValueError, match="nearest, stochastic"):
        sgc.CompressedAdamW(bf16, compressor=None, rounding="up")
    with pytest.raises(TypeError, match="seed"):
        sgc.CompressedAdamW(bf16, compressor=small("mesgc"), seed=0.5)
    optimizer = sgc.CompressedAdamW(bf16, compressor=small("mesgc"), rounding="stochastic")
    bias = weights_like((24,), dtype=torch.bfloat16)
    optimizer.add_param_group({"params": bias, "compressor": None})  # nothing to say about biases
    with pytest.raises(ValueError, match="rounding"):
        optimizer.add_param_group(
            {"params": weights_like((8, 9), dtype=torch.bfloat16), "compressor": None}
        )


@every_compressor
def test_float32_is_not_affected(name):
    def train(rounding):
        weights = weights_like((24, 16), (24, 16))
        optimizer = sgc.CompressedAdamW(weights, compressor=small(name), rounding=rounding)
        steps(optimizer, weights, 4)
        return weights

    for ours, theirs in zip(train("stochastic"), train("nearest"), strict=True):
        assert torch.equal(ours, theirs)
