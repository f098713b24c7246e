"""Laws of every registered compressor and decode, and the limits that tie them to AdamW."""

import pytest
import torch

import sgc
from projections.seeding import stream
from recovery import Status
from sgc.compressors.base import Compressor
from sgc.compressors.subspace import leading_basis
from sgc.decodes.joint import Joint
from sgc.registry import option_names
from tests.conftest import makeable

COMPRESSORS = makeable("compressor")
every_compressor = pytest.mark.parametrize("name", COMPRESSORS)

#: Sizes that fit a 24×16 matrix; a compressor takes those that it has an option for.
SMALL = {"sparsity": 8, "chunks": 2, "kappa": 4, "rank": 4, "refresh_every": 5}


def small(name, **options):
    known = option_names("compressor", name) or []
    fitting = {key: value for key, value in SMALL.items() if key in known}
    return sgc.create("compressor", name, **{**fitting, **options})


def takes(name, *options):
    return set(options) <= set(option_names("compressor", name) or [])


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.from_numpy(stream(seed, "test").standard_normal(shape)).to(dtype)


def run(make_optimizer, *, steps=50, shape=(24, 16), dtype=torch.float32, gradient=None):
    """Weights after some steps on a fixed sequence of gradients."""
    w = torch.nn.Parameter(normal(*shape).to(dtype))
    optimizer = make_optimizer([w])
    for step in range(steps):
        w.grad = (gradient or (lambda t: normal(*shape, seed=t + 1)))(step).to(dtype)
        optimizer.step()
    return w.detach()


def compressed(compressor, **options):
    return lambda params: sgc.CompressedAdamW(params, compressor=compressor, **options)


@every_compressor
def test_contract(name):
    compressor = small(name)
    assert isinstance(compressor, Compressor)
    assert compressor.refuses((24, 16)) is None
    shape = compressor.moment_shape((24, 16))
    state = compressor.init_state((24, 16), torch.device("cpu"), torch.float32)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    p, q = compressor.compress(normal(24, 16), state, step=1)
    assert p.shape == shape
    assert q is None or q.shape == shape
    moments = torch.stack([p]), torch.stack([p * p if q is None else q])
    (update,) = compressor.decompress(*moments, [normal(24, 16)], [state], eps=1e-8)
    assert update.to_dense((24, 16)).shape == (24, 16)
    assert update.to_dense((24, 16)).isfinite().all()


@every_compressor
def test_description_tells_configurations_apart(name):
    assert small(name).describe() == small(name).describe()
    for option, other in {"seed": 5, "alpha": 3.0, "rank": 2, "decode": "literal"}.items():
        if takes(name, option):
            assert small(name).describe() != small(name, **{option: other}).describe()


@every_compressor
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_trains_a_regression(name, dtype):
    """Six weights have to be found: the loss falls to less than two thirds in 150 steps."""
    target, inputs = torch.zeros(16, 24), normal(64, 16, seed=1).to(dtype)
    target.view(-1)[::64] = torch.tensor([1.0, -1.0, 0.8, -0.6, 1.2, 0.7])
    target = target.to(dtype)
    w = torch.nn.Parameter(torch.zeros(16, 24, dtype=dtype))
    optimizer = sgc.CompressedAdamW([w], lr=3e-2, compressor=small(name))
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (inputs @ (w - target)).float().square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.67 * losses[0]
    if not small(name).native:
        moments = optimizer.state[w]["exp_avg"].dtype
        assert moments == (torch.float64 if dtype == torch.float64 else torch.float32)


@every_compressor
def test_survives_zero_gradients(name):
    """Ten zero gradients change nothing and spoil nothing: what follows is a normal first step."""
    compressor = small(name)
    zeros = run(compressed(compressor), steps=10, gradient=lambda t: torch.zeros(24, 16))
    assert torch.equal(zeros, normal(24, 16))
    later = run(
        compressed(compressor),
        steps=14,
        gradient=lambda t: torch.zeros(24, 16) if t < 10 else normal(24, 16, seed=t),
    )
    assert later.isfinite().all()
    assert not torch.equal(later, normal(24, 16))


@every_compressor
def test_broken_gradients_show_in_the_weights(name):
    """As with AdamW: a NaN gradient is not swallowed, so the loss tells."""
    gradient = normal(24, 16)
    gradient[3, 5] = torch.nan
    assert not run(compressed(small(name)), steps=1, gradient=lambda t: gradient).isfinite().all()


@every_compressor
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
def test_finite_at_every_gradient_scale(name, scale):
    w = run(compressed(small(name)), gradient=lambda t: normal(24, 16, seed=t) * scale, steps=20)
    assert w.isfinite().all()
    if not takes(name, "decode"):
        return
    bound = 20 * 1e-3 * small(name).alpha  # |N| ≤ 1 an entry and step under the joint decode
    if not takes(name, "rank"):
        assert (w - normal(24, 16)).abs().max() <= bound * 1.01


@every_compressor
def test_parameters_do_not_influence_each_other(name):
    """Two matrices of one shape are decompressed in one call; alone each gives the same."""

    def train(which):
        weights = [torch.nn.Parameter(normal(24, 16, seed=i)) for i in (0, 1)]
        optimizer = sgc.CompressedAdamW([weights[i] for i in which], compressor=small(name))
        for step in range(12):
            for i in which:
                weights[i].grad = normal(24, 16, seed=100 * i + step)
            optimizer.step()
        return {i: weights[i].detach() for i in which}

    both, first, second = train([0, 1]), train([0]), train([1])
    torch.testing.assert_close(both[0], first[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(both[1], second[1], rtol=1e-5, atol=1e-7)


@every_compressor
def test_non_contiguous_weights_and_gradients(name):
    def train(transposed):
        base = normal(24, 16)
        w = torch.nn.Parameter(base.T.contiguous().T if transposed else base.clone())
        assert w.is_contiguous() != transposed
        optimizer = sgc.CompressedAdamW([w], compressor=small(name))
        for step in range(6):
            gradient = normal(24, 16, seed=step + 1)
            w.grad = gradient.T.contiguous().T if transposed else gradient
            optimizer.step()
        return w.detach()

    torch.testing.assert_close(train(True), train(False), rtol=1e-5, atol=1e-7)


@every_compressor
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (12, 30), (30, 12)])
def test_other_shapes(name, shape):
    """Convolutions are matrices of (first dimension)×(rest); both orientations work."""
    w = run(compressed(small(name)), shape=shape, steps=7)
    assert w.shape == shape
    assert w.isfinite().all()


@every_compressor
def test_state_is_what_the_report_says(name):
    w = torch.nn.Parameter(normal(24, 16))
    optimizer = sgc.CompressedAdamW([w], compressor=small(name))
    assert sgc.state_report(optimizer).state_bytes == 0  # nothing before the first step
    w.grad = normal(24, 16)
    optimizer.step()
    report = sgc.state_report(optimizer)
    alive = list(optimizer.state[w].values())
    assert report.state_bytes == sum(t.numel() * t.element_size() for t in alive)
    moments = optimizer.state[w]["exp_avg"].numel() + optimizer.state[w]["exp_avg_sq"].numel()
    assert report.moments == moments
    assert report.full_moments == 2 * 24 * 16
    assert report.bytes == report.state_bytes + report.shared_bytes
    assert report.to_dict()["by_kind"]["exp_avg"] == optimizer.state[w]["exp_avg"].nbytes
    assert "moments" in str(report)


def test_table_1_of_the_paper():
    """MESGC and CESGC hold 2k = 2κs numbers, GaLore 2rn, whatever the rest is."""
    w = torch.nn.Parameter(normal(64, 64))
    for name, options, moments, basis in [
        ("mesgc", {"sparsity": 16, "chunks": 4, "kappa": 7}, 2 * 7 * 16, 0),
        ("cesgc", {"sparsity": 16, "chunks": 4, "kappa": 7, "rank": 8}, 2 * 7 * 16, 8 * 64),
        ("galore", {"rank": 3}, 2 * 3 * 64, 3 * 64),
        ("sign-sgd", {}, 0, 0),
        ("none", {}, 2 * 64 * 64, 0),
    ]:
        optimizer = sgc.CompressedAdamW([w], compressor=sgc.create("compressor", name, **options))
        w.grad = normal(64, 64)
        optimizer.step()
        report = sgc.state_report(optimizer)
        assert report.moments == moments
        assert sum(r.count for r in report.rows if r.what == "basis") == basis


def test_a_is_shared_by_all_parameters_of_a_shape():
    weights = [torch.nn.Parameter(normal(24, 16, seed=i)) for i in range(5)]
    compressor = small("mesgc")
    optimizer = sgc.CompressedAdamW(weights, compressor=compressor)
    for w in weights:
        w.grad = normal(24, 16)
    optimizer.step()
    matrix = 4 * 16 * 192  # float32, k_c × d_c
    rows = [r for r in sgc.state_report(optimizer).rows if r.owner == "shared"]
    assert [r.bytes for r in rows if r.what.startswith("A ")] == [matrix]


def test_scratch_is_measured():
    """AdamW's temporaries on the CPU are known: a few tensors of the parameter's size, not none."""
    w = torch.nn.Parameter(normal(64, 64))
    optimizer = sgc.CompressedAdamW([w], compressor=None)
    w.grad = normal(64, 64)
    optimizer.step()
    peak = sgc.peak_scratch(optimizer.step)
    assert w.nbytes <= peak <= 4 * w.nbytes
    assert sgc.peak_scratch(lambda: None) == 0
    assert sgc.peak_scratch(lambda: torch.ones(1000) + 1) == 8000


# Limits -----------------------------------------------------------------------------------------


def adamw_eps_under_root(gradients, w, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """The paper's Algorithm 1 in float64, by hand."""
    m = v = torch.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        w = w - lr * m_hat / (v_hat + eps).sqrt()
    return w


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_no_compression_is_algorithm_1(eps):
    """A = I, s = d, c = 1: SGC is AdamW with ε under the root, also where |M̂| > √V̂.

    There is nothing to recover then, so neither solver nor decode is asked.
    """
    gradients = [normal(24, 16, seed=t + 1, dtype=torch.float64) * (t % 7 == 0) for t in range(50)]
    identity = sgc.create("compressor", "sgc", sparsity=384, kappa=1, projection="identity")
    w = run(compressed(identity, eps=eps), dtype=torch.float64, gradient=lambda t: gradients[t])
    expected = adamw_eps_under_root(
        gradients, normal(24, 16, dtype=torch.float32).double(), eps=eps
    )
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=1e-13)


def test_one_chunk_is_sgc():
    options = {"sparsity": 8, "kappa": 6, "projection": "gaussian", "seed": 3}
    plain = run(compressed(sgc.create("compressor", "sgc", **options)))
    one = run(
        compressed(sgc.create("compressor", "mesgc", chunks=1, chunker="contiguous", **options))
    )
    assert torch.equal(plain, one)


@pytest.mark.parametrize("residual", [0.0, 0.3])
def test_full_rank_cesgc_is_mesgc_in_a_rotated_basis(residual):
    """r = m: the subspace loses nothing, so CESGC on G is MESGC on the rotated G, rotated back."""
    gradients = [normal(16, 24, seed=t + 1, dtype=torch.float64) for t in range(20)]
    sketch = {"sparsity": 16, "chunks": 4, "kappa": 5, "residual": residual}
    cesgc = sgc.create("compressor", "cesgc", rank=16, refresh_every=1000, **sketch)
    w = run(
        compressed(cesgc),
        steps=20,
        shape=(16, 24),
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
    )
    basis = torch.linalg.svd(gradients[0])[0]
    rotated = run(
        compressed(sgc.create("compressor", "mesgc", **sketch)),
        steps=20,
        shape=(16, 24),
        dtype=torch.float64,
        gradient=lambda t: basis.T @ gradients[t],
    )
    start = normal(16, 24).double()
    torch.testing.assert_close(w - start, basis @ (rotated - start), rtol=1e-6, atol=1e-9)


def test_full_rank_galore_is_adamw_in_a_rotated_basis():
    gradients = [normal(16, 24, seed=t + 1, dtype=torch.float64) for t in range(20)]
    galore = sgc.create("compressor", "galore", rank=16, refresh_every=1000)
    w = run(
        compressed(galore),
        steps=20,
        shape=(16, 24),
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
    )
    basis = torch.linalg.svd(gradients[0])[0]
    rotated = run(
        compressed(None),
        steps=20,
        shape=(16, 24),
        dtype=torch.float64,
        gradient=lambda t: basis.T @ gradients[t],
    )
    start = normal(16, 24).double()
    torch.testing.assert_close(w - start, basis @ (rotated - start), rtol=1e-6, atol=1e-9)


def test_the_first_step_of_mesgc_by_hand():
    """One step from zero moments: top s of each chunk, sign(g)·|g|/√(g²+ε), nothing elsewhere."""
    gradient = normal(24, 16, dtype=torch.float64)
    mesgc = sgc.create(
        "compressor", "mesgc", sparsity=8, chunks=4, kappa=20, chunker="contiguous", alpha=2.0
    )
    w = run(compressed(mesgc, lr=0.1), steps=1, dtype=torch.float64, gradient=lambda t: gradient)
    moved = (normal(24, 16).double() - w).view(4, -1)
    expected = torch.zeros_like(moved)
    for row, chunk in zip(expected, gradient.view(4, -1), strict=True):
        top = chunk.abs().topk(2).indices
        row[top] = 0.1 * 2.0 * chunk[top] / (chunk[top] ** 2 + 1e-8).sqrt()
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-12)


def test_residual_by_hand():
    """Off the support the weights move by η·ρ·G/rms(G); on it by the plain update."""
    gradient = normal(24, 16, dtype=torch.float64)
    options = {"sparsity": 8, "chunks": 4, "kappa": 20}
    runs = [
        run(
            compressed(sgc.create("compressor", "mesgc", residual=rho, **options)),
            steps=1,
            dtype=torch.float64,
            gradient=lambda t: gradient,
        )
        for rho in (0.0, 0.5)
    ]
    off = runs[0] == normal(24, 16).double()
    assert int((~off).sum()) == 8
    assert torch.equal(runs[0][~off], runs[1][~off])
    expected = -1e-3 * 0.5 * gradient / gradient.square().mean().sqrt()
    torch.testing.assert_close((runs[1] - runs[0])[off], expected[off], rtol=1e-9, atol=1e-12)


def test_residual_of_a_subspace_is_what_it_does_not_see():
    gradient = normal(24, 16, dtype=torch.float64)
    runs = [
        run(
            compressed(sgc.create("compressor", "galore", rank=3, residual=rho)),
            steps=1,
            dtype=torch.float64,
            gradient=lambda t: gradient,
        )
        for rho in (0.0, 0.5)
    ]
    basis = torch.linalg.svd(gradient)[2][:3].T
    outside = gradient - gradient @ basis @ basis.T
    expected = -1e-3 * 0.5 * outside / gradient.square().mean().sqrt()
    torch.testing.assert_close(runs[1] - runs[0], expected, rtol=1e-8, atol=1e-12)


# Decodes ----------------------------------------------------------------------------------------


def moments_with_a_drifting_support(steps=40, d=512, k=64, s=4):
    """M̂ and V̂ of gradients whose largest entries move about, as real ones do."""
    A = sgc.create("projection", "gaussian", k, d)
    draw = stream(0, "drift")
    first = second = torch.zeros(16, k)
    for _ in range(steps):
        g = torch.zeros(16, d)
        for row in g:
            row[torch.from_numpy(draw.choice(64, s, replace=False))] = torch.from_numpy(
                draw.standard_normal(s)
            ).float()
        first = 0.9 * first + 0.1 * A.matvec(g)
        second = 0.999 * second + 0.001 * A.matvec(g * g)
    return A, first / (1 - 0.9**steps), second / (1 - 0.999**steps)


def test_literal_decoding_blows_up_where_joint_does_not():
    """Why Algorithm 3 as printed diverges: M and V are recovered apart, and where V's support
    misses an atom of M's, the update is M/√ε. The joint decode is bounded by 1."""
    A, first, second = moments_with_a_drifting_support()
    solver = sgc.create("recovery", "omp")
    joint, literal = (
        sgc.create("decode", name)(solver, A, first, second, sparsity=4, eps=1e-8)
        for name in ("joint", "literal")
    )
    assert joint[1].abs().max() <= 1 + 1e-6
    assert torch.equal(joint[0], literal[0])  # both take M's support
    v = solver.solve(A, second, sparsity=4)
    missed = ~(literal[0][:, :, None] == v.support[:, None, :]).any(2)
    assert missed.float().mean() > 0.1
    m = solver.solve(A, first, sparsity=4).values
    torch.testing.assert_close(literal[1][missed], m[missed] / 1e-4)  # √ε = 1e-4
    assert literal[1].abs().max() > 1000


def test_literal_diverges_in_training_and_joint_trains():
    def loss_after(decode, steps=60):
        target, inputs = normal(16, 24), normal(64, 16, seed=1)
        w = torch.nn.Parameter(torch.zeros(16, 24))
        compressor = small("mesgc", decode=decode)
        optimizer = sgc.CompressedAdamW([w], lr=3e-2, compressor=compressor)
        for step in range(steps):
            optimizer.zero_grad()
            batch = inputs[step % 8 :: 8]
            (batch @ (w - target)).square().mean().backward()
            optimizer.step()
        return float((inputs @ (w - target)).square().mean().detach())

    start = float((normal(64, 16, seed=1) @ normal(16, 24)).square().mean())
    assert loss_after("joint") < start
    assert not loss_after("literal") < 10 * start


@pytest.mark.parametrize("name", makeable("decode"))
def test_decode_contract(name):
    A, first, second = moments_with_a_drifting_support(steps=5)
    first[3], second[3], first[5, 0] = 0, 0, torch.nan
    decode = sgc.create("decode", name, residual=0.2)
    solver = sgc.create("recovery", "omp")
    support, values = decode(solver, A, first, second, sparsity=4, eps=1e-8)
    assert decode.residual == 0.2
    assert support.shape == values.shape == (16, 4)
    assert (values[3] == 0).all()
    assert (support[3] == -1).all()
    assert values[5].isnan().any()
    assert solver.solve(A, first, sparsity=4).status[5] == Status.NON_FINITE
    others = [i for i in range(16) if i != 5]
    assert values[others].isfinite().all()
    with pytest.raises(ValueError, match="-1"):
        sgc.create("decode", name, residual=-1.0)


# Options ----------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="at least 1, got 0 and 5"):
        small("galore", rank=0)


# What each line is there for --------------------------------------------------------------------


def one_step(compressor, gradient, **options):
    """How far one step moves the weights, in units of the learning rate."""
    w = torch.nn.Parameter(torch.zeros(gradient.shape, dtype=torch.float64))
    w.grad = gradient
    sgc.CompressedAdamW([w], lr=1.0, compressor=compressor, **options).step()
    return -w.detach()


@pytest.mark.parametrize("name", [n for n in COMPRESSORS if takes(n, "alpha")])
def test_alpha_scales_the_update(name):
    gradient = normal(24, 16, dtype=torch.float64)
    torch.testing.assert_close(
        one_step(small(name, alpha=2.0), gradient), 2 * one_step(small(name), gradient)
    )


def test_joint_reads_v_on_the_support_of_m():
    A = sgc.create("projection", "gaussian", 40, 60, dtype=torch.float64)
    x = torch.zeros(2, 60, dtype=torch.float64)
    x[0, 5], x[0, 9], x[1, 30] = 3.0, -1.0, 2.0
    solver = sgc.create("recovery", "omp")
    decode = sgc.create("decode", "joint")
    support, n = decode(solver, A, A.matvec(x), A.matvec(4 * x * x), sparsity=4, eps=0.0)
    used = support >= 0
    assert used.sum(1).tolist() == [2, 1]
    torch.testing.assert_close(n[used].abs(), torch.full((3,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("name", makeable("decode"))
def test_a_broken_second_moment_shows(name):
    A, first, second = moments_with_a_drifting_support(steps=5)
    second[2, 0] = torch.nan
    _, values = sgc.create("decode", name)(
        sgc.create("recovery", "omp"), A, first, second, sparsity=4, eps=1e-8
    )
    assert values[2].isnan().any()
    assert values[[0, 1, *range(3, 16)]].isfinite().all()


def test_literal_reads_a_negative_v_as_zero():
    A = sgc.create("projection", "gaussian", 40, 60, dtype=torch.float64)
    x = torch.zeros(1, 60, dtype=torch.float64)
    x[0, 5] = 3.0
    _, n = sgc.create("decode", "literal")(
        sgc.create("recovery", "omp"), A, A.matvec(x), A.matvec(-x), sparsity=1, eps=1e-4
    )
    torch.testing.assert_close(n, torch.full((1, 1), 300.0, dtype=torch.float64))


@pytest.mark.parametrize("name", [n for n in COMPRESSORS if takes(n, "refresh_every")])
def test_the_subspace_is_refreshed_on_time_and_not_by_a_zero_gradient(name):
    w = torch.nn.Parameter(torch.zeros(24, 16))
    optimizer = sgc.CompressedAdamW([w], compressor=small(name, refresh_every=2))
    seen = []
    for step in range(6):
        w.grad = torch.zeros(24, 16) if step == 0 else normal(24, 16, seed=step)
        optimizer.step()
        seen.append(int(optimizer.state[w]["basis_step"]))
    assert seen == [0, 2, 2, 4, 4, 6]


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_leading_basis(shape):
    G = normal(*shape, dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    expected = U[:, :3] if shape[0] < shape[1] else Vh[:3].T
    basis = leading_basis(G, 3)
    torch.testing.assert_close(basis @ basis.T, expected @ expected.T)


def test_the_seed_reaches_projection_and_chunker():
    def p(seed, chunker):
        compressor = small("mesgc", seed=seed, chunker=chunker)
        return compressor.compress(normal(24, 16), {}, step=1)[0]

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
    (update,) = compressor.decompress(moments, moments, [torch.ones(5, 11)], [{}], eps=1e-8)
    assert update.index.tolist() == [18, 37, -1]
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
def test_the_residual_is_bounded_at_every_gradient_scale(name, scale):
    """G/rms(G) is about one whatever G is: float32 squares must not decide."""
    gradient = (normal(24, 16) * scale).double()
    w = torch.nn.Parameter(torch.zeros(24, 16))
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
