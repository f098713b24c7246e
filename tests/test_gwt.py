"""Wavelets of gradients: the transform against its matrix, limits, and the paper's step."""

import math

import pytest
import torch

import sgc
from sgc.compressors.gwt import coarse, fine
from sgc.finetune import resolve_method
from sgc.specs import SpecError
from tests.helpers import compressed, normal, one_step, run, small


def gwt(**options):
    return sgc.create("compressor", "gwt", **options)


def haar(x, level):
    """The transform one level at a time, as in the textbooks: approximation, then details."""
    details = []
    for _ in range(level):
        details.append((x[..., ::2] - x[..., 1::2]) / math.sqrt(2))
        x = (x[..., ::2] + x[..., 1::2]) / math.sqrt(2)
    return x, details


def inverse(x, details):
    for detail in reversed(details):
        both = [(x + detail) / math.sqrt(2), (x - detail) / math.sqrt(2)]
        x = torch.stack(both, dim=-1).flatten(-2)
    return x


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_coarse_is_the_approximation_and_fine_its_way_back(level):
    x = normal(5, 24, dtype=torch.float64)
    approximation, details = haar(x, level)
    torch.testing.assert_close(coarse(x, level), approximation)
    nothing = [torch.zeros_like(d) for d in details]
    torch.testing.assert_close(
        fine(approximation, level, columns=24), inverse(approximation, nothing)
    )
    torch.testing.assert_close(inverse(approximation, details), x)  # the oracle is one


@pytest.mark.parametrize(("columns", "level"), [(24, 2), (23, 2), (5, 3), (16, 4), (3, 5)])
def test_coarse_is_orthonormal_on_padded_rows(columns, level):
    """C Cᵀ = I on whole blocks, and fine is Cᵀ for every number of columns."""
    C = coarse(torch.eye(columns, dtype=torch.float64), level).T
    blocks = -(-columns // 2**level)
    assert C.shape == (blocks, columns)
    back = fine(torch.eye(blocks, dtype=torch.float64), level, columns=columns)
    torch.testing.assert_close(back, C)
    gram = torch.eye(blocks, dtype=torch.float64)
    gram[-1, -1] = (columns - (blocks - 1) * 2**level) / 2**level  # the last block's share
    torch.testing.assert_close(C @ C.T, gram)


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("shape", [(24, 16), (6, 4, 3, 3), (7,)])
def test_level_0_is_torchs_adamw(details, shape, device):
    options = {"lr": 1e-2, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    residual = 0.0 if details else 0.5  # nothing is left to it
    ours = run(
        compressed(gwt(level=0, details=details, residual=residual), **options),
        shape=shape,
        dtype=torch.float64,
        device=device,
    )
    theirs = run(
        lambda p: torch.optim.AdamW(p, **options), shape=shape, dtype=torch.float64, device=device
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("details", [False, True])
def test_the_papers_algorithm_with_a_real_transform(details):
    """Every detail divided by the root of V̂ of the approximation above it, levels and all."""
    gradients = [normal(6, 16, seed=t, dtype=torch.float64) for t in range(5)]
    w = run(
        compressed(gwt(level=2, alpha=0.25, details=details), lr=0.1, eps=1e-3),
        steps=5,
        shape=(6, 16),
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
    )
    expected = normal(6, 16).double()
    M = V = torch.zeros(6, 4, dtype=torch.float64)
    for t, gradient in enumerate(gradients, 1):
        A, D = haar(gradient, 2)
        M, V = 0.9 * M + 0.1 * A, 0.999 * V + 0.001 * A * A
        root = (V / (1 - 0.999**t)).sqrt() + 1e-3
        for j, detail in enumerate(D):
            ancestor = root.repeat_interleave(2 ** (1 - j), dim=1)
            D[j] = detail / ancestor if details else torch.zeros_like(detail)
        expected = expected - 0.1 * 0.25 * inverse(M / (1 - 0.9**t) / root, D)
    torch.testing.assert_close(w, expected, rtol=1e-10, atol=1e-12)


def test_the_residual_is_the_details():
    gradient = normal(24, 16, dtype=torch.float64)
    rest = one_step(gwt(residual="raw"), gradient) - one_step(gwt(), gradient)
    A, D = haar(gradient, 2)
    torch.testing.assert_close(rest, inverse(torch.zeros_like(A), D), rtol=1e-9, atol=1e-12)


def test_what_an_inner_compressor_leaves_out_is_uncovered_too():
    gradient = normal(24, 16, dtype=torch.float64)
    inner = small("explicit-sparse", entries=10)
    plain = one_step(gwt(inner=inner), gradient)
    rest = one_step(gwt(inner=inner, residual="raw"), gradient) - plain
    A, _ = haar(gradient, 2)
    held = A.flatten().abs().topk(10).indices
    covered = torch.zeros(96, dtype=torch.float64).index_copy(0, held, A.flatten()[held])
    nothing = [torch.zeros_like(d) for d in haar(gradient, 2)[1]]
    expected = gradient - inverse(covered.view(24, 4), nothing)
    torch.testing.assert_close(rest, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_stochastic_rounding_is_right_on_average(residual):
    """Steps far below a bfloat16 rounding add up to what they add up to in float32."""

    def moved(dtype, rounding):
        w = torch.nn.Parameter(torch.ones(64, 64, dtype=dtype))
        optimizer = sgc.CompressedAdamW(
            [w], lr=1e-4, weight_decay=0.1, compressor=gwt(residual=residual), rounding=rounding
        )
        for _ in range(40):
            w.grad = normal(64, 64).to(dtype)
            optimizer.step()
        return w.detach().float() - 1

    exact, rounded = moved(torch.float32, "nearest"), moved(torch.bfloat16, "stochastic")
    assert not moved(torch.bfloat16, "nearest").any()
    share = (rounded * exact).sum() / exact.square().sum()
    assert share.item() == pytest.approx(1, abs=0.1)


def test_memory_halves_with_each_level():
    weights = [torch.nn.Parameter(normal(24, 16)) for _ in range(3)]
    moments = []
    for level, w in enumerate(weights, 1):
        w.grad = normal(24, 16)
        optimizer = sgc.CompressedAdamW([w], compressor=gwt(level=level))
        optimizer.step()
        moments.append(sgc.state_report(optimizer).moments)
    assert moments == [384, 192, 96]
    assert [gwt().size(s) for s in (1, 2, 11)] == [{"level": 10}, {"level": 9}, {"level": 0}]
    with pytest.raises(ValueError, match="level"):
        gwt(**gwt().size(12))


def test_options_that_do_not_fit_are_refused():
    for inner in ("sgd-momentum", "explicit-sparse", "adam-mini"):
        with pytest.raises(ValueError, match="details=True divides"):
            gwt(details=True, inner=inner)
    inner = sgc.create("compressor", "explicit-sparse", entries=97)
    assert "after 2 levels: entries=97" in gwt(inner=inner).refuses((24, 16))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 3, 0)])
def test_empty_parameters(shape):
    w = torch.nn.Parameter(torch.zeros(shape))
    optimizer = sgc.CompressedAdamW([w], compressor=sgc.create("compressor", "gwt", level=2))
    w.grad = torch.zeros(shape)
    optimizer.step()
    assert optimizer.state[w]["exp_avg"].numel() == 0


def test_a_block_longer_than_the_row_is_one_sum_and_takes_no_more_memory():
    x = normal(3, 5)
    assert coarse(x, 60).shape == (3, 1)
    torch.testing.assert_close(coarse(x, 3), x.sum(1, keepdim=True) / 8**0.5)
    torch.testing.assert_close(
        fine(coarse(x, 3), 3, columns=5), (x.sum(1) / 8)[:, None].expand(3, 5)
    )


@pytest.mark.parametrize("residual", [0.1, "sign", "raw", "fira", "normalised"])
def test_a_residual_beside_the_details_is_refused(residual):
    """They cover all of G, so it would do nothing."""
    with pytest.raises(ValueError, match=r"details=True covers all .*residual=.* details=False"):
        gwt(details=True, residual=residual)
    with pytest.raises(SpecError, match="would do nothing"):
        resolve_method(f"gwt:details=true,residual={residual}")
    gwt(details=True, residual=0)


def test_a_level_beyond_every_row_is_refused():
    with pytest.raises(ValueError, match="level must be at most 62, got 1100"):
        sgc.create("compressor", "gwt", level=1100)
