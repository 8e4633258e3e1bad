"""The estimators' numbers: by hand, and their bias by enumeration, stopping rules included."""

import itertools

import numpy as np
import pytest
from scipy import special, stats

from cero import make_allocator
from cero.allocators.rounds import play
from cero.estimators.advantage import (
    ADVANTAGES,
    Groups,
    advantages,
    group_outcomes,
    known_so_far,
    posterior_advantage,
)


def test_by_hand():
    # n = 2, q = 1/2, h = 2: b = (2 * 1/2 + the other's reward) / 3.
    a = posterior_advantage([1, 0], [0, 0], [0.5], history=2, scale=False)
    np.testing.assert_allclose(a, [1 - 1 / 3, 0 - 2 / 3])
    a = posterior_advantage([1, 0], [0, 0], [0.5], history=2)
    np.testing.assert_allclose(a, [(2 / 3) / np.sqrt(2 / 9), (-2 / 3) / np.sqrt(2 / 9)])


def test_groups_of_one_and_homogeneous_groups_have_small_signed_signals():
    a = posterior_advantage(
        [1, 0, 1, 1, 1, 0, 0, 0], [0, 1, 2, 2, 2, 3, 3, 3], [0.5, 0.5, 0.9, 0.1], history=8
    )
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


# ---- the family, by hand -------------------------------------------------------------------------

GROUP = np.array([1.0, 0, 0, 0])


def of(kind, rewards, history_mean=0.5, **options):
    """Advantages of one group."""
    data = Groups(
        rewards, np.zeros(len(rewards), int), 1, options.pop("trials", None), options.pop("successes", None)
    )
    return advantages(kind, data, [history_mean], **options)


def test_grpo_by_hand():
    # mean 1/4, sample variance 4 (1/4) (3/4) / 3 = 1/4
    np.testing.assert_allclose(of("grpo", GROUP), [1.5, -0.5, -0.5, -0.5], rtol=1e-5)
    assert of("grpo", np.ones(3)).tolist() == [0, 0, 0]
    assert of("grpo", [1.0]).tolist() == [0]


def test_dr_grpo_and_rloo_by_hand():
    np.testing.assert_allclose(of("dr_grpo", GROUP), [0.75, -0.25, -0.25, -0.25])
    np.testing.assert_allclose(of("rloo", GROUP), [1, -1 / 3, -1 / 3, -1 / 3])
    assert of("rloo", [1.0]).tolist() == [0]


@pytest.mark.parametrize("form, wrong, right", [("standard", -0.2425, 1 / 3), ("linear", -0.8889, 0.8)])
def test_aero_by_hand(form, wrong, right):
    """0 of 16 and 8 of 8, four rollouts kept; a mixed group is GRPO's on what was kept."""
    options = {"aero_form": form, "trials": np.full(4, 16), "successes": np.zeros(4)}
    np.testing.assert_allclose(of("aero", np.zeros(4), **options), wrong, atol=1e-4)
    options = {"aero_form": form, "trials": np.full(4, 8), "successes": np.full(4, 8)}
    np.testing.assert_allclose(of("aero", np.ones(4), **options), right, atol=1e-4)
    kept = np.array([1.0, 0.0])  # one right of ten sampled, one wrong kept
    mixed = of("aero", kept, aero_form=form, trials=np.full(2, 10), successes=np.ones(2))
    np.testing.assert_allclose(mixed, of("grpo", kept))


def test_reinforce_adas_by_hand():
    # 4 of 16 sampled were right; of these, two and two were kept.
    kept, more = np.array([1.0, 1, 0, 0]), {"trials": np.full(4, 16), "successes": np.full(4, 4)}
    np.testing.assert_allclose(of("ada_global", kept, **more), [0.75, 0.75, -0.25, -0.25])
    np.testing.assert_allclose(
        of("ada_est", kept, **more), np.array([0.75, 0.75, -0.25, -0.25]) / 0.5, rtol=1e-5
    )
    assert of("ada_est", np.zeros(4)).tolist() == [0] * 4


def test_posterior_knows_all_that_was_sampled():
    # 2 of 6 sampled, two kept: b = (h q + others) / (h + 5).
    a = of("posterior", [1.0, 0.0], history=4.0, scale=False, trials=np.full(2, 6), successes=np.full(2, 2))
    np.testing.assert_allclose(a, [1 - (2 + 1) / 9, 0 - (2 + 2) / 9])


def test_known_so_far_by_hand():
    rewards = np.array([1.0, 0, 0, 1, 1, 0.5])
    groups = np.array([2, 2, 0, 2, 0, 2])
    trials, successes = known_so_far(rewards, groups, np.array([0, 1, 0, 1, 3, 0]))
    assert trials.tolist() == [2, 4, 1, 4, 2, 2]
    assert successes.tolist() == [1.5, 2.5, 0, 2.5, 1, 1.5]
    assert known_so_far(rewards, groups)[0].tolist() == [4, 4, 2, 4, 2, 4]


@pytest.mark.parametrize("kind", ADVANTAGES)
def test_groups_do_not_touch_each_other_and_order_does_not_matter(kind):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 9, 60)
    rewards, history = rng.integers(0, 2, 60).astype(float), rng.uniform(0.1, 0.9, 9)
    whole = advantages(kind, Groups(rewards, groups, 9), history)
    order = rng.permutation(60)
    np.testing.assert_allclose(
        advantages(kind, Groups(rewards[order], groups[order], 9), history), whole[order]
    )
    for g in range(9):
        alone = of(kind, rewards[groups == g], history[g])
        np.testing.assert_allclose(whole[groups == g], alone)


# ---- MaPP: an oracle that sums over all peers ------------------------------------------------------


def population_grpo(rewards):
    """GRPO's advantages of one group by the standard deviation with n, without epsilon; 0 where all agree."""
    deviation = rewards.std()
    return (rewards - rewards.mean()) / deviation if deviation > 0 else np.zeros(rewards.size)


def mapp_by_enumeration(reward, a, b, group):
    """The mean of a rollout's own GRPO advantage over all 2^(G-1) outcomes of its peers, p ~ Beta(a, b)."""
    total = 0.0
    for peers in itertools.product([0.0, 1.0], repeat=group - 1):
        s = sum(peers)
        chance = np.exp(special.betaln(a + s, b + group - 1 - s) - special.betaln(a, b))
        total += chance * population_grpo(np.array([reward, *peers]))[0]
    return total


@pytest.mark.parametrize("nominal", [None, 2, 5])
def test_mapp_is_the_mean_over_all_peers(nominal):
    """Every outcome of groups of 1 to 5, all in one step, each with a prior of its own."""
    outcomes = [outcome for n in range(1, 6) for outcome in itertools.product([0.0, 1.0], repeat=n)]
    rewards = np.concatenate(outcomes)
    groups = np.repeat(np.arange(len(outcomes)), [len(outcome) for outcome in outcomes])
    rng = np.random.default_rng(0)
    prior = rng.uniform(0.2, 6, len(outcomes)), rng.uniform(0.2, 6, len(outcomes))
    data = Groups(rewards, groups, len(outcomes), prior=prior)
    found = advantages("mapp", data, np.full(len(outcomes), 0.5), mapp_group=nominal)
    for reward, g, advantage in zip(rewards, groups, found, strict=True):
        others = np.array(outcomes[g])
        a = prior[0][g] + others.sum() - reward
        b = prior[1][g] + (1 - others).sum() - (1 - reward)
        expected = mapp_by_enumeration(reward, a, b, nominal or others.size)
        assert advantage == pytest.approx(expected, rel=1e-9, abs=1e-12)
    size = np.bincount(groups)[groups]
    assert (found[size == 1] == 0).all() == (nominal is None)
    assert (np.sign(found[size > 1]) == 2 * rewards[size > 1] - 1).all()  # homogeneous groups, too


def test_mapp_by_hand():
    # Beta(1, 1), one of two right: the right one has seen a wrong one, Beta(1, 2), and a peer is as likely
    # right (1/3) as wrong (2/3); only a wrong one leaves an advantage, of 1.
    np.testing.assert_allclose(of("mapp", [1.0, 0.0]), [2 / 3, -2 / 3])
    np.testing.assert_allclose(of("mapp", [1.0, 1.0]), [1 / 3, 1 / 3])
    # The prior's mean is the history's where the data bring none: Beta(1.6, 0.4) and one right rollout.
    np.testing.assert_allclose(of("mapp", [1.0, 1.0], 0.8), 0.4 / 3)
    # Of three sampled, one right and one wrong are trained on; the peers are those of three.
    kept = of("mapp", [1.0, 0.0], trials=np.full(2, 3), successes=np.full(2, 1.0))
    np.testing.assert_allclose(
        kept, [mapp_by_enumeration(1.0, 1, 3, 3), mapp_by_enumeration(0.0, 2, 2, 3)], rtol=1e-9
    )
    # A reward between: the mixture.
    half = of("mapp", [0.5, 1.0])[0]
    assert half == pytest.approx((mapp_by_enumeration(1, 2, 1, 2) + mapp_by_enumeration(0, 2, 1, 2)) / 2)


def test_mapp_of_a_sure_posterior_has_grpos_expectation_and_less_variance():
    """Where the prior is sure of p, exactly; of a large group, no weight is lost to rounding."""
    for n, p in itertools.product([2, 3, 5], [0.1, 0.5, 0.8]):
        moments = np.zeros((2, 2))
        for outcome in itertools.product([0.0, 1.0], repeat=n):
            rewards = np.array(outcome)
            chance = np.prod(np.where(rewards, p, 1 - p))
            data = Groups(
                rewards, np.zeros(n, int), 1, prior=(np.array([1e9 * p]), np.array([1e9 * (1 - p)]))
            )
            sums = [
                ((advantage * (rewards - p)).sum())
                for advantage in (advantages("mapp", data, [p]), population_grpo(rewards))
            ]
            moments += chance * np.array([sums, np.square(sums)])
        assert moments[0, 0] == pytest.approx(moments[0, 1], rel=1e-6)
        assert moments[1, 0] < moments[1, 1]
    sure = Groups(np.ones(1), [0], 1, prior=(np.array([1.0]), np.array([3e4])))
    large = advantages("mapp", sure, [0.5], mapp_group=1024)[0]
    s = np.arange(1, 1024)
    exact = (stats.betabinom(1023, 1.0, 3e4).pmf(s - 1) * np.sqrt((1024 - s) / s)).sum()
    assert large == pytest.approx(exact, rel=1e-8)


# ---- bias, by enumeration ------------------------------------------------------------------------


def gradient(kind, n, p, **options):
    """Exact mean of sum_j A_j d log pi(r_j) / n for a softmax of two, group of n; unbiased is p (1 - p)."""
    total = 0.0
    for s in range(n + 1):
        rewards = np.repeat([1.0, 0.0], [s, n - s])
        total += stats.binom(n, p).pmf(s) * (of(kind, rewards, 0.3, **options) * (rewards - p)).sum()
    return total / n


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("n", range(1, 17))
def test_gradient_is_unbiased_where_that_is_claimed(n, p):
    """Exact over all outcomes, so no false alarms; Dr.GRPO and the global baseline are (n-1)/n of it."""
    assert gradient("posterior", n, p, history=4.0, scale=False) == pytest.approx(p * (1 - p), rel=1e-9)
    if n > 1:
        assert gradient("rloo", n, p) == pytest.approx(p * (1 - p), rel=1e-9)
    for kind in ("dr_grpo", "ada_global"):
        assert gradient(kind, n, p) == pytest.approx(p * (1 - p) * (n - 1) / n, rel=1e-9, abs=1e-15)


STOPPING = {
    "aero": {"n_explore": 2, "n_extra": 2, "n_total": 6},
    "cero_seq": {"n_first": 2, "skip": 0.0, "rounds": 2, "n_max": 6},
}
OTHER = 0.5  # success probability of the second prompt, which competes for the same budget


def sequential_gradient(name, p, baseline):
    """As `gradient` over a rule's own group sizes, of the first of two prompts that share 8 rollouts.

    Returns (mean of sum_j A_j d log pi, mean size x p (1 - p)), exact over all 2^8 outcomes of the draws.
    """
    total = size = 0.0
    for outcome in itertools.product([0.0, 1.0], repeat=8):
        allocator = make_allocator(name, rollouts_per_prompt=4, epochs=5, **STOPPING[name])
        left, seen, weight = list(outcome), {0: [], 1: []}, [0.5**8]

        def sample(prompts, rollouts, left=left, seen=seen, weight=weight):
            won = []
            for prompt, n in zip(prompts, rollouts, strict=True):
                draws = [left.pop(0) for _ in range(n)]
                chance = p if prompt == 0 else OTHER
                weight[0] *= np.prod([2 * (chance if r else 1 - chance) for r in draws])
                seen[prompt] += draws
                won.append(sum(draws))
            return won, rollouts

        # Draws never made keep their factor of 1/2 and are summed over.
        step = play(allocator.begin(np.array([7, 8], np.uint64), 8), sample)
        rewards, groups = np.array(seen[0]), np.zeros(len(seen[0]), int)
        rounds = step.round_of(groups, np.arange(groups.size))
        if baseline == "rloo":
            a = of("rloo", rewards)
        else:
            known = known_so_far(rewards, groups, rounds if baseline == "past" else None)
            a = of("posterior", rewards, 0.3, history=4.0, scale=False, trials=known[0], successes=known[1])
        total += weight[0] * (a * (rewards - p)).sum()
        size += weight[0] * groups.size
    return total, size * p * (1 - p)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("name", STOPPING)
def test_baselines_that_look_back_only_are_unbiased_under_stopping_rules(name, p):
    """The mean of sum_j A_j d log pi is E[n] p (1-p) (Wald), so the direction is exact."""
    found, exact = sequential_gradient(name, p, "past")
    assert found == pytest.approx(exact, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, p, baseline", [("aero", 0.4, "all"), ("aero", 0.4, "rloo"), ("cero_seq", 0.1, "rloo")]
)
def test_baselines_that_look_ahead_are_biased_under_a_stopping_rule(name, p, baseline):
    """The control: with the whole group's mean the same rules are off."""
    found, exact = sequential_gradient(name, p, baseline)
    assert abs(found / exact - 1) > 0.02


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


def test_unknown_kinds_and_forms():
    with pytest.raises(ValueError, match="advantage='ppo'"):
        of("ppo", GROUP)
    with pytest.raises(ValueError, match="aero_form='cubic'"):
        of("aero", GROUP, aero_form="cubic")


@pytest.mark.parametrize("size", [1, 2.5, 0, np.inf])
def test_mapps_group_is_checked(size):
    with pytest.raises(ValueError, match=rf"mapp_group \(or null\)={size} must be an integer"):
        of("mapp", GROUP, mapp_group=size)
    with pytest.raises(ValueError, match="history_mean"):
        of("mapp", GROUP, 1.0)


def test_group_outcomes():
    won, trials, low, high = group_outcomes(np.array([1, 0, 1, 0.5]), np.array([0, 0, 2, 2]), 4)
    assert won.tolist() == [1, 0, 1.5, 0] and trials.tolist() == [2, 0, 2, 0]
    np.testing.assert_equal(low, [0, np.nan, 0.5, np.nan])
    np.testing.assert_equal(high, [1, np.nan, 1, np.nan])


@pytest.mark.parametrize("history", [0, -1, np.inf, np.nan, 1e7])
def test_the_weight_of_history_is_a_number_that_can_be_used(history):
    with pytest.raises(ValueError, match="history=.* must be a number in"):
        posterior_advantage([1, 0], [0, 0], [0.5], history=history)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo", "ada_global", "ada_est"])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1 / 3, 0.7, 1.0])
def test_a_group_of_equal_rewards_teaches_nothing(kind, value):
    """Exactly: what is left out by its advantage is then what is left out by its rewards."""
    for size in range(2, 17):
        data = Groups(np.full(size, value), np.zeros(size, int), 1)
        assert not advantages(kind, data, [0.5]).any(), size


def test_groups_and_expectations_fit():
    with pytest.raises(ValueError, match="groups=.* must be places of 2 prompts"):
        Groups([1, 0], [0, 5], 2)
    with pytest.raises(ValueError, match="history_mean has shape"):
        advantages("posterior", Groups([1, 0], [0, 1], 2), [0.5])
