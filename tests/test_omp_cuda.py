"""omp-cupy at its edges: what the conformance suite does not ask, on both of its paths."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import sgc
from projections.seeding import stream
from recovery import Status

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

#: (d, k, s): k ≤ 16 streams the atoms past registers, above it is a tiled product.
FEW, MANY = (1000, 8, 1), (600, 130, 9)
#: More of both: k and d that no tile divides, several steps on the first path, one on the second.
SIZES = [
    *(FEW, MANY, (130, 2, 1), (4097, 16, 2), (999, 7, 1), (300, 13, 3)),
    *((257, 17, 2), (2048, 217, 31), (129, 100, 5), (2000, 500, 20), (1100, 1024, 4)),
]
both_paths = pytest.mark.parametrize(("d", "k", "s"), [FEW, MANY])
precisions = pytest.mark.parametrize("precision", ["float32", "tf32"])


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


def normal(*shape, seed=0):
    return torch.from_numpy(stream(seed, "omp-cupy", *shape).standard_normal(shape)).float().cuda()


def problem(d, k, s, n, *, seed=0):
    """A, sparse signals with coefficients of size one to two, and their measurements."""
    A = sgc.create("projection", "gaussian", k, d, seed=seed, device="cuda")
    draw = stream(seed, "places", d, s, n)
    index = torch.from_numpy(draw.random((n, d)).argsort(1)[:, :s].copy()).cuda()
    x = normal(n, s, seed=seed)
    x = x.sign() * (1 + x.abs().clamp(max=1))
    return A, index, x, (A.columns(index) @ x[..., None])[..., 0]


def same_support(a, b):
    return (a.support.sort(1).values == b.support.sort(1).values).all(1)


@precisions
@pytest.mark.parametrize(("d", "k", "s"), SIZES)
def test_chooses_as_float64_does(cupy, d, k, s, precision):
    """Against plain OMP in float64 on the same numbers; NaN and wrong atoms would show here."""
    A, _, _, y = problem(d, k, s, 300)
    ours = sgc.create("recovery", "omp-cupy", precision=precision).solve(A, y, sparsity=s)
    exact = sgc.create("recovery", "omp").solve(A.to_dense().double(), y.double(), sparsity=s)
    same = same_support(ours, exact)
    assert same.float().mean() >= (0.99 if precision == "float32" else 0.97)
    order, theirs = ours.support.argsort(1), exact.support.argsort(1)
    error = ours.values.gather(1, order) - exact.values.gather(1, theirs)
    assert error[same].abs().max() <= 2e-4
    norm = y.norm(dim=1)
    assert ((ours.residual_norm - exact.residual_norm).abs() / norm)[same].max() <= 1e-5


@precisions
@both_paths
def test_is_the_torch_form(cupy, d, k, s, precision):
    """Statuses, iterations and the companion's fit are those of the readable reference."""
    A, _, _, y = problem(d, k, s, 200)
    y[3] = 0
    y[5, 0] = torch.nan
    beside = normal(200, k, seed=1).abs()
    beside[7] = 0
    beside[8, 0] = torch.inf
    ours = sgc.create("recovery", "omp-cupy", precision=precision)
    mine = ours.solve(A, y, sparsity=s + 1, companion=beside)
    plain = sgc.create("recovery", "omp").solve(A, y, sparsity=s + 1, companion=beside)
    same = (mine.support == plain.support).all(1)
    assert same.float().mean() >= 0.9
    assert torch.equal(mine.status[same], plain.status[same])
    assert torch.equal(mine.iterations[same], plain.iterations[same])
    torch.testing.assert_close(
        mine.companion[same], plain.companion[same], rtol=1e-3, atol=1e-3, equal_nan=True
    )
    assert (mine.companion[7] == 0).all()
    assert mine.companion[8].isnan().all()


@both_paths
def test_zero_and_broken_rows_stay_alone(cupy, d, k, s):
    A, _, _, y = problem(d, k, s, 10)
    solver = sgc.create("recovery", "omp-cupy")
    whole = solver.solve(A, y, sparsity=s)
    spoilt = y.clone()
    spoilt[2], spoilt[4, 0], spoilt[6, -1] = 0, torch.nan, -torch.inf
    mixed = solver.solve(A, spoilt, sparsity=s)
    good = [0, 1, 3, 5, 7, 8, 9]
    assert torch.equal(mixed.support[good], whole.support[good])
    assert torch.equal(mixed.values[good], whole.values[good])
    assert mixed.status[[2, 4, 6]].tolist() == [
        Status.ZERO_SIGNAL,
        Status.NON_FINITE,
        Status.NON_FINITE,
    ]
    assert (mixed.support[[2, 4, 6]] == -1).all()
    assert (mixed.values[[2, 4, 6]] == 0).all()
    assert mixed.residual_norm[2] == 0
    assert mixed.residual_norm[[4, 6]].isnan().all()


@both_paths
def test_more_atoms_than_there_are(cupy, d, k, s):
    """Peers return NaN when asked for more atoms than y has."""
    A, index, x, y = problem(d, k, 1, 20)
    found = sgc.create("recovery", "omp-cupy").solve(A, y, sparsity=min(k, s + 4))
    assert (found.status == Status.CONVERGED).all()
    assert (found.iterations == 1).all()
    assert torch.equal(found.support[:, :1], index)
    assert (found.support[:, 1:] == -1).all()
    torch.testing.assert_close(found.values[:, :1], x, rtol=1e-5, atol=0)


def test_as_many_atoms_as_measurements(cupy):
    A = sgc.create("projection", "gaussian", 12, 500, device="cuda")
    found = sgc.create("recovery", "omp-cupy").solve(A, normal(9, 12), sparsity=20)
    # By luck a row may be explained, to rounding, before.
    assert (found.iterations >= 10).all()
    full = found.iterations == 12
    assert torch.equal(full, found.status == Status.SATURATED)
    assert full.float().mean() > 0.5
    for row, used in zip(found.support.tolist(), found.iterations.tolist(), strict=True):
        assert len({*row[:used]}) == used
        assert -1 not in row[:used]
        assert set(row[used:]) == {-1}


@both_paths
def test_repeated_columns(cupy, d, k, s):
    """The twin of a chosen atom explains nothing more."""
    A, _, _, _ = problem(d, k, s, 1)
    dense = A.to_dense().clone()
    dense[:, 1::2] = dense[:, 0:-1:2]
    y = dense[:, :4:2].T.contiguous()
    found = sgc.create("recovery", "omp-cupy").solve(dense, y, sparsity=min(3, k))
    assert (found.status == Status.CONVERGED).all()
    assert found.support[:, 0].tolist() == [0, 2]


def test_outside_the_span(cupy):
    dense = torch.zeros(40, 30, device="cuda")
    dense[:30] = torch.eye(30)
    y = torch.ones(3, 40, device="cuda")
    found = sgc.create("recovery", "omp-cupy").solve(dense, y, sparsity=30)
    # All thirty are needed, and what no atom reaches is left: 10 of the 40 ones.
    assert (found.iterations == 30).all()
    torch.testing.assert_close(found.residual_norm, torch.full((3,), 10**0.5, device="cuda"))
    assert (found.status == Status.SPARSITY_REACHED).all()


@both_paths
def test_strided_input(cupy, d, k, s):
    A, _, _, y = problem(d, k, s, 12)
    solver = sgc.create("recovery", "omp-cupy")
    whole = solver.solve(A, y, sparsity=s)
    wide = torch.full((24, 2 * k), torch.nan, device="cuda")
    wide[::2, ::2] = y
    assert torch.equal(solver.solve(A, wide[::2, ::2], sparsity=s).values, whole.values)
    assert torch.equal(solver.solve(A, y.T.contiguous().T, sparsity=s).values, whole.values)


@both_paths
def test_one_signal_or_none(cupy, d, k, s):
    A, _, _, y = problem(d, k, s, 5)
    solver = sgc.create("recovery", "omp-cupy")
    whole = solver.solve(A, y, sparsity=s)
    assert torch.equal(solver.solve(A, y[2], sparsity=s).support, whole.support[2:3])
    assert solver.solve(A, y[:0], sparsity=s).support.shape == (0, s)


@both_paths
def test_two_hundred_thousand_signals(cupy, d, k, s):
    A, _, _, y = problem(d, k, s, 1000)
    solver = sgc.create("recovery", "omp-cupy")
    few = solver.solve(A, y, sparsity=s)
    many = solver.solve(A, y.repeat(200, 1), sparsity=s)
    assert torch.equal(many.support, few.support.repeat(200, 1))
    assert torch.equal(many.values, few.values.repeat(200, 1))
    assert torch.equal(many.status, few.status.repeat(200))


@both_paths
def test_tiles_of_scratch_do_not_show(cupy, d, k, s, monkeypatch):
    A, _, _, y = problem(d, k, s, 1000)
    solver = sgc.create("recovery", "omp-cupy")
    whole = solver.solve(A, y, sparsity=s, companion=y.square())
    monkeypatch.setattr(type(solver), "scratch_bytes", 1)
    tiled = solver.solve(A, y, sparsity=s, companion=y.square())
    for name in ("support", "values", "residual_norm", "iterations", "status", "companion"):
        assert torch.equal(getattr(tiled, name), getattr(whole, name)), name


@both_paths
def test_repeatable(cupy, d, k, s):
    A, _, _, y = problem(d, k, s, 400)
    solver = sgc.create("recovery", "omp-cupy")
    first = solver.solve(A, y, sparsity=s)
    for _ in range(5):
        again = solver.solve(A, y, sparsity=s)
        assert torch.equal(again.support, first.support)
        assert torch.equal(again.values, first.values)


def test_a_correlation_that_eleven_bits_lose(cupy):
    """float32 precision decides as float32 does also where the 11-bit correlation is exactly 0."""
    dense = torch.zeros(32, 1, device="cuda")
    dense[0], dense[1] = 0.5**0.5, -(0.5**0.5)
    y = torch.zeros(2, 32, device="cuda")
    y[:, 0], y[0, 1], y[1, 1] = 1, 1 - 2.0**-13, 1
    ours = sgc.create("recovery", "omp-cupy").solve(dense, y, sparsity=1)
    plain = sgc.create("recovery", "omp").solve(dense, y[:1], sparsity=1)
    assert torch.equal(ours.support[:1], plain.support)
    assert torch.equal(ours.status[:1], plain.status)
    torch.testing.assert_close(ours.values[:1], plain.values)
    assert ours.status[1] == Status.DEPENDENT_ATOMS  # truly orthogonal


def test_from_a_new_thread(cupy):
    """A thread whose first work on the GPU is a kernel of ours has no context yet."""
    A, _, _, y = problem(*MANY, 20)
    solver = sgc.create("recovery", "omp-cupy")
    expected = solver.solve(A, y, sparsity=MANY[2])
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(solver.solve, A, y, sparsity=MANY[2]).result()
    assert torch.equal(found.support, expected.support)


@both_paths
def test_columns_too_short_to_scale(cupy, d, k, s):
    """Their inverse norm is no number; they count as zero columns."""
    A, index, _, y = problem(d, k, s, 20)
    dense = A.to_dense().clone()
    unused = next(j for j in range(d) if not (index == j).any())
    dense[:, unused] = 1e-42
    found = sgc.create("recovery", "omp-cupy").solve(dense, y, sparsity=s)
    assert found.values.isfinite().all()
    assert not (found.support == unused).any()


def test_wrong_device_and_precision(cupy):
    solver = sgc.create("recovery", "omp-cupy")
    A = sgc.create("projection", "gaussian", 8, 20)
    with pytest.raises(ValueError, match=r"runs on cuda, but A is on cpu"):
        solver.solve(A, torch.zeros(1, 8), sparsity=1)
    A = sgc.create("projection", "gaussian", 8, 20, device="cuda")
    with pytest.raises(ValueError, match=r"y is on cpu but A is on cuda:0"):
        solver.solve(A, torch.zeros(1, 8), sparsity=1)
    with pytest.raises(ValueError, match=r"one of float32, tf32, got 'fp8'"):
        sgc.create("recovery", "omp-cupy", precision="fp8")


def test_beyond_the_kernels_torch_takes_over(cupy):
    A, index, _, y = problem(2500, 1100, 3, 6)
    found = sgc.create("recovery", "omp-cupy").solve(A, y, sparsity=3, companion=y)
    assert torch.equal(found.support.sort(1).values, index.sort(1).values)
    torch.testing.assert_close(found.companion, found.values, rtol=1e-4, atol=1e-4)


def test_runs_on_the_current_stream_without_waiting(cupy):
    """A side stream, an input that is made late on it, and no synchronisation."""
    A, _, _, y = problem(*MANY, 64)
    solver = sgc.create("recovery", "omp-cupy")
    expected = solver.solve(A, y, sparsity=MANY[2])
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        late = torch.zeros_like(y)
        torch.cuda._sleep(20_000_000)
        late.copy_(y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        try:
            found = solver.solve(A, late, sparsity=MANY[2])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    side.synchronize()
    assert torch.equal(found.support, expected.support)
    assert torch.equal(found.values, expected.values)
