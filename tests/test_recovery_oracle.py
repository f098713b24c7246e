"""OMP against scikit-learn in float64, and the solvers' own theory."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp

import sgc
from recovery import Status
from recovery.select import argmax_excluding
from sgc.problems import sparse_problem

OMPS = [
    ("omp", {}),
    ("omp-inverse-cholesky", {"precompute_gram": True}),
    ("omp-inverse-cholesky", {"precompute_gram": False}),
]
every_omp = pytest.mark.parametrize(("name", "options"), OMPS)


def oracle(A, y, s):
    """Dense coefficients; scikit-learn takes the columns to be of norm one."""
    norms = A.norm(dim=0)
    found = orthogonal_mp((A / norms).numpy(), y.T.numpy(), n_nonzero_coefs=s)
    return torch.from_numpy(np.atleast_2d(found.T)) / norms


@every_omp
@pytest.mark.parametrize("law", ["gaussian", "signs", "power-law"])
def test_same_support_and_coefficients_as_scikit_learn(name, options, law):
    problem = sparse_problem(
        d=256, k=128, sparsity=4, signals=40, law=law, projection="gaussian", dtype=torch.float64
    )
    expected = oracle(problem.A.to_dense(), problem.y, 4)
    assert torch.equal(expected != 0, problem.x() != 0)  # inside the exact-recovery regime
    result = sgc.create("recovery", name, **options).solve(problem.A, problem.y, sparsity=4)
    dense = result.to_dense(256)
    assert torch.equal(dense != 0, expected != 0)
    assert (dense - expected).abs().max() <= 1e-10 * expected.abs().max()


@every_omp
def test_same_choices_as_scikit_learn_on_noise(name, options):
    """Outside the exact regime too: signals that are not sparse at all, atom by atom."""
    A = sgc.create("projection", "gaussian", 40, 90, dtype=torch.float64).to_dense()
    y = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 40)))
    expected = oracle(A, y, 10)
    result = sgc.create("recovery", name, **options).solve(A, y, sparsity=10)
    torch.testing.assert_close(result.to_dense(90), expected, rtol=1e-9, atol=1e-10)
    assert (result.status == Status.SPARSITY_REACHED).all()


@every_omp
def test_stops_at_a_tolerance(name, options):
    problem = sparse_problem(
        d=256,
        k=128,
        sparsity=4,
        signals=10,
        law="power-law",
        projection="gaussian",
        dtype=torch.float64,
    )
    loose = sgc.create("recovery", name, tolerance=0.9, **options)
    result = loose.solve(problem.A, problem.y, sparsity=4)
    assert (result.iterations < 4).all()
    assert (result.status == Status.CONVERGED).all()


@every_omp
def test_repeated_atom_ends_the_row_and_says_so(name, options):
    """Two atoms, one measurement direction each, and a y that neither explains."""
    A = torch.zeros(3, 4, dtype=torch.float64)
    A[0, 0] = A[0, 1] = A[1, 2] = A[1, 3] = 1
    y = torch.tensor([[2.0, 1.0, 5.0]], dtype=torch.float64)
    result = sgc.create("recovery", name, **options).solve(A, y, sparsity=4)
    assert sorted(result.support[0].tolist()) == [-1, -1, 0, 2]
    assert result.status[0] == Status.DEPENDENT_ATOMS
    assert result.residual_norm[0] == 5


@pytest.mark.parametrize("d", [3, 64, 255, 256, 300, 4096])
def test_argmax_excluding(d):
    score = torch.from_numpy(np.random.default_rng(d).standard_normal((50, d))).float()
    order = score.abs().argsort(1, descending=True)
    assert torch.equal(argmax_excluding(score.clone(), order[:, :0]), order[:, 0])
    assert torch.equal(argmax_excluding(score.clone(), order[:, :2]), order[:, 2])
    zero = torch.zeros(2, d)
    assert (argmax_excluding(zero, torch.zeros(2, 1, dtype=torch.int64)) != 0).all()


def test_cosamp_is_exact_where_k_is_ample():
    """δ_4s ≤ 0.1 cannot be checked, but k = 40 s is far inside every bound known in practice."""
    problem = sparse_problem(
        d=512,
        k=320,
        sparsity=8,
        signals=30,
        law="signs",
        projection="gaussian",
        dtype=torch.float64,
    )
    result = sgc.create("recovery", "cosamp").solve(problem.A, problem.y, sparsity=8)
    assert (result.status == Status.CONVERGED).all()
    torch.testing.assert_close(result.to_dense(512), problem.x(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["iht", "niht"])
def test_thresholding_recovers_a_near_isometry(name):
    """With ‖Φᵀ Φ − I‖ small on all sparse vectors (k close to d, SRHT) one support is stable."""
    problem = sparse_problem(
        d=128, k=112, sparsity=5, signals=30, law="signs", projection="srht", dtype=torch.float64
    )
    result = sgc.create("recovery", name).solve(problem.A, problem.y, sparsity=5)
    assert (result.status == Status.CONVERGED).all()
    torch.testing.assert_close(result.to_dense(128), problem.x(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["iht", "niht"])
def test_thresholding_never_diverges(name):
    """A with norm far above 1 and signals that are not sparse: the residual stays below ‖y‖."""
    A = 50 * sgc.create("projection", "gaussian", 20, 200, dtype=torch.float64).to_dense()
    y = torch.from_numpy(np.random.default_rng(0).standard_normal((20, 20)))
    result = sgc.create("recovery", name).solve(A, y, sparsity=5)
    assert (result.residual_norm <= y.norm(dim=1)).all()
