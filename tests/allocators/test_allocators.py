"""The contract of every registered allocator; test_sequential.py has more on those that decide in rounds."""

import copy

import numpy as np
import pytest
from contract import drive, ids, make, rewards_of, success_rates

from cero import available_allocators, make_allocator
from cero.allocators import allocator_class
from cero.allocators.peers import vip
from cero.core.state import load_state, save_state


@pytest.fixture(params=[name for name in available_allocators() if not allocator_class(name).sequential])
def name(request):
    return request.param


@pytest.fixture(params=available_allocators())
def any_name(request):
    return request.param


def train(allocator, rounds, prompts=None, rng=None):
    """Allocate and observe; returns the allocations."""
    prompts = ids(64) if prompts is None else prompts
    rng = rng or np.random.default_rng(11)
    given = []
    for _ in range(rounds):
        n = allocator.allocate(prompts, budget=8 * len(prompts))
        allocator.observe(prompts, rng.binomial(n, success_rates(prompts)), n)
        given.append(n)
    return given


def same_state(one, other):
    """Equal in everything but the options."""
    tables = [
        {key: column[np.argsort(state["table"]["id"])] for key, column in state["table"].items()}
        for state in (one, other)
    ]
    np.testing.assert_equal(tables[0], tables[1])
    for key in ("ledger", "rng", "scalars", "allocator", "version"):
        assert one[key] == other[key], key


@pytest.mark.parametrize("budget", [128, 129, 512, 1999, 2048])
def test_exact_sum_within_bounds(name, budget):
    allocator = make(name)
    train(allocator, 3)
    n = allocator.allocate(ids(64), budget=budget)
    assert n.dtype == np.int64 and n.shape == (64,)
    assert n.sum() == budget and n.min() >= 2 and n.max() <= 32


def test_every_step_of_a_run_costs_its_budget(name):
    allocator = make(name, total_budget=20 * 512)
    assert [int(n.sum()) for n in train(allocator, 20)] == [512] * 20
    assert allocator.ledger.left == 0
    with pytest.raises(ValueError, match="total_budget=10240"):
        allocator.allocate(ids(64), budget=512)


def test_own_budget_is_feasible_and_stays_under_the_total(name):
    allocator = make(name, total_budget=3 * 512)
    rng, spent = np.random.default_rng(0), 0
    while allocator.ledger.left >= 2 * 64:
        n = allocator.allocate(ids(64))
        allocator.observe(ids(64), rng.binomial(n, 0.3), n)
        assert n.min() >= 2 and n.max() <= 32
        spent += int(n.sum())
    assert spent == allocator.ledger.spent <= 3 * 512


def test_same_seed_same_allocation(name):
    np.testing.assert_equal(train(make(name), 6), train(make(name), 6))


def test_state_round_trip_continues_identically(name, tmp_path):
    whole, first = make(name), make(name)
    rng_whole, rng_first = np.random.default_rng(5), np.random.default_rng(5)
    train(whole, 4, rng=rng_whole)
    train(first, 4, rng=rng_first)
    save_state(first.state_dict(), tmp_path / "state.npz")
    second = make(name, seed=99)
    second.load_state_dict(load_state(tmp_path / "state.npz"))
    same_state(whole.state_dict(), second.state_dict())
    np.testing.assert_equal(train(whole, 4, rng=rng_whole), train(second, 4, rng=rng_first))
    same_state(whole.state_dict(), second.state_dict())


def test_state_is_a_copy(name):
    allocator = make(name)
    train(allocator, 1)
    state = allocator.state_dict()
    before = copy.deepcopy(state)
    train(allocator, 2)
    same_state(state, before)


def test_permuted_prompts_get_permuted_rollouts(name):
    permutation = np.random.default_rng(1).permutation(64)
    straight, shuffled = make(name), make(name)
    for _ in range(4):
        n, m = straight.allocate(ids(64), budget=500), shuffled.allocate(ids(64)[permutation], budget=500)
        np.testing.assert_equal(m, n[permutation])
        won = np.random.default_rng(2).binomial(n, success_rates(ids(64)))
        straight.observe(ids(64), won, n)
        shuffled.observe(ids(64)[permutation], won[permutation], m)


def test_unknown_prompts_join_known_ones(name):
    allocator = make(name)
    train(allocator, 3)
    n = allocator.allocate(np.concatenate([ids(32), ids(32, start=1000)]), budget=512)
    assert n.sum() == 512
    assert np.isfinite(allocator.success_mean(ids(10, start=5000))).all()


def test_repeats_share_what_is_learned_and_get_rollouts_each(name):
    allocator = make(name)
    prompts = np.concatenate([ids(8), ids(8), ids(4)])
    for _ in range(3):
        n = allocator.allocate(prompts, budget=160)
        assert n.sum() == 160 and n.min() >= 2
        allocator.observe(prompts, n * 0.5, n)
    assert len(allocator.table) == 8
    rows = allocator.table.rows(ids(8))
    assert allocator.table["allocated"][rows].sum() == 480
    assert (allocator.table["pending"][rows] == 0).all()


def test_strings_and_integers_name_prompts(name):
    allocator = make(name)
    words = [f"What is {i} + {i}?" for i in range(16)]
    n = allocator.allocate(words, budget=128)
    allocator.observe(words, np.zeros(16), n)
    assert allocator.allocate(list(range(16)), budget=128).sum() == 128
    assert len(allocator.table) == 32


def test_a_hundred_thousand_prompts(name):
    allocator = make(name)
    prompts = ids(100_000)
    for _ in range(2):
        n = allocator.allocate(prompts, budget=800_000)
        assert n.sum() == 800_000 and n.min() >= 2 and n.max() <= 32
        allocator.observe(prompts, np.random.default_rng(0).binomial(n, 0.2), n)
    assert allocator.table.nbytes / 100_000 < 96


def test_empty_step(name):
    allocator = make(name)
    assert allocator.allocate([], budget=0).shape == (0,)
    allocator.observe([], [], [])
    with_one = make(name)
    for each in (allocator, with_one):
        each.allocate(ids(1), budget=8)
    same_state(allocator.state_dict(), with_one.state_dict())  # it moved nothing


@pytest.mark.parametrize("wish", [np.nan, np.inf, -np.inf])
def test_a_rule_that_wishes_no_number_is_refused_before_anything_is_spent(name, wish, monkeypatch):
    allocator = make(name)

    def targets(rows, budget, *limits):
        return np.where(np.arange(rows.size) == 1, wish, 8.0)

    for method in ("_targets", "_candidate_targets"):
        monkeypatch.setattr(allocator, method, targets)
    with pytest.raises(ValueError, match=f"allocator={name} wishes -?(nan|inf) rollouts.*_targets"):
        allocator.allocate(ids(4), budget=32)
    assert allocator.ledger.spent == 0 and not allocator.table["pending"].any()


def test_rollouts_that_failed_stay_spent_but_teach_nothing(name):
    allocator = make(name)
    n = allocator.allocate(ids(4), budget=32)
    allocator.observe(ids(4), np.zeros(4), [0, 1, 0, int(n[3])])
    assert allocator.ledger.spent == 32
    assert allocator.table["pending"].sum() == 32 - 1 - n[3]


BAD_CALLS = {
    "budget too small": (lambda a: a.allocate(ids(64), budget=127), "budget=127.*n_min=2"),
    "budget too large": (lambda a: a.allocate(ids(64), budget=64 * 32 + 1), "budget=2049.*n_max=32"),
    "fractional budget": (lambda a: a.allocate(ids(64), budget=512.5), "budget=512.5"),
    "nested ids": (lambda a: a.allocate([[1, 2], [3, 4]], budget=16), "prompt_ids"),
    "float ids": (lambda a: a.allocate([1.5, 2.5], budget=16), "prompt_ids"),
    "negative ids": (lambda a: a.allocate(np.array([-1, 2]), budget=16), "prompt_ids holds -1"),
    "mixed ids": (lambda a: a.allocate(["a", 2], budget=16), "prompt_ids"),
    "nan reward": (lambda a: a.observe(ids(2), [0.0, np.nan], [1, 1]), "successes=nan"),
    "infinite reward": (lambda a: a.observe(ids(2), [0.0, np.inf], [1, 1]), "successes=inf"),
    "negative reward": (lambda a: a.observe(ids(2), [0.0, -1.0], [1, 1]), "successes=-1"),
    "more successes than trials": (
        lambda a: a.observe(ids(2), [0.0, 3.0], [1, 2]),
        "successes=3.0 of trials=2",
    ),
    "trials never allocated": (lambda a: a.observe(ids(2), [0, 0], [1, 1000]), "trials=1000"),
    "prompt never seen": (lambda a: a.observe(ids(2, start=10**6), [0, 0], [1, 1]), "0 rollouts allocated"),
    "fractional trials": (lambda a: a.observe(ids(2), [0, 0], [0.5, 1]), "trials"),
    "negative trials": (lambda a: a.observe(ids(2), [0, 0], [-1, 1]), "trials=-1"),
    "wrong length": (lambda a: a.observe(ids(2), [0, 0, 0], [1, 1]), "successes has shape"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_say_why_and_change_nothing(name, case):
    call, message = BAD_CALLS[case]
    allocator = make(name)
    train(allocator, 2)
    allocator.allocate(ids(64), budget=512)  # leaves rollouts to be observed
    before = allocator.state_dict()
    with pytest.raises(ValueError, match=message):
        call(allocator)
    same_state(before, allocator.state_dict())


BAD_STATES = {
    "not a dict": lambda s: [],
    "foreign format": lambda s: s | {"format": "other"},
    "newer version": lambda s: s | {"version": 99},
    "another allocator": lambda s: s | {"allocator": "nobody"},
    "no ledger": lambda s: {k: v for k, v in s.items() if k != "ledger"},
    "overspent": lambda s: s | {"ledger": {"spent": 10**9, "total": None}},
    "missing column": lambda s: s | {"table": {k: v for k, v in s["table"].items() if k != "pending"}},
    "short column": lambda s: s | {"table": s["table"] | {"pending": s["table"]["pending"][:-1]}},
    "prompt twice": lambda s: s | {"table": s["table"] | {"id": np.zeros_like(s["table"]["id"])}},
    "negative rollouts": lambda s: s | {"table": s["table"] | {"pending": s["table"]["pending"] - 1000}},
    "bad generator": lambda s: s | {"rng": {"bit_generator": "other"}},
    "foreign scalars": lambda s: s | {"scalars": {"something": 1.0}},
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_bad_states_are_refused_and_change_nothing(name, case):
    allocator = make(name, total_budget=10**6)
    train(allocator, 2)
    before = allocator.state_dict()
    with pytest.raises(ValueError):
        allocator.load_state_dict(BAD_STATES[case](make_state(name)))
    same_state(before, allocator.state_dict())


def make_state(name):
    allocator = make(name)
    train(allocator, 1)
    return allocator.state_dict()


BAD_OPTIONS = {
    "rollouts_per_prompt": [0, -1, 2.5, "8", None, True],
    "epochs": [0, 1.5],
    "n_min": [-1, 33, 9],
    "n_max": [0, 7],
    "seed": [-1, 0.5],
    "total_budget": [-1, 0.5],
    "rounding": ["up"],
    "no_such_option": [1],
}


@pytest.mark.parametrize(
    "key, value", [(key, value) for key, values in BAD_OPTIONS.items() for value in values]
)
def test_bad_options_name_key_and_value(any_name, key, value):
    with pytest.raises(ValueError, match=f"{key}={value!r}".replace("'", ".")):
        make(any_name, **{key: value})


def test_required_options(any_name):
    with pytest.raises(ValueError, match="epochs is missing"):
        make_allocator(any_name, rollouts_per_prompt=8)


def test_unknown_allocator():
    with pytest.raises(ValueError, match="allocator='nobody' is not known; choose one of .*cero.*uniform"):
        make_allocator("nobody")


def test_metrics_are_plain_floats(name):
    allocator = make(name, total_budget=10**6)
    assert all(type(value) is float for value in allocator.metrics().values())
    train(allocator, 2)
    metrics = allocator.metrics()
    assert all(type(value) is float and np.isfinite(value) for value in metrics.values())
    assert metrics["budget/spent"] + metrics["budget/left"] == metrics["budget/total"]
    assert metrics["n/mean"] == 8


def test_repr_and_options_rebuild_it(any_name):
    allocator = make(any_name)
    assert repr(make_allocator(any_name, **allocator.options())) == repr(allocator)


def test_a_step_of_one_round_is_what_allocate_gives(name):
    one, other = make(name), make(name)
    step = one.begin(ids(64), budget=500)
    n = other.allocate(ids(64), budget=500)
    np.testing.assert_equal(step.start(), n)
    won = np.random.default_rng(2).binomial(n, success_rates(ids(64)))
    for prompt in np.flatnonzero(n):
        assert step.report(prompt, won[prompt], n[prompt]) == {prompt: 0}
    assert step.over and step.left == 0
    one.settle(step, step.successes, step.trials)
    other.observe(ids(64), won, n)
    same_state(one.state_dict(), other.state_dict())


# ---- of every allocator, whenever it decides -----------------------------------------------------


def play(allocator, steps, count=24):
    """Begin, play and settle; returns the steps."""
    played = []
    for k in range(steps):
        played.append(allocator.begin(ids(count)))
        drive(played[-1], rewards_of(count, k), np.random.default_rng(k))
        allocator.settle(played[-1], played[-1].successes, played[-1].trials)
    return played


@pytest.mark.parametrize("nbar", [4, 8])
def test_no_prompt_that_is_sampled_gets_less_than_the_least(any_name, nbar):
    allocator = make(any_name, rollouts_per_prompt=nbar)
    least = allocator.least_rollouts()
    assert type(least) is int and 1 <= least <= nbar
    for step in play(allocator, 4):
        assert step.launched[step.launched > 0].min() >= least


def test_pass_rates_are_taken_where_there_are_beliefs(any_name):
    allocator = make(any_name)
    if allocator.beliefs is None:
        with pytest.raises(ValueError, match=f"{any_name} keeps no posterior .* pass rate"):
            allocator.set_pass_rates(ids(3), [0.0, 0.5, 1.0])
        return
    before = allocator.success_mean(ids(3))
    allocator.set_pass_rates(ids(3), [0.0, np.nan, 1.0], strength=3.0)
    after = allocator.success_mean(ids(3))
    assert after[0] < before[0] and after[1] == before[1] and after[2] > before[2]
    with pytest.raises(ValueError, match="pass_rates=.*must lie in"):
        allocator.set_pass_rates(ids(1), [1.5])


def test_what_is_not_known_of_a_prompt_comes_from_elsewhere(any_name):
    """A prompt whose rollouts all failed is as unknown as one that was never sampled."""
    allocator = make(any_name)
    step = allocator.begin(ids(4))
    trials = step.start() * [1, 1, 0, 0]
    allocator.settle(step, trials / 2, trials)
    means, of_new = allocator.success_mean(ids(5)), np.full(5, 0.05)
    known = [True, True, False, False, False]
    if allocator.beliefs is None and any_name != "knapsack":
        known = [False] * 5
    found = allocator.success_mean_or(ids(5), of_new)
    np.testing.assert_array_equal(found, np.where(known, means, of_new))
    if allocator.beliefs is not None:
        allocator.set_pass_rates(ids(5)[3:4], [0.9])
        assert allocator.success_mean_or(ids(5), of_new)[3] == allocator.success_mean(ids(5))[3] > 0.5


@pytest.mark.parametrize("kind", [np.int64, np.int8, float, np.float64])
def test_whole_numbers_of_any_kind_are_options(any_name, kind, tmp_path):
    """What an option accepts, a step can use and a state can hold."""
    whole = {key: value for key, value in make(any_name).options().items() if type(value) is int}
    options = {key: kind(value) for key, value in whole.items() if value < 99}
    if "group" in make(any_name).options():
        options["group"] = kind(4)
    assert {"rollouts_per_prompt", "epochs", "n_max", "seed"} <= set(options)
    allocator, plain = make(any_name, **options), make(any_name, **{k: int(v) for k, v in options.items()})
    for one, two in zip(play(allocator, 2), play(plain, 2), strict=True):
        np.testing.assert_array_equal(one.launched, two.launched)
    assert all(type(allocator.options()[key]) is int for key in options)
    save_state(allocator.state_dict(), tmp_path / "state.npz")
    assert load_state(tmp_path / "state.npz")["options"] == plain.state_dict()["options"]


def test_options_that_decide_what_a_state_holds(any_name, monkeypatch):
    """Under other values of `state_options` a state is refused in words, under those of all others not."""
    named = {key for base in allocator_class(any_name).__mro__ for key in vars(base).get("state_options", ())}
    others = {
        "averaging": "duals", "forgetting_unit": "step", "bins": 7, "predictor": "gp", "prior": "pooled",
        "response": 2.0, "value": "signal", "n_max": 40, "rounds": 2, "anchor": "last", "objective": "rloo",
    }  # fmt: skip
    monkeypatch.setattr(vip, "_gaussian_process", lambda: None)  # it needs a package that may be missing
    allocator = make(any_name)
    play(allocator, 2)
    state, same = allocator.state_dict(), allocator.options()
    assert named <= set(others)
    for key in set(others) & set(same):
        other = make(any_name, **{key: others[key]})
        if key in named:
            fresh = other.state_dict()
            with pytest.raises(ValueError, match=f"kept with {key}={same[key]!r}.*set {key}={same[key]}, or"):
                other.load_state_dict(state)
            same_state(other.state_dict(), fresh)
        else:
            other.load_state_dict(state)
            assert other.ledger.spent == allocator.ledger.spent


def test_it_describes_every_prompt_it_knows(any_name):
    allocator = make(any_name)
    assert all(column.shape == (0,) for column in allocator.describe().columns.values())
    play(allocator, 3)
    described, table = allocator.describe(), allocator.table
    assert all(column.shape == (24,) for column in described.columns.values())
    np.testing.assert_array_equal(described.columns["rollouts"], table["allocated"])
    if "posterior_mean" in described.columns:
        np.testing.assert_array_equal(
            described.columns["posterior_mean"], allocator.success_mean(table["id"])
        )
    price = allocator.metrics().get("dual/budget")
    assert described.price == price and (described.steps is None or described.steps == 3)


def test_a_saved_run_with_options_that_are_gone_goes_on(any_name):
    """Earlier versions took options that a rule ignored; one of them had a column in the table."""
    allocator, other = make(any_name), make(any_name)
    play(allocator, 2)
    state = allocator.state_dict()
    state["options"] |= {"luck": 7}
    if allocator.beliefs is not None and "forgetting_unit" not in state["options"]:
        state["table"]["seen"] = np.zeros(len(allocator.table), np.int32)
    other.load_state_dict(state)
    same_state(allocator.state_dict(), other.state_dict())
    for one, two in zip(play(allocator, 2), play(other, 2), strict=True):
        np.testing.assert_array_equal(one.launched, two.launched)


@pytest.mark.parametrize("name", available_allocators())
def test_a_step_is_started_once(name):
    allocator = make_allocator(name, rollouts_per_prompt=8, epochs=4, total_budget=128, seed=0)
    step = allocator.begin(["a", "b"], 16)
    launched = step.start().tolist()
    with pytest.raises(ValueError, match="started before"):
        step.start()
    assert step.launched.tolist() == launched


@pytest.mark.parametrize("name", available_allocators())
def test_a_step_that_was_not_started_costs_nothing(name):
    allocator = make_allocator(name, rollouts_per_prompt=8, epochs=4, total_budget=128, seed=0)
    step = allocator.begin(["a", "b"], 16)
    allocator.settle(step, [0, 0], [0, 0])
    assert allocator.ledger.spent == 0
    step = allocator.begin(["a", "b"], 16)
    assert allocator.ledger.spent <= 16
