"""The contract that every registered solver keeps (DESIGN: recovery)."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sgc
from projections.seeding import stream
from recovery import RecoveryResult, Status
from sgc.problems import LAWS, sparse_problem
from sgc.registry import resolve
from tests.conftest import makeable

every_solver = pytest.mark.parametrize("name", makeable("recovery"))


@pytest.fixture
def solver(name, device):
    made = sgc.create("recovery", name)
    if made.devices and device.type not in made.devices:
        pytest.skip(f"{name} runs on {', '.join(made.devices)}")
    return made


def easy(device="cpu", *, d=160, k=140, s=3, n=12, seed=0, projection="gaussian", dtype=None):
    """A problem that every solver here recovers: k is large for s."""
    return sparse_problem(
        d=d,
        k=k,
        sparsity=s,
        signals=n,
        projection=projection,
        seed=seed,
        device=device,
        dtype=dtype or torch.float32,
    )


def assert_recovered(result: RecoveryResult, problem, rtol=1e-4):
    dense = result.to_dense(problem.A.shape[1])
    error = (dense - problem.x()).norm(dim=1) / problem.x().norm(dim=1)
    assert error.max() <= rtol
    assert torch.equal(dense != 0, problem.x() != 0)


@every_solver
@pytest.mark.parametrize("projection", makeable("projection"))
@pytest.mark.parametrize("law", LAWS)
def test_exact_recovery(name, solver, device, projection, law):
    square = getattr(resolve("projection", projection), "square", False)
    problem = sparse_problem(
        d=160,
        k=160 if square else 140,
        sparsity=3,
        signals=12,
        law=law,
        projection=projection,
        device=device,
        dtype=torch.float32,
    )
    result = solver.solve(problem.A, problem.y, sparsity=3)
    assert_recovered(result, problem)
    assert (result.status == Status.CONVERGED).all()
    assert result.support.dtype == torch.int64
    assert (result.residual_norm <= 1e-4 * problem.y.norm(dim=1)).all()
    assert (result.iterations >= 1).all()


@every_solver
def test_float64_is_recovered_to_float64(name, solver, device):
    problem = easy(device, dtype=torch.float64)
    if torch.float64 not in solver.dtypes:
        with pytest.raises(TypeError, match="float64"):
            solver.solve(problem.A, problem.y, sparsity=3)
        return
    assert_recovered(solver.solve(problem.A, problem.y, sparsity=3), problem, rtol=1e-10)


@every_solver
def test_dense_tensor_and_operator_are_the_same_to_a_solver(name, solver, device):
    problem = easy(device)
    one = solver.solve(problem.A, problem.y, sparsity=3)
    other = solver.solve(problem.A.to_dense(), problem.y, sparsity=3)
    assert torch.equal(one.support, other.support)
    torch.testing.assert_close(one.values, other.values)


@every_solver
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, solver, device, dtype):
    problem = easy(device)
    rounded = solver.solve(problem.A, problem.y.to(dtype), sparsity=3)
    exact = solver.solve(problem.A, problem.y.to(dtype).float(), sparsity=3)
    assert rounded.values.dtype == torch.float32
    assert torch.equal(rounded.values, exact.values)
    half_A = solver.solve(problem.A.to_dense().to(dtype), problem.y, sparsity=3)
    assert half_A.values.dtype == torch.float32


@every_solver
@pytest.mark.parametrize("factor", [1e-6, 1e-30, 1e30, -1.0])
def test_scale_free(name, solver, device, factor):
    problem = easy(device)
    one = solver.solve(problem.A, problem.y, sparsity=3)
    scaled = solver.solve(problem.A, problem.y * factor, sparsity=3)
    assert torch.equal(one.support, scaled.support)
    torch.testing.assert_close(scaled.values / factor, one.values, rtol=1e-4, atol=0)
    power = solver.solve(problem.A, problem.y * 2.0**-20, sparsity=3)
    assert torch.equal(power.values * 2.0**20, one.values)  # powers of two are exact


@every_solver
def test_bad_rows_stay_alone(name, solver, device):
    problem = easy(device)
    clean = solver.solve(problem.A, problem.y, sparsity=3)
    y = problem.y.clone()
    y[1], y[3, 5], y[6, 0] = 0, torch.nan, torch.inf
    mixed = solver.solve(problem.A, y, sparsity=3)
    assert mixed.status[1] == Status.ZERO_SIGNAL
    assert mixed.status[3] == mixed.status[6] == Status.NON_FINITE
    for row in (1, 3, 6):
        assert (mixed.support[row] == -1).all()
        assert (mixed.values[row] == 0).all()
        assert mixed.iterations[row] == 0
    assert mixed.residual_norm[1] == 0
    assert mixed.residual_norm[3].isnan()
    others = [i for i in range(12) if i not in (1, 3, 6)]
    torch.testing.assert_close(mixed.values[others], clean.values[others])
    assert torch.equal(mixed.support[others], clean.support[others])
    assert sum(mixed.counts().values()) == 12


@every_solver
def test_more_atoms_than_needed_leaves_slots_unused(name, solver, device):
    """s twice the true sparsity: the extra slots are marked, not filled with noise."""
    problem = easy(device)
    result = solver.solve(problem.A, problem.y, sparsity=6)
    assert_recovered(result, problem)
    assert (result.status == Status.CONVERGED).all()
    assert ((result.support >= 0).sum(1) == 3).all()
    assert (result.values[result.support < 0] == 0).all()


@every_solver
def test_no_atom_is_picked_twice(name, solver, device):
    A = sgc.create("projection", "gaussian", 12, 40, device=device)
    y = torch.from_numpy(stream(0, "noise").standard_normal((30, 12))).float().to(device)
    result = solver.solve(A, y, sparsity=6)
    for row in result.support.tolist():
        used = [j for j in row if j >= 0]
        assert len(set(used)) == len(used)


@every_solver
def test_repeated_and_zero_columns(name, solver, device):
    """Column 7 stands again at 50, column 9 is zero: y is explained, nothing is NaN."""
    problem = easy(device)
    A = problem.A.to_dense().clone()
    A[:, 50], A[:, 9] = A[:, 7], 0
    x = torch.zeros(1, 160, device=device)
    x[0, 7], x[0, 20] = 2.0, -1.0
    y = x @ A.T
    result = solver.solve(A, y, sparsity=5)
    assert result.values.isfinite().all()
    torch.testing.assert_close(result.to_dense(160) @ A.T, y, rtol=1e-3, atol=1e-3)
    assert 9 not in result.support[result.values.abs() > 1e-3].tolist()


@every_solver
def test_a_companion_is_fitted_on_the_support(name, solver, device):
    """By the least squares of NumPy on the atoms in use; unused slots have no part in it."""
    problem = easy(device)
    draw = stream(0, "companion").standard_normal(problem.y.shape)
    beside = torch.from_numpy(draw).float().to(device)
    y = problem.y.clone()
    y[0] = 2 * problem.A.columns(torch.tensor([5], device=device))[:, 0]  # one atom, two slots left
    beside[1], beside[2, 3] = 0, torch.nan
    found = solver.solve(problem.A, y, sparsity=3, companion=beside)
    dense = problem.A.to_dense().double().cpu().numpy()
    for row in (0, 3, 4, 5):
        used = (found.support[row] >= 0).cpu().numpy()
        columns = dense[:, found.support[row].cpu().numpy()[used]]
        exact = np.linalg.lstsq(columns, beside[row].double().cpu().numpy(), rcond=None)[0]
        got = found.companion[row].double().cpu().numpy()
        np.testing.assert_allclose(got[used], exact, rtol=1e-4, atol=1e-5)
        assert (got[~used] == 0).all()
    assert (found.companion[1] == 0).all()
    assert found.companion[2].isnan().all()
    assert solver.solve(problem.A, y, sparsity=3).companion is None
    with pytest.raises(ValueError, match=r"\(12, 140\), got \(2, 140\)"):
        solver.solve(problem.A, y, sparsity=3, companion=beside[:2])


@every_solver
def test_columns_too_short_to_scale_count_as_zero(name, solver, device):
    problem = easy(device)
    dense = problem.A.to_dense().clone()
    short = int((problem.x() == 0).all(0).nonzero()[0])
    dense[:, short] = 1e-42  # the inverse of its norm is no float32
    result = solver.solve(dense, problem.y, sparsity=3)
    assert result.values.isfinite().all()
    assert not (result.support == short).any()


@every_solver
def test_columns_of_any_length_compete_fairly(name, solver, device):
    problem = easy(device)
    lengths = torch.linspace(0.01, 100, 160, device=device)
    result = solver.solve(problem.A.to_dense() * lengths, problem.y, sparsity=3)
    torch.testing.assert_close(result.to_dense(160) * lengths, problem.x(), rtol=1e-3, atol=1e-4)


@every_solver
def test_more_atoms_than_measurements_is_said(name, solver, device):
    A = sgc.create("projection", "gaussian", 6, 40, device=device)
    y = torch.from_numpy(stream(0, "noise").standard_normal((5, 6))).float().to(device)
    result = solver.solve(A, y, sparsity=10)
    assert result.support.shape == (5, 10)
    assert result.values.isfinite().all()
    assert (result.status != Status.SPARSITY_REACHED).all() or (result.residual_norm > 0).all()
    full = (result.support >= 0).sum(1) >= 6
    assert (result.status[full] == Status.SATURATED).all()


@every_solver
def test_shapes(name, solver, device):
    problem = easy(device)
    single = solver.solve(problem.A, problem.y[0], sparsity=3)
    batch = solver.solve(problem.A, problem.y[:1], sparsity=3)
    assert single.support.shape == (1, 3)
    torch.testing.assert_close(single.values, batch.values)
    empty = solver.solve(problem.A, problem.y[:0], sparsity=3)
    assert empty.support.shape == (0, 3)
    assert empty.to_dense(160).shape == (0, 160)
    strided = problem.y.repeat_interleave(2, 1)[:, ::2]
    assert not strided.is_contiguous()
    strided = solver.solve(problem.A, strided.requires_grad_(), sparsity=3)
    assert_recovered(strided, problem)
    assert not strided.values.requires_grad


@every_solver
@settings(max_examples=15, deadline=None)
@given(k=st.integers(1, 12), extra=st.integers(0, 10), s=st.integers(1, 12), n=st.integers(0, 4))
def test_any_size_gives_a_sound_answer(name, k, extra, s, n):
    made = sgc.create("recovery", name)
    d = k + extra
    device = "cuda" if "cuda" in made.devices else "cpu"
    A = sgc.create("projection", "rademacher", k, d, device=device)
    y = torch.from_numpy(stream(1, k, d, n).standard_normal((n, k))).float().to(device)
    result = made.solve(A, y, sparsity=min(s, d))
    assert result.support.shape == (n, min(s, d))
    assert (result.support >= -1).all()
    assert (result.support < d).all()
    left = y - A.matvec(result.to_dense(d))
    torch.testing.assert_close(left.norm(dim=1), result.residual_norm, rtol=1e-2, atol=1e-3)
    assert (result.residual_norm <= y.norm(dim=1) * (1 + 1e-4)).all()


@every_solver
def test_bad_input_is_refused_with_the_numbers(name, solver, device):
    A = sgc.create("projection", "gaussian", 8, 20, device=device)
    y = torch.zeros(3, 8, device=device)
    for bad in (0, -1, 21):
        with pytest.raises(ValueError, match=f"d=20, got {bad}"):
            solver.solve(A, y, sparsity=bad)
    with pytest.raises(ValueError, match=r"8×20.*\(3, 9\)"):
        solver.solve(A, torch.zeros(3, 9, device=device), sparsity=2)
    with pytest.raises(TypeError, match="int64"):
        solver.solve(A, torch.zeros(3, 8, dtype=torch.int64, device=device), sparsity=2)
    with pytest.raises(TypeError, match="float64"):
        solver.solve(A, y.double(), sparsity=2)
    with pytest.raises(ValueError, match="NaN"):
        solver.solve(torch.full((8, 20), torch.nan, device=device), y, sparsity=2)
    with pytest.raises(TypeError, match="list"):
        solver.solve([[1.0]], y, sparsity=1)
    with pytest.raises(ValueError, match="tolerance"):
        sgc.create("recovery", name, tolerance=2.0)


@every_solver
def test_a_is_prepared_once_and_let_go(name, solver, device, monkeypatch):
    calls = []
    prepare = type(solver).prepare
    monkeypatch.setattr(
        type(solver), "prepare", lambda self, A: (calls.append(1), prepare(self, A))[1]
    )
    problem = easy(device)
    A = problem.A.to_dense().clone()
    assert solver.cached_nbytes(A) == 0
    for _ in range(3):
        solver.solve(A, problem.y, sparsity=3)
    assert len(calls) == 1
    assert solver.cached_nbytes(A) > 0
    A[:, 0] *= 2  # changed in place: prepared anew
    solver.solve(A, problem.y, sparsity=3)
    assert len(calls) == 2
    gone = weakref.ref(A)
    del A
    gc.collect()
    assert gone() is None
    assert not solver._cache


@every_solver
def test_solvers_can_be_copied(name, solver, device):
    problem = easy(device)
    first = solver.solve(problem.A, problem.y, sparsity=3)
    for twin in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        assert torch.equal(twin.solve(problem.A, problem.y, sparsity=3).values, first.values)


@every_solver
def test_tiles_do_not_show(name, solver, device, monkeypatch):
    problem = easy(device, n=50)
    whole = solver.solve(problem.A, problem.y, sparsity=3)
    monkeypatch.setattr(type(solver), "cpu_tile_numel", 7 * 160)
    monkeypatch.setattr(type(solver), "accelerator_tile_numel", 7 * 160)
    tiled = solver.solve(problem.A, problem.y, sparsity=3)
    assert torch.equal(tiled.support, whole.support)
    torch.testing.assert_close(tiled.values, whole.values, rtol=1e-5, atol=1e-6)


def test_result_refuses_a_support_that_does_not_fit():
    problem = easy()
    result = sgc.create("recovery", "omp").solve(problem.A, problem.y, sparsity=3)
    with pytest.raises(ValueError, match="d=1"):
        result.to_dense(1)


def test_every_status_gives_advice():
    assert all(len(status.advice) > 10 for status in Status)


@every_solver
def test_a_tolerance_of_the_user_is_kept_and_reported_truly(name, solver, device):
    problem = easy(device, k=100, s=4)
    loose = sgc.create("recovery", name, tolerance=0.3)
    result = loose.solve(problem.A, problem.y, sparsity=6)
    left = (problem.y - problem.A.matvec(result.to_dense(160))).norm(dim=1)
    torch.testing.assert_close(left, result.residual_norm, rtol=1e-3, atol=1e-4)
    done = result.status == Status.CONVERGED
    assert (left[done] <= 0.301 * problem.y.norm(dim=1)[done]).all()


@every_solver
@pytest.mark.parametrize("factor", [1e-25, 1e25])
def test_columns_of_any_scale(name, solver, device, factor):
    problem = easy(device)
    result = solver.solve(problem.A.to_dense() * factor, problem.y, sparsity=3)
    torch.testing.assert_close(result.to_dense(160) * factor, problem.x(), rtol=1e-3, atol=1e-4)


@every_solver
def test_what_torch_counts_as_a_change_is_noticed(name, solver, device):
    problem = easy(device)
    solver.solve(problem.A, problem.y, sparsity=3)
    problem.A.atoms.copy_(problem.A.atoms.flip(0))
    result = solver.solve(problem.A, problem.y, sparsity=3)
    torch.testing.assert_close(result.to_dense(160).flip(1), problem.x(), rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        unseen = problem.A.to_dense().clone()
    assert solver.solve(unseen, problem.y, sparsity=3).support.shape == (12, 3)
    solver.forget()
    assert solver.cached_nbytes(problem.A) == 0
