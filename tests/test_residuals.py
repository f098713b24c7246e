"""Laws of every residual rule behind several compressors."""

import copy
import io

import pytest
import torch

import sgc
from tests.helpers import compressed, normal, run, steps, weights_like
from tests.residuals import COMPRESSORS, RULES, every_pair, every_rule, made

SCALE_FREE = [rule for rule in RULES if rule != "raw"]


@every_pair
def test_a_zero_gradient_moves_nothing(rule, name, device):
    """Nor does it spoil anything: what follows are normal first steps."""

    def gradient(t):
        return torch.zeros(24, 16) if t < 3 else normal(24, 16, seed=t)

    make = compressed(made(name, rule))
    assert torch.equal(run(make, steps=3, gradient=gradient, device=device), normal(24, 16))
    later = run(make, steps=6, gradient=gradient, device=device)
    moved = (later - normal(24, 16)).abs()
    assert moved.isfinite().all()
    assert moved.amax() > 5e-4


@every_pair
def test_steps_are_bounded(rule, name, device):
    """Every entry moves by a few learning rates a step at most; so does every kind of shape."""
    for shape in [(24, 16), (16, 24), (6, 4, 3, 3), (40, 2, 2, 2)]:
        w = run(compressed(made(name, rule)), steps=7, shape=shape, device=device)
        assert w.isfinite().all()
        assert (w - normal(*shape)).abs().amax() < 7 * 1e-3 * 6


@pytest.mark.parametrize("rule", SCALE_FREE)
@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_steps_do_not_depend_on_the_gradients_scale(rule, name, scale, device):
    w = [
        run(
            compressed(made(name, rule), eps=1e-30),
            steps=12,
            dtype=torch.float64,
            gradient=lambda t, factor=factor: factor * normal(24, 16, seed=t, dtype=torch.float64),
            device=device,
        )
        for factor in (1.0, scale)
    ]
    if rule in ("fira", "apollo") and name == "nothing":  # φ = 1: the gradient as it is
        start = normal(24, 16).double()
        w[1] = start + (w[1] - start) / scale
    torch.testing.assert_close(w[0], w[1], rtol=1e-6, atol=1e-9)


@every_pair
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_gradients_show_in_the_weights(rule, name, value, device):
    gradient = normal(24, 16)
    gradient[3, 5] = value
    w = run(compressed(made(name, rule)), steps=1, gradient=lambda t: gradient, device=device)
    assert not w.isfinite().all()


@every_pair
def test_alike_parameters_step_as_if_alone(rule, name, device):
    """Their gradients' sizes differ, and so do their norms and limits."""

    def train(together):
        weights = weights_like((24, 16), (24, 16), (24, 16), device=device)
        groups = [weights] if together else [[w] for w in weights]
        for first, group in enumerate(groups):
            optimizer = sgc.CompressedAdamW(group, compressor=made(name, rule))
            for t in range(5):
                for i, w in enumerate(group, first):
                    w.grad = normal(24, 16, seed=100 * i + t, device=device) * 1.5 ** (t * i)
                optimizer.step()
        return weights

    for one, alone in zip(train(True), train(False), strict=True):
        torch.testing.assert_close(one, alone, rtol=1e-5, atol=1e-6)


@every_rule
@pytest.mark.parametrize("name", ["mesgc", "galore", "subspace"])
def test_resume_is_exact(rule, name, device):
    """Through a file, with a limiter at work: the state holds its norm."""

    def gradient(t):
        return normal(24, 16, seed=t, device=device) * 1.3**t

    def train(optimizer, w, first, last):
        for t in range(first, last):
            w.grad = gradient(t)
            optimizer.step()

    w = torch.nn.Parameter(normal(24, 16, device=device))
    optimizer = sgc.CompressedAdamW([w], compressor=made(name, rule))
    train(optimizer, w, 0, 7)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = torch.nn.Parameter(w.detach().clone())
    again = sgc.CompressedAdamW([resumed], compressor=made(name, rule))
    again.load_state_dict(torch.load(file, weights_only=True))
    assert ("residual_norm" in again.state[resumed]) == (rule in ("fira", "apollo"))
    train(optimizer, w, 7, 12)
    train(again, resumed, 7, 12)
    assert torch.equal(w, resumed)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "apollo"])
@pytest.mark.parametrize("source", ["svd", "random"])
@pytest.mark.parametrize("shape", [(24, 16), (16, 24)], ids=str)
def test_a_subspace_of_full_rank_leaves_nothing(rule, source, shape, device):
    """Of a gradient whose rows differ by 1e6 in size, nothing but rounding: no sign, no move."""
    size = torch.logspace(-6, 0, shape[0])[:, None]
    options = {"steps": 12, "shape": shape, "device": device}
    options["gradient"] = lambda t: size * normal(*shape, seed=t)
    w = [
        run(
            compressed(made("subspace", residual, rank=16, source=source), eps=1e-16),
            **options,
        )
        for residual in (0.0, rule)
    ]
    torch.testing.assert_close(*w, rtol=1e-5, atol=1e-6)


@every_rule
def test_scratch_is_that_of_one_parameter(rule):
    """Eight alike parameters: what a rule makes of them need not all exist at once."""
    weights = weights_like(*[(256, 256)] * 8)
    optimizer = sgc.CompressedAdamW(weights, compressor=made("galore", rule, refresh_every=0))
    steps(optimizer, weights, 2)
    assert sgc.peak_scratch(optimizer.step) < 6 * weights[0].nbytes


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("fira", {"growth": 0.5}, "growth must be at least 1, or 0"),
        ("fira", {"per": "row"}, "per must be one of channel, tensor, got 'row'"),
        ("apollo", {"scale": -1.0}, "scale must be finite and at least 0"),
        ("sign", {"scale": float("nan")}, "must be finite"),
        ("raw", {"scale": True}, "must be finite"),
    ],
)
def test_options_out_of_range_are_refused(rule, options, message):
    with pytest.raises(ValueError, match=message):
        sgc.create("residual", rule, **options)


def test_descriptions_tell_rules_apart_and_old_states_fit():
    """A state that was saved before there was `per` is taken."""
    channel, tensor = (sgc.create("compressor", "apollo", per=p) for p in ("channel", "tensor"))
    assert channel.describe() != tensor.describe()
    w = torch.nn.Parameter(normal(24, 16))
    optimizer = sgc.CompressedAdamW([w], compressor=channel)
    steps(optimizer, [w], 2)
    saved = copy.deepcopy(optimizer.state_dict())
    text = saved["param_groups"][0]["compressor"]
    assert '"per": "channel"' in text
    saved["param_groups"][0]["compressor"] = text.replace(', "per": "channel"', "")
    optimizer.load_state_dict(saved)
