"""Exact budgets: projection, rounding, ledger."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from cero.core.budget import ROUNDINGS, Ledger, check_feasible, project_to_sum, round_to_sum


@st.composite
def problems(draw):
    """(targets, budget, n_min, n_max): anything feasible."""
    targets = draw(st.lists(st.floats(-1e6, 1e6) | st.floats(0, 40), min_size=1, max_size=40))
    n_min = draw(st.integers(0, 8))
    n_max = n_min + draw(st.integers(0, 64))
    budget = draw(st.integers(n_min * len(targets), n_max * len(targets)))
    return np.array(targets), budget, n_min, n_max


@pytest.mark.slow
@settings(deadline=None)
@given(problems())
def test_projection_meets_the_budget_within_bounds_and_keeps_order(problem):
    targets, budget, n_min, n_max = problem
    x = project_to_sum(targets, budget, n_min, n_max)
    assert x.sum() == pytest.approx(budget, abs=1e-6)
    assert x.min() >= n_min and x.max() <= n_max
    assert (np.diff(x[np.argsort(targets)]) >= -1e-6).all()


def test_projection_is_the_closest_point():
    rng = np.random.default_rng(0)
    for _ in range(5):
        targets, budget = rng.normal(8, 10, 12), int(rng.integers(30, 200))
        x = project_to_sum(targets, budget, 2, 20)
        best = optimize.minimize(
            lambda z, t=targets: ((z - t) ** 2).sum(),
            np.full(12, budget / 12),
            jac=lambda z, t=targets: 2 * (z - t),
            bounds=[(2, 20)] * 12,
            constraints={"type": "eq", "fun": lambda z, b=budget: z.sum() - b},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        np.testing.assert_allclose(x, best.x, atol=1e-3)


@settings(deadline=None)
@given(problems(), st.sampled_from(ROUNDINGS), st.integers(0, 2**32))
def test_rounding_is_exact_bounded_and_next_to_the_target(problem, rounding, seed):
    targets, budget, n_min, n_max = problem
    x = project_to_sum(targets, budget, n_min, n_max)
    counts = round_to_sum(x, budget, n_min, n_max, np.random.default_rng(seed), rounding)
    assert counts.dtype == np.int64 and counts.sum() == budget
    assert counts.min() >= n_min and counts.max() <= n_max
    assert np.abs(counts - x).max() < 1 + 1e-5


def test_systematic_rounding_asks_for_its_generator():
    with pytest.raises(ValueError, match="needs rng"):
        round_to_sum([1.5, 1.5], 3, 1, 2)


@pytest.mark.slow
def test_systematic_rounding_is_unbiased():
    """z-test of each prompt's mean over 20,000 draws; false alarms below 1e-3 for all 50 (Bonferroni)."""
    rng = np.random.default_rng(2)
    x = project_to_sum(rng.uniform(2, 9, 50), 280, 2, 9)
    draws, total = 20_000, np.zeros(50)
    for _ in range(draws):
        total += round_to_sum(x, 280, 2, 9, rng)
    fraction = x - np.floor(x)
    error = np.sqrt(np.maximum(fraction * (1 - fraction), 1e-12) / draws)
    z = np.abs(total / draws - x) / error
    assert z[fraction > 1e-6].max() < stats.norm.isf(1e-3 / 50 / 2)


def test_largest_remainder_by_hand():
    counts = round_to_sum(np.array([2.2, 3.7, 4.1]), 10, 0, 9, rounding="largest_remainder")
    assert counts.tolist() == [2, 4, 4]


@pytest.mark.parametrize("budget, words", [(3, "below"), (41, "above"), (10.5, "whole")])
def test_infeasible_budgets(budget, words):
    with pytest.raises(ValueError, match=f"budget={budget}.*{words}"):
        check_feasible(budget, 2, 2, 20)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 2_000), max_size=30))
def test_ledger_never_overspends(total, costs):
    ledger = Ledger(total)
    for cost in costs:
        spent = ledger.spent
        try:
            ledger.spend(cost)
        except ValueError:
            assert spent + cost > total and ledger.spent == spent
        assert ledger.spent + ledger.left == total and ledger.left >= 0
    other = Ledger(total)
    other.load_state_dict(ledger.state_dict())
    assert other.spent == ledger.spent


def test_ledger_refuses_a_state_over_its_total():
    with pytest.raises(ValueError, match="had spent 11 rollouts, over this run's total_budget=10"):
        Ledger(10).load_state_dict({"spent": 11, "total": 20})


def test_a_ledger_counts_in_whole_numbers_of_any_size():
    """NumPy's small kinds would overflow: three times 100 are 44 in int8."""
    ledger = Ledger(300)
    for _ in range(3):
        ledger.spend(np.int8(100))
    assert ledger.spent == 300 and type(ledger.spent) is int
    with pytest.raises(ValueError, match="total_budget=300"):
        ledger.spend(np.int8(1))
    ledger.refund(np.uint8(200))
    assert ledger.spent == 100 and ledger.state_dict() == {"spent": 100, "total": 300}


NO_BUDGETS = [
    math.inf,
    -math.inf,
    math.nan,
    "8",
    "",
    b"8",
    [8],
    np.array([8, 8]),
    {},
    object(),
    8.5,
    1j,
    True,
]
NO_BUDGETS += [np.timedelta64(8, "D"), Decimal("sNaN")]


@pytest.mark.parametrize("value", NO_BUDGETS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_of_rollouts(value):
    ledger = Ledger(100)
    ledger.spend(50)
    for call in (ledger.spend, ledger.refund, ledger.check, lambda v: check_feasible(v, 4, 0, 32)):
        with pytest.raises(ValueError, match="spend|refund|budget="):
            call(value)
    with pytest.raises(ValueError, match="total_budget="):
        Ledger(value)
    with pytest.raises(ValueError, match="ledger: spent="):
        ledger.load_state_dict({"spent": value})
    assert ledger.spent == 50
    for total in (10**400, -1):
        with pytest.raises(ValueError, match="total_budget="):
            Ledger(total)
    for state in (None, [], {}, {"spent": None}):
        with pytest.raises(ValueError, match="ledger: spent="):
            ledger.load_state_dict(state)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_targets_that_miss_the_budget_by_float_error(rounding):
    """Of huge targets no fraction is left to go by; the rollouts still cost the budget."""
    with np.errstate(all="raise"):
        counts = round_to_sum([3.0, 3.0, 0.0], 9, 0, 8, np.random.default_rng(0), rounding)
    assert counts.sum() == 9 and counts.min() >= 0 and counts.max() <= 8
