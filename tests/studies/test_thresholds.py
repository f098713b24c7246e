"""Thresholds of theory, against integration and linear programming."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import linprog, minimize_scalar
from scipy.stats import norm

from studies.measures.thresholds import donoho_tanner, l1_kappa, omp_kappa, soft_threshold_risk


def test_the_l1_threshold_has_its_known_value_and_limits():
    assert donoho_tanner(0.5) == pytest.approx(0.3858, abs=3e-4)
    assert donoho_tanner(1 - 1e-9) == pytest.approx(1, abs=1e-2)
    for d, s in ((2048, 31), (4096, 8), (100, 20)):  # the two forms are one curve
        delta = s * l1_kappa(d, s) / d
        assert donoho_tanner(delta) == pytest.approx(1 / l1_kappa(d, s), rel=1e-4)
    ratios = [l1_kappa(10**n, 1) / (2 * np.log(10**n)) for n in (3, 6, 9)]
    assert ratios == sorted(ratios)  # 2 ln(d/s) as s/d → 0, from below
    assert 0.75 < ratios[-1] < 1
    assert soft_threshold_risk(1 - 1e-9) == pytest.approx(1, abs=1e-4)
    assert omp_kappa(2048, 31) == pytest.approx(15.22, abs=0.01)


@pytest.mark.parametrize("delta", [0.25, 0.6])
def test_basis_pursuit_passes_from_success_to_failure_there(delta):
    draw, d = np.random.default_rng(4), 100
    k = round(delta * d)

    def solved(s):
        A, x = draw.standard_normal((k, d)), np.zeros(d)
        x[:s] = draw.standard_normal(s)
        split = linprog(np.ones(2 * d), A_eq=np.hstack([A, -A]), b_eq=A @ x).x
        return np.abs(split[:d] - split[d:] - x).max() < 1e-5

    threshold = donoho_tanner(delta) * k
    assert sum(solved(round(0.7 * threshold)) for _ in range(10)) >= 8
    assert sum(solved(round(1.35 * threshold)) for _ in range(10)) <= 2


def test_the_risk_is_that_of_soft_thresholding():
    """By integration: E(η(Z) − 0)² off the support, 1 + τ² far out on it."""

    def risk(tau):
        off = quad(lambda z: (z - tau) ** 2 * norm.pdf(z), tau, 30)[0]
        return 0.1 * (1 + tau**2) + 0.9 * 2 * off

    assert soft_threshold_risk(0.1) == pytest.approx(minimize_scalar(risk, (0.5, 1.5)).fun)
