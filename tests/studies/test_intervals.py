"""Binomial intervals and logistic fits, against other code."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from studies.figures.intervals import coefficients, fit_logistic, wilson


def test_wilson_solves_its_quadratic_and_covers():
    z = 1.959963984540054
    for good, n in ((0, 7), (3, 7), (7, 7), (512, 1024)):
        low, high = wilson(good, n)
        for end in (low, high):
            assert abs(good / n - end) == pytest.approx(z * (end * (1 - end) / n) ** 0.5, abs=1e-9)
        assert 0 <= low < high <= 1
    draw = np.random.default_rng(5)
    for p in (0.02, 0.5, 0.97):
        ends = [wilson(int(x), 50) for x in draw.binomial(50, p, 2000)]
        assert np.mean([low <= p <= high for low, high in ends]) > 0.92
    for wrong in ((1, 0), (8, 7), (-1, 7)):
        with pytest.raises(ValueError, match="successes must lie"):
            wilson(*wrong)


def test_the_logistic_fit_is_the_likelihoods_maximum():
    x = np.array([3.0, 4, 5, 6, 7, 8, 10])
    n = np.full(7, 4000)
    draw = np.random.default_rng(2)
    good = draw.binomial(n, 1 / (1 + np.exp(-(-14 + 8 * np.log(x)))))
    fit = fit_logistic(x, good, n)
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    features, labels = np.repeat(np.log(x), 2)[:, None], np.tile([1, 0], 7)
    oracle.fit(features, labels, sample_weight=np.stack([good, n - good], 1).ravel())
    assert fit.slope == pytest.approx(oracle.coef_[0, 0], rel=2e-3)  # the prior is one trial
    assert fit.intercept == pytest.approx(oracle.intercept_[0], rel=2e-3)
    for level in (0.5, 0.9, 0.95):
        truth = np.exp((14 + np.log(level / (1 - level))) / 8)
        found = fit.crossing(level)
        assert found.low < truth < found.high
        assert found.high - found.low < 0.5
        assert fit.rate(found.at) == pytest.approx(level)


def test_many_fits_at_once_are_the_fits_one_by_one():
    x, draw = [3.0, 5, 8, 12], np.random.default_rng(6)
    n = draw.integers(1, 60, (20, 4))
    good = draw.binomial(n, [0.0, 0.2, 0.9, 1.0])
    good[0], good[1] = 0, n[1]
    good[2], n[2] = (0, 3, 0, 0), (0, 7, 0, 0)  # one x says nothing of a slope
    found = coefficients(x, good, n)
    assert np.isnan(found[:3]).all()
    for got, a, b in zip(found[3:], good[3:], n[3:], strict=True):
        fit = fit_logistic(x, a.tolist(), b.tolist())
        assert got == pytest.approx((fit.intercept, fit.slope), rel=1e-6)


def test_the_intervals_of_crossings_cover():
    x, n = np.array([3.0, 4, 5, 6, 7, 8]), np.full(6, 60)
    draw, truth, inside = np.random.default_rng(8), np.exp((14 + np.log(9)) / 9), 0
    for _ in range(100):
        good = draw.binomial(n, 1 / (1 + np.exp(-(-14 + 9 * np.log(x)))))
        found = fit_logistic(x, good, n).crossing(0.9)
        inside += found.low < truth < found.high
    assert inside >= 88


def test_a_fit_without_overlap_is_finite_and_says_what_is_not_reached():
    x = [3, 4, 5, 6]
    sharp = fit_logistic(x, [0, 0, 10, 10], [10] * 4)
    assert 4 < sharp.crossing(0.5).at < 5
    assert 0 < sharp.slope < 100
    low = fit_logistic(x, [0, 0, 1, 2], [10] * 4)
    assert low.crossing(0.95) is None
    assert fit_logistic(x, [0] * 4, [10] * 4) is fit_logistic(x, [10] * 4, [10] * 4) is None
    with pytest.raises(ValueError, match="two positive x"):
        fit_logistic([3, 3], [1, 2], [4, 4])


def inverse_information(fit, x, trials):
    """Of (a, b) in log x at the fit, summed trial by trial."""
    found = np.zeros((2, 2))
    for at, n in zip(x, trials, strict=True):
        p, row = fit.rate(at), np.array([1, np.log(at)])
        found += n * p * (1 - p) * np.outer(row, row)
    return np.linalg.inv(found)


def deviance(fit, x, good, trials):
    """``2 Σ (r ln(r/np) + (n − r) ln((n − r)/n(1 − p)))``, where 0 ln 0 is 0."""
    total = 0.0
    for at, r, n in zip(x, good, trials, strict=True):
        p = fit.rate(at)
        for count, share in ((r, p), (n - r, 1 - p)):
            total += 2 * count * np.log(count / (n * share)) if count else 0.0
    return total


def test_rates_off_the_curve_widen_the_covariance_by_the_deviance_over_n_less_2():
    """Failures and successes both have their part, also where there are none of either."""
    x, n = [2.0, 3, 5, 8, 12], [60, 40, 60, 50, 60]
    for good in ([2, 25, 12, 45, 44], [0, 30, 20, 50, 49], [30, 10, 40, 30, 60]):
        fit = fit_logistic(x, good, n)
        excess = deviance(fit, x, good, n) / (5 - 2)
        assert excess > 3
        wanted = excess * inverse_information(fit, x, n)
        assert np.array(fit.covariance) == pytest.approx(wanted, rel=1e-6)


def test_rates_nearer_to_the_curve_than_chance_do_not_narrow_it():
    x, n = np.array([2.0, 3, 5, 8, 12]), np.full(5, 1000)
    good = np.round(n / (1 + np.exp(4 - 3 * np.log(x)))).astype(int)
    fit = fit_logistic(x.tolist(), good.tolist(), n.tolist())
    assert deviance(fit, x, good, n) < 0.01
    assert np.array(fit.covariance) == pytest.approx(inverse_information(fit, x, n), rel=1e-6)


def test_two_rates_leave_no_deviance_to_widen_by():
    """n − 2 = 0: a line fits both but for the prior's pull."""
    x, n, good = [3.0, 6.0], [50, 50], [10, 40]
    fit = fit_logistic(x, good, n)
    assert np.array(fit.covariance) == pytest.approx(inverse_information(fit, x, n), rel=1e-6)


def test_the_interval_of_a_crossing_is_the_delta_methods():
    """Var log x̂ = ∇ᵀ C ∇ of log x = (logit p − a)/b, the gradient by central differences."""
    x, n, good = [2.0, 3, 5, 8, 12], [60, 40, 60, 50, 60], [2, 25, 12, 45, 44]
    fit, logit = fit_logistic(x, good, n), np.log(0.7 / 0.3)
    a, b, h = fit.intercept, fit.slope, 1e-6
    log_x = lambda a, b: (logit - a) / b  # noqa: E731
    slope = [log_x(a + h, b) - log_x(a - h, b), log_x(a, b + h) - log_x(a, b - h)]
    slope = np.array(slope) / (2 * h)
    half = 1.96 * np.sqrt(slope @ np.array(fit.covariance) @ slope)
    found = fit.crossing(0.7)
    assert np.log([found.low, found.at, found.high]) == pytest.approx(
        [log_x(a, b) - half, log_x(a, b), log_x(a, b) + half], rel=1e-6
    )
