"""What the prices of `cero` do."""

import numpy as np
import pytest
from scipy import optimize

from cero import make_allocator
from cero.core.beta import BOUNDS, VALUES
from cero.core.budget import project_to_sum
from cero.core.duals import BANG_BANG, plain_steps, price_step, response, scaled_steps, slope_step
from cero.core.state import load_state, save_state
from cero.core.utility import UTILITIES

PROMPTS = np.arange(400, dtype=np.uint64)


def run(epochs=12, p=None, seed=0, budget=True, **options):
    rng = np.random.default_rng(seed)
    p = np.repeat([0.0, 0.02, 0.5, 1.0], 100) if p is None else p
    options = (
        dict(
            rollouts_per_prompt=8,
            epochs=epochs,
            n_min=2,
            n_max=32,
            value="variance",
            total_budget=400 * 8 * epochs,
        )
        | {"response": 2.0, "forgetting": 0.7}  # mild, so that what else an option changes can be seen
        | options
    )
    allocator = make_allocator("cero", **options)
    given = np.zeros((epochs, p.size), int)
    for epoch in range(epochs):
        for step in np.split(rng.permutation(p.size), 10):
            n = allocator.allocate(PROMPTS[step], budget=8 * step.size if budget else None)
            allocator.observe(PROMPTS[step], rng.binomial(n, p[step]), n)
            given[epoch, step] = n
    return allocator, given


def test_first_epoch_is_uniform():
    """Warm start: under the prior all prompts are alike, and the duals start at that optimum."""
    assert (run(epochs=3)[1][0] == 8).all()


@pytest.mark.parametrize("utility", UTILITIES)
def test_variance_value_moves_rollouts_to_uncertain_prompts(utility):
    _, given = run(utility=utility)
    never, rarely, half, always = given[4:].reshape(-1, 4, 100).mean(axis=(0, 2))
    assert half > 1.3 * rarely > 1.3 * never
    assert half > 2 * always


@pytest.mark.parametrize("value", VALUES)
def test_every_value_allocates(value):
    allocator, given = run(value=value)
    assert (given.sum(axis=1) == 3200).all()
    assert given[-1].std() > 0.5
    assert 0 <= allocator.price <= BOUNDS[value]


def test_hard_value_prefers_the_hard_tail_to_the_solved():
    _, given = run(value="signal_hard")
    _, rarely, _, always = given[4:].reshape(-1, 4, 100).mean(axis=(0, 2))
    assert rarely > 1.5 * always


def test_saturation_spreads_cumulative_rollouts():
    tight, wide = run(saturation=0.3)[1], run(saturation=3.0)[1]
    assert tight.sum(axis=0).std() < wide.sum(axis=0).std()


def test_price_alone_holds_the_budget_when_steps_are_free():
    allocator, given = run(epochs=20, budget=False)
    assert given.sum() <= allocator.ledger.total
    assert given.sum() > 0.95 * allocator.ledger.total
    assert given.sum(axis=1).std() > 0


def test_price_answers_to_demand():
    """More budget than demand lowers the price, less raises it, and it stays within [0, bound]."""
    assert price_step(0.1, 8, 6, 0.01, 0.25) == pytest.approx(0.08)
    assert price_step(0.1, 8, 10, 0.01, 0.25) == pytest.approx(0.12)
    assert price_step(0.01, 8, 2, 0.01, 0.25) == 0.0
    assert price_step(0.24, 8, 20, 0.01, 0.25) == 0.25


def test_slope_rests_where_demand_is_met():
    """Fixed point of the prompt dual: rollouts equal to y*(s)/K leave it alone; more lower it."""
    utility, scale, epochs = UTILITIES["exp"], 80.0, 10
    slope = utility.slope(80.0, scale)
    demand = utility.demand(slope, scale) / epochs
    assert slope_step(slope, 8.0, demand, 0.01) == pytest.approx(slope)
    assert slope_step(slope, 9.0, demand, 0.01) == pytest.approx(slope - 0.01)


def test_slope_step_is_the_gradient_of_the_dual_objective():
    """d/ds [ s x - u_*(s)/K ] by central differences, for each utility."""
    for utility in UTILITIES.values():
        s, x, epochs, scale, h = 0.4, 5.0, 10, 80.0, 1e-6
        objective = lambda z: z * x - utility.conjugate(z, scale) / epochs  # noqa: B023, E731
        gradient = (objective(s + h) - objective(s - h)) / (2 * h)
        assert slope_step(s, x, utility.demand(s, scale) / epochs, 1e-3) == pytest.approx(s - 1e-3 * gradient)


def test_response_maximises_the_proximal_objective():
    mu, lam, unit, nbar, strength = 0.12, 0.1, 0.1, 8, 2.0
    rho = unit / (strength * nbar)
    x = np.linspace(0, 32, 320001)
    best = x[np.argmax((mu - lam) * x - rho / 2 * (x - nbar) ** 2)]
    assert response(nbar, mu, lam, unit, nbar, strength) == pytest.approx(best, abs=1e-4)


def test_frozen_duals_leave_value_alone_to_decide():
    allocator, _ = run(prompt_step=0.0, budget_step=0.0)
    slopes = allocator.table["slope"]
    assert np.ptp(slopes) == 0 and allocator.price == allocator._price_unit


@pytest.mark.parametrize(
    "key, value",
    [
        ("value", "luck"),
        ("utility", "linear"),
        ("saturation", 0),
        ("saturation", float("nan")),
        ("response", -1),
        ("anchor", "first"),
        ("forgetting", 0),
        ("forgetting", 1.01),
        ("prior_a", 0),
        ("prompt_step", -1),
        ("warm_start", "yes"),
        ("primal", "simplex"),
        ("step_rule", "newton"),
        ("averaging", "prices"),
    ],
)
def test_options_out_of_range(key, value):
    with pytest.raises(ValueError, match=key):
        make_allocator("cero", rollouts_per_prompt=8, epochs=5, **{key: value})


def test_forgetting_is_bayes_at_one_and_discounts_below():
    for forgetting, expected in ((1.0, 3 + 2), (0.5, 0.5 * 3 + 2)):
        a = make_allocator("cero", rollouts_per_prompt=4, epochs=5, n_min=4, n_max=4, forgetting=forgetting)
        for won in (3, 2):
            a.allocate(["x"], budget=4)
            a.observe(["x"], [won], [4])
        assert a.beliefs.parameters(a.table.rows(np.array([a.table["id"][0]])))[0][0] == 1 + expected


def test_bang_bang_is_the_linear_programme():
    """Clipped it maximises (mu - lam) x within the bounds; projected, also under a budget (SciPy's LP)."""
    prices = np.random.default_rng(0).uniform(0.05, 0.15, 40)
    asked = response(8.0, prices, 0.1, 0.1, 8, BANG_BANG)
    np.testing.assert_array_equal(np.clip(asked, 2, 32), np.where(prices > 0.1, 32, 2))
    best = optimize.linprog(-prices, A_eq=np.ones((1, 40)), b_eq=[320], bounds=(2, 32))
    np.testing.assert_allclose(project_to_sum(asked, 320, 2, 32), best.x, atol=1e-6)


def test_cold_start_is_the_unspent_optimum():
    """Slope 1 and price 0: nothing allocated yet, the budget free; so everyone asks for all there is."""
    allocator, given = run(epochs=1, warm_start=False, budget=False, total_budget=None, budget_step=0.0)
    assert allocator.price == 0 and (given == 32).all()
    unseen = allocator.prices(np.array([-1]))
    assert unseen == allocator.prior_value()


def test_scaled_steps_are_newtons_at_the_warm_start():
    """The inverse of what one unit of a dual moves, by central differences; over the root of time."""
    utility, epochs, nbar, strength, saturation, h = UTILITIES["exp"], 10, 8, 2.0, 1.3, 1e-6
    scale = saturation * epochs * nbar
    slope, value = float(utility.slope(epochs * nbar, scale)), 1 / 6
    price = value * slope

    def imbalance(s, lam):
        x = response(nbar, value * s, lam, price, nbar, strength)
        return x - utility.demand(s, scale) / epochs

    by_slope = (imbalance(slope + h, price) - imbalance(slope - h, price)) / (2 * h)
    by_price = (imbalance(slope, price - h) - imbalance(slope, price + h)) / (2 * h)
    steps = scaled_steps(slope, price, nbar, saturation, strength, epochs, 7)
    np.testing.assert_allclose(steps, (1 / by_slope / np.sqrt(epochs), 1 / by_price / np.sqrt(7)), rtol=1e-6)


def test_plain_steps_are_value_over_rollouts():
    slope, price = plain_steps(1 / 6, 8, 16)
    assert price == pytest.approx((1 / 6) / 8 / 4) and slope / price == pytest.approx(6)
    one, other = (run(epochs=2, step_rule=rule)[0].table["slope"] for rule in ("plain", "scaled"))
    assert np.abs(np.diff(one)).max() > 2 * np.abs(np.diff(other)).max()


@pytest.mark.parametrize("averaging", ["responses", "duals"])
def test_averages_are_running_means(averaging):
    """Recomputed from every visit's response (or dual), by hand."""
    options = {"averaging": averaging, "response": 2.0, "total_budget": 10**6}
    allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=9, **options)
    rng, ids, history, prices = (
        np.random.default_rng(1),
        np.arange(30, dtype=np.uint64),
        [],
        [allocator.price],
    )
    for visit in range(6):
        rows = allocator.table.rows(ids)
        slope = allocator._stored("slope", rows, allocator._first_slope)
        mu = allocator.prices(rows)
        if averaging == "responses":
            asked = response(8.0, mu, allocator.price, allocator._price_unit, 8, 2.0)
            history.append(np.clip(asked, allocator.n_min, allocator.n_max))
            expected = np.mean(history, axis=0)
        else:
            history.append(slope)
            mean_mu = mu / slope * np.mean(history, axis=0)
            expected = response(8.0, mean_mu, np.mean(prices), allocator._price_unit, 8, 2.0)
        n = allocator.allocate(ids, budget=240)
        np.testing.assert_allclose(allocator._wished, expected, rtol=1e-5)
        allocator.observe(ids, rng.binomial(n, ids.astype(float) / 30), n)
        prices.append(allocator.price)
        assert visit < 1 or np.ptp(expected) > 0


@pytest.mark.parametrize("averaging", ["responses", "duals"])
def test_averages_are_part_of_the_state_and_small(averaging, tmp_path):
    whole, _ = run(epochs=3, averaging=averaging, total_budget=None)
    save_state(whole.state_dict(), tmp_path / "state.npz")
    other = make_allocator("cero", **whole.options())
    other.load_state_dict(load_state(tmp_path / "state.npz"))
    for budget in (3300, None, 3300, None):  # a budget that is given hides the average of its price
        np.testing.assert_array_equal(
            whole.allocate(PROMPTS, budget=budget), other.allocate(PROMPTS, budget=budget)
        )
    plain = make_allocator("cero", rollouts_per_prompt=8, epochs=5)
    with pytest.raises(ValueError, match=f"kept with averaging='{averaging}'"):
        plain.load_state_dict(whole.state_dict())
    large = make_allocator("cero", rollouts_per_prompt=8, epochs=5, averaging=averaging)
    large.allocate(np.arange(100_000, dtype=np.uint64), budget=800_000)
    assert large.table.nbytes / 100_000 < 96


def test_a_prompt_at_zero_stays_anchored_there():
    """anchor=last with n_min=0: a share of 0 is a share, not a prompt never visited."""
    allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=5, n_min=0, anchor="last")
    ids = np.arange(10, dtype=np.uint64)
    allocator.allocate(ids, budget=80)
    allocator.table["last"][0] = 0.0
    anchors = allocator._stored("last", allocator.table.rows(ids), 8)
    assert anchors[0] == 0 and (anchors[1:] > 0).all()


@pytest.mark.parametrize("budget", [True, False])
def test_proximal_asks_evenly_where_bang_bang_swings(budget):
    p = np.random.default_rng(3).uniform(0, 1, 400)
    rough, smooth = (
        run(epochs=8, p=p, budget=budget, primal=primal)[1] for primal in ("bang_bang", "proximal")
    )
    assert np.abs(np.diff(rough, axis=0)).mean() > 2 * np.abs(np.diff(smooth, axis=0)).mean()


@pytest.mark.parametrize("value", ["signal", "signal_hard", "knapsack"])
def test_values_of_groups_tell_prompts_apart_with_one_rollout_each(value):
    """rollout.n=1: a group of one has no signal by definition; a value of 0 for all would price nothing."""
    allocator = make_allocator("cero", rollouts_per_prompt=1, epochs=9, value=value, response=4.0)
    ids = np.arange(40, dtype=np.uint64)
    allocator.allocate(ids, budget=40)
    allocator.observe(ids, np.repeat([0.0, 0.4], 20), np.ones(40))
    again = allocator.allocate(ids, budget=40)
    assert again.sum() == 40 and again[:20].sum() != again[20:].sum()
    assert np.isfinite(allocator.price) and allocator.prior_value() > 0


def test_without_a_budget_a_step_spends_what_its_prices_ask_for():
    """Also of new prompts under a pooled prior, and over many steps: rounding goes both ways."""
    for prior in ("fixed", "pooled"):
        allocator = make_allocator("cero", rollouts_per_prompt=4, epochs=60, response=1.0, prior=prior)
        spent, asked = [], []
        for k in range(60):
            prompts = np.arange(5) + (50 * k if k % 3 == 0 else 0)  # some of them new
            n = allocator.allocate(prompts, budget=None)
            spent.append(n.sum())
            asked.append(allocator.demand * 5)
            allocator.observe(prompts, 0.8 * n, n)
        np.testing.assert_allclose(spent, asked, atol=0.5)
        assert abs(np.mean(spent) - np.mean(asked)) < 0.2


def test_forgetting_is_judged_on_some_of_a_large_step():
    """On every second prompt of 1,024: as if the others had not been there."""
    ids, won = np.arange(1024, dtype=np.uint64), np.random.default_rng(0).integers(0, 9, (3, 1024))
    options = dict(rollouts_per_prompt=8, epochs=5, n_min=8, n_max=8, forgetting="auto", seed=0)
    scores = []
    for part in (slice(None), slice(None, None, 2)):
        allocator = make_allocator("cero", **options)
        for successes in won[:, part]:
            allocator.observe(ids[part], successes, allocator.allocate(ids[part]))
        found = allocator.beliefs.scalars()
        scores.append([found[key] for key in found if key.startswith("retention_")])
    np.testing.assert_allclose(*scores, rtol=1e-12)
    assert all(scores[0])
