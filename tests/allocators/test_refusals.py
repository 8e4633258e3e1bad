"""Whatever is refused has changed nothing: steps settled twice or elsewhere, odd outcomes, odd spending."""

import numpy as np
import pytest

from cero import available_allocators, make_allocator
from cero.allocators.rounds import play
from cero.core.budget import Ledger


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
    "cero_resolve": {"visits": -1},
    "greso": {"p_easy": 1.5, "p_hard": -0.1},
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
