"""Loading a state over weights of another dtype, and what counts as the same compressor."""

import copy

import pytest
import torch

import sgc
from sgc.specs import Spec
from tests.helpers import every_compressor, normal, small, steps, weights_like

PAIRS = [
    (torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float32, torch.float64),
    (torch.float64, torch.float32),
]
every_pair = pytest.mark.parametrize(("saved", "own"), PAIRS)


def grouped(compressor, dtype, device):
    """Two matrices, which go together, and a vector of plain AdamW."""
    weights = weights_like((24, 16), (24, 16), (7,), dtype=dtype, device=device)
    groups = [
        {"params": weights[:2], "compressor": compressor},
        {"params": weights[2:], "compressor": None},
    ]
    return weights, sgc.CompressedAdamW(groups, lr=1e-2)


def resumed(compressor, saved, own, device, *, before=3):
    """An optimizer over weights of one dtype with the state of another's, and its weights."""
    weights, first = grouped(compressor, saved, device)
    steps(first, weights, before)
    weights, second = grouped(compressor, own, device)
    second.load_state_dict(first.state_dict())
    return weights, second


def dtypes(optimizer, weights):
    return [{key: value.dtype for key, value in optimizer.state[w].items()} for w in weights]


@every_compressor
@every_pair
def test_a_state_takes_the_dtype_that_its_new_weights_call_for(name, saved, own, device):
    weights, optimizer = resumed(small(name), saved, own, device)
    fresh_weights, fresh = grouped(small(name), own, device)
    steps(fresh, fresh_weights, 1)
    assert dtypes(optimizer, weights) == dtypes(fresh, fresh_weights)
    steps(optimizer, weights, 4, start=3)  # a refresh among them
    assert dtypes(optimizer, weights) == dtypes(fresh, fresh_weights)
    assert all(w.isfinite().all() for w in weights)
    assert [int(optimizer.state[w]["step"]) for w in weights] == [7, 7, 7]


@every_compressor
def test_the_numbers_of_a_state_survive_a_wider_dtype(name, device):
    weights, first = grouped(small(name), torch.float32, device)
    steps(first, weights, 3)
    wider, second = grouped(small(name), torch.float64, device)
    second.load_state_dict(first.state_dict())
    for w, v in zip(weights, wider, strict=True):
        assert first.state[w].keys() == second.state[v].keys()
        for key, value in first.state[w].items():
            assert torch.equal(second.state[v][key], value.to(second.state[v][key].dtype))
            assert second.state[v][key].device == value.device


@every_pair
@pytest.mark.parametrize("compressor", [None, "none"])
def test_without_compressor_the_cast_is_that_of_torchs_adamw(saved, own, compressor, device):
    def loaded(make_optimizer):
        weights = weights_like((24, 16), (7,), dtype=saved, device=device)
        first = make_optimizer(weights)
        steps(first, weights, 3)
        weights = weights_like((24, 16), (7,), dtype=own, device=device)
        second = make_optimizer(weights)
        second.load_state_dict(first.state_dict())
        steps(second, weights, 3, start=3)
        return weights

    ours = loaded(lambda params: sgc.CompressedAdamW(params, lr=1e-2, compressor=compressor))
    theirs = loaded(lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=0.0))
    assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))


@every_pair
def test_a_bias_that_the_compressor_cannot_take_is_cast_as_well(saved, own, device):
    def model(dtype):
        made = torch.nn.Linear(12, 8).to(device, dtype)
        with torch.no_grad():
            for p in made.parameters():
                p.copy_(normal(*p.shape))
        with pytest.warns(UserWarning, match="get plain AdamW"):
            return list(made.parameters()), sgc.CompressedAdamW(
                made.parameters(), compressor=small("galore")
            )

    with torch.random.fork_rng():
        before, first = model(saved)
        after, second = model(own)
    steps(first, before, 2)
    second.load_state_dict(first.state_dict())
    assert second.state[after[1]]["exp_avg"].dtype == own
    assert second.state[after[1]]["step"].dtype == torch.float32
    steps(second, after, 2, start=2)
    assert all(p.isfinite().all() for p in after)


def test_loading_a_plain_state_copies_it(device):
    weights, twins = (weights_like((7,), device=device) for _ in range(2))
    first = sgc.CompressedAdamW(weights, compressor=None)
    second = sgc.CompressedAdamW(twins, compressor=None)
    steps(first, weights, 2)
    saved = first.state_dict()
    before = copy.deepcopy(saved["state"][0])
    second.load_state_dict(saved)
    steps(second, twins, 1)
    assert all(torch.equal(saved["state"][0][key], value) for key, value in before.items())


#: Options that say the same of a residual.
SPELLINGS = [
    ("residual=sign", "residual=sign,residual.scale=1.0"),
    ("residual=normalised", "residual=0.1"),
    ("residual=normalised,residual.scale=1", "residual=1"),
    ("residual=fira", "residual=fira,residual.growth=1.01"),
    ("inner=gwt,residual=raw", "inner=gwt,residual=raw,residual.scale=1"),
]


def galore(weights, options):
    spec = Spec.parse(f"galore:{options}")
    return sgc.CompressedAdamW(
        weights, compressor=sgc.create("compressor", "galore", **spec.options)
    )


@pytest.mark.parametrize(("one", "other"), [*SPELLINGS, *(pair[::-1] for pair in SPELLINGS)])
def test_two_spellings_of_a_residual_are_one(one, other):
    straight, turned = weights_like((24, 16)), weights_like((24, 16))
    first = galore(straight, one)
    second = galore(turned, other)
    steps(first, straight, 2)
    with torch.no_grad():
        turned[0].copy_(straight[0])
    second.load_state_dict(first.state_dict())
    steps(first, straight, 2, start=2)
    steps(second, turned, 2, start=2)
    assert torch.equal(straight[0], turned[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("residual=sign", "residual=sign,residual.scale=0.5"),
        ("residual=normalised", "residual=0.2"),
        ("residual=normalised", "residual=sign,residual.scale=0.1"),
        ("residual=fira", "residual=apollo"),
        ("residual=0", "residual=raw"),
    ],
)
def test_another_residual_is_refused(one, other):
    weights = weights_like((24, 16))
    first = galore(weights, one)
    second = galore(weights, other)
    steps(first, weights, 1)
    with pytest.raises(ValueError, match="build it with the saved options"):
        second.load_state_dict(first.state_dict())


def test_a_residual_that_does_not_exist_here_is_refused_like_another():
    weights = weights_like((24, 16))
    optimizer = sgc.CompressedAdamW(weights, compressor=small("galore", residual="sign"))
    saved = optimizer.state_dict()
    group = saved["param_groups"][0]
    group["compressor"] = group["compressor"].replace('"sign"', '"of-a-plug-in"')
    with pytest.raises(ValueError, match=r"of-a-plug-in.*build it with the saved options"):
        optimizer.load_state_dict(saved)
