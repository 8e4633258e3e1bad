"""Whatever is refused has changed nothing: steps settled twice or elsewhere, odd outcomes, odd spending."""

import numpy as np
import pytest

from cero import available_allocators, make_allocator
from cero.allocators.rounds import play
from cero.core.budget import Ledger
from cero.core.checks import shown
from cero.core.state import load_state, save_state


def made(name):
    return make_allocator(name, rollouts_per_prompt=8, epochs=4, total_budget=10_000)


def played(allocator, ids=range(8)):
    def sample(prompts, rollouts):
        return rollouts // 2, rollouts

    return play(allocator.begin(np.array(ids, np.uint64)), sample)


def snapshot(allocator):
    return repr(allocator.state_dict()), allocator.ledger.spent


@pytest.mark.parametrize("name", available_allocators())
def test_a_step_is_settled_once(name):
    allocator = made(name)
    step = played(allocator)
    allocator.settle(step, step.successes, step.trials)
    before = snapshot(allocator)
    for trials in (step.trials, np.zeros_like(step.trials)):
        with pytest.raises(ValueError, match="this step was settled before"):
            allocator.settle(step, np.zeros(8), trials)
    assert snapshot(allocator) == before


@pytest.mark.parametrize("name", available_allocators())
def test_a_step_of_another_allocator(name):
    one, other = made(name), made(name)
    step = played(one)
    before = snapshot(other)
    with pytest.raises(ValueError):
        other.settle(step, step.successes, step.trials)
    assert snapshot(other) == before
    one.settle(step, step.successes, step.trials)


ODD = {
    "words": (["1"] * 8, [2] * 8),
    "truth values": ([True] * 8, [2] * 8),
    "trials as words": ([1] * 8, ["2"] * 8),
    "trials as truth values": ([0] * 8, [True] * 8),
    "halves": ([1] * 8, [2.5] * 8),
    "nan trials": ([1] * 8, [float("nan")] * 8),
    "astronomical": ([1] * 8, [2**62] * 8),
    "beyond int64": ([1] * 8, [1e300] * 8),
    "unsigned and huge": ([1] * 8, np.full(8, 2**63, np.uint64)),
    "negative": ([0] * 8, [-1] * 8),
    "more successes than trials": ([3] * 8, [2] * 8),
    "nan": ([float("nan")] * 8, [2] * 8),
    "too few": ([1] * 7, [2] * 7),
}


@pytest.mark.parametrize("name", ["cero", "uniform", "cero_seq", "aero"])
@pytest.mark.parametrize("case", ODD)
def test_odd_outcomes(name, case):
    allocator = made(name)
    step = played(allocator)
    before = snapshot(allocator)
    with pytest.raises(ValueError, match="successes|trials"):
        allocator.settle(step, *ODD[case])
    assert snapshot(allocator) == before
    allocator.settle(step, step.successes, step.trials)  # and the right ones are still taken


@pytest.mark.parametrize("rollouts", [-1, 1.5, float("nan"), -0.5])
def test_odd_spending(rollouts):
    ledger = Ledger(100)
    ledger.spend(10)
    for change in (ledger.spend, ledger.refund):
        with pytest.raises(ValueError):
            change(rollouts)
    assert ledger.spent == 10


@pytest.mark.parametrize(
    "utility, saturation", [("exp", 0.001), ("exp", 0.0014), ("exp", 0.07), ("log", 1e-7)]
)
def test_a_saturation_at_which_prices_vanish(utility, saturation):
    with pytest.raises(ValueError, match=f"saturation={saturation} with utility={utility}.*raise saturation"):
        make_allocator("cero", rollouts_per_prompt=8, epochs=3, utility=utility, saturation=saturation)


@pytest.mark.parametrize(
    "utility, saturation", [("exp", 0.075), ("exp", 1e6), ("log", 1e-5), ("rational", 0.002)]
)
@pytest.mark.parametrize("value", ["variance", "inverse_sqrt", "knapsack"])
def test_extreme_saturations_give_states_that_load(utility, saturation, value, tmp_path):
    from cero.core.state import load_state, save_state

    options = dict(rollouts_per_prompt=8, epochs=3, n_max=2**20, value=value)
    allocator = make_allocator("cero", utility=utility, saturation=saturation, **options)
    rng = np.random.default_rng(0)
    for _ in range(6):
        n = allocator.allocate(range(16), 128)
        allocator.observe(range(16), rng.binomial(n, 0.3), n)
    save_state(allocator.state_dict(), tmp_path / "state.npz")
    make_allocator("cero", utility=utility, saturation=saturation, **options).load_state_dict(
        load_state(tmp_path / "state.npz")
    )


DAMAGE = {
    "cero": {"slope": 1.5, "successes": -1.0, "failures": -0.5, "pending": -1, "allocated": -3, "last": -1.0}
    | {"steps": -2, "price": -0.1, "clock": 1.5, "first_trials": -4.0},
    "cero_resolve": {"visits": -1, "clock": 2**31},
    "greso": {"p_easy": 1.5, "p_hard": -0.1, "run": -(2**31), "allocated": 2**31 - 1},
    "knapsack": {"recent_trials": -1.0},
    "gdro": {"price": -1.0},
    "aero": {"successes": -1.0, "pending": -2},
}


@pytest.mark.parametrize("name, key", [(name, key) for name, keys in DAMAGE.items() for key in keys])
def test_a_state_that_no_run_can_reach(name, key):
    allocator, other = made(name), made(name)
    step = played(allocator)
    allocator.settle(step, step.successes, step.trials)
    state = allocator.state_dict()
    if key in state["scalars"]:
        state["scalars"][key] = DAMAGE[name][key]
    else:
        state["table"][key][0] = DAMAGE[name][key]
    before = snapshot(other)
    with pytest.raises(ValueError, match=f"{key}=.*damaged"):
        other.load_state_dict(state)
    assert snapshot(other) == before
    other.load_state_dict(allocator.state_dict())


# ---- what the fuzz found (scripts/reliability/fuzz.py) -------------------------------------------

NO_STATES = {
    "a format that is an array": {"format": np.array(["cero-allocator"])},
    "a version that is a list": {"version": [2]},
    "an allocator that is an array": {"allocator": np.array(["cero", "cero"])},
    "a table that is a number": {"table": 3},
    "a column of lists": {"table": {"id": [[1], [1, 2]]}},
    "a column without dimensions": {"table": {"id": np.uint64(1)}},
    "scalars that are a list": {"scalars": []},
    "a generator that is a word": {"rng": "PCG64"},
    "a ledger that is none": {"ledger": None},
}


@pytest.mark.parametrize("name", ["cero", "gdro", "aero", "uniform"])
@pytest.mark.parametrize("case", NO_STATES)
def test_a_state_of_other_types(name, case):
    allocator = made(name)
    before, state = snapshot(allocator), allocator.state_dict()
    change = {key: value for key, value in NO_STATES[case].items()}
    if isinstance(change.get("table"), dict):
        change["table"] = {**state["table"], **change["table"]}
    with pytest.raises(ValueError, match="state|prompt table|ledger"):
        allocator.load_state_dict(state | change)
    assert snapshot(allocator) == before


@pytest.mark.parametrize("figure", [-1, 2**200, 1.5, float("nan"), "1", None, [1]])
@pytest.mark.parametrize("key", ["state", "inc", "has_uint32", "uinteger"])
def test_a_generator_that_can_not_be(key, figure):
    allocator = made("cero")
    before, state = snapshot(allocator), allocator.state_dict()
    rng = state["rng"] = {**state["rng"], "state": dict(state["rng"]["state"])}
    (rng["state"] if key in rng["state"] else rng)[key] = figure
    if key in ("has_uint32", "uinteger") and figure == -1:
        return  # NumPy takes what it can of these
    with pytest.raises(ValueError, match="generator can't be restored"):
        allocator.load_state_dict(state)
    assert snapshot(allocator) == before


def test_a_number_of_a_state_beyond_integers():
    """It made a price an object array, which failed at the next step."""
    for name, key in (("gdro", "price_0"), ("cero", "price"), ("cero", "steps")):
        allocator = made(name)
        state = allocator.state_dict()
        key = key if key in state["scalars"] else next(iter(state["scalars"]))
        state["scalars"][key] = 10**300
        with pytest.raises(ValueError, match=f"state scalar {key}="):
            allocator.load_state_dict(state)


ODD_BUDGETS = ["8", "a", [8], float("inf"), float("nan"), {}, np.array([8, 8]), object(), 8.5, True]


@pytest.mark.parametrize("name", ["cero", "aero", "uniform"])
def test_odd_budgets_and_ids_change_nothing(name):
    allocator = made(name)
    before = snapshot(allocator)
    for budget in ODD_BUDGETS:
        with pytest.raises(ValueError, match="budget="):
            allocator.begin([1], budget)
    for ids in (5, None, 1.5, object(), [np.timedelta64(1)], len):
        with pytest.raises(ValueError, match="prompt_ids"):
            allocator.begin(ids, 8)
        with pytest.raises(ValueError, match="prompt_ids"):
            allocator.success_mean(ids)
    assert snapshot(allocator) == before


@pytest.mark.parametrize("rates", [["a"], [b"1"], [None], [True], [10**400], [[0.5], [0.5, 1]], [1j]])
def test_odd_pass_rates(rates):
    allocator = made("cero")
    before = snapshot(allocator)
    with pytest.raises(ValueError, match="pass_rates="):
        allocator.set_pass_rates([1], rates)
    assert snapshot(allocator) == before


ODD_REPORTS = [
    ("a", 1, 2), (None, 1, 2), (0.5, 1, 2), (-1, 1, 2), (2**63, 1, 2), ([0], 1, 2), (0, "1", 2), (0, None, 2),
    (0, 1, "2"), (0, 1, 1.5), (0, 1, 1e300), (0, 1, 10**400), (0, float("nan"), 2), (0, [1], 2), (0, 1, [2]),
    (0, True, 2), (float("nan"), 1, 2), (float("inf"), 1, 2),
]  # fmt: skip


@pytest.mark.parametrize("name", ["cero", "aero", "cero_seq"])
@pytest.mark.parametrize("report", ODD_REPORTS, ids=repr)
def test_odd_reports(name, report):
    step = made(name).begin(np.arange(3, dtype=np.uint64), 24)
    step.start()
    before = (step.successes.tolist(), step.trials.tolist(), step._in_flight.tolist())
    with pytest.raises(ValueError, match="prompt|successes|trials"):
        step.report(*report)
    assert (step.successes.tolist(), step.trials.tolist(), step._in_flight.tolist()) == before


TOO_LARGE = [
    ("cero", "price", 1e300),
    ("cero", "successes", 1e200),
    ("cero", "last", 1e30),
    ("cero_seq", "failures", 1e200),
    ("cero_seq", "first_trials", 1e300),
    ("knapsack", "recent_trials", 1e200),
    ("gdro", "price", 0.0),
]


@pytest.mark.parametrize("name, key, value", TOO_LARGE)
def test_a_state_whose_numbers_would_overflow(name, key, value):
    allocator, other = made(name), made(name)
    step = played(allocator)
    allocator.settle(step, step.successes, step.trials)
    state = allocator.state_dict()
    if key in state["scalars"]:
        state["scalars"][key] = value
    else:
        state["table"][key][0] = value
    before = snapshot(other)
    with pytest.raises(ValueError, match=f"{key}=.*damaged"):
        other.load_state_dict(state)
    assert snapshot(other) == before


@pytest.mark.parametrize("price_step", [600.0, 1000.0])
def test_a_price_of_gdro_whose_steps_are_large(price_step):
    """It became infinite, then nan; the state was refused at resume."""
    allocator = make_allocator("gdro", rollouts_per_prompt=4, epochs=4, n_max=32, price_step=price_step)
    rng = np.random.default_rng(0)
    with np.errstate(all="raise", under="ignore"):
        for _ in range(12):
            n = allocator.allocate(range(6), 24)
            allocator.observe(range(6), rng.binomial(n, 0.5), n)
            assert n.sum() == 24 and 0 < allocator.price < float("inf")
    again = make_allocator("gdro", rollouts_per_prompt=4, epochs=4, n_max=32, price_step=price_step)
    again.load_state_dict(allocator.state_dict())
    assert snapshot(again) == snapshot(allocator)


@pytest.mark.parametrize("name", available_allocators())
def test_a_step_does_not_take_the_rollouts_of_another(name):
    """Of one prompt in two open steps. The first took what both had launched, and the second was refused."""
    allocator = made(name)
    one, other = played(allocator, [5, 6]), played(allocator, [5, 6])
    before = snapshot(allocator)
    with pytest.raises(ValueError, match="trials=.*were launched"):
        allocator.settle(one, np.zeros(2), one.launched + (one.launched == one.launched.max()))
    assert snapshot(allocator) == before
    for step in (one, other):
        allocator.settle(step, step.successes, step.trials)
    assert (allocator.table["pending"] == 0).all()


@pytest.mark.parametrize("name", available_allocators())
@pytest.mark.parametrize(
    "step", [None, 1, "x", [], object()], ids=["None", "number", "text", "list", "object"]
)
def test_what_is_no_step_is_not_settled(name, step):
    allocator = made(name)
    before = snapshot(allocator)
    with pytest.raises(ValueError, match="is no step; settle what begin"):
        allocator.settle(step, [1], [1])
    assert snapshot(allocator) == before


ODD_CHOICES = [("8", 1, None), (None, 1, None), (float("nan"), 1, None), ([8], 1, None), (10**5000, 1, None)]
ODD_CHOICES += [(8, each, None) for each in ("1", None, True, 1.5, 3)]
ODD_CHOICES += [(8, 1, each) for each in ("1", True, 1.5, 3, 10**5000)]


@pytest.mark.parametrize("budget, least, most", ODD_CHOICES, ids=shown)
def test_odd_choices_change_nothing(budget, least, most):
    allocator = make_allocator("greedy", rollouts_per_prompt=4, epochs=2, n_min=0)
    before = snapshot(allocator)
    with pytest.raises(ValueError, match="budget=|least=|most="):
        allocator.choose(["a", "b"], budget, least, most)
    assert snapshot(allocator) == before
    assert allocator.choose(["a", "b"], np.float32(8), np.int8(1), 2.0).chosen.tolist() == [0, 1]


def test_odd_withdrawals_and_weights_name_what_is_odd():
    allocator = make_allocator("cero", rollouts_per_prompt=4, epochs=2)
    allocator.allocate(["a", "b"], 8)
    before = snapshot(allocator)
    for rollouts in ([[1], [1, 2]], ["1", "2"], [1.5, 1], [-1, 1], [1], [True, 1], 1):
        with pytest.raises(ValueError, match="rollouts"):
            allocator.withdraw(["a", "b"], rollouts)
    for weights in (1, 1.0, [[1.0], [1.0]], [True, 1]):
        with pytest.raises(ValueError, match="weights="):
            allocator.observe(["a", "b"], [1, 1], [4, 4], weights)
    assert snapshot(allocator) == before


@pytest.mark.parametrize("rate", [float("inf"), -float("inf")])
def test_an_infinite_pass_rate_is_not_an_unknown_one(rate):
    with pytest.raises(ValueError, match=r"pass_rates=.*inf.* must lie in \[0, 1\]"):
        made("cero").set_pass_rates(["a", "b"], [0.5, rate])


@pytest.mark.parametrize("name", ["cero", "cero_resolve", "gdro", "thompson", "mapp"])
def test_a_prior_of_which_nothing_would_be_left(name):
    """Beta(1, 1e-300) is worth exactly 0, so prices were nan."""
    for key in ("prior_a", "prior_b"):
        with pytest.raises(ValueError, match=f"{key}=1e-300 must be a number in"):
            make_allocator(name, rollouts_per_prompt=8, epochs=4, **{key: 1e-300})


@pytest.mark.parametrize("prior", ["fixed", "pooled"])
@pytest.mark.parametrize("a, b", [(1e6, 1e-6), (1e-6, 1e6), (1e-6, 1e-6)])
def test_the_ends_of_the_prior_give_states_that_load(a, b, prior, tmp_path):
    options = dict(rollouts_per_prompt=8, epochs=4, prior=prior, prior_a=a, prior_b=b)
    allocator, again = (make_allocator("cero", **options) for _ in range(2))
    for _ in range(3):
        step = played(allocator)
        allocator.settle(step, step.successes, step.trials)
        assert np.isfinite(list(allocator.metrics().values())).all()
    save_state(allocator.state_dict(), tmp_path / "state.npz")
    again.load_state_dict(load_state(tmp_path / "state.npz"))
    assert played(again).launched.tolist() == played(allocator).launched.tolist()


def test_options_of_numpy_are_saved(tmp_path):
    allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=4, warm_start=np.bool_(False))
    save_state(allocator.state_dict(), tmp_path / "state.npz")
    assert load_state(tmp_path / "state.npz")["options"]["warm_start"] is False


@pytest.mark.parametrize("total", ["x", 1.5, True, -1, 10**30])
def test_a_saved_total_that_is_none(total):
    state = made("cero").state_dict()
    state["ledger"]["total"] = total
    with pytest.raises(ValueError, match="ledger: total="):
        made("cero").load_state_dict(state)
    for options in (None, [], "x"):
        with pytest.raises(ValueError, match="options="):
            made("cero").load_state_dict(made("cero").state_dict() | {"options": options})


def test_huge_numbers_are_refused_in_words():
    """Python does not write integers of thousands of digits."""
    for name in ("cero", "aero"):
        with pytest.raises(ValueError, match="budget=an integer of thousands of digits"):
            made(name).begin(["a"], 10**5000)
    with pytest.raises(ValueError, match="budget=an integer of thousands of digits"):
        Ledger(100).spend(10**5000)


@pytest.mark.parametrize("name", [["cero"], {}, None, 1])
def test_an_allocators_name_is_text(name):
    with pytest.raises(ValueError, match="allocator=.* is no name; choose one of aero"):
        make_allocator(name, rollouts_per_prompt=8, epochs=4)
