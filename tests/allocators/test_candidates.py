"""Choosing among candidates: the contract of every allocator that can, and the two rules made for it."""

import copy
import itertools
import math

import numpy as np
import pytest
from contract import ids, make, success_rates
from scipy.special import betaln
from scipy.stats import chisquare

from cero import available_allocators
from cero.allocators import allocator_class
from cero.core.beta import VALUES
from cero.core.state import load_state, save_state

N = 8  # rollouts_per_prompt of `make`


def can_choose(name):
    cls = allocator_class(name)
    return not cls.sequential and cls.chooses and name != "vip"  # vip's least is above 0


CHOOSERS = [name for name in available_allocators() if can_choose(name)]


@pytest.fixture(params=CHOOSERS)
def name(request):
    return request.param


def settle(allocator, choice, seed=0):
    step = choice.step
    n = step.start()
    step.report_all(np.arange(n.size), np.random.default_rng(seed).binomial(n, success_rates(step.ids)), n)
    allocator.settle(step, step.successes, step.trials)
    return n


def run(allocator, steps, prompts=None, count=64, group=16, **limits):
    """Choose and settle a few times; returns [(places, rollouts), ...]."""
    prompts = ids(count) if prompts is None else prompts
    done = []
    for k in range(steps):
        choice = allocator.choose(prompts, group * N, **limits)
        done.append((choice.chosen.tolist(), settle(allocator, choice, k).tolist()))
    return done


def same_state(one, other):
    """Whether two states are equal but for their options, and for the rows in which prompts are kept."""
    one, other = dict(one), dict(other)
    for state in (one, other):
        order = np.argsort(state["table"]["id"])
        state["table"] = {key: column[order] for key, column in state["table"].items()}
        state.pop("options")
    np.testing.assert_equal(one, other)


LIMITS = [
    (64, 128, 1, None),
    (64, 128, 1, 16),
    (64, 128, 16, 16),
    (64, 128, 40, 64),
    (64, 128, 64, 64),
    (64, 16, 1, None),
    (64, 16, 16, 16),
    (64, 1, 1, 1),
    (64, 512, 1, 16),
    (16, 128, 1, 16),
    (5, 7, 2, 3),
    (1, 8, 1, 1),
]


@pytest.mark.parametrize("count, budget, least, most", LIMITS)
def test_exact_sum_within_bounds(name, count, budget, least, most):
    allocator = make(name, n_min=0)
    run(allocator, 2)
    spent = allocator.ledger.spent
    choice = allocator.choose(ids(count), budget, least, most)
    n = choice.step.start()
    assert n.dtype == choice.chosen.dtype == np.int64
    assert n.sum() == budget == allocator.ledger.spent - spent
    assert n.min() >= 1 and n.max() <= allocator.n_max
    assert max(least, math.ceil(budget / allocator.n_max)) <= n.size <= min(most or count, budget)
    assert choice.chosen.tolist() == sorted(set(choice.chosen.tolist())) and choice.chosen.max() < count
    np.testing.assert_array_equal(choice.step.ids, ids(count)[choice.chosen])
    assert 0 <= choice.forced < n.size
    assert choice.value_ratio is None or 0 < choice.value_ratio < math.inf


def test_without_limits_it_is_the_usual_division(name):
    one, other = make(name, n_min=0), make(name, n_min=0)
    n = one.allocate(ids(24), 24 * N)
    choice = other.choose(ids(24), 24 * N)
    expected = np.zeros(24, np.int64)
    expected[choice.chosen] = choice.step.start()
    np.testing.assert_array_equal(n, expected)
    assert choice.forced == 0


def test_same_seed_same_choice(name):
    assert run(make(name, n_min=0), 6) == run(make(name, n_min=0), 6)
    assert run(make(name, n_min=0), 6, most=16) == run(make(name, n_min=0), 6, most=16)


@pytest.mark.parametrize("limits", [{}, {"most": 16}, {"least": 40}])
def test_permuted_candidates_get_permuted_rollouts(name, limits):
    order = np.random.default_rng(1).permutation(64)
    straight, shuffled = make(name, n_min=0), make(name, n_min=0)
    for k in range(4):
        one, other = (
            allocator.choose(prompts, 128, **limits)
            for allocator, prompts in ((straight, ids(64)), (shuffled, ids(64)[order]))
        )
        whole = np.zeros((2, 64), np.int64)
        whole[0, one.chosen] = one.step.start()
        whole[1, order[other.chosen]] = other.step.start()
        np.testing.assert_array_equal(*whole)
        rewards = np.random.default_rng(k).binomial(whole[0], success_rates(ids(64)))
        straight.observe(one.step.ids, rewards[one.chosen], whole[0, one.chosen])
        shuffled.observe(other.step.ids, rewards[order[other.chosen]], whole[0, order[other.chosen]])


@pytest.mark.parametrize("limits", [{}, {"most": 16}, {"least": 40}])
def test_state_round_trip_continues_identically(name, limits, tmp_path):
    whole, first, second = (make(name, n_min=0, seed=seed) for seed in (3, 3, 99))
    run(whole, 4, **limits)
    run(first, 4, **limits)
    save_state(first.state_dict(), tmp_path / "state.npz")
    second.load_state_dict(load_state(tmp_path / "state.npz"))
    same_state(whole.state_dict(), second.state_dict())
    assert run(whole, 4, **limits) == run(second, 4, **limits)
    same_state(whole.state_dict(), second.state_dict())


def test_nothing_is_learned_of_those_not_chosen(name):
    """A prompt that is offered again and again stays as a prompt that was never offered."""
    allocator = make(name, n_min=0)
    if "averaging" in allocator.options():
        allocator = make(name, n_min=0, averaging="responses", anchor="last")
    new = {column: fill for column, (_, fill) in allocator.table._spec.items()}
    touched = set()
    for k in range(5):
        choice = allocator.choose(ids(64), 48, 1, 6)
        settle(allocator, choice, k)
        touched |= set(choice.step.ids.tolist())
    unseen = np.array([i not in touched for i in allocator.table["id"].tolist()])
    assert unseen.sum() >= 64 - 30
    for column in allocator.table.names[1:]:
        assert (allocator.table[column][unseen] == new[column]).all(), column
    assert allocator.table["allocated"].sum() == allocator.ledger.spent == 5 * 48
    assert (allocator.table["pending"] == 0).all()
    elsewhere = allocator.success_mean_or(allocator.table["id"], np.full(unseen.size, 0.07))
    assert (elsewhere[unseen] == 0.07).all()
    assert allocator.metrics()["n/zero"] == 0 and allocator.metrics()["n/mean"] >= 48 / 6


def test_repeats_are_candidates_of_their_own(name):
    allocator = make(name, n_min=0)
    prompts = np.concatenate([ids(8), ids(8), ids(4)])
    for k in range(3):
        choice = allocator.choose(prompts, 40, 5, 12)
        assert settle(allocator, choice, k).sum() == 40 and 5 <= choice.chosen.size <= 12
    assert len(allocator.table) == 8 and allocator.table["allocated"].sum() == 120


BAD = {
    "too few": (dict(least=0), "least=0 and most=64"),
    "crossed": (dict(least=5, most=4), "least=5 and most=4"),
    "more than there are": (dict(most=65), "most=65 prompts of 64"),
    "more than the budget": (dict(budget=10, least=11), "with budget=10"),
    "n_max": (dict(budget=1000, most=4), "budget=1000 is above 4 prompts x n_max"),
    "fraction": (dict(budget=100.5), "budget=100.5"),
    "the run's": (dict(budget=600), "total_budget=512"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_calls_say_why_and_change_nothing(name, case):
    options, message = BAD[case]
    allocator = make(name, n_min=0, total_budget=512)
    run(allocator, 1)
    before = copy.deepcopy(allocator.state_dict())
    with pytest.raises(ValueError, match=message):
        allocator.choose(ids(64), **({"budget": 128} | options))
    same_state(before, allocator.state_dict())


@pytest.mark.parametrize("name", [name for name in (*CHOOSERS, "vip") if name != "uniform"])
def test_a_least_number_of_rollouts_is_refused(name):
    allocator = make(name) if name == "vip" else make(name, n_min=2)
    with pytest.raises(ValueError, match=f"n_min={allocator.n_min} would give every candidate.*n_min=0"):
        allocator.choose(ids(64), 256)


def test_those_that_join_and_those_that_go_are_by_target():
    """Against the rule's own targets, over all sets of that size."""
    cases = []
    for least, most in ((5, 12), (1, 2), (3, 3), (8, 8), (11, 12)):
        allocator = make("cero", n_min=0, response=20.0)
        run(allocator, 3, ids(12), group=3)
        targets = copy.deepcopy(allocator)._targets(allocator.table.rows(ids(12)), 24)
        usual = set(copy.deepcopy(allocator).choose(ids(12), 24).chosen.tolist())
        choice = allocator.choose(ids(12), 24, least, most)
        chosen, number = set(choice.chosen.tolist()), min(max(len(usual), least), most)
        assert len(chosen) == number and choice.forced == max(0, least - len(usual))
        assert chosen >= usual or chosen <= usual
        sums = [
            targets[list(each)].sum()
            for each in itertools.combinations(range(12), number)
            if usual <= set(each) or set(each) <= usual
        ]
        assert targets[list(chosen)].sum() == pytest.approx(max(sums))
        cases.append(np.sign(number - len(usual)))
    assert set(cases) == {-1, 0, 1}


# ---- greedy and mapp -----------------------------------------------------------------------------


def taught(name, count=9, **options):
    allocator = make(name, **({"n_min": 0, "forgetting": 1.0} | options))
    rng = np.random.default_rng(4)
    for _ in range(2):
        rows = allocator.table.add(ids(count))
        n = rng.integers(1, 9, count)
        allocator.table["pending"][rows] += n.astype(np.int32)
        allocator.observe(ids(count), rng.binomial(n, success_rates(ids(count))), n)
    return allocator


@pytest.mark.parametrize("value", VALUES)
def test_greedy_takes_the_set_of_greatest_value(value):
    allocator = taught("greedy", value=value)
    worth = VALUES[value](*allocator.beliefs.parameters(allocator.table.rows(ids(9))), N)
    best = max(itertools.combinations(range(9), 3), key=lambda chosen: worth[list(chosen)].sum())
    choice = allocator.choose(ids(9), 3 * N)
    assert choice.chosen.tolist() == list(best) and choice.step.start().tolist() == [N] * 3
    assert choice.value_ratio == pytest.approx(worth[list(best)].mean() / worth.mean())


def test_greedy_values_a_group_of_its_own_size():
    allocator = taught("greedy", value="signal", group=2)
    worth = VALUES["signal"](*allocator.beliefs.parameters(allocator.table.rows(ids(9))), 2)
    choice = allocator.choose(ids(9), 3 * N)
    counts = choice.step.start()
    assert choice.chosen.size == 9 and counts.sum() == 3 * N and (counts.min(), counts.max()) == (2, 3)
    choice = allocator.choose(ids(9), 8)
    assert set(choice.chosen.tolist()) == set(np.argsort(-worth)[:4].tolist())
    assert choice.step.start().tolist() == [2] * 4


@pytest.mark.slow
def test_greedy_breaks_ties_by_lots():
    chosen = np.zeros(12)
    for seed in range(400):
        chosen[make("greedy", n_min=0, seed=seed).choose(ids(12), 3 * N).chosen] += 1
    assert chosen.sum() == 1200 and chisquare(chosen).pvalue > 1e-3


def test_mapp_weights_are_the_papers():
    allocator = taught("mapp", group=5)
    a, b = allocator.beliefs.parameters(allocator.table.rows(ids(9)))
    expected = 1 - np.exp(betaln(a + 5, b) - betaln(a, b)) - np.exp(betaln(a, b + 5) - betaln(a, b))
    np.testing.assert_allclose(allocator.weights(allocator.table.rows(ids(9))), expected, rtol=1e-12)


@pytest.mark.slow
def test_mapp_draws_one_prompt_after_the_other_in_proportion():
    """How often each set is drawn, against the sum over all orders in which it can be."""
    allocator = taught("mapp", count=5, group=4)
    w = allocator.weights(allocator.table.rows(ids(5)))
    assert w.max() > 1.5 * w.min()
    expected = {}
    for order in itertools.permutations(range(5), 3):
        left, chance = w.sum(), 1.0
        for i in order:
            chance, left = chance * w[i] / left, left - w[i]
        expected[tuple(sorted(order))] = expected.get(tuple(sorted(order)), 0.0) + chance
    assert sum(expected.values()) == pytest.approx(1.0)
    seen, draws = dict.fromkeys(expected, 0), 4000
    for _ in range(draws):
        choice = allocator.choose(ids(5), 12)
        assert choice.step.start().tolist() == [4, 4, 4]
        seen[tuple(choice.chosen.tolist())] += 1
    counts = np.array([(seen[key], draws * expected[key]) for key in expected])
    assert chisquare(*counts.T).pvalue > 1e-3


def test_mapp_and_greedy_leave_no_one_out_where_every_prompt_has_its_group():
    for name in ("mapp", "greedy"):
        assert taught(name).allocate(ids(9), 9 * N).tolist() == [N] * 9
        n = taught(name, n_min=2).allocate(ids(9), 3 * N + 6 * 2)
        assert sorted(n.tolist()) == [2] * 6 + [N] * 3


@pytest.mark.parametrize("name", ["mapp", "greedy"])
@pytest.mark.parametrize("group", [0, 33, 2.5, True])
def test_a_group_out_of_range_is_refused(name, group):
    with pytest.raises(ValueError, match=r"group \(or null\)"):
        make(name, group=group, n_min=0)
    with pytest.raises(ValueError, match=r"group \(or null\)=1"):
        make(name, group=1, n_min=2)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_thompson_takes_the_draws_nearest_to_one_half(factor):
    allocator = make("thompson", n_min=0)
    run(allocator, 2)
    rows = allocator.table.rows(ids(64))
    drawn = copy.deepcopy(allocator._rng).beta(*allocator.beliefs.parameters(np.sort(rows)))
    budget = 64 * N // factor
    choice = allocator.choose(ids(64), budget)
    size = min(32, 64 // factor)  # half of the candidates, or as many as have rollouts_per_prompt each
    assert (np.diff(rows) > 0).all()
    assert choice.chosen.tolist() == sorted(np.argsort(np.abs(drawn - 0.5))[:size].tolist())
    assert choice.step.start().tolist() == [budget // size] * size
