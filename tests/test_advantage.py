"""The estimator's numbers: by hand, against verl's GRPO on equal groups, and its bias by enumeration."""

import itertools

import numpy as np
import pytest

from cero.advantage import group_outcomes, posterior_advantage


def test_by_hand():
    # n = 2, q = 1/2, h = 2: b = (2 * 1/2 + the other's reward) / 3.
    a = posterior_advantage([1, 0], [0, 0], [0.5], history=2, scale=False)
    np.testing.assert_allclose(a, [1 - 1 / 3, 0 - 2 / 3])
    a = posterior_advantage([1, 0], [0, 0], [0.5], history=2)
    np.testing.assert_allclose(a, [(2 / 3) / np.sqrt(2 / 9), (-2 / 3) / np.sqrt(2 / 9)])


def test_groups_of_one_and_homogeneous_groups_have_small_signed_signals():
    a = posterior_advantage([1, 0, 1, 1, 1, 0, 0, 0], [0, 1, 2, 2, 2, 3, 3, 3], [0.5, 0.5, 0.9, 0.1], history=8)
    assert a[0] > 0 > a[1]
    assert (a[2:5] > 0).all() and (a[5:] < 0).all()
    assert np.abs(a[2:]).max() < np.abs(a[:2]).max()


def test_without_history_it_is_leave_one_out():
    rewards, n = np.array([1, 0, 0, 1.0]), 4
    a = posterior_advantage(rewards, np.zeros(4, int), [0.5], history=1e-9, scale=False)
    np.testing.assert_allclose(a, rewards - (rewards.sum() - rewards) / (n - 1), atol=1e-8)


def test_prompt_weight_gives_each_prompt_the_same_weight():
    rewards, groups = np.ones(10), np.array([0] * 2 + [1] * 8)
    plain = posterior_advantage(rewards, groups, [0.5, 0.5], scale=False)
    weighted = posterior_advantage(
        rewards, groups, [0.5, 0.5], scale=False, prompt_weight="prompt", rollouts_per_prompt=5
    )
    np.testing.assert_allclose(weighted, plain * np.where(groups == 0, 5 / 2, 5 / 8))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("theta", [-3.0, -0.5, 1.0])
def test_gradient_is_unbiased_for_every_group_size(n, theta):
    """Two-armed softmax: the exact mean over all 2^n outcomes of sum_j A_j d log pi(r_j) is n dE[r]/dtheta."""
    p = 1 / (1 + np.exp(-theta))
    mean = 0.0
    for outcome in itertools.product([0, 1], repeat=n):
        rewards = np.array(outcome, float)
        a = posterior_advantage(rewards, np.zeros(n, int), [0.3], history=4, scale=False)
        mean += np.prod(np.where(rewards == 1, p, 1 - p)) * (a * (rewards - p)).sum()
    assert mean / n == pytest.approx(p * (1 - p), rel=1e-9)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rewards": [2.0, 0.0]}, "rewards"),
        ({"rewards": [np.nan, 0.0]}, "rewards"),
        ({"history_mean": [1.0]}, "history_mean"),
        ({"history": 0}, "history=0"),
        ({"prompt_weight": "token"}, "prompt_weight='token'"),
        ({"prompt_weight": "prompt"}, "rollouts_per_prompt"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        posterior_advantage(**({"rewards": [1.0, 0.0], "groups": [0, 0], "history_mean": [0.5]} | change))


def test_group_outcomes():
    won, trials, low, high = group_outcomes(np.array([1, 0, 1, 0.5]), np.array([0, 0, 2, 2]), 4)
    assert won.tolist() == [1, 0, 1.5, 0] and trials.tolist() == [2, 0, 2, 0]
    np.testing.assert_equal(low, [0, np.nan, 0.5, np.nan])
    np.testing.assert_equal(high, [1, np.nan, 1, np.nan])
