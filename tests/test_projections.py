"""Laws that every registered projection obeys."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sgc
from projections import DenseOperator, Projection
from projections.seeding import stream
from projections.srht import fast_walsh_hadamard
from tests.conftest import makeable

NAMES = makeable("projection")
every_projection = pytest.mark.parametrize("name", NAMES)


def make(name, k, d, **options):
    if getattr(sgc.registry.resolve("projection", name), "square", False):
        k = d
    return sgc.create("projection", name, k, d, **options)


def normal(*shape, seed=1, dtype=torch.float64):
    return torch.from_numpy(stream(seed, "test").standard_normal(shape)).to(dtype)


@every_projection
@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 40), extra=st.integers(0, 60), batch=st.integers(0, 3))
def test_adjoint_columns_and_dense_agree(name, k, extra, batch):
    A = make(name, k, k + extra, dtype=torch.float64)
    k, d = A.shape
    x, y = normal(batch, 2, d), normal(batch, 2, k, seed=2)
    dense = A.to_dense()
    assert isinstance(A, Projection)
    assert dense.shape == (k, d)
    torch.testing.assert_close(A.matvec(x), x @ dense.T)
    torch.testing.assert_close(A.rmatvec(y), y @ dense)
    torch.testing.assert_close(A.column_norms(), dense.norm(dim=0))
    index = torch.from_numpy(stream(3).integers(0, d, (batch, 4)))
    torch.testing.assert_close(A.columns(index), dense[:, index].movedim(0, 1))


@every_projection
def test_energy_is_kept_on_average(name):
    """E‖A x‖² = ‖x‖² over the seeds: the mean of 400 ratios lies within 5 standard errors of 1."""
    ratios = []
    for seed in range(400):
        A = make(name, 24, 96, seed=seed, dtype=torch.float64)
        x = torch.from_numpy(np.random.default_rng(seed).standard_normal(A.shape[1]))
        ratios.append(float(A.matvec(x).square().sum() / x.square().sum()))
    ratios = np.array(ratios)
    assert abs(ratios.mean() - 1) <= 5 * ratios.std() / math.sqrt(len(ratios)) + 1e-12


@every_projection
def test_seed_decides_whatever_dtype_and_device(name, device):
    a = make(name, 20, 50, seed=7, dtype=torch.float64)
    b = make(name, 20, 50, seed=7, dtype=torch.float32, device=device)
    torch.testing.assert_close(b.to_dense().double().cpu(), a.to_dense(), rtol=1e-6, atol=1e-7)
    assert b.device.type == device.type
    if not a.square:
        other = make(name, 20, 50, seed=8, dtype=torch.float64)
        assert not torch.allclose(other.to_dense(), a.to_dense())


def test_ensembles_and_data_of_one_seed_are_unrelated():
    gaussian = sgc.create("projection", "gaussian", 32, 256, seed=5, dtype=torch.float64).to_dense()
    data = torch.from_numpy(np.random.default_rng(5).standard_normal(256))
    row = gaussian[0] / gaussian[0].norm()
    assert abs(float(row @ data) / float(data.norm())) < 0.3


@every_projection
def test_structured_operators_store_no_matrix(name):
    A = make(name, 512, 4096)
    if A.structured:
        assert A.nbytes < 16 * sum(A.shape)
    else:
        assert A.nbytes == 4 * A.shape[0] * A.shape[1]


def test_spherical_columns_are_gaussian_ones_over_their_norms():
    for k in (1, 7, 1000):
        spherical = sgc.create("projection", "spherical", k, 1500, seed=3, dtype=torch.float64)
        gaussian = sgc.create("projection", "gaussian", k, 1500, seed=3, dtype=torch.float64)
        columns = gaussian.to_dense()
        torch.testing.assert_close(spherical.to_dense(), columns / columns.norm(dim=0))


def test_a_spherical_column_of_zeros_is_some_direction(monkeypatch):
    class Zeros:
        def standard_normal(self, shape, dtype):
            return np.zeros(shape, dtype)

    monkeypatch.setattr("projections.spherical.stream", lambda *_: Zeros())
    assert (
        sgc.create("projection", "spherical", 3, 2).to_dense().tolist() == [[1, 1]] + [[0, 0]] * 2
    )


@pytest.mark.parametrize("solver", ["omp", "niht"])
def test_solvers_share_spherical_atoms(solver, device):
    """No copy of A and no norms beside it."""
    A = sgc.create("projection", "spherical", 512, 4096, device=device)
    made = sgc.create("recovery", solver)
    made.solve(A, A.columns(torch.tensor([5, 9], device=device)).sum(1), sparsity=2)
    assert made.cached_nbytes(A) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_spherical_norms_are_one_until_columns_are_changed(dtype):
    A = sgc.create("projection", "spherical", 700, 90, dtype=dtype)
    assert (A.column_norms() == 1).all()
    A.atoms[4] *= 3
    norms = A.column_norms()
    assert float(norms[4]) == pytest.approx(3, rel=0.02)
    A.atoms[5, 6] = torch.nan
    assert A.column_norms()[5].isnan()


def test_a_solver_notices_spherical_columns_that_were_changed():
    A = sgc.create("projection", "spherical", 60, 256, dtype=torch.float64)
    solver = sgc.create("recovery", "omp")
    x = torch.zeros(256, dtype=torch.float64)
    x[[3, 77, 200]] = 1
    for factor in (1, 100):
        A.atoms[77] *= factor
        found = solver.solve(A, A.matvec(x), sparsity=3)
        assert sorted(found.support[0].tolist()) == [3, 77, 200]
        torch.testing.assert_close(found.to_dense(256)[0], x)
    A.atoms[9] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        solver.solve(A, torch.ones(60, dtype=torch.float64), sparsity=3)


@every_projection
def test_bad_sizes_and_inputs_are_refused_with_numbers(name):
    with pytest.raises(ValueError, match="k=0"):
        sgc.create("projection", name, 0, 5)
    with pytest.raises(TypeError, match="int64"):
        make(name, 4, 8, dtype=torch.int64)
    A = make(name, 4, 8)
    with pytest.raises(ValueError, match="9"):
        A.matvec(torch.zeros(9))
    with pytest.raises(ValueError, match="9"):
        A.rmatvec(torch.zeros(2, 9))


def test_particular_limits():
    with pytest.raises(ValueError, match="k=3, d=4"):
        sgc.create("projection", "identity", 3, 4)
    with pytest.raises(ValueError, match="k=17"):
        sgc.create("projection", "srht", 17, 16)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        DenseOperator(torch.zeros(3))


@settings(max_examples=30, deadline=None)
@given(power=st.integers(0, 11), batch=st.integers(0, 3))
def test_hadamard_equals_scipy(power, batch):
    p = 2**power
    x = normal(batch, p)
    torch.testing.assert_close(
        fast_walsh_hadamard(x), x @ torch.from_numpy(scipy.linalg.hadamard(p)).double()
    )


def test_hadamard_needs_a_power_of_two():
    with pytest.raises(ValueError, match="12"):
        fast_walsh_hadamard(torch.zeros(12))


@pytest.mark.parametrize("d", [16, 100])
def test_srht_rows_are_orthogonal(d):
    """Sampled without return from an orthogonal matrix: with d a power of two, A Aᵀ = (d/k) I."""
    A = sgc.create("projection", "srht", 8, d, dtype=torch.float64)
    padded = 1 << (d - 1).bit_length()
    full = sgc.create("projection", "srht", 8, padded, dtype=torch.float64)
    torch.testing.assert_close(full.matvec(full.to_dense()), torch.eye(8).double() * padded / 8)
    assert A.to_dense().abs().sub(1 / math.sqrt(8)).abs().max() < 1e-12
