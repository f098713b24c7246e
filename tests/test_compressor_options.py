"""What each option of a compressor does, and what is refused."""

import pytest
import torch

import sgc
from sgc.compressors.base import Compressed, Moments, Step
from sgc.decodes.joint import Joint
from tests.helpers import (
    COMPRESSORS,
    normal,
    one_step,
    small,
    takes,
)
from tests.residuals import RULES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 10, "chunks": 4}, "sparsity=10 is not divisible by chunks=4.*sparsity=8"),
        ({"sparsity": 0}, "sparsity=0"),
        ({"kappa": 0.5}, "kappa.*0.5"),
        ({"residual": -1.0}, "residual.*-1"),
        ({"chunker": "diagonal"}, "did you mean|there are"),
        ({"recovery": "opm"}, "did you mean 'omp'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises((ValueError, LookupError), match=message):
        small("mesgc", **options)


def test_refusals_name_the_numbers():
    assert "64" in small("mesgc", sparsity=64, chunks=2, kappa=8).refuses((4, 4))
    assert "kappa=8" in small("mesgc", sparsity=16, chunks=2, kappa=8).refuses((8, 8))
    assert "rank=9" in small("galore", rank=9).refuses((8, 20))
    assert "not a matrix" in small("galore").refuses((20,))
    assert "after the projection" in small("cesgc", rank=1, kappa=50).refuses((8, 8))
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        small("galore", rank=0)


@pytest.mark.parametrize("name", [n for n in COMPRESSORS if takes(n, "alpha")])
def test_alpha_scales_the_update(name):
    gradient = normal(24, 16, dtype=torch.float64)
    torch.testing.assert_close(
        one_step(small(name, alpha=2.0), gradient), 2 * one_step(small(name), gradient)
    )


@pytest.mark.parametrize("name", [n for n in COMPRESSORS if takes(n, "rank", "refresh_every")])
def test_the_subspace_is_refreshed_on_time_and_not_by_a_zero_gradient(name):
    w = torch.nn.Parameter(torch.zeros(24, 16))
    optimizer = sgc.CompressedAdamW([w], compressor=small(name, refresh_every=2))
    seen = []
    for step in range(6):
        w.grad = torch.zeros(24, 16) if step == 0 else normal(24, 16, seed=step)
        optimizer.step()
        seen.append(int(optimizer.state[w]["basis_step"]))
    assert seen == [0, 2, 2, 4, 4, 6]


def test_the_seed_reaches_projection_and_chunker():
    def p(seed, chunker):
        compressor = small("mesgc", seed=seed, chunker=chunker)
        return compressor.compress([normal(24, 16)], [{}], step=Step(1)).p

    assert not torch.allclose(p(0, "contiguous"), p(1, "contiguous"))
    assert small("mesgc", seed=5).chunker.seed == 5


def test_padding_that_a_solver_picks_is_dropped():
    """55 numbers in 3 chunks of 19: two places of the last chunk are padding."""

    class PicksTheLast(Joint):
        def __call__(self, solver, A, first, second, *, sparsity, eps):
            last = torch.full((first.shape[0], sparsity), A.shape[1] - 1)
            return last, torch.ones(first.shape[0], sparsity)

    compressor = sgc.create(
        "compressor", "mesgc", sparsity=3, chunks=3, chunker="contiguous", decode=PicksTheLast()
    )
    moments = torch.ones(1, 3, 8)
    compressed = Compressed(moments, moments, [torch.ones(5, 11)])
    update = compressor.decompress(Moments(moments, moments), compressed, [{}], step=Step(1))
    assert update.index.tolist() == [[18, 37, -1]]
    assert update.to_dense((5, 11)).sum() == 2


def test_weight_decay_comes_before_the_update():
    gradient = normal(24, 16, dtype=torch.float64)
    w = torch.nn.Parameter(normal(24, 16, seed=9, dtype=torch.float64))
    start = w.detach().clone()
    w.grad = gradient
    optimizer = sgc.CompressedAdamW([w], lr=0.1, weight_decay=0.5, compressor=small("mesgc"))
    optimizer.step()
    expected = 0.95 * start - 0.1 * one_step(small("mesgc"), gradient)
    torch.testing.assert_close(w.detach(), expected)


@pytest.mark.parametrize("name", [n for n in COMPRESSORS if takes(n, "residual")])
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-24, 1e-12, 1e12])
def test_the_residual_is_bounded_at_every_gradient_scale(name, scale, device):
    """G/rms(G) is about one whatever G is: float32 squares must not decide."""
    gradient = (normal(24, 16, device=device) * scale).double()
    w = torch.nn.Parameter(torch.zeros(24, 16, device=device))
    w.grad = gradient.float()
    sgc.CompressedAdamW([w], lr=1.0, compressor=small(name, residual=0.1)).step()
    assert w.abs().max() <= 6.0


def test_options_of_objects_must_agree():
    with pytest.raises(ValueError, match="16 chunks, but chunks=2"):
        small("mesgc", chunker=sgc.create("chunker", "strided", chunks=16))
    with pytest.raises(ValueError, match="alpha"):
        small("mesgc", alpha=float("nan"))
    with pytest.raises(TypeError):
        small("mesgc", sparsity=8.5)
    with pytest.raises(ValueError, match="decode object"):
        small("mesgc", decode=Joint(), residual=0.1)


def test_a_refresh_starts_warm(monkeypatch):
    """The second subspace is sought from the first, which takes fewer passes."""
    from sgc.sources import svd  # noqa: PLC0415

    calls = []
    found = svd.leading_bases

    def spy(matrices, rank, *, start, method, power_iterations):
        calls.append((start, power_iterations))
        return found(matrices, rank, start=start, method=method, power_iterations=power_iterations)

    monkeypatch.setattr(svd, "leading_bases", spy)
    w = torch.nn.Parameter(normal(24, 16))
    optimizer = sgc.CompressedAdamW([w], compressor=small("galore", refresh_every=3))
    for step in range(4):
        w.grad = normal(24, 16, seed=step)
        optimizer.step()
        if step == 0:
            first = optimizer.state[w]["basis"].clone()
    (cold, passes), (warm, fewer) = calls
    assert cold is None
    assert torch.equal(warm[0], first)
    assert (passes, fewer) == (3, 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ldadam", {"error_feedback": "no"}, "error_feedback must be true or false, got 'no'"),
        ("gwt", {"details": "maybe"}, "details must be true or false"),
        ("adafactor", {"scale_parameter": 0}, "scale_parameter must be true or false"),
        ("flora", {"scale_parameter": "no"}, "scale_parameter must be true or false"),
        ("frugal", {"source.orthonormal": "no"}, "orthonormal must be true or false"),
        ("galore", {"rank": True}, "rank must be an integer, got True"),
        ("adjoint", {"seed": "x"}, "seed must be an integer, got 'x'"),
        ("galore", {"inner": 3}, "by its name or as an object, got 3; the names are: adafactor"),
        ("adafactor", {"inner": True}, "got True"),
        ("subspace", {"source": 4}, "a source is given by its name .* got 4"),
    ],
)
def test_words_and_numbers_are_not_taken_for_what_they_are_not(name, options, message):
    with pytest.raises(TypeError, match=message):
        small(name, **({"source": "random"} if name == "frugal" else {}), **options)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("options", [{}, {"details": True}], ids=["", "details"])
@pytest.mark.parametrize("name", [n for n in COMPRESSORS if takes(n, "residual")])
def test_a_residual_does_something_or_is_refused(name, options, rule):
    if not takes(name, *options):
        pytest.skip("it has no such option")
    if options and rule != "apollo":
        with pytest.raises(ValueError, match="would do nothing"):
            small(name, residual=rule, **options)
        return
    gradient = normal(24, 16, dtype=torch.float64)
    with_it = one_step(small(name, residual=rule, **options), gradient)
    without = one_step(small(name, **options), gradient)
    assert (with_it - without).abs().max() > 1e-3


def stepped(projection, kappa):
    weights = torch.zeros(8, 10, requires_grad=True)
    options = {"sparsity": 2, "chunks": 2, "kappa": kappa, "projection": projection}
    mesgc = sgc.create("compressor", "mesgc", **options)
    optimizer = sgc.CompressedAdamW([weights], compressor=mesgc)
    weights.grad = normal(8, 10)
    optimizer.step()


@pytest.mark.parametrize("projection", ["rademacher", "srht"])
def test_a_plus_minus_one_matrix_of_few_rows_says_that_columns_are_equal(projection):
    """2^(k_c − 1) different columns up to a sign, for chunks of 40 entries: 16, then 64."""
    with pytest.warns(UserWarning, match=f"5 rows of a '{projection}' A give at most 16 columns"):
        stepped(projection, 5)
    stepped(projection, 7)
    A = sgc.create("projection", projection, 5, 40, seed=0).to_dense()
    assert len(torch.unique(A * A[:1].sign(), dim=1).T) <= 16


def test_a_gaussian_matrix_of_few_rows_says_nothing():
    stepped("gaussian", 5)
