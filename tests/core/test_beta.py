"""Posteriors and values against SciPy, mpmath and quadrature."""

from typing import get_args

import mpmath
import numpy as np
import pytest
from scipy import integrate, special, stats

from cero import make_allocator
from cero.core import beta

EXTREMES = [1e-3, 0.1, 1.0, 7.3, 1e3, 1e6]
GROUPS = [1, 2, 8, 64, 512]


def exact(a, b, terms):
    """sum of coefficient x E[p^i (1-p)^j] over `terms`, with 60 digits; E[...] = B(a+i, b+j) / B(a, b)."""
    with mpmath.workdps(60):
        a, b = mpmath.mpf(a), mpmath.mpf(b)
        return sum(c * mpmath.beta(a + i, b + j) / mpmath.beta(a, b) for c, i, j in terms)


TERMS = {
    "variance": lambda n: [(1, 1, 1)],
    "signal": lambda n: [(1, 0, 0), (-1, n, 0), (-1, 0, n)],
    "knapsack": lambda n: [(1, 1, 2), (-1, n + 1, 2), (-1, 1, n + 2)],
}
INTEGRANDS = {
    "variance": lambda p, n: p * (1 - p),
    "signal": lambda p, n: 1 - p**n - (1 - p) ** n,
    "knapsack": lambda p, n: (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2,
}


@pytest.mark.parametrize("value", TERMS)
@pytest.mark.parametrize("n", GROUPS)
def test_values_are_exact_for_all_a_b_n(value, n):
    a, b = (grid.ravel() for grid in np.meshgrid(EXTREMES, EXTREMES))
    ours = beta.VALUES[value](a, b, n)
    assert ours.shape == a.shape
    for x, y, got in zip(a, b, ours, strict=True):
        want = float(exact(x, y, TERMS[value](n)))
        assert got == pytest.approx(want, rel=1e-9, abs=1e-40), (x, y)


@pytest.mark.parametrize("value", INTEGRANDS)
@pytest.mark.parametrize("a, b", [(0.4, 0.6), (1, 1), (3.5, 1.2), (40, 90)])
@pytest.mark.parametrize("n", [2, 8, 64])
def test_values_are_the_expectations_they_say(value, a, b, n):
    want, _ = (
        integrate.quad(
            lambda p: INTEGRANDS[value](p, n),
            0,
            1,
            weight="alg",
            wvar=(a - 1, b - 1),
            epsabs=1e-13,
            epsrel=1e-12,
        )
        if a + b < 10
        else integrate.quad(lambda p: INTEGRANDS[value](p, n) * stats.beta.pdf(p, a, b), 0, 1, limit=200)
    )
    if a + b < 10:
        want /= special.beta(a, b)
    assert float(beta.VALUES[value](np.float64(a), np.float64(b), n)) == pytest.approx(want, rel=1e-7)


def test_derived_values():
    a, b = np.array([0.3, 2.0, 50.0]), np.array([4.0, 2.0, 1.0])
    hard = b / (a + b)
    np.testing.assert_allclose(beta.signal_hard_value(a, b, 8), beta.signal_value(a, b, 8) * hard)
    np.testing.assert_allclose(beta.variance_hard_value(a, b, 8), beta.variance_value(a, b, 8) * hard)
    np.testing.assert_allclose(beta.inverse_sqrt_value(a, b, 8), 1 / np.sqrt(a / (a + b)))


def test_values_are_named_as_their_type_says():
    assert tuple(beta.VALUES) == get_args(beta.Value) and set(beta.BOUNDS) == set(beta.VALUES)


@pytest.mark.parametrize("value", beta.VALUES)
@pytest.mark.parametrize("n", GROUPS)
def test_values_are_finite_and_within_their_bounds(value, n):
    a, b = np.meshgrid(EXTREMES, EXTREMES)
    values = beta.VALUES[value](a, b, n)
    assert np.isfinite(values).all() and (values >= 0).all()
    assert (values <= beta.BOUNDS[value] * (1 + 1e-12)).all()


def test_a_certain_prompt_has_little_value_and_a_group_of_one_no_signal():
    assert beta.signal_value(np.array([1e6]), np.array([1e-3]), 8)[0] < 1e-7
    assert beta.signal_value(np.array([1.0]), np.array([1.0]), 1)[0] == 0


@pytest.mark.parametrize("s, n", [(0, 8), (8, 8), (3, 8), (2.5, 4), (0, 0), (100, 512)])
def test_log_predictive_is_the_beta_binomials(s, n):
    a, b = (grid.ravel() for grid in np.meshgrid(EXTREMES, EXTREMES))
    with mpmath.workdps(40):
        want = [
            float(mpmath.log(mpmath.beta(x + s, y + n - s) / mpmath.beta(x, y)))
            for x, y in zip(a, b, strict=True)
        ]
    np.testing.assert_allclose(beta.log_predictive(a, b, s, n), want, rtol=1e-7, atol=1e-7)
    if s == int(s):
        whole = stats.betabinom(n, 2.0, 3.0).logpmf(s) - np.log(special.comb(n, s))
        assert beta.log_predictive(2.0, 3.0, s, n) == pytest.approx(whole, abs=1e-8)


# ---- drift and cold starts -----------------------------------------------------------------------

IDS = np.arange(400, dtype=np.uint64)


def make(**options):
    return make_allocator("cero_resolve", rollouts_per_prompt=8, epochs=20, **options)


def visit(allocator, p, rng, ids=IDS):
    n = allocator.allocate(ids, budget=8 * ids.size)
    allocator.observe(ids, rng.binomial(n, p), n)


def test_forgetting_per_visit_does_not_fade_between_visits_and_per_step_does():
    visits, steps = (make(forgetting=0.5, forgetting_unit=unit) for unit in ("visit", "step"))
    for allocator in (visits, steps):
        visit(allocator, np.ones(4), np.random.default_rng(0), IDS[:4])
        for _ in range(3):
            visit(allocator, np.ones(4), np.random.default_rng(0), IDS[4:8])
    # 8 successes over Beta(1, 1); three steps later they count for 8/8 of themselves per step.
    np.testing.assert_allclose(visits.success_mean(IDS[:4]), 9 / 10)
    np.testing.assert_allclose(steps.success_mean(IDS[:4]), (1 + 8 / 8) / (2 + 8 / 8))
    visit(steps, np.zeros(4), np.random.default_rng(0), IDS[:4])
    np.testing.assert_allclose(steps.success_mean(IDS[:4]), (1 + 8 / 16) / (2 + 8 / 16 + 8))


def test_forgetting_auto_keeps_much_of_a_still_policy_and_little_of_a_fast_one():
    rng = np.random.default_rng(5)
    still, moving = make(forgetting="auto"), make(forgetting="auto")
    p = rng.beta(1, 1, IDS.size)
    for _ in range(12):
        visit(still, p, rng)
        visit(moving, rng.beta(1, 1, IDS.size), rng)  # the last visit says nothing about the next
    assert still.beliefs.retention() == 1.0
    assert moving.beliefs.retention() == 0.2
    visit(still, p, rng)
    assert still.metrics()["posterior/forgetting"] == 1.0


def test_forgetting_auto_finds_the_factor_of_a_known_drift():
    """Each visit redraws p with probability 0.3: middling retention predicts best, by brute force too."""
    rng = np.random.default_rng(6)
    allocator, p = make(forgetting="auto"), rng.beta(1, 1, IDS.size)
    for _ in range(19):
        visit(allocator, p, rng)
        p = np.where(rng.random(IDS.size) < 0.3, rng.beta(1, 1, IDS.size), p)
    assert 0.2 <= allocator.beliefs.retention() <= 0.7


def test_pooled_prior_is_the_mean_of_first_visits():
    allocator = make(prior="pooled", prior_a=2.0, prior_b=2.0)
    visit(allocator, np.full(100, 0.0), np.random.default_rng(0), IDS[:100])
    unseen = allocator.success_mean(IDS[200:201])[0]
    assert unseen == pytest.approx(2 / (4 + 800))
    visit(allocator, np.full(100, 1.0), np.random.default_rng(0), IDS[:100])  # second visits don't count
    assert allocator.success_mean(IDS[200:201])[0] == pytest.approx(unseen)


def test_pass_rates_start_a_prompt_and_never_overwrite_what_was_seen():
    allocator = make()
    visit(allocator, np.ones(2), np.random.default_rng(0), IDS[:2])
    allocator.set_pass_rates(IDS[:4], [0.0, 0.0, 0.25, np.nan], strength=8.0)
    np.testing.assert_allclose(allocator.success_mean(IDS[:4]), [0.9, 0.9, 3 / 10, 0.5])
    with pytest.raises(ValueError, match="must lie in"):
        allocator.set_pass_rates(IDS[:1], [1.5])
    with pytest.raises(ValueError, match="shape"):
        allocator.set_pass_rates(IDS[:2], [0.5])


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="forgetting_unit=visit"):
        make(forgetting="auto", forgetting_unit="step")
    with pytest.raises(ValueError, match="forgetting"):
        make(forgetting="often")


@pytest.mark.parametrize(
    "options", [{"forgetting": "auto"}, {"forgetting_unit": "step"}, {"prior": "pooled"}]
)
def test_state_holds_what_drift_options_learned(options):
    rng = np.random.default_rng(1)
    one, other = make(**options), make(**options)
    for _ in range(3):
        visit(one, np.full(IDS.size, 0.3), rng)
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one.success_mean(IDS), other.success_mean(IDS))
    assert other.beliefs.scalars() == one.beliefs.scalars()
