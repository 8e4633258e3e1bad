"""The optimal baseline: by hand, unbiased by enumeration, and of least variance against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from cero.estimators.advantage import Groups, advantages
from cero.estimators.baseline import FADING, FLOOR, PRIOR, OptimalBaseline, score_weights


def test_score_weights_by_hand():
    log_probs = np.log([[0.5, 0.9, 1.0], [1.0, 0.25, 0.5]])
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    np.testing.assert_allclose(score_weights(log_probs, mask), [0.25 + 0.01, 0.0 + 0.5625 + 0.25])


def test_by_hand():
    # Weights 1, 3 and 2 around their mean 2; prompt 7 has the first two rollouts, prompt 8 the third.
    baseline = OptimalBaseline(forgetting=0.5)
    v = np.array([0.5, 1.5, 1.0]) + FLOOR
    b = baseline.of_step([7, 8], np.array([0, 0, 1]), np.array([1.0, 0.0, 1.0]), np.array([1.0, 3.0, 2.0]))
    half = PRIOR / 2
    np.testing.assert_allclose(b, [half / (PRIOR + v[1]), (half + v[0]) / (PRIOR + v[0]), 0.5])
    right, wrong = baseline.remembered([7, 8, 9])
    np.testing.assert_allclose(right, [half + v[0], half + v[2], half], rtol=1e-6)
    np.testing.assert_allclose(wrong, [half + v[1], half, half], rtol=1e-6)
    # The next step's weights are in units of the first's mean; what was remembered fades only then.
    b = baseline.of_step([7], np.zeros(1, int), np.zeros(1), np.array([4.0]))
    np.testing.assert_allclose(b, [(half + v[0]) / (PRIOR + v[:2].sum())], rtol=1e-6)
    np.testing.assert_allclose(baseline.remembered([7])[1], half + 0.5 * v[1] + 2 + FLOOR, rtol=1e-6)
    np.testing.assert_allclose(baseline._weights, [FADING * 6 + 4, FADING * 3 + 1])


def test_without_buckets_it_is_what_it_was():
    """To the bit, what a version without buckets computed."""
    rng, baseline = np.random.default_rng(7), OptimalBaseline()
    recorded = (
        ["0x1.fffffffffffffp-2", "0x1.363aa89e23221p-1", "0x1p-1", "0x1p-1", "0x1.6c67270a12166p-1"],
        ["0x1.60c19a8520454p-2", "0x1.6e2a51931fc45p-2", "0x1p-1", "0x1.1fa5adfc6d7dcp-1",
         "0x1.a8ee3ebb35a43p-1"],
        ["0x1.fe007caa2c6e0p-2", "0x1.2dda527eb4451p-1", "0x1.02cc12dbed50cp-1", "0x1.10ab52f6e857cp-2",
         "0x1.ec958c5990d9dp-2"],
    )  # fmt: skip
    for step, expected in enumerate(recorded):
        ids = rng.integers(0, 4, 3).astype(np.uint64)
        rewards, weights = rng.integers(0, 2, 5).astype(float), rng.random(5) * 3
        rounds = None if step else np.array([0, 1, 0, 0, 1])
        found = baseline.of_step(ids, np.array([0, 0, 1, 2, 2]), rewards, weights, rounds)
        assert found.tolist() == [float.fromhex(value) for value in expected]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
def test_unbiased_and_of_less_variance_than_the_mean(p, n):
    """All outcomes of a step are summed over: no sampling error. History: what p makes certain on average."""
    weight = {1.0: (1 - p) ** 2, 0.0: p**2}  # squared scores of right and wrong
    moments = {"optimal": np.zeros(2), "mean": np.zeros(2)}
    for outcome in itertools.product([0.0, 1.0], repeat=n):
        rewards = np.array(outcome)
        chance = p ** rewards.sum() * (1 - p) ** (n - rewards.sum())
        w = np.array([weight[r] for r in outcome])
        baseline = OptimalBaseline()
        baseline._weights[:] = (
            2 * p * (1 - p) * 50,
            50,
        )  # the mean weight times something: fixed before the step
        v = np.array([weight[1.0], weight[0.0]]) / (2 * p * (1 - p))
        baseline.table.add(np.array([1], np.uint64))
        baseline.table["right"][0], baseline.table["wrong"][0] = 40 * p * v[0], 40 * (1 - p) * v[1]
        b = baseline.of_step([1], np.zeros(n, int), rewards, w)
        data = Groups(rewards, np.zeros(n, int), 1, baseline=b)
        optimal = advantages("posterior", data, [p], scale=False)
        np.testing.assert_allclose(optimal, rewards - b)
        mean = advantages("posterior", Groups(rewards, np.zeros(n, int), 1), [p], scale=False, history=40)
        for kind, advantage in (("optimal", optimal), ("mean", mean)):
            g = (advantage * (rewards - p)).sum() / n
            moments[kind] += chance * np.array([g, g * g])
    for first, _ in moments.values():
        np.testing.assert_allclose(first, p * (1 - p), rtol=1e-9)
    if p != 0.5:  # where both baselines are 1/2
        variance = {kind: second - first**2 for kind, (first, second) in moments.items()}
        assert variance["optimal"] < 0.5 * variance["mean"]


@settings(deadline=None)  # a busy machine is no failure
@given(st.floats(0.01, 0.99), st.floats(0.01, 10), st.floats(0.01, 10))
def test_limit_is_the_minimum(p, right, wrong):
    """With much history b is what minimises E[w (r - b)^2], found numerically."""
    baseline = OptimalBaseline()
    baseline._weights[:] = 1e9, 1e9
    baseline.table.add(np.array([1], np.uint64))
    baseline.table["right"][0], baseline.table["wrong"][0] = 1e7 * p * right, 1e7 * (1 - p) * wrong
    b = baseline.of_step([1], np.zeros(1, int), np.ones(1), np.array([right]))[0]
    best = optimize.minimize_scalar(
        lambda b: p * right * (1 - b) ** 2 + (1 - p) * wrong * b**2, bounds=(0, 1), method="bounded",
        options={"xatol": 1e-9},
    ).x  # fmt: skip
    assert b == pytest.approx(best, abs=2e-3)


def test_order_repeats_and_rounds():
    rng = np.random.default_rng(0)
    groups, rewards = np.repeat(np.arange(6), 3), rng.integers(0, 2, 18).astype(float)
    weights, ids = rng.random(18), np.array([4, 5, 6, 7, 8, 4], np.uint64)  # a prompt that occurs twice
    one, other = OptimalBaseline(), OptimalBaseline()
    order = rng.permutation(18)
    a = one.of_step(ids, groups, rewards, weights)
    b = other.of_step(ids, groups[order], rewards[order], weights[order])
    np.testing.assert_allclose(a[order], b)
    np.testing.assert_allclose(one.remembered(ids), other.remembered(ids))
    # Later rounds don't tell on earlier ones.
    rounds = np.tile([0, 1, 1], 6)
    c = OptimalBaseline().of_step(ids, groups, rewards, weights, rounds)
    np.testing.assert_allclose(c[::3], 0.5)


def test_state_and_bad_input():
    baseline = OptimalBaseline()
    baseline.of_step([1, 2], np.array([0, 1]), np.array([1.0, 0.0]), np.array([1.0, 2.0]))
    other = OptimalBaseline()
    other.load_state_dict(baseline.state_dict())
    step = [1, 2, 3], np.arange(3), np.array([1.0, 1.0, 0.0]), np.array([3.0, 1.0, 1.0])
    np.testing.assert_array_equal(baseline.of_step(*step), other.of_step(*step))
    for bad, match in (({}, "no state"), (baseline.state_dict() | {"weights": [1, -1]}, "damaged")):
        with pytest.raises(ValueError, match=match):
            other.load_state_dict(bad)
    before = baseline.state_dict()
    with pytest.raises(ValueError, match="finite"):
        baseline.of_step([1], np.zeros(1, int), np.ones(1), np.array([np.nan]))
    assert before["weights"] == baseline.state_dict()["weights"]
    assert OptimalBaseline().of_step([], np.zeros(0, int), np.zeros(0), np.zeros(0)).size == 0
    # All tokens certain: every rollout counts alike.
    sure = OptimalBaseline().of_step([1], np.zeros(2, int), np.array([1.0, 0.0]), np.zeros(2))
    np.testing.assert_allclose(sure, [1 / 3, 2 / 3])
    with pytest.raises(ValueError, match="forgetting"):
        OptimalBaseline(forgetting=0)


ODD_STEPS = {
    "a group beyond": dict(groups=np.array([0, 0, 2])),
    "a negative group": dict(groups=np.array([0, 0, -1])),
    "groups of floats": dict(groups=np.array([0.0, 0.0, 1.0])),
    "a nan reward": dict(rewards=np.array([np.nan, 0.0, 1.0])),
    "a reward of 2": dict(rewards=np.array([2.0, 0.0, 1.0])),
    "too few rewards": dict(rewards=np.array([1.0, 0.0])),
    "too few weights": dict(weights=[1.0, 2.0]),
    "words": dict(weights=["a", "b", "c"]),
    "known of another step": dict(known=np.zeros((1, 3))),
}


@pytest.mark.parametrize("case", ODD_STEPS)
def test_an_odd_step_changes_nothing(case):
    step = dict(groups=np.array([0, 0, 1]), rewards=np.array([1.0, 0.0, 1.0]), weights=[1.0, 2.0, 3.0])
    tested = OptimalBaseline()
    tested.of_step([1, 2], **step)
    before = repr(tested.state_dict())
    with pytest.raises(ValueError, match="groups|rewards|weights|known"):
        tested.of_step([5, 6], **(step | ODD_STEPS[case]))
    assert repr(tested.state_dict()) == before
    for damage in ({"table": None}, {"table": []}, {"weights": [1.0, 0.0]}):
        with pytest.raises(ValueError, match="table=|weights="):
            tested.load_state_dict(tested.state_dict() | damage)
    state = tested.state_dict()
    state["table"]["right"] -= 10
    with pytest.raises(ValueError, match="a negative number in 'right'"):
        tested.load_state_dict(state)
    assert repr(tested.state_dict()) == before


ODD_KNOWLEDGE = {
    "nan": [[np.nan] * 3] * 2, "nothing": [[0.0, 0.0, 1.0]] * 2, "negative": [[-5.0, 1.0, 1.0]] * 2,
    "a negative unit": [[1.0, 1.0, -1.0]] * 2,
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_KNOWLEDGE)
def test_odd_knowledge_changes_nothing(case):
    tested, step = OptimalBaseline(), (np.array([0, 0, 1]), np.array([1.0, 0.0, 1.0]), np.ones(3))
    with pytest.raises(ValueError, match="known"):
        tested.of_step([1, 2], *step, known=np.array(ODD_KNOWLEDGE[case]))
    assert len(tested.table) == 0


def test_what_was_known_is_what_is_known_if_nothing_happened_since():
    """With unequal weights of right and wrong rollouts, so that no two columns can be exchanged."""
    groups, rewards = np.array([0, 0, 0, 1, 1]), np.array([1.0, 0.0, 0.0, 1.0, 1.0])
    weights = np.array([3.0, 0.5, 0.25, 1.0, 2.0])
    learned = []
    for _ in range(2):
        tested = OptimalBaseline()
        tested.of_step([7, 8], groups, rewards, weights)
        learned.append(tested)
    direct = learned[0].of_step([7, 8], groups, rewards, weights)
    sent = learned[1].of_step([7, 8], groups, rewards, weights, known=learned[1].known_now([7, 8]))
    np.testing.assert_allclose(sent, direct, rtol=1e-6)


@pytest.mark.parametrize(
    "bucket, buckets", [("topic", None), (None, np.zeros((2, 1), int)), ("topic", np.zeros((3, 1), int))]
)
def test_buckets_are_checked_whatever_is_known(bucket, buckets):
    tested = OptimalBaseline(bucket=bucket)
    with pytest.raises(ValueError, match="bucket"):
        tested.of_step(
            [1, 2], np.array([0, 1]), np.ones(2), np.ones(2), buckets=buckets, known=np.ones((2, 3))
        )
    assert len(tested.table) == 0
