"""Utilities, posteriors and values against brute force and SciPy."""

import numpy as np
import pytest
from scipy import integrate, stats

from cero.core import beta, duals
from cero.core.utility import UTILITIES
from cero.research.theory.offline import optimum, total_utility

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
        assert np.min(slopes * y - utility.conjugate(slopes, SCALE)) == pytest.approx(
            utility.value(y, SCALE), abs=1e-4
        )


def conjugate(utility, price, value):
    """U_*(m) of U = v u, as the docstring of cero.core.utility has it."""
    return value * utility.conjugate(price / value, SCALE)


@pytest.mark.parametrize("value", [0.01, 1 / 6, 0.25])
def test_conjugate_and_biduality_with_a_value(utility, value):
    y, prices = np.linspace(0, 4000, 400_001), value * np.linspace(1e-4, 1, 400_001)
    for slope in (0.1, 0.5, 1.0):
        brute = np.min(slope * value * y - value * utility.value(y, SCALE))
        assert conjugate(utility, slope * value, value) == pytest.approx(brute, abs=1e-5)
    for at in (0.0, 5.0, 60.0):
        bidual = np.min(prices * at - conjugate(utility, prices, value))
        assert bidual == pytest.approx(value * utility.value(at, SCALE), abs=1e-4)


@pytest.mark.parametrize("value", [0.01, 1 / 6, 0.25])
def test_gradient_of_the_conjugate_is_demand(utility, value):
    """d/dm U_*(m) = y*(m), by central differences."""
    prices, h = value * np.linspace(0.02, 0.98, 40), 1e-7 * value
    gradient = (conjugate(utility, prices + h, value) - conjugate(utility, prices - h, value)) / (2 * h)
    np.testing.assert_allclose(utility.demand(prices / value, SCALE), gradient, rtol=1e-6, atol=1e-5)


VALUES_OF_EIGHT = np.random.default_rng(4).uniform(0.02, 0.25, 8)
LOW, HIGH, BUDGET = 10.0, 120.0, 320.0


def best_response(utility, price):
    """argmax over [LOW, HIGH] of U_i(y) - lam y."""
    return np.clip(utility.demand(np.minimum(price / VALUES_OF_EIGHT, 1.0), SCALE), LOW, HIGH)


def dual_function(utility, price):
    """D(lam) = lam B + sum_i max_y { U_i(y) - lam y }: an upper bound on the optimum for every lam >= 0."""
    y = best_response(utility, price)
    return price * BUDGET + total_utility(VALUES_OF_EIGHT, y, utility, SCALE) - price * y.sum()


def test_best_response_is_brute_force(utility):
    y = np.linspace(LOW, HIGH, 200_001)
    for price in (0.005, 0.03, 0.1, 0.3):
        brute = [y[np.argmax(v * utility.value(y, SCALE) - price * y)] for v in VALUES_OF_EIGHT]
        np.testing.assert_allclose(best_response(utility, price), brute, atol=0.01)


@pytest.mark.parametrize("price", [0.004, 0.02, 0.05, 0.11, 0.2])
def test_gradient_of_the_dual_function_is_budget_minus_demand(utility, price):
    h = 1e-7
    gradient = (dual_function(utility, price + h) - dual_function(utility, price - h)) / (2 * h)
    demand = best_response(utility, price)
    assert BUDGET - demand.sum() == pytest.approx(gradient, abs=1e-4)
    # price_step is the projected gradient step on D / N.
    stepped = duals.price_step(price, BUDGET / 8, demand.mean(), 1e-3, 0.25)
    assert stepped == pytest.approx(np.clip(price - 1e-3 * gradient / 8, 0, 0.25), abs=1e-7)


def test_strong_duality(utility):
    """The offline optimum's price minimises the dual function, whose minimum is the optimum."""
    best, price = optimum(VALUES_OF_EIGHT, BUDGET, LOW, HIGH, utility, SCALE)
    top = total_utility(VALUES_OF_EIGHT, best, utility, SCALE)
    bounds = [dual_function(utility, p) for p in np.linspace(1e-4, 0.25, 500)]
    assert dual_function(utility, price) == pytest.approx(top, rel=1e-9)
    assert min(bounds) >= top * (1 - 1e-12)


def saddle(utility, slopes, price, epochs, anchor, rho):
    """The mean over prompts of max_x { (mu - lam) x - (rho/2) (x - anchor)^2 - U_*(mu)/K } + lam nbar."""
    mu = VALUES_OF_EIGHT * slopes
    x = anchor + (mu - price) / rho
    gain = (mu - price) * x - rho / 2 * (x - anchor) ** 2
    return (gain - conjugate(utility, mu, VALUES_OF_EIGHT) / epochs).mean() + price * 8.0


def test_both_steps_are_gradient_steps_on_the_saddle(utility):
    """Of the Lagrangian with the proximal response put in, by central differences in every s_i and in lam."""
    slopes, price, epochs, anchor, h = np.linspace(0.2, 0.9, 8), 0.05, 10, 8.0, 1e-6
    nbar, unit, strength = 8, 0.06, 2.0
    rho = unit / (strength * nbar)
    x = duals.response(anchor, VALUES_OF_EIGHT * slopes, price, unit, nbar, strength)

    up, down = (saddle(utility, slopes, price + e, epochs, anchor, rho) for e in (h, -h))
    stepped = duals.price_step(price, nbar, x.mean(), 1e-4, 0.25)
    assert stepped == pytest.approx(price - 1e-4 * (up - down) / (2 * h), abs=1e-9)

    moved = duals.slope_step(slopes, x, utility.demand(slopes, SCALE) / epochs, 1e-3)
    for i in range(8):
        nudge = h * (np.arange(8) == i)
        up, down = (saddle(utility, slopes + e, price, epochs, anchor, rho) for e in (nudge, -nudge))
        gradient = 8 * (up - down) / (2 * h) / VALUES_OF_EIGHT[i]  # of a mean over 8, in units of v_i
        assert moved[i] == pytest.approx(slopes[i] - 1e-3 * gradient, abs=1e-6)


def test_steps_are_projected(utility):
    """Onto slopes in (0, 1] and prices in [0, vmax]."""
    demand = utility.demand(np.array([0.5, 0.5]), SCALE) / 10
    np.testing.assert_array_equal(
        duals.slope_step(np.full(2, 0.5), [1e3, -1e3], demand, 1.0), [duals.SLOPE_FLOOR, 1.0]
    )
    assert [duals.price_step(0.1, 8, x, 1.0, 0.25) for x in (1e3, -1e3)] == [0.25, 0.0]


def test_optimum_and_conjugate_by_cvxpy(utility):
    cvxpy = pytest.importorskip("cvxpy")
    forms = {
        "exp": lambda y: SCALE * (1 - cvxpy.exp(-y / SCALE)),
        "rational": lambda y: SCALE - SCALE**2 * cvxpy.inv_pos(y + SCALE),
        "log": lambda y: SCALE * cvxpy.log1p(y / SCALE),
    }
    y = cvxpy.Variable(8)
    objective = cvxpy.sum(cvxpy.multiply(VALUES_OF_EIGHT, forms[utility.name](y)))
    problem = cvxpy.Problem(cvxpy.Maximize(objective), [cvxpy.sum(y) <= BUDGET, y >= LOW, y <= HIGH])
    best, price = optimum(VALUES_OF_EIGHT, BUDGET, LOW, HIGH, utility, SCALE)
    assert problem.solve() == pytest.approx(total_utility(VALUES_OF_EIGHT, best, utility, SCALE), rel=1e-5)
    np.testing.assert_allclose(y.value, best, atol=0.05)
    assert problem.constraints[0].dual_value == pytest.approx(price, rel=1e-3)

    z = cvxpy.Variable()
    conjugate = cvxpy.Problem(cvxpy.Minimize(0.4 * z - forms[utility.name](z)), [z >= 0])
    assert conjugate.solve() == pytest.approx(utility.conjugate(0.4, SCALE), rel=1e-5)


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
        "variance_hard": expectation(lambda p: p * (1 - p), a, b) * b / (a + b),
        "signal": signal,
        "signal_hard": signal * b / (a + b),
        "knapsack": expectation(lambda p: (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2, a, b),
        "inverse_sqrt": np.sqrt((a + b) / a),
    }
    assert set(expected) == set(beta.VALUES)
    for name, value in expected.items():
        result = beta.VALUES[name](np.float64(a), np.float64(b), n)
        assert result == pytest.approx(value, rel=1e-6), name
        assert 0 <= result <= beta.BOUNDS[name]


def test_posterior_update_is_bayes():
    a, b, won, n = 2.0, 3.0, 4, 9
    grid = np.linspace(1e-6, 1 - 1e-6, 200_001)
    weights = stats.beta.pdf(grid, a, b) * stats.binom.pmf(won, n, grid)
    mean = (grid * weights).sum() / weights.sum()
    assert beta.mean(1 + beta.updated(a - 1, 1.0, won), 1 + beta.updated(b - 1, 1.0, n - won)) == (
        pytest.approx(mean, rel=1e-6)
    )
