"""Steps of the residual rules, recomputed."""

import pytest
import torch

import sgc
from sgc.compressors.base import Compressed
from sgc.rules.base import Step
from sgc.updates import Nothing
from tests.helpers import compressed, normal, one_step, run
from tests.residuals import COMPRESSORS, every_pair, made


def first_step(gradient, rank, *, wide=False):
    """R, its Adam direction (a sign at the first step), and the basis, of GaLore."""
    U, _, Vh = torch.linalg.svd(gradient, full_matrices=False)
    B = U[:, :rank] if wide else Vh[:rank].T
    R = B.T @ gradient if wide else gradient @ B
    return R, R.sign(), B


@every_pair
def test_a_rule_given_by_name_is_the_object(rule, name):
    gradient = normal(24, 16, dtype=torch.float64)
    by_name, by_object = (
        one_step(made(name, residual), gradient)
        for residual in (rule, sgc.create("residual", rule))
    )
    assert torch.equal(by_name, by_object)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_number_is_the_normalised_rule(name):
    """0.1, the rule by name with its option, and ρ·(uncovered G)/rms(G) in full."""
    gradient = normal(24, 16, dtype=torch.float64)
    number = one_step(made(name, 0.1), gradient)
    rule = sgc.create("residual", "normalised", scale=0.1)
    assert torch.equal(number, one_step(made(name, rule), gradient))

    compressor = made(name, 0.1)
    state = compressor.init_state((24, 16), gradient.device, torch.float64)
    step = Step(1)
    found = compressor.compress([gradient], [state], step=step)
    shape = (1, *compressor.moment_shape((24, 16)))
    states = [
        {
            **state,
            **{
                k: t[0]
                for k, t in compressor.rule.init_state(
                    shape, gradient.device, torch.float64
                ).items()
            },
        }
    ]
    moments = compressor.rule.accumulate(states, found.p, found.q, step=step)
    update = compressor.decompress(moments, found, states, step=step)
    rest = update.uncovered([gradient])[0] / gradient.square().mean().sqrt()
    by_hand = update.to_dense((24, 16))[0] + 0.1 * rest
    torch.testing.assert_close(number, by_hand, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wide", [False, True])
def test_fira_by_hand(wide):
    """N in the subspace, and the rest times ‖N_j‖/‖R_j‖ of its row (a column of a wide matrix)."""
    gradient = normal(*((16, 24) if wide else (24, 16)), dtype=torch.float64)
    R, N, B = first_step(gradient, 3, wide=wide)
    phi = N.norm(dim=0 if wide else 1, keepdim=True) / R.norm(dim=0 if wide else 1, keepdim=True)
    rest, lifted = (gradient - B @ R, B @ N) if wide else (gradient - R @ B.T, N @ B.T)
    options = {"eps": 1e-16}
    found = one_step(made("galore", "fira", rank=3), gradient, **options)
    torch.testing.assert_close(found, lifted + phi * rest, rtol=1e-8, atol=1e-10)
    assert torch.equal(
        found, one_step(sgc.create("compressor", "fira", rank=3), gradient, **options)
    )
    whole = sgc.create("residual", "fira", per="tensor", scale=0.5)
    expected = lifted + 0.5 * N.norm() / R.norm() * rest
    found = one_step(made("galore", whole, rank=3), gradient, **options)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("wide", [False, True])
def test_apollo_in_an_orthonormal_basis_by_hand(per, wide):
    """Rank 16 of 16: the gradient, its channels scaled to the norms of Adam's there."""
    gradient = normal(*((16, 24) if wide else (24, 16)), dtype=torch.float64)
    _, N, _ = first_step(gradient, 16, wide=wide)
    rule = sgc.create("residual", "apollo", per=per, scale=3.0)
    found = one_step(made("galore", rule, rank=16), gradient, eps=1e-16)
    dim = (0, 1) if per == "tensor" else 0 if wide else 1
    torch.testing.assert_close(found.norm(dim=dim), 3 * N.norm(dim=dim), rtol=1e-9, atol=0)
    direction = gradient / gradient.norm(dim=dim, keepdim=True)
    expected = 3 * direction * N.norm(dim=dim, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_apollos_scale_is_the_square_of_the_rules(per):
    gradient = normal(24, 16, dtype=torch.float64)
    options = {"rank": 2, "per": per}
    one, four = (
        one_step(sgc.create("compressor", "apollo", scale=s, **options), gradient) for s in (1, 4)
    )
    torch.testing.assert_close(four, 2 * one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("wide", [False, True])
def test_sign_on_the_rest_of_a_line_by_hand(wide):
    """FRUGAL with rank 1: Adam along one direction, the sign of what is left beside it."""
    gradient = normal(*((16, 24) if wide else (24, 16)), dtype=torch.float64)
    R, N, B = first_step(gradient, 1, wide=wide)
    rest, lifted = (gradient - B @ R, B @ N) if wide else (gradient - R @ B.T, N @ B.T)
    frugal = sgc.create("compressor", "frugal", rank=1, source="svd", sign_scale=0.3)
    found = one_step(frugal, gradient, eps=1e-16)
    torch.testing.assert_close(found, lifted + 0.3 * rest.sign(), rtol=1e-9, atol=1e-10)


def test_raw_is_sgd_on_the_rest():
    gradient = normal(24, 16, dtype=torch.float64)
    R, N, B = first_step(gradient, 3)
    expected = N @ B.T + 0.5 * (gradient - R @ B.T)
    raw = sgc.create("residual", "raw", scale=0.5)
    found = one_step(made("galore", raw, rank=3), gradient, eps=1e-16)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_the_limiter_by_hand():
    """Norms without bias correction grow by 1 % a step at most; 0 is no norm to grow from."""
    rule = sgc.create("residual", "fira")
    state = rule.init_state((2, 2), torch.device("cpu"), torch.float64)
    kept = 0.0
    for t, norm in enumerate([0.0, 4.0, 1.0, 3.0, 3.0, 0.0, 5.0, 0.5], start=1):
        step = Step(t)
        unbias1, unbias2 = step.corrections()
        raw = norm * unbias1 / unbias2**0.5
        allowed = raw if kept == 0 else min(raw, 1.01 * kept)
        G = torch.full((2, 2), norm / 2, dtype=torch.float64)
        nothing = Nothing(1, G.new_zeros(0))  # φ = 1, so the part is G
        update, _ = rule.complete(nothing, Compressed(G, None, [G]), [state], step=step)
        found = float(update.to_dense((2, 2)).norm()) * unbias1 / unbias2**0.5
        assert found == pytest.approx(allowed, rel=1e-12)
        kept = allowed or kept
        assert float(state["residual_norm"]) == pytest.approx(kept, rel=1e-12)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_broken_gradient_leaves_no_mark_on_the_limiter(broken):
    rule = sgc.create("residual", "fira")
    state = {"residual_norm": torch.tensor(2.0)}
    G = torch.tensor([[broken, 1.0]])
    found = Compressed(G, None, [G])
    rule.complete(Nothing(1, G.new_zeros(0)), found, [state], step=Step(3))
    assert float(state["residual_norm"]) == 2.0


@pytest.mark.parametrize("name", ["fira", "apollo"])
def test_a_limiter_of_0_is_none(name):
    gradient = [1.5**t * normal(24, 16, seed=t) for t in range(8)]
    free, limited = (
        run(
            compressed(sgc.create("compressor", name, rank=2, growth=growth)),
            steps=8,
            gradient=lambda t: gradient[t],
        )
        - normal(24, 16)
        for growth in (0.0, 1.01)
    )
    assert free.norm() > 1.1 * limited.norm()
