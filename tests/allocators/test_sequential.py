"""The contract of every allocator that decides within a step, whatever comes back, in whatever order."""

import copy
import pickle

import numpy as np
import pytest
from contract import MOST, drive, ids, make, rewards_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cero import available_allocators
from cero.allocators import allocator_class
from cero.allocators.cero_seq import buy, marginal_values
from cero.core.state import load_state, save_state

SEQUENTIAL = [name for name in available_allocators() if allocator_class(name).sequential]


@pytest.fixture(params=SEQUENTIAL)
def name(request):
    return request.param


def train(allocator, steps, count=24, seed=0, budget=None):
    launched = []
    for k in range(steps):
        step = allocator.begin(ids(count), budget)
        drive(step, rewards_of(count, seed + k), np.random.default_rng(seed + k))
        allocator.settle(step, step.successes, step.trials)
        launched.append(step.launched.copy())
    return launched


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 20),
    budget=st.integers(0, 32 * 20),
    failures=st.sampled_from([0.0, 0.2, 1.0]),
    fractional=st.booleans(),
)
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_cap_and_ledger_hold_whatever_comes_back(name, seed, count, budget, failures, fractional):
    allocator = make(name, total_budget=10**6)
    train(allocator, 1, count)
    before, budget = allocator.ledger.spent, min(budget, 32 * count)
    step = allocator.begin(ids(count), budget)
    assert allocator.ledger.spent == before + budget  # reserved, so that nothing else can spend it
    drive(step, rewards_of(count, seed, fractional), np.random.default_rng(seed), failures)
    allocator.settle(step, step.successes, step.trials)
    assert allocator.ledger.spent == before + step.launched.sum()
    assert allocator.table["pending"].sum() == (step.launched - step.trials).sum()


def test_default_step_needs_no_more_than_uniform(name):
    allocator = make(name, total_budget=6 * 24 * 8)
    for launched in train(allocator, 6):
        assert launched.sum() <= 24 * 8
    assert allocator.ledger.left >= 0


@pytest.mark.parametrize("nbar", [1, 2, 3, 4, 16])
def test_runs_with_any_rollouts_per_prompt(name, nbar):
    allocator = make(name, rollouts_per_prompt=nbar)
    for launched in train(allocator, 3):
        assert launched.sum() <= 24 * nbar


def test_order_of_reports_does_not_matter(name):
    launched = []
    for seed in range(3):
        allocator = make(name)
        train(allocator, 2)
        step = allocator.begin(ids(24))
        drive(step, rewards_of(24, 9), np.random.default_rng(seed))
        launched.append(step.launched)
    np.testing.assert_equal(launched[0], launched[1])
    np.testing.assert_equal(launched[0], launched[2])


def test_permuted_prompts_get_permuted_rollouts(name):
    permutation = np.random.default_rng(1).permutation(24)
    straight, shuffled = make(name), make(name)
    for k in range(4):
        rewards = rewards_of(24, k)
        one, other = straight.begin(ids(24), 180), shuffled.begin(ids(24)[permutation], 180)
        drive(one, rewards)
        drive(other, rewards[permutation])
        np.testing.assert_equal(other.launched, one.launched[permutation])
        for allocator, step in ((straight, one), (shuffled, other)):
            allocator.settle(step, step.successes, step.trials)


def test_same_seed_same_decisions(name):
    np.testing.assert_equal(train(make(name), 5), train(make(name), 5))


def test_state_round_trip_continues_identically(name, tmp_path):
    whole, first = make(name), make(name)
    train(whole, 3), train(first, 3)
    save_state(first.state_dict(), tmp_path / "state.npz")
    second = make(name, seed=99)
    second.load_state_dict(load_state(tmp_path / "state.npz"))
    np.testing.assert_equal(train(whole, 3, seed=50), train(second, 3, seed=50))
    assert whole.ledger.spent == second.ledger.spent
    assert whole.state_dict()["rng"] == second.state_dict()["rng"]


@pytest.mark.parametrize("reports", [0, 1, 10, 30])
def test_a_step_can_be_sent_away_midway(name, reports):
    step = make(name).begin(ids(24))
    flying = drive(step, rewards_of(24, 4), stop_after=reports)
    twin = pickle.loads(pickle.dumps(step))
    drive(step, rewards_of(24, 4), np.random.default_rng(7), flying=dict(flying))
    drive(twin, rewards_of(24, 4), np.random.default_rng(7), flying=dict(flying))
    np.testing.assert_equal(step.launched, twin.launched)
    np.testing.assert_equal(step.successes, twin.successes)


def test_repeats_are_prompts_of_their_own(name):
    allocator = make(name)
    prompts = np.concatenate([ids(6), ids(6), ids(2)])
    for k in range(3):
        step = allocator.begin(prompts)
        drive(step, rewards_of(14, k))
        allocator.settle(step, step.successes, step.trials)
    assert len(allocator.table) == 6 and (allocator.table["pending"] == 0).all()


def test_empty_step(name):
    allocator = make(name)
    step = allocator.begin([])
    drive(step, rewards_of(0, 0))
    allocator.settle(step, step.successes, step.trials)
    assert allocator.ledger.spent == 0


@pytest.mark.parametrize("budget", [1, 6, 23])
def test_a_budget_below_one_rollout_for_each_prompt_is_used(name, budget):
    """A run's last rollouts, say."""
    allocator = make(name)
    for k in range(2):  # of unknown prompts, and of known ones
        step = allocator.begin(ids(24), budget)
        counts = step.start()
        assert counts.max() == 1 and 0 < counts.sum() <= budget
        if name != "cero_seq" or k == 0:  # which skips some of those it knows at first
            assert counts.sum() == budget
        allocator.settle(step, counts * (k + 1) / 2, counts)


def test_no_loop_over_prompts(name):
    """A hundred thousand prompts begin at once; later calls are vectorised over their prompts."""
    step = make(name).begin(ids(100_000))
    assert 0 < step.start().sum() <= 800_000


def test_metrics_and_means_are_plain_numbers(name):
    allocator = make(name)
    train(allocator, 2)
    assert np.isfinite(allocator.success_mean(ids(30))).all()
    metrics = allocator.metrics()
    assert all(type(value) is float and np.isfinite(value) for value in metrics.values())
    assert metrics["budget/spent"] == allocator.ledger.spent


BAD_CALLS = {
    "allocate": (lambda a, s: a.allocate(ids(24)), TypeError, r"no allocate\(\); use begin\(\) and settle"),
    "observe": (
        lambda a, s: a.observe(s.ids, s.successes, s.trials),
        TypeError,
        r"no observe\(\); use begin",
    ),
    "budget too large": (lambda a, s: a.begin(ids(24), 24 * 32 + 1), ValueError, "n_max=32"),
    "over the run's": (lambda a, s: a.begin(ids(24), 600), ValueError, "total_budget=1000"),
    "trials never launched": (lambda a, s: a.settle(s, s.successes, s.trials + 99), ValueError, "launched"),
    "nan": (lambda a, s: a.settle(s, np.full(24, np.nan), s.trials), ValueError, "successes=nan"),
    "shape": (lambda a, s: a.settle(s, s.successes[:3], s.trials), ValueError, "successes has shape"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_say_why_and_change_nothing(name, case):
    call, error, message = BAD_CALLS[case]
    allocator = make(name, total_budget=1000)
    train(allocator, 2)
    step = allocator.begin(ids(24))
    drive(step, rewards_of(24, 5))
    before = copy.deepcopy(allocator.state_dict())
    with pytest.raises(error, match=message):
        call(allocator, step)
    after = allocator.state_dict()
    np.testing.assert_equal(after["table"], before["table"])
    assert (after["ledger"], after["rng"]) == (before["ledger"], before["rng"])


# ---- cero_seq's own ------------------------------------------------------------------------------


def test_marginal_values_never_rise_and_are_what_they_say():
    a, b = np.array([1.0, 2.0, 0.5, 1.0]), np.array([1.0, 3.0, 4.0, 1.0])
    successes, trials = np.array([0.0, 2.0, 3.0, 0.0]), np.array([4, 2, 8, 0])
    values = marginal_values(a, b, successes, trials, 6)
    assert values.shape == (4, 6) and (np.diff(values, axis=1) <= 1e-15).all() and (values > 0).all()
    draws = np.random.default_rng(0).beta(a + successes, b + trials - successes, (400_000, 4))
    hard = (1 - draws).mean(axis=0)
    for j in range(6):
        p = draws[:, 0]  # 0 of 4: the chance that rollout j + 1 is the first success
        assert values[0, j] == pytest.approx(hard[0] * ((1 - p) ** j * p).mean(), rel=0.02)
        p = draws[:, 1]  # 2 of 2: the first failure
        assert values[1, j] == pytest.approx(hard[1] * (p**j * (1 - p)).mean(), rel=0.02)
        p, n = draws[:, 2], 8 + j  # 3 of 8: the variance of the mean falls
        assert values[2, j] == pytest.approx(hard[2] * (p * (1 - p)).mean() * (1 / n - 1 / (n + 1)), rel=0.02)


def test_buy_takes_the_greatest():
    values = np.array([[5.0, 4.0, 1.0], [3.0, 2.0, 0.5], [-np.inf, -np.inf, -np.inf]])
    assert buy(values, 4).tolist() == [2, 2, 0]
    assert buy(values, 99).tolist() == [3, 3, 0]
    assert buy(values, 0).tolist() == [0, 0, 0]


def test_cero_seq_skips_only_what_it_knows():
    allocator = make("cero_seq", skip=0.5)
    assert (allocator.begin(ids(10), 80).start() == 2).all()
    allocator = make("cero_seq", skip=0.5)
    step = allocator.begin(ids(10), 80)
    drive(step, np.repeat(np.array([[1.0], [0.0]]), [5, 5], axis=0) * np.ones((1, MOST)))
    allocator.settle(step, step.successes, step.trials)
    first = allocator.begin(ids(10), 80).start()
    assert (first == 0).sum() == 5 and (first[:5] == 0).all()  # solved ones are worth least


def test_cero_seq_without_a_first_look_buys_at_once():
    """With skip=1, every prompt that is known is skipped; those worth most are bought in the first round."""
    allocator = make("cero_seq", skip=1.0, rounds=2)
    rewards = np.zeros((8, MOST))
    rewards[:4] = 1.0  # solved
    for k in range(4):
        step = allocator.begin(ids(8))
        drive(step, rewards)
        allocator.settle(step, step.successes, step.trials)
        assert step.launched.sum() == 64 and step.rounds.max() <= (3 if k == 0 else 2)
    assert step.launched[4:].sum() > step.launched[:4].sum()
    seen = allocator.begin(ids(9))  # one of them new: it alone gets a first look
    assert seen.start().tolist() == [0] * 8 + [2]


def test_cero_seq_looks_at_those_worth_most_where_the_budget_is_short():
    allocator = make("cero_seq", skip=0.0)
    allocator.set_pass_rates(ids(4), [0.99, 0.4, 0.99, 0.4], strength=50.0)
    assert allocator.begin(ids(4), 2).start().tolist() == [0, 1, 0, 1]


def test_cero_seq_with_fewer_rollouts_than_rounds_left():
    allocator = make("cero_seq", rounds=5, skip=0.0)
    step = allocator.begin(ids(4), 10)  # 8 in the first look, 2 for five rounds
    drive(step, rewards_of(4, 1))
    assert step.launched.sum() == 10
