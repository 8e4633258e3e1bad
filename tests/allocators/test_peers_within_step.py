"""Peers that decide within a step (AERO, Reinforce-Ada-Seq, VIGOR, Pilot-Commit), worked by hand."""

import numpy as np
import pytest

from cero import make_allocator
from cero.estimators.keep import kept


def make(name, nbar=8, **options):
    return make_allocator(name, rollouts_per_prompt=nbar, epochs=5, **options)


def play(step, outcomes):
    """Play a step; outcomes[i] is the string of prompt i's rewards, e.g. "0010"; its last repeats."""

    def reward(prompt, at):
        return float(outcomes[prompt][min(at, len(outcomes[prompt]) - 1)])

    counts = step.start()
    queue = [(int(i), int(counts[i])) for i in np.flatnonzero(counts)]
    while queue:
        prompt, n = queue.pop(0)
        before = step.launched[prompt] - n
        answer = step.report(prompt, sum(reward(prompt, at) for at in range(before, before + n)), n)
        queue.extend((i, n) for i, n in answer.items() if n)
    assert step.over
    return step.launched.tolist()


AERO = {
    "rescued: until the first success": ("000000000001", 12),
    "rescued at once": ("000000001", 10),
    "still all wrong: to the total": ("0", 16),
    "all right: no more": ("1", 8),
    "u < 1/2: no more, rejection is what is kept": ("00000001", 8),
    "u >= 1/2: no more": ("00001111", 8),
}


@pytest.mark.parametrize("case", AERO)
def test_aero(case):
    rewards, expected = AERO[case]
    allocator = make("aero", nbar=16)
    assert play(allocator.begin(["a prompt"]), [rewards]) == [expected]


def test_aero_with_what_it_keeps():
    """Rescue, then the four cases of the selection: (right, wrong) kept."""
    rewards = ["000000000001", "0", "1", "00000001", "00001111"]
    step = make("aero", nbar=16).begin(np.arange(5))
    assert play(step, rewards) == [12, 16, 8, 8, 8]
    groups = np.repeat(np.arange(5), step.launched)
    every = np.concatenate(
        [np.arange(n) < s for n, s in zip(step.launched, step.successes, strict=True)]
    ).astype(float)
    keep = kept("aero", every, groups, np.ones(groups.size), np.random.default_rng(0))
    right, wrong = np.bincount(groups, keep * every), np.bincount(groups, keep * (1 - every))
    assert right.tolist() == [1, 0, 4, 1, 4] and wrong.tolist() == [1, 4, 0, 1, 4]


def test_aero_threshold_and_sizes():
    step = make("aero", nbar=16, n_explore=4, n_extra=4, n_total=12, u_rescue=0.25).begin(np.arange(3))
    assert play(step, ["0001", "1", "00010"]) == [8, 4, 12]  # 1 of 4: on; 5 of 8: enough; 1 of 8: on, to 12
    with pytest.raises(ValueError, match="n_total=64 is more than n_max=32"):
        make("aero", nbar=16, n_total=64)


SEQ = {
    "two of each in the first round": ("00111111", 8),
    "one right: another round": ("000000011", 16),
    "never a failure: all rounds": ("1", 32),
    "never a success: all rounds": ("0", 32),
}


@pytest.mark.parametrize("case", SEQ)
def test_reinforce_ada_seq(case):
    rewards, expected = SEQ[case]
    assert play(make("reinforce_ada_seq", nbar=32).begin(["a prompt"]), [rewards]) == [expected]


def test_reinforce_ada_seq_options():
    positive = make("reinforce_ada_seq", nbar=32, criterion="positive")
    assert play(positive.begin(np.arange(3)), ["1", "0", "0000000001"]) == [8, 32, 16]
    # Rounds of 2 at rollout.n = 8: two of each after the second.
    assert play(make("reinforce_ada_seq").begin(np.arange(2)), ["01", "0011"]) == [8, 4]
    with pytest.raises(ValueError, match="n_round=9 is more than rollouts_per_prompt=8"):
        make("reinforce_ada_seq", n_round=9)
    with pytest.raises(ValueError, match="criterion='both' is not known"):
        make("reinforce_ada_seq", criterion="both")


@pytest.mark.parametrize("nbar", [1, 2, 3, 5])
def test_reinforce_ada_seq_has_no_more_rounds_than_rollouts(nbar):
    """So that the defaults serve every prompt alike, whoever reports first."""
    for order in (range(4), reversed(range(4))):
        step = make("reinforce_ada_seq", nbar=nbar).begin(np.arange(4))
        flying = dict(enumerate(step.start().tolist()))
        for prompt in order:  # each to its end before the next one
            while flying[prompt]:
                flying |= step.report(prompt, 0, flying[prompt])
        assert step.over and step.launched.tolist() == [min(nbar, 4)] * 4


def test_reinforce_ada_seq_larger_rounds_are_served_while_the_budget_lasts():
    step = make("reinforce_ada_seq", n_round=8).begin(np.arange(4))
    assert sum(play(step, ["0011", "0", "0", "0"])) == 32


def test_vigor_total():
    # 8 prompts x 8: 4 each first, then 4 prompts to 8, then 2 to 16.
    step = make("vigor").begin(np.arange(8))
    rewards = ["0"] * 4 + ["00010", "00110011", "010101010", "00010"]
    assert play(step, rewards) == [4, 4, 4, 4, 8, 16, 16, 8]
    assert step.launched.sum() == 64


def test_vigor_round():
    # Rounds of 2, then 4 more for half of the prompts, then 8 more for a quarter.
    allocator = make("vigor", growth="round")
    assert play(allocator.begin(np.arange(4)), ["0", "01", "011110", "1"])[0] == 2
    step = allocator.begin(np.arange(4))
    assert sorted(play(step, ["0", "010000", "010101", "1"])) == [2, 2, 6, 14]


def test_vigor_options():
    with pytest.raises(
        ValueError, match="n_first=5 .* needs 10 rollouts a prompt, more than rollouts_per_prompt=8"
    ):
        make("vigor", n_first=5)
    with pytest.raises(ValueError, match="alpha=1.0 would keep every prompt"):
        make("vigor", alpha=1.0)
    assert (make("vigor", n_first=2).begin(np.arange(8)).start() == 2).all()


def test_pilot_commit():
    step = make("pilot_commit", nbar=32, n_max=1000).begin(np.arange(4))
    # Pilots of 8: 1/8 and 3/4 stay, 0 and 7/8 go; (4 x 32 - 4 x 8) / 2 = 48 more.
    assert play(step, ["0", "00000001", "11111100", "11111110"]) == [8, 56, 56, 8]
    step = make("pilot_commit", nbar=32, n_max=32).begin(np.arange(4))
    assert play(step, ["0", "00000001", "11111100", "11111110"]) == [8, 32, 32, 8]
    assert step.left == 48  # returns to the run's budget


def test_pilot_commit_nobody_and_remainders():
    step = make("pilot_commit").begin(np.arange(3))
    assert play(step, ["0", "1", "0"]) == [2, 2, 2]
    step = make("pilot_commit").begin(np.arange(5))
    launched = play(step, ["01", "01", "01", "01", "1"])  # 30 left for four
    assert launched[4] == 2 and sorted(launched[:4]) == [9, 9, 10, 10]


def test_pilot_commit_options():
    with pytest.raises(ValueError, match="low=0.8 is above high=0.2"):
        make("pilot_commit", low=0.8, high=0.2)
    with pytest.raises(ValueError, match="pilot=0"):
        make("pilot_commit", pilot=0)
    with pytest.raises(
        ValueError, match="pilot of 2 .*only the rates 0, 0.5, 1, none within low=0.6 ... high=0.9"
    ):
        make("pilot_commit", low=0.6, high=0.9)


def test_pilot_commit_with_few_rollouts():
    """One alone would know only 0 and 1, and nobody would ever be committed to."""
    step = make("pilot_commit", nbar=4).begin(np.arange(3))
    assert play(step, ["01", "01", "1"]) == [5, 5, 2]


@pytest.mark.parametrize("nbar", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("name", ["aero", "reinforce_ada_seq", "vigor", "pilot_commit"])
def test_every_prompt_gets_a_rollout(name, nbar):
    allocator = make(name, nbar=nbar)
    for _ in range(3):
        step = allocator.begin(np.arange(24))
        rewards = np.random.default_rng(nbar).integers(0, 2, (24, 32)).astype(str)
        assert min(play(step, ["".join(row) for row in rewards])) >= 1
        allocator.settle(step, step.successes, step.trials)
