"""What is trained on: hand-worked groups for every rule, and brute force for PODS."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cero.estimators.keep import KEEP, kept


def run(rule, groups, lengths=None, seed=0, **options):
    """Keep from groups given as lists of rewards; returns one bool array a group."""
    sizes = [len(group) for group in groups]
    rewards = np.concatenate([np.asarray(group, float) for group in groups])
    lengths = np.ones(rewards.size) if lengths is None else np.concatenate(lengths)
    # Rows come back in any order: shuffle them, and sort the answer.
    order = np.random.default_rng(seed + 1).permutation(rewards.size)
    keep = np.empty(rewards.size, bool)
    of = np.repeat(np.arange(len(groups)), sizes)[order]
    keep[order] = kept(rule, rewards[order], of, lengths[order], np.random.default_rng(seed), **options)
    return np.split(keep, np.cumsum(sizes)[:-1])


def outcomes(group, keep):
    """(right kept, wrong kept)."""
    group = np.asarray(group)
    return int(group[keep].sum()), int((1 - group)[keep].sum())


def test_all_keeps_everything():
    assert all(keep.all() for keep in run("all", [[0, 1], [1, 1, 1]]))


AERO = {
    "still all wrong after rescue: count of it": ([0] * 16, {}, (0, 4)),
    "all right: count of it": ([1] * 8, {}, (4, 0)),
    "homogeneous and small: whole": ([0, 0, 0], {}, (0, 3)),
    "rescued at last, 1 of 10: as many wrong as right": ([0] * 9 + [1], {}, (1, 1)),
    "u < 1/2: as many wrong as right": ([0] * 5 + [1] * 3, {}, (3, 3)),
    "u < 1/2, k = 1.5": ([0] * 6 + [1] * 2, {"ratio": 1.5}, (2, 3)),
    "u < 1/2, k so small that none would stay: one": ([0] * 7 + [1], {"ratio": 0.1}, (1, 1)),
    "u < 1/2, k beyond what is there: whole": ([0] * 5 + [1] * 3, {"ratio": 9.0}, (3, 5)),
    "u = 1/2: whole": ([0] * 4 + [1] * 4, {}, (4, 4)),
    "u > 1/2: whole": ([0] * 2 + [1] * 6, {}, (6, 2)),
    "one rollout: whole": ([1], {}, (1, 0)),
    "count = 2": ([0] * 16, {"count": 2}, (0, 2)),
}


@pytest.mark.parametrize("case", AERO)
def test_aero(case):
    group, options, expected = AERO[case]
    # Among others: groups do not touch each other.
    others = [[0] * 8, [1, 0, 0], group, [1] * 5]
    assert outcomes(group, run("aero", others, **options)[2]) == expected


@pytest.mark.slow
def test_aero_draws_the_rejected_evenly():
    times = sum(run("aero", [[0] * 5 + [1]], seed=seed)[0].astype(int) for seed in range(2000))
    assert times[5] == 2000 and np.abs(times[:5] / 2000 - 0.2).max() < 0.04


BALANCED = {
    "enough of both: half and half": ([0] * 10 + [1] * 6, 4, (2, 2)),
    "one right: wrong fill up": ([0] * 7 + [1], 4, (1, 3)),
    "one wrong: right fill up": ([0] + [1] * 7, 4, (3, 1)),
    "all wrong": ([0] * 8, 4, (0, 4)),
    "all right": ([1] * 8, 4, (4, 0)),
    "odd count: the odd one is wrong": ([0] * 8 + [1] * 8, 5, (2, 3)),
    "too small: whole": ([0, 1, 1], 4, (2, 1)),
}


@pytest.mark.parametrize("case", BALANCED)
def test_balanced(case):
    group, count, expected = BALANCED[case]
    assert outcomes(group, run("balanced", [[1, 0], group, [0] * 9], count=count)[1]) == expected


PODS = {
    "two values: half and half": ([0] * 6 + [1] * 6, 4, [0, 0, 1, 1]),
    "one right stays": ([0] * 7 + [1], 4, [0, 0, 0, 1]),
    "extremes": ([0.1, 0.9, 0.5, 0.4, 0.6, 0.0], 3, [0.0, 0.1, 0.9]),
    "small: whole": ([0.2, 0.3], 4, [0.2, 0.3]),
    "one: any": ([0.5, 0.5], 1, [0.5]),
}


@pytest.mark.parametrize("case", PODS)
def test_pods(case):
    group, count, expected = PODS[case]
    keep = run("pods", [[1, 0, 0], group], count=count)[1]
    assert sorted(np.asarray(group)[keep]) == expected


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    groups=st.lists(
        st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    ),
    count=st.integers(1, 6),
)
def test_pods_is_the_best_of_all_subsets(groups, count):
    for group, keep in zip(groups, run("pods", groups, count=count), strict=True):
        group = np.asarray(group)
        size = min(count, group.size)
        best = max(np.var(subset) for subset in itertools.combinations(group, size))
        assert keep.sum() == size and np.var(group[keep]) == pytest.approx(best, abs=1e-9)


def test_gfpo():
    rewards, lengths = [[1, 1, 0, 1, 0]], [np.array([50, 10, 5, 100, 40])]
    assert run("gfpo_length", rewards, lengths, count=2)[0].tolist() == [False, True, True, False, False]
    # Reward per token: 1/10, 1/50, 1/100, 0, 0.
    assert run("gfpo_efficiency", rewards, lengths, count=2)[0].tolist() == [True, True, False, False, False]
    assert run("gfpo_efficiency", rewards, lengths, count=3)[0].tolist() == [True, True, False, True, False]


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(sorted(KEEP)),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    count=st.integers(1, 8),
    ratio=st.floats(0.01, 4),
    seed=st.integers(0, 2**31),
)
def test_every_rule_leaves_something_of_every_group(rule, sizes, count, ratio, seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    rewards, lengths = (rng.random(groups.size) < 0.3).astype(float), rng.integers(1, 999, groups.size)
    options = dict(count=count, ratio=ratio)
    keep = kept(rule, rewards, groups, lengths, np.random.default_rng(seed), **options)
    assert keep.dtype == bool and keep.shape == groups.shape
    left = np.bincount(groups, keep)
    assert (left >= 1).all()
    if rule not in ("all", "aero"):
        np.testing.assert_equal(left, np.minimum(sizes, count))
    np.testing.assert_equal(
        keep, kept(rule, rewards, groups, lengths, np.random.default_rng(seed), **options)
    )


def test_no_rollouts():
    for rule in KEEP:
        assert kept(rule, [], [], [], np.random.default_rng(0)).shape == (0,)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(rule="best"), "'best' is not known; choose one of all, aero"),
        (dict(ratio=0), "ratio=0"),
        (dict(ratio=float("nan")), "ratio=nan"),
        (dict(count=0), "count=0"),
        (dict(count=2.5), "count=2.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        kept(
            **(
                dict(rule="aero", rewards=[1.0], groups=[0], lengths=[1], rng=np.random.default_rng(0))
                | options
            )
        )


@pytest.mark.parametrize("options", [{"ratio": np.inf}, {"ratio": 1e19}, {"ratio": 0}, {"count": np.inf}])
def test_options_beyond_bounds_name_themselves(options):
    key, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=re.escape(f"{key}={value} must be")):
        kept("aero", [1, 0, 0, 0, 0], [0] * 5, lengths=[9] * 5, rng=np.random.default_rng(0), **options)


def test_pods_takes_no_longer_for_a_count_beyond_the_groups():
    """The splits that are tried go by the largest group, so a count of a million is what 8 is."""
    rng = np.random.default_rng(0)
    rewards, groups = rng.random(64), np.repeat(np.arange(8), 8)
    kept_all = [
        kept("pods", rewards, groups, np.ones(64), np.random.default_rng(1), count=count)
        for count in (8, 2**20)
    ]
    assert kept_all[0].tolist() == kept_all[1].tolist() == [True] * 64
