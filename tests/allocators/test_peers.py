"""The peers' rules, worked by hand, and their optimisers against brute force and SciPy."""

import builtins
import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from cero import make_allocator
from cero.allocators.peers import knapsack, vip
from cero.allocators.proportional import scaled_to_sum


def make(name, nbar=8, **options):
    return make_allocator(name, rollouts_per_prompt=nbar, epochs=5, **options)


def teach(allocator, rates, trials, steps=1):
    """Let prompts 0 ... n-1 be visited with `rates * trials` successes of `trials` each."""
    rates = np.asarray(rates, float)
    for _ in range(steps):
        rows = allocator.table.add(np.arange(rates.size, dtype=np.uint64))
        allocator.table["pending"][rows] += trials
        n = np.full(rates.size, trials)
        allocator.observe(np.arange(rates.size), rates * n, n)


# ---- proportional --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights, budget, n_min, n_max, expected",
    [
        ([1, 2, 3], 12, 0, 99, [2, 4, 6]),
        ([1, 2, 3], 12, 3, 99, [3, 3.6, 5.4]),  # 9 left for 2 : 3
        ([1, 2, 3], 12, 0, 5, [7 / 3, 14 / 3, 5]),  # 7 left for 1 : 2
        ([0, 0, 0], 12, 2, 8, [4, 4, 4]),
        ([0, 1, 1], 12, 2, 8, [2, 5, 5]),
        ([1e-30, 1, 1], 12, 0, 4, [4, 4, 4]),
        ([5], 7, 2, 8, [7]),
    ],
)
def test_scaled_to_sum(weights, budget, n_min, n_max, expected):
    np.testing.assert_allclose(scaled_to_sum(np.array(weights), budget, n_min, n_max), expected, atol=1e-9)


@pytest.mark.parametrize("power, expected", [(1.0, [0.09, 0.25]), (0.5, [0.3, 0.5])])
def test_variance_is_proportional(power, expected):
    allocator = make("variance", power=power, n_min=0, n_max=1000, prior_a=1e-6, prior_b=1e-6, forgetting=1.0)
    teach(allocator, [0.1, 0.5], 10**6)
    expected = np.array(expected) / sum(expected) * 1000
    np.testing.assert_allclose(allocator.allocate([0, 1], 1000), expected, atol=1)


def test_variance_by_square_root_minimises_the_summed_variance_of_means():
    v, budget = np.array([0.25, 0.09, 0.01]), 90
    n = scaled_to_sum(np.sqrt(v), budget, 0, 90)
    whole = {"type": "eq", "fun": lambda x: x.sum() - budget}
    found = minimize(lambda x: 1e4 * (v / x).sum(), np.full(3, 30.0), constraints=whole, bounds=[(1, 90)] * 3)
    assert found.success
    np.testing.assert_allclose(n, found.x, rtol=1e-2)


def test_variance_power_is_one_of_two():
    with pytest.raises(ValueError, match="power=0.7 is not known; choose one of 1.0, 0.5"):
        make("variance", power=0.7)


def test_reinforce_ada_est():
    allocator = make("reinforce_ada_est", n_min=0, n_max=1000, prior_a=1e-6, prior_b=1e-6, forgetting=1.0)
    teach(allocator, [0.04, 0.16, 0.64], 10**6)  # 1/sqrt(p) = 5, 2.5, 1.25
    np.testing.assert_allclose(allocator.allocate([0, 1, 2], 700), [400, 200, 100], atol=1)


def test_targets_sum_to_the_budget_before_they_are_projected():
    for name in ("variance", "reinforce_ada_est"):
        allocator = make(name)
        teach(allocator, np.linspace(0, 1, 50), 8)
        assert allocator._targets(np.arange(50), 400).sum() == pytest.approx(400)


# ---- VIP -----------------------------------------------------------------------------------------


def vip_objective(p, n, objective, gamma):
    return (p * (1 - p) * vip.variance_factor(n, objective) + gamma * n * np.log(p)).sum()


@pytest.mark.parametrize("objective", vip.OBJECTIVES)
def test_variance_factor_is_the_papers(objective):
    expected = {"dr_grpo": [3 / 16, 7 / 64], "rloo": [1 / 3, 1 / 7]}[objective]
    np.testing.assert_allclose(vip.variance_factor([4, 8], objective), expected)
    n = np.arange(vip.LEAST[objective], 200)
    drops = -np.diff(vip.variance_factor(n, objective))
    assert (drops > 0).all() and (np.diff(drops) < 0).all()  # convex from LEAST on
    if objective == "dr_grpo":
        drops = -np.diff(vip.variance_factor([2, 3, 4], objective))
        assert drops[1] > drops[0]  # and not below


@pytest.mark.parametrize("objective, n_min", [("dr_grpo", 3), ("dr_grpo", 4), ("rloo", 2)])
def test_vip_is_the_best_of_all_allocations(objective, n_min):
    rng = np.random.default_rng(0)
    for _ in range(25):
        p, gamma = rng.uniform(0.01, 0.99, 4), rng.choice([0.0, 4e-4, 1e-2])
        budget = int(rng.integers(4 * n_min, 4 * 9 + 1))
        n = vip.least_variance(p, budget, n_min, 9, objective, gamma)
        assert n.sum() == budget and n.min() >= n_min and n.max() <= 9
        best = min(
            vip_objective(p, np.array(c), objective, gamma)
            for c in itertools.product(range(n_min, 10), repeat=4)
            if sum(c) == budget
        )
        assert vip_objective(p, n, objective, gamma) <= best + 1e-12


@pytest.mark.parametrize("objective", vip.OBJECTIVES)
def test_vip_is_next_to_the_continuous_optimum(objective):
    p, gamma = np.array([0.03, 0.2, 0.5, 0.7, 0.95]), vip.GAMMAS[objective]
    n = vip.least_variance(p, 50, 4, 32, objective, gamma)
    found = minimize(
        lambda x: 1e3 * vip_objective(p, x, objective, gamma),
        np.full(5, 10.0),
        method="SLSQP",
        bounds=[(4, 32)] * 5,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 50},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success and np.abs(n - found.x).max() <= 1.0
    gap = vip_objective(p, n, objective, gamma) - vip_objective(p, found.x, objective, gamma)
    assert 0 <= gap + 1e-9 and gap < 1e-3


def test_vip_ties_share_what_is_left():
    n = vip.least_variance(np.full(4, 0.5), 18, 4, 32, "dr_grpo", 0.0)
    np.testing.assert_allclose(n, 4.5)
    np.testing.assert_allclose(vip.least_variance(np.full(3, 0.5), 96, 4, 32, "rloo", 0.0), 32)
    assert vip.least_variance(np.zeros(0), 0, 4, 32, "rloo", 0.0).shape == (0,)


def test_vip_gamma_favours_the_hard():
    rates = [0.1, 0.9]  # of the same variance
    plain, published = make("vip", gamma=0.0, n_min=4), make("vip")
    for allocator in (plain, published):
        teach(allocator, rates, 100)
    assert plain.allocate([0, 1], 20).tolist() == [10, 10]
    n = published.allocate([0, 1], 20)
    assert n[0] > n[1]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(n_min=2), "n_min=2 must be at least 3 with objective=dr_grpo"),
        (dict(n_min=1, objective="rloo"), "n_min=1 must be at least 2 with objective=rloo"),
        (dict(objective="grpo"), "objective='grpo' is not known"),
        (dict(gamma=-1), "gamma=-1"),
        (dict(predictor="tea"), "predictor='tea'"),
    ],
)
def test_vip_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make("vip", **options)


def embeddings(count):
    """Two clusters on the unit circle: even prompts, odd prompts."""
    angle = np.where(np.arange(count) % 2, 1.5, 0.0) + np.linspace(0, 0.1, count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_vip_gaussian_process(tmp_path):
    pytest.importorskip("sklearn")
    from cero.core.state import load_state, save_state

    allocator = make("vip", predictor="gp")
    with pytest.raises(ValueError, match="no embeddings for 3 of 3 prompts; give them with set_embeddings"):
        allocator.allocate([0, 1, 2], 24)
    assert len(allocator.table) == 0
    allocator.set_embeddings(np.arange(20), embeddings(20))
    assert allocator.allocate(np.arange(20), 160).tolist() == [8] * 20  # the prior mean for all
    rows = allocator.table.rows(np.arange(20, dtype=np.uint64))
    np.testing.assert_allclose(allocator.predicted(rows), 1 / (1 + np.exp(1)))
    allocator.observe(np.arange(10), np.arange(10) % 2 * 7.0 + 0.5, np.full(10, 8))  # even fail, odd succeed
    p = allocator.predicted(rows)
    assert p[10::2].max() < 0.2 and p[11::2].min() > 0.7  # so do their neighbours that were not visited
    save_state(allocator.state_dict(), tmp_path / "state.npz")
    other = make("vip", predictor="gp")
    other.load_state_dict(load_state(tmp_path / "state.npz"))
    other.set_embeddings(np.arange(20), embeddings(20))
    np.testing.assert_allclose(other.predicted(rows), p)
    allocator.set_embeddings([0], [[7.0, 7.0]])  # far from everything: the prior mean again
    assert allocator.predicted(rows[:1])[0] != p[0]
    assert allocator.predicted(rows[2:3])[0] == pytest.approx(p[2], abs=0.1)
    # Only the last batch counts.
    allocator.observe(np.arange(10, 12), [4.0, 4.0], [8, 8])
    assert (allocator.table["batch_trials"] > 0).sum() == 2


@pytest.mark.parametrize(
    "ids, array, message",
    [
        ([0, 1], np.zeros((1, 2)), r"embeddings has shape \(1, 2\); give \(2, 2\)"),
        ([0], np.zeros(2), "embeddings has shape"),
        ([0], np.zeros((1, 3)), r"give \(1, 2\)"),
        ([0], np.full((1, 2), np.nan), "not finite"),
    ],
)
def test_vip_bad_embeddings(ids, array, message):
    allocator = make("vip")
    allocator.set_embeddings([7], np.zeros((1, 2)))
    with pytest.raises(ValueError, match=message):
        allocator.set_embeddings(ids, array)


def test_vip_without_scikit_learn(monkeypatch):
    load = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return load(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    make("vip")
    with pytest.raises(ValueError, match="predictor='gp' needs scikit-learn; pip install scikit-learn"):
        make("vip", predictor="gp")


# ---- Knapsack ------------------------------------------------------------------------------------


def test_group_value():
    np.testing.assert_allclose(knapsack.group_value([0, 1, 2, 3], 0.5), [0, 0, 0.5 / 8, 0.75 / 8])
    np.testing.assert_allclose(
        knapsack.group_value(4, [0.0, 1.0, 0.2]), [0, 0, (1 - 0.0016 - 0.4096) * 0.128]
    )


def brute(p, budget, n_min, n_max):
    counts = itertools.product(range(n_min, n_max + 1), repeat=p.size)
    return max(knapsack.group_value(np.array(c), p).sum() for c in counts if sum(c) == budget)


@pytest.mark.parametrize("n_min", [0, 1, 2])
def test_knapsack_exact_is_the_best_of_all_allocations(n_min):
    rng = np.random.default_rng(n_min)
    for _ in range(30):
        p, budget = rng.uniform(0.01, 0.99, 4), int(rng.integers(4 * n_min, 4 * 7 + 1))
        n = knapsack.exact(p, budget, n_min, 7)
        assert n.sum() == budget and n.min() >= n_min and n.max() <= 7
        assert knapsack.group_value(n, p).sum() == pytest.approx(brute(p, budget, n_min, 7), abs=1e-12)


def test_the_value_is_concave_from_one_rollout_on():
    """However small p: greedy is optimal there. Only the step from none to two is not concave."""
    p = np.concatenate([[1e-6, 1e-3], np.linspace(0.01, 0.99, 99)])[:, None]
    n = np.arange(1, 200)
    gains = np.diff(knapsack.group_value(n, p), axis=1)
    assert (np.diff(gains, axis=1) <= 1e-15).all()
    np.testing.assert_allclose(knapsack.marginal_values(p[:, 0], 1, 199), gains, atol=1e-15)
    assert (np.diff(knapsack.group_value([0, 1, 2], p), axis=1) @ [-1, 1] > 0).all()
    from_none = knapsack.marginal_values(p[:, 0], 0, 9)
    assert (np.diff(from_none, axis=1) <= 1e-15).all()
    np.testing.assert_allclose(
        from_none.cumsum(axis=1)[:, 1:], knapsack.group_value(np.arange(2, 10), p), atol=1e-15
    )


@pytest.mark.parametrize("n_min", [1, 2])
def test_knapsack_greedy_is_optimal_for_one_rollout_or_more(n_min):
    rng = np.random.default_rng(n_min)
    for _ in range(30):
        p, budget = rng.uniform(0.01, 0.99, 4), int(rng.integers(4 * n_min, 4 * 7 + 1))
        n = knapsack.greedy(p, budget, n_min, 7)
        np.testing.assert_allclose(n, np.rint(n), atol=1e-9)
        assert knapsack.group_value(np.rint(n).astype(int), p).sum() == pytest.approx(
            brute(p, budget, n_min, 7)
        )


def test_knapsack_greedy_tears_a_pair_where_none_is_allowed():
    # Two prompts, two rollouts, equally good: half a pair each is worth nothing, one pair something.
    torn, best = knapsack.greedy(np.full(2, 0.2), 2, 0, 8), knapsack.exact(np.full(2, 0.2), 2, 0, 8)
    assert torn.tolist() == [1, 1] and sorted(best.tolist()) == [0, 2]
    assert knapsack.group_value(torn.astype(int), 0.2).sum() == 0 < knapsack.group_value(best, 0.2).sum()


def test_knapsack_allocator_by_hand():
    allocator = make("knapsack", n_max=40)
    teach(allocator, [0.0, 1.0, 0.25, 0.5], 16)
    n = allocator.allocate(np.arange(6), 48)  # 4 and 5 were never seen
    assert n[0] == n[1] == 2 and n[4] == n[5] == 8 and n.sum() == 48
    p = np.array([0.25, 0.5])
    assert n[2:4].tolist() == knapsack.exact(p, 28, 2, 40).tolist() and n[2] > n[3]


def test_knapsack_surplus_goes_to_prompts_all_wrong():
    allocator = make("knapsack", n_max=20)
    teach(allocator, [0.0, 1.0, 0.0, 0.5], 16)
    assert allocator.allocate(np.arange(4), 20 + 2 + 16).tolist() == [8, 2, 8, 20]
    allocator = make("knapsack", n_max=20)
    teach(allocator, [0.0, 1.0, 0.0, 0.5], 16)
    assert allocator.allocate(np.arange(4), 70).tolist() == [20, 10, 20, 20]  # at last to everyone


def test_knapsack_solvers_agree():
    results = []
    for solver in knapsack.SOLVERS:
        allocator = make("knapsack", solver=solver)
        teach(allocator, np.arange(17) / 17, 17)  # 17 of different rates, none of them tied
        results.append(allocator.allocate(np.arange(17), 136))
    np.testing.assert_equal(*results)


def test_knapsack_window():
    allocator = make("knapsack")

    def recent():
        return allocator.table["recent_successes"][0], allocator.table["recent_trials"][0]

    teach(allocator, [1.0], 8)
    assert recent() == (8, 8)
    teach(allocator, [0.0], 8)
    assert recent() == (8, 16)
    teach(allocator, [0.5], 10)  # 10 new ones, and 6 of the 16 before, half of them right
    assert recent() == (5 + 3, 16)
    teach(allocator, [0.25], 20)  # a visit larger than the window counts whole
    assert recent() == (5, 20)
    teach(allocator, [1.0], 20)
    assert allocator.success_mean([0])[0] == pytest.approx(21 / 22)


def test_knapsack_exact_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="solver=exact would take 100000 prompts"):
        knapsack.exact(np.full(100_000, 0.5), 800_000, 2, 128)


# ---- GDRO, Thompson, GRESO -----------------------------------------------------------------------


def test_gdro_by_hand():
    allocator = make("gdro", bins=2, smoothing=1.0, price_step=0.0, n_min=0, n_max=100)
    # Middles 1/4 and 3/4: variance 3/16 each; a prompt never seen is in the upper bin and wants 8.
    assert allocator.price == pytest.approx(3 / 16 / 64)
    teach(allocator, [0.25, 1.0], 8)  # 2 of 8 seen in the upper bin with 8 of 8: (2 x 6 / 56 + 0) / 2
    v = (12 / 56) / 2
    rows = np.arange(2)
    np.testing.assert_allclose(allocator._targets(rows, 16), [8.0, np.sqrt(v / allocator.price)])
    assert allocator.allocate([0, 1], 16).tolist() == [9, 7]  # 8 and 6.05, and half of the rest each


def test_gdro_price_follows_demand():
    allocator = make("gdro", price_step=1.0)
    teach(allocator, np.linspace(0, 1, 40), 8, steps=3)
    demands = []
    for _ in range(12):
        n = allocator.allocate(np.arange(40), 320)
        allocator.observe(np.arange(40), np.linspace(0, 1, 40) * n, n)
        demands.append(allocator.demand)
    assert abs(demands[-1] / 8 - 1) < 0.02  # asks for what there is
    with pytest.raises(ValueError, match="bins=0"):
        make("gdro", bins=0)


def test_thompson_chooses_the_nearest():
    allocator = make("thompson", share=0.25, forgetting=1.0)
    teach(allocator, [0.02, 0.5, 0.9, 0.98], 400)
    assert allocator.allocate(np.arange(4), 32).tolist() == [0, 32, 0, 0]
    allocator = make("thompson", share=0.5, target=0.95, n_min=1, forgetting=1.0)
    teach(allocator, [0.02, 0.5, 0.9, 0.98], 400)
    assert allocator.allocate(np.arange(4), 32).tolist() == [1, 1, 15, 15]
    assert allocator.allocate(np.arange(4), 80).tolist() == [8, 8, 32, 32]  # n_max: the rest to the others


def test_thompson_explores():
    chosen = np.zeros(40)
    for seed in range(200):
        allocator = make("thompson", share=0.1, seed=seed)
        chosen += allocator.allocate(np.arange(40), 64) > 0
    assert chosen.sum() == 800 and chosen.min() > 5  # nothing is known: everyone is chosen at times


def test_greso_by_hand():
    allocator = make("greso", p_base=0.5, p_step=0.0)
    rows = np.arange(3)
    teach(allocator, [0.0, 1.0, 0.5], 4, steps=3)
    np.testing.assert_allclose(allocator.visit_probability(rows), [0.125, 0.125, 1.0])
    assert allocator.table["run"][:3].tolist() == [-3, 3, 0]
    teach(allocator, [0.25, 0.0, 1.0], 4)
    np.testing.assert_allclose(allocator.visit_probability(rows), [1.0, 0.0625, 0.5])
    teach(allocator, [0.0, 0.0, 0.0], 1, steps=3)  # groups of one say nothing
    np.testing.assert_allclose(allocator.visit_probability(rows), [1.0, 0.0625, 0.5])
    teach(allocator, [0.0, 0.0, 0.0], 4, steps=20)
    np.testing.assert_allclose(allocator.visit_probability(rows), 0.01)


def test_greso_visits_as_often_as_it_says_and_shares_equally():
    visits = np.zeros(200)
    for seed in range(50):
        allocator = make("greso", p_step=0.0, seed=seed)
        teach(allocator, np.repeat([0.0, 0.5], 100), 4, steps=2)
        n = allocator.allocate(np.arange(200), 1600)
        visited = n > 0
        assert n.sum() == 1600 and np.ptp(n[visited]) <= 1
        visits += visited
    assert (visits[100:] == 50).all() and visits[:100].mean() / 50 == pytest.approx(0.25, abs=0.03)


def test_greso_moves_p_toward_its_targets():
    allocator = make("greso", p_base=0.5, p_step=0.01, target_easy=0.25, target_hard=0.25)
    teach(allocator, [1.0, 1.0, 0.5, 0.5], 4)  # half all right, none all wrong
    metrics = allocator.metrics()
    assert metrics["greso/p_easy"] == pytest.approx(0.49) and metrics["greso/p_hard"] == pytest.approx(0.51)
    allocator.table["run"][:3] = 2, -2, 1
    np.testing.assert_allclose(allocator.visit_probability(np.arange(3)), [0.49**2, 0.51**2, 0.49])
