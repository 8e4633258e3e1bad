"""Utilities, posteriors and values against brute force and SciPy."""

import numpy as np
import pytest
from scipy import integrate, stats

from cero import posterior
from cero.utility import UTILITIES

SCALE = 40.0


@pytest.fixture(params=UTILITIES)
def utility(request):
    return UTILITIES[request.param]


def test_slope_is_the_derivative_and_starts_at_one(utility):
    y, h = np.linspace(0.5, 300, 50), 1e-5
    difference = (utility.value(y + h, SCALE) - utility.value(y - h, SCALE)) / (2 * h)
    np.testing.assert_allclose(utility.slope(y, SCALE), difference, rtol=1e-6)
    assert utility.slope(0.0, SCALE) == 1 and utility.value(0.0, SCALE) == 0


def test_demand_inverts_slope(utility):
    y = np.linspace(0, 300, 50)
    np.testing.assert_allclose(utility.demand(utility.slope(y, SCALE), SCALE), y, atol=1e-9)


def test_conjugate_by_brute_force(utility):
    y = np.linspace(0, 4000, 2_000_001)
    for slope in (0.05, 0.3, 0.7, 1.0):
        brute = np.min(slope * y - utility.value(y, SCALE))
        assert utility.conjugate(slope, SCALE) == pytest.approx(brute, abs=1e-5)


def test_biduality(utility):
    slopes = np.linspace(1e-4, 1, 1_000_001)
    for y in (0.0, 5.0, 60.0, 200.0):
        assert np.min(slopes * y - utility.conjugate(slopes, SCALE)) == pytest.approx(utility.value(y, SCALE), abs=1e-4)


SHAPES = [(1, 1), (0.5, 0.5), (0.3, 7.0), (12.0, 2.5), (40.0, 40.0)]


def expectation(function, a, b):
    """E[f(p)], p ~ Beta(a, b), by quadrature over the distribution's quantiles (no pole at the ends)."""
    return integrate.quad(lambda u: function(stats.beta.ppf(u, a, b)), 0, 1, limit=200, epsabs=1e-10)[0]


@pytest.mark.parametrize("a, b", SHAPES)
def test_values_are_expectations(a, b):
    n = 8
    signal = expectation(lambda p: 1 - p**n - (1 - p) ** n, a, b)
    expected = {
        "variance": expectation(lambda p: p * (1 - p), a, b),
        "signal": signal,
        "signal_hard": signal * b / (a + b),
        "knapsack": expectation(lambda p: (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2, a, b),
        "inverse_sqrt": np.sqrt((a + b) / a),
    }
    assert set(expected) == set(posterior.VALUES)
    for name, value in expected.items():
        result = posterior.VALUES[name](np.float64(a), np.float64(b), n)
        assert result == pytest.approx(value, rel=1e-6), name
        assert 0 <= result <= posterior.BOUNDS[name]


def test_posterior_update_is_bayes():
    a, b, won, n = 2.0, 3.0, 4, 9
    grid = np.linspace(1e-6, 1 - 1e-6, 200_001)
    weights = stats.beta.pdf(grid, a, b) * stats.binom.pmf(won, n, grid)
    mean = (grid * weights).sum() / weights.sum()
    assert posterior.mean(1 + posterior.updated(a - 1, 1.0, won), 1 + posterior.updated(b - 1, 1.0, n - won)) == (
        pytest.approx(mean, rel=1e-6)
    )
