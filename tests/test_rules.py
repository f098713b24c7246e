"""Rules by hand, and what they have in common."""

import pytest
import torch

import sgc
from sgc.rounding import NEAREST
from sgc.rules.base import Step
from sgc.specs import Spec
from tests.conftest import makeable
from tests.helpers import compressed, normal, run, steps, weights_like

RULES = makeable("rule")
every_rule = pytest.mark.parametrize("name", RULES)
LR = 1e-2


def made(text):
    spec = Spec.parse(text)
    return sgc.create("compressor", spec.name, **spec.options)


# Momentum


def test_momentum_by_hand(device):
    gradients = [normal(6, 4, seed=t + 1, dtype=torch.float64) for t in range(10)]
    w = run(
        compressed("sgd-momentum", lr=LR),
        steps=10,
        shape=(6, 4),
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
        device=device,
    )
    m, expected = torch.zeros(6, 4), normal(6, 4).double()
    for g in gradients:
        m = 0.9 * m + 0.1 * g
        expected = expected - LR * m
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=1e-14)


def test_momentum_is_torchs_sgd_with_a_tenth_of_the_rate():
    """torch's has no 1 − β₁, and starts with the first gradient in full."""
    options = {"shape": (6, 4), "dtype": torch.float64, "steps": 10}
    ours = run(compressed("sgd-momentum", lr=LR), **options)
    theirs = run(lambda w: torch.optim.SGD(w, lr=0.1 * LR, momentum=0.9), **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


# The proximal rule


@pytest.mark.parametrize(
    "lr", [LR, torch.tensor(LR, dtype=torch.float64)], ids=["number", "tensor"]
)
def test_proximal_by_hand(lr, device):
    gradients = [0.1 * normal(6, 4, seed=t + 1, dtype=torch.float64) for t in range(10)]
    w = run(
        compressed(made("proximal-sgd:l1=2.0"), lr=lr, weight_decay=0.1),
        steps=10,
        shape=(6, 4),
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
        device=device,
    )
    m, expected = torch.zeros(6, 4), normal(6, 4).double()
    for g in gradients:
        m = 0.9 * m + 0.1 * g
        expected = (1 - 0.1 * LR) * expected - LR * m
        expected = expected.sign() * (expected.abs() - 2.0 * LR).clamp(min=0)
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(w == 0, expected == 0)
    assert (w == 0).any()
    assert (w != 0).any()


def test_no_pull_is_momentum_bit_for_bit():
    assert torch.equal(run(compressed("proximal-sgd")), run(compressed("sgd-momentum")))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("lr", [1e-2, torch.tensor(1e-2)], ids=["number", "tensor"])
def test_the_threshold_keeps_its_digits_in_half_precision(dtype, lr, device):
    """Of float32, rounded once: a threshold of 1e-8 would be 0 in float16."""
    for l1 in (1e-6, 1.0):
        w = (1e-7 * normal(40, 40)).to(device, dtype)
        expected = w.double().sign() * (w.double().abs() - 1e-2 * l1).clamp(min=0)
        rule = sgc.create("rule", "proximal", l1=l1)
        lr = lr.to(device) if isinstance(lr, torch.Tensor) else lr
        rule.finish([w], lr=lr, rounding=NEAREST)
        torch.testing.assert_close(w, expected.to(dtype), rtol=2e-7, atol=1e-15)
        assert (w == 0).any()


def test_small_pulls_act_on_average_under_stochastic_rounding(device):
    """bf16 weights of 1 do not feel 1e-4 when rounded to the nearest; by lot they go down by it."""
    pulled = {}
    for rounding in ("nearest", "stochastic"):
        w = torch.nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16, device=device))
        optimizer = sgc.CompressedAdamW(
            [w], lr=1e-2, compressor=made("proximal-sgd:l1=1e-2"), rounding=rounding
        )
        for _ in range(100):
            w.grad = torch.zeros_like(w)
            optimizer.step()
        pulled[rounding] = 1 - float(w.detach().double().mean())
    assert pulled["nearest"] == 0
    assert pulled["stochastic"] == pytest.approx(1e-2, rel=0.05)


def test_broken_weights_stay_broken():
    w = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.5])
    sgc.create("rule", "proximal", l1=1.0).finish([w], lr=0.1, rounding=NEAREST)
    torch.testing.assert_close(
        w, torch.tensor([torch.nan, torch.inf, -torch.inf, -0.4]), equal_nan=True
    )


# What they have in common


@every_rule
def test_states_have_the_names_and_shapes_of_blocks(name, device):
    """Names begin with exp_avg; the first dimension is the parameter's number."""
    rule = sgc.create("rule", name)
    for shape in [(3, 6, 4), (3, 7), (3, 5, 2, 2)]:
        state = rule.init_state(shape, device, torch.float64)
        assert all(key.startswith("exp_avg") for key in state)
        assert all(len(t) == 3 and t.dtype == torch.float64 for t in state.values())
        states = [{key: t[i] for key, t in state.items()} for i in range(3)]
        p = normal(*shape, dtype=torch.float64, device=device)
        moments = rule.accumulate(states, p, None, step=Step(1))
        assert moments.first.shape == shape
        if moments.second is not None:
            assert torch.broadcast_shapes(moments.second.shape, shape) == shape


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alike_parameters_step_as_if_alone(name, dtype, device):
    compressor = sgc.create("compressor", "none", rule=name)

    def train(together):
        weights = weights_like((7, 5), (7, 5), (7, 5), (5, 7), (4,), dtype=dtype, device=device)
        groups = [weights] if together else [[w] for w in weights]
        for first, group in enumerate(groups):
            optimizer = sgc.CompressedAdamW(group, lr=LR, compressor=compressor)
            for t in range(8):
                for i, w in enumerate(group):
                    w.grad = normal(*w.shape, seed=100 * (i + first) + t).to(w)
                optimizer.step()
        return weights

    for one, alone in zip(train(True), train(False), strict=True):
        torch.testing.assert_close(one, alone, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["mesgc", "sgc", "cesgc"])
def test_a_sketch_refuses_rules_that_look_at_rows(name):
    with pytest.raises(ValueError, match=r"rule=AdamMini looks at more than one number .*adam or"):
        sgc.create("compressor", name, rule="adam-mini")


def test_a_transfer_refuses_rules_that_look_at_rows():
    with pytest.raises(ValueError, match="transfer='rotate' turns moments"):
        made("subspace:inner=adam-mini,transfer=rotate")


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("none:rule=adam-mini,rule.block_rows=2", (12,)),
        ("galore:rank=4,inner=adam-mini,inner.block_rows=3", (8,)),
        ("galore:rank=4,inner=none,inner.rule=adam-mini,inner.rule.block_rows=5", (5,)),
        ("subspace:rank=4,source=random,inner=adam-mini", (24,)),
    ],
)
def test_options_of_nested_rules_by_dots(text, blocks):
    w = torch.nn.Parameter(normal(24, 16))
    optimizer = sgc.CompressedAdamW([w], compressor=made(text))
    steps(optimizer, [w], 3)
    assert optimizer.state[w]["exp_avg_sq"].shape == blocks


def test_unknown_options_of_a_rule_are_refused():
    with pytest.raises(sgc.UnknownOptionError, match="no option 'block_row'"):
        made("none:rule=adam-mini,rule.block_row=2")


def test_adam_given_by_name_is_still_torchs_own():
    assert sgc.create("compressor", "none", rule="adam").native
    assert not sgc.create("compressor", "none", rule="momentum").native
