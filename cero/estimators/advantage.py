"""How much did each rollout teach? Advantages for groups of any size, one and homogeneous ones included.

A group is the rollouts of one prompt in a step. r is the number of rollouts, g that of groups.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cero.core.arrays import AnyArray, Floats, Ints
from cero.core.checks import check_number
from cero.core.signatures import options_of

PROMPT_WEIGHTS = ("trajectory", "prompt")
AERO_FORMS = ("standard", "linear")
EPSILON = 1e-6
ROUNDING = 1e-12  # of sums of rewards in [0, 1]; no two rewards of a trainer are as near


class Groups:
    """Holds the rollouts of a step that are trained on, and what was sampled beside them.

    Parameters
    ----------
    rewards : shape (r,), in [0, 1], of the rollouts trained on
    groups : integers, shape (r,), in [0, g): the group of each rollout
    size : the number of groups, g
    trials, successes : shape (r,), what the baseline of each rollout may know
        The number of rollouts and the sum of rewards of its group, itself among them. None: of the rollouts
        given. See `known_so_far`.
    baseline : shape (r,), in (0, 1), or None
        What `posterior` subtracts from each reward in place of its own baseline. See
        `cero.estimators.baseline`.
    prior : (a, b), two arrays of shape (g,), above 0, or None
        The Beta distribution of each prompt's success probability before this step's rewards, faded as they
        will fade it. Only `mapp` uses it. None: of two rollouts with the mean that `history_mean` gives.

    Raises
    ------
    ValueError
        If a reward lies outside [0, 1].
    """

    def __init__(
        self,
        rewards: ArrayLike,
        groups: ArrayLike,
        size: int,
        trials: ArrayLike | None = None,
        successes: ArrayLike | None = None,
        baseline: Floats | None = None,
        prior: tuple[Floats, Floats] | None = None,
    ) -> None:
        self.rewards, self.groups = np.asarray(rewards, np.float64), np.asarray(groups, np.int64)
        good = np.isfinite(self.rewards) & (self.rewards >= 0) & (self.rewards <= 1)
        if not good.all():
            raise ValueError(f"rewards={self.rewards[~good][:3]} must lie in [0, 1]; map them first")
        self.size = int(size)
        if self.groups.size and not (0 <= self.groups.min() and self.groups.max() < self.size):
            raise ValueError(f"groups={self.groups.tolist()[:5]} must be places of {self.size} prompts")
        self.count = np.bincount(self.groups, minlength=self.size)
        self.sum = np.bincount(self.groups, self.rewards, self.size)
        self.trials = self.count[self.groups] if trials is None else np.asarray(trials, np.float64)
        self.successes = self.sum[self.groups] if successes is None else np.asarray(successes, np.float64)
        self.baseline = baseline
        self.prior = prior

    @property
    def above_mean(self) -> Floats:
        """Return each reward minus the mean of its group, shape (r,); 0 where all are alike."""
        return _difference(self.rewards, self.sum[self.groups] / self.count[self.groups])


def _difference(rewards: Floats, means: Floats) -> Floats:
    """Return rewards - means, exactly 0 where a sum's rounding alone makes a difference."""
    result = rewards - means
    result[np.abs(result) < ROUNDING] = 0.0
    return result


def known_so_far(
    rewards: ArrayLike, groups: ArrayLike, rounds: ArrayLike | None = None, weights: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Return (trials, successes) of each rollout's group over its own round and earlier ones.

    The rollout itself is counted.
    A rule that stops on what it saw makes later rounds depend on a rollout's reward. A baseline that uses
    those rounds is biased (for "until the first success" the mean overestimates p); one that does not is
    unbiased. Source: this project.

    >>> known_so_far(rewards=[0, 0, 1], groups=[0, 0, 0], rounds=[0, 0, 1])
    (array([2., 2., 3.]), array([0., 0., 1.]))

    Parameters
    ----------
    rewards, groups : shape (r,), of all rollouts sampled
    rounds : integers, shape (r,), the round in which each was sampled; None: all in one
    weights : floats, shape (r,), what each rollout counts for; None: 1

    Returns
    -------
    two float arrays, shape (r,)
    """
    rewards, groups = np.asarray(rewards, np.float64), np.asarray(groups, np.int64)
    rounds = np.zeros(groups.size, np.int64) if rounds is None else np.asarray(rounds, np.int64)
    weights = None if weights is None else np.asarray(weights)
    if not groups.size:
        return np.zeros(0), np.zeros(0)
    cells, cell = np.unique(groups * (rounds.max() + 1) + rounds, return_inverse=True)
    first = np.searchsorted(cells, cells - cells % (rounds.max() + 1))  # of each cell, its group's first

    def summed(counted: AnyArray | None) -> Floats:
        total = np.concatenate([[0.0], np.cumsum(np.bincount(cell, counted, cells.size))])
        return (total[1:] - total[first])[cell]

    return summed(weights), summed(rewards if weights is None else weights * rewards)


# Every rule below takes (data, history_mean) and returns a float array of shape (r,). What follows the
# star in its signature are its options. `history_mean` and the options are described in `advantages`, which
# hands a rule the options that it has.


def grpo(data: Groups, history_mean: Floats) -> Floats:
    """Return (r - m) / (std + 1e-6): GRPO's advantage (arXiv 2402.03300).

    m and std are the group's mean and standard deviation (with n - 1). Homogeneous groups and groups of one
    get 0; verl gives a group of one its reward.
    """
    squares = np.bincount(data.groups, data.rewards**2, data.size)
    safe = np.maximum(data.count, 1)
    variance = np.maximum(squares - data.sum**2 / safe, 0.0) / np.maximum(data.count - 1, 1)
    scaled: Floats = data.above_mean / (np.sqrt(variance)[data.groups] + EPSILON)
    return np.where(data.count[data.groups] > 1, scaled, 0.0)


def dr_grpo(data: Groups, history_mean: Floats) -> Floats:
    """Return r - m: Dr. GRPO's advantage, without the standard deviation (arXiv 2503.20783).

    It shrinks the expected gradient by (n-1)/n.
    """
    return data.above_mean


def rloo(data: Groups, history_mean: Floats) -> Floats:
    """Return r - the mean of the group's other rollouts: RLOO (arXiv 2402.14740).

    It is unbiased for n >= 2. Groups of one get 0.
    """
    n = data.count[data.groups]
    return np.where(n > 1, data.above_mean * n / np.maximum(n - 1, 1), 0.0)


def posterior(data: Groups, history_mean: Floats, *, history: float = 8.0, scale: bool = True) -> Floats:
    """Return the reward over a baseline of what the prompt's **other** rollouts say. Source: this project.

        b_ij = (h q_i + S_ij - r_ij) / (h + N_ij - 1),     A_ij = (r_ij - b_ij) [/ sqrt(b_ij (1 - b_ij))]

    The other rollouts are earlier ones, which the posterior holds (h = history pseudo-rollouts, q_i =
    history_mean), and this step's (N and S are the known trials and successes). b_ij does not depend on r_ij
    given the policy. So, without the division, the gradient is unbiased for every n_i >= 1, and homogeneous
    groups keep a small signal of the right sign. With h -> 0 it is the leave-one-out baseline. Where `data`
    brings a baseline, that one is subtracted, and b_ij only scales.

    Raises
    ------
    ValueError
        If `history_mean` lies outside (0, 1), or `history` outside (0, 1e6].
    """
    _check_history(history_mean)
    history = check_number("history", history, 0, 1e6, open_low=True)
    others = data.successes - data.rewards
    baseline = (history * history_mean[data.groups] + others) / (history + data.trials - 1)
    advantages = data.rewards - (baseline if data.baseline is None else data.baseline)
    return advantages / np.sqrt(baseline * (1.0 - baseline)) if scale else advantages


def _check_history(history_mean: Floats) -> None:
    if not ((history_mean > 0) & (history_mean < 1)).all():
        raise ValueError("history_mean must lie in (0, 1); a Beta posterior's mean does")


def aero(data: Groups, history_mean: Floats, *, aero_form: str = "standard") -> Floats:
    """Return `grpo` of what was kept, but a smoothed advantage for groups all wrong or all right: AERO's.

    With u = (c + 1) / (n + 2) over all rollouts sampled, such a group gets (r - u) / sqrt(u (1-u))
    ("standard", the natural reading) or 2 u - 1 ("linear"): 0 of 16 gives -0.243 or -0.889, 8 of 8 gives
    +0.333 or +0.8. Source: AERO (arXiv 2602.14338), at second hand.

    Raises
    ------
    ValueError
        If `aero_form` is not one of AERO_FORMS.
    """
    if aero_form not in AERO_FORMS:
        raise ValueError(f"aero_form={aero_form!r} is not known; choose one of {', '.join(AERO_FORMS)}")
    u = (data.successes + 1.0) / (data.trials + 2.0)
    lone = 2.0 * u - 1.0 if aero_form == "linear" else (data.rewards - u) / np.sqrt(u * (1.0 - u))
    homogeneous = (data.successes <= 0) | (data.successes >= data.trials)
    return np.where(homogeneous, lone, grpo(data, history_mean))


def ada_global(data: Groups, history_mean: Floats) -> Floats:
    """Return r - the mean of **all** rollouts sampled of the prompt: Reinforce-Ada-Seq (arXiv 2510.04996)."""
    return _difference(data.rewards, data.successes / data.trials)


def ada_est(data: Groups, history_mean: Floats) -> Floats:
    """Return (r - m) / sqrt(m + 1e-6), m over all rollouts sampled: Reinforce-Ada-Est (arXiv 2510.04996)."""
    mean = data.successes / data.trials
    return _difference(data.rewards, mean) / np.sqrt(mean + EPSILON)


def mapp(data: Groups, history_mean: Floats, *, mapp_group: int | None = None) -> Floats:
    """Return GRPO's advantage, averaged over the peers that a rollout might have had: MaPP's.

        r = 1:  A = + sum_{S=1}^{G-1} w_S(a, b) sqrt((G - S) / S)
        r = 0:  A = - sum_{S=1}^{G-1} w_S(b, a) sqrt((G - S) / S)
        w_S(a, b) = C(G-1, S-1) B(a + S - 1, b + G - S) / B(a, b)

    Beta(a, b) is what the prompt's prior and the group's **other** rollouts say (trials and successes of the
    whole step, the rollout itself left out). w_S is the probability that S - 1 of G - 1 peers have the same
    reward. G is the number of the prompt's rollouts, or `mapp_group` for all. A group of one has no peers and
    gets 0, unless `mapp_group` names a size. Homogeneous groups get an advantage of the right sign.
    Source: MaPP (arXiv 2609.34990), as its text has it. This project's: groups that differ in size, and a
    reward between 0 and 1, which gets r times the first and 1 - r times the second.

    The expected gradient is GRPO's, not that of the mean reward: where the posterior is sure of p, A is the
    mean of GRPO's advantage (by the standard deviation with n) over the peers, so that it has GRPO's
    expectation and less variance. It costs O(G) for each rollout.

    Raises
    ------
    ValueError
        If `history_mean` lies outside (0, 1), or `mapp_group` is neither a whole number in [2, 2**20] nor
        None.
    """
    _check_history(history_mean)
    if mapp_group is not None:
        mapp_group = check_number("mapp_group (or null)", mapp_group, 2, 2**20, integer=True)
    a, b = (2.0 * history_mean, 2.0 * (1.0 - history_mean)) if data.prior is None else data.prior
    r, g = data.rewards, data.groups
    right = a[g] + data.successes - r
    wrong = b[g] + (data.trials - data.successes) - (1.0 - r)
    group = data.trials.astype(np.int64) if mapp_group is None else np.full(r.size, mapp_group)
    result = np.zeros(r.size)
    for share, same, other in ((r, right, wrong), (r - 1.0, wrong, right)):
        some = share != 0
        result[some] += share[some] * _expected_over_peers(same[some], other[some], group[some])
    return result


def _expected_over_peers(same: Floats, other: Floats, group: Ints) -> Floats:
    """Return sum_{S=1}^{G-1} w_S(a, b) sqrt((G - S) / S) with a = same, b = other, G = group; shape (n,)."""
    total = np.zeros(group.size)
    if not group.size:
        return total
    most = int(group.max())
    # Logarithms, since single weights of a large group are too small for floats. First w_1, that no peer has
    # the same reward; then w_{S+1} / w_S = (G-S) (a+S-1) / (S (b+G-S-1)).
    log_weight = np.zeros(group.size)
    for k in range(most - 1):
        log_weight += np.where(k < group - 1, np.log((other + k) / (same + other + k)), 0.0)
    for s in range(1, most):
        left = np.maximum(group - s, 0)
        total += np.exp(log_weight) * np.sqrt(left / s)
        after = np.maximum(group - s - 1, 0)
        log_weight += np.log(np.maximum(left, 1) * (same + s - 1) / (s * (other + after)))
    return total


ADVANTAGES: dict[str, Callable[..., Floats]] = {
    "posterior": posterior,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "aero": aero,
    "ada_global": ada_global,
    "ada_est": ada_est,
    "mapp": mapp,
}


def advantages(
    kind: str,
    data: Groups,
    history_mean: ArrayLike,
    *,
    prompt_weight: str = "trajectory",
    rollouts_per_prompt: float | None = None,
    history: float = 8.0,
    scale: bool = True,
    aero_form: str = "standard",
    mapp_group: int | None = None,
) -> Floats:
    """Return the advantage of each rollout trained on.

    >>> data = Groups(rewards=[1, 0, 0, 0, 1], groups=[0, 0, 0, 0, 1], size=2)
    >>> advantages("dr_grpo", data, history_mean=[0.5, 0.5])
    array([ 0.75, -0.25, -0.25, -0.25,  0.  ])

    Parameters
    ----------
    kind : a key of ADVANTAGES
    data : the rollouts
    history_mean : shape (g,), in (0, 1), E[p_i] before this step's rewards; `posterior` uses it, and
        `mapp` where the data bring no prior
    prompt_weight : "trajectory" or "prompt"
        Whether each rollout counts once, or each prompt, as under GRPO: then a rollout's advantage is
        multiplied by rollouts_per_prompt / n_i.
    rollouts_per_prompt : needed with prompt_weight="prompt"
    history : in (0, 1e6], of `posterior`: the rollouts that `history_mean` counts for
    scale : of `posterior`: whether to divide by the standard deviation
    aero_form : of `aero`, one of AERO_FORMS
    mapp_group : of `mapp`: the size that every group counts as, 2 or more; None: its own

    Returns
    -------
    float array, shape (r,)

    Raises
    ------
    ValueError
        Naming the argument that is out of range.
    """
    if kind not in ADVANTAGES:
        raise ValueError(f"advantage={kind!r} is not known; choose one of {', '.join(ADVANTAGES)}")
    if prompt_weight not in PROMPT_WEIGHTS:
        raise ValueError(
            f"prompt_weight={prompt_weight!r} is not known; choose one of {', '.join(PROMPT_WEIGHTS)}"
        )
    options = {"history": history, "scale": scale, "aero_form": aero_form, "mapp_group": mapp_group}
    rule = ADVANTAGES[kind]
    taken = {name: options[name] for name in options_of(rule)}
    history_mean = np.asarray(history_mean, np.float64)
    if history_mean.shape != (data.size,):
        raise ValueError(
            f"history_mean has shape {history_mean.shape}; give one for each of {data.size} prompts"
        )
    result = rule(data, history_mean, **taken)
    if prompt_weight == "prompt":
        if rollouts_per_prompt is None:
            raise ValueError("prompt_weight='prompt' needs rollouts_per_prompt")
        result = result * rollouts_per_prompt / data.count[data.groups]
    return result


def posterior_advantage(
    rewards: ArrayLike, groups: ArrayLike, history_mean: ArrayLike, **options: Any
) -> Floats:
    """Return `advantages("posterior", ...)` where no other rollouts were sampled. Arguments as there."""
    history_mean = np.asarray(history_mean, np.float64)
    return advantages("posterior", Groups(rewards, groups, history_mean.size), history_mean, **options)


def group_outcomes(rewards: Floats, groups: Ints, size: int) -> tuple[Floats, Ints, Floats, Floats]:
    """Return what each group showed: (successes, trials, least reward, greatest reward), each of shape (g,).

    `rewards` and `groups` have shape (r,), as for `Groups`; `size` is g. An empty group has 0, 0, nan, nan.
    """
    trials = np.bincount(groups, minlength=size)
    successes = np.bincount(groups, rewards, size).astype(np.float64, copy=False)
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, groups, rewards)
    np.maximum.at(high, groups, rewards)
    empty = trials == 0
    low[empty] = high[empty] = np.nan
    return successes, trials, low, high
