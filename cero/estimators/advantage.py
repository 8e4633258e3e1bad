"""How much did each rollout teach? Advantages for groups of any size, one and homogeneous ones included."""

import numpy as np

PROMPT_WEIGHTS = ("trajectory", "prompt")
AERO_FORMS = ("standard", "linear")
EPSILON = 1e-6


class Groups:
    """The rollouts of a step that are trained on, and what was sampled beside them.

    Parameters
    ----------
    rewards : float array, shape (r,), in [0, 1]: of the rollouts trained on
    groups : int array, shape (r,): the group of each, in [0, g)
    size : int, number of groups g
    trials, successes : arrays, shape (r,): what is known for the baseline of each rollout: number and sum of
    rewards
        of its group's rollouts, itself among them. None: of the rollouts given. See `known_so_far`.
    baseline : float array, shape (r,), in (0, 1), what `posterior` subtracts from each reward in place of its
    own; or
        None. See `cero.estimators.baseline`.
    """

    def __init__(self, rewards, groups, size, trials=None, successes=None, baseline=None):
        self.rewards, self.groups = np.asarray(rewards, np.float64), np.asarray(groups, np.int64)
        good = np.isfinite(self.rewards) & (self.rewards >= 0) & (self.rewards <= 1)
        if not good.all():
            raise ValueError(f"rewards={self.rewards[~good][:3]} must lie in [0, 1]; map them first")
        self.size = int(size)
        self.count = np.bincount(self.groups, minlength=self.size)
        self.sum = np.bincount(self.groups, self.rewards, self.size)
        self.trials = self.count[self.groups] if trials is None else np.asarray(trials, np.float64)
        self.successes = self.sum[self.groups] if successes is None else np.asarray(successes, np.float64)
        self.baseline = baseline

    @property
    def mean(self):
        """Mean reward of each rollout's group, shape (r,)."""
        return self.sum[self.groups] / self.count[self.groups]


def known_so_far(rewards, groups, rounds=None, weights=None):
    """(trials, successes) of each rollout's group over its own round and earlier ones, itself included. Ours.

    A rule that stops on what it saw makes later rounds depend on a rollout's reward: a baseline that uses
    them is biased (for "until the first success" the mean overestimates p), one that does not is unbiased.

    rewards, groups : shape (r,), all rollouts sampled; rounds : int array, shape (r,), or None: all in one
    round;
    weights : float array, shape (r,), what each counts for, or None: 1. Returns two float arrays of shape
    (r,).
    """
    rewards, groups = np.asarray(rewards, np.float64), np.asarray(groups, np.int64)
    rounds = np.zeros(groups.size, np.int64) if rounds is None else np.asarray(rounds, np.int64)
    if not groups.size:
        return np.zeros(0), np.zeros(0)
    cells, cell = np.unique(groups * (rounds.max() + 1) + rounds, return_inverse=True)
    first = np.searchsorted(cells, cells - cells % (rounds.max() + 1))  # of each cell, its group's first
    out = []
    for counted in (weights, rewards if weights is None else weights * rewards):
        total = np.concatenate([[0.0], np.cumsum(np.bincount(cell, counted, cells.size))])
        out.append((total[1:] - total[first])[cell])
    return tuple(out)


def grpo(data, history_mean, **options):
    """(r - m) / (std + 1e-6), std with n - 1; 0 for homogeneous groups and groups of one (verl gives these r)."""
    squares = np.bincount(data.groups, data.rewards**2, data.size)
    safe = np.maximum(data.count, 1)
    variance = np.maximum(squares - data.sum**2 / safe, 0.0) / np.maximum(data.count - 1, 1)
    return np.where(
        data.count[data.groups] > 1,
        (data.rewards - data.mean) / (np.sqrt(variance)[data.groups] + EPSILON),
        0.0,
    )


def dr_grpo(data, history_mean, **options):
    """r - m: Dr.GRPO's, without the standard deviation (arXiv 2503.20783). Shrinks the gradient by (n-1)/n."""
    return data.rewards - data.mean


def rloo(data, history_mean, **options):
    """r - mean of the other rollouts; 0 for groups of one. Unbiased for n >= 2."""
    n = data.count[data.groups]
    return np.where(n > 1, (data.rewards - data.mean) * n / np.maximum(n - 1, 1), 0.0)


def posterior(data, history_mean, *, history=8.0, scale=True, **options):
    """Over a baseline of what the **other** rollouts say: earlier ones (the posterior) and this step's. Ours.

        b_ij = (h q_i + S_ij - r_ij) / (h + N_ij - 1),     A_ij = (r_ij - b_ij) [/ sqrt(b_ij (1 - b_ij))]

    with h = history pseudo-rollouts, q_i = history_mean, N and S the known trials and successes. b_ij does
    not depend on r_ij given the policy, so (without the division) the gradient is unbiased for every n_i >=
    1; homogeneous groups keep a small, well-signed signal. With h -> 0 it is the leave-one-out baseline.
    Where `data` brings a baseline, that is subtracted, and b_ij scales.
    """
    if not ((history_mean > 0) & (history_mean < 1)).all():
        raise ValueError("history_mean must lie in (0, 1); a Beta posterior's mean does")
    if not history > 0:
        raise ValueError(f"history={history} must be above 0: a group of one has no other baseline")
    others = data.successes - data.rewards
    baseline = (history * history_mean[data.groups] + others) / (history + data.trials - 1)
    advantages = data.rewards - (baseline if data.baseline is None else data.baseline)
    return advantages / np.sqrt(baseline * (1.0 - baseline)) if scale else advantages


def aero(data, history_mean, *, aero_form="standard", **options):
    """AERO's (arXiv 2602.14338, at second hand): `grpo` on what was kept, except for groups all wrong or all right.

    These get, with u = (c + 1) / (n + 2) over all rollouts sampled, (r - u) / sqrt(u (1-u)) ("standard", the
    natural reading) or 2 u - 1 ("linear"): 0 of 16 is -0.243 or -0.889, 8 of 8 is +0.333 or +0.8.
    """
    if aero_form not in AERO_FORMS:
        raise ValueError(f"aero_form={aero_form!r} is not known; choose one of {', '.join(AERO_FORMS)}")
    u = (data.successes + 1.0) / (data.trials + 2.0)
    lone = 2.0 * u - 1.0 if aero_form == "linear" else (data.rewards - u) / np.sqrt(u * (1.0 - u))
    homogeneous = (data.successes <= 0) | (data.successes >= data.trials)
    return np.where(homogeneous, lone, grpo(data, history_mean))


def ada_global(data, history_mean, **options):
    """r - mean over **all** rollouts sampled of the prompt, no std: Reinforce-Ada-Seq's (arXiv 2510.04996)."""
    return data.rewards - data.successes / data.trials


def ada_est(data, history_mean, **options):
    """(r - m) / sqrt(m + 1e-6): Reinforce-Ada-Est's (arXiv 2510.04996)."""
    mean = data.successes / data.trials
    return (data.rewards - mean) / np.sqrt(mean + EPSILON)


ADVANTAGES = {
    "posterior": posterior,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "aero": aero,
    "ada_global": ada_global,
    "ada_est": ada_est,
}


def advantages(
    kind, data, history_mean, *, prompt_weight="trajectory", rollouts_per_prompt=None, history=8.0, scale=True,
    aero_form="standard",
):  # fmt: skip
    """The advantage of each rollout trained on.

    Parameters
    ----------
    kind : a key of ADVANTAGES; data : `Groups`
    history_mean : float array, shape (g,), in (0, 1): E[p_i] before this step's rewards; `posterior` only
    prompt_weight : "trajectory" (each rollout counts once) or "prompt" (times rollouts_per_prompt / n_i, so
    that
        each prompt counts once, as under GRPO)
    rollouts_per_prompt : float, needed with "prompt"
    history : float > 0; scale : bool: of `posterior`. aero_form : of `aero`

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
    options = {"history": history, "scale": scale, "aero_form": aero_form}
    result = ADVANTAGES[kind](data, np.asarray(history_mean, np.float64), **options)
    if prompt_weight == "prompt":
        if rollouts_per_prompt is None:
            raise ValueError("prompt_weight='prompt' needs rollouts_per_prompt")
        result = result * rollouts_per_prompt / data.count[data.groups]
    return result


def posterior_advantage(rewards, groups, history_mean, **options):
    """`advantages("posterior", ...)` of rollouts that are all there is; arguments as there."""
    history_mean = np.asarray(history_mean, np.float64)
    return advantages("posterior", Groups(rewards, groups, history_mean.size), history_mean, **options)


def group_outcomes(rewards, groups, size):
    """What each group showed.

    rewards, groups: shape (r,), as above; size: number of groups g. Returns (successes, trials, minimum,
    maximum), arrays of shape (g,); an empty group has 0, 0, nan, nan.
    """
    trials = np.bincount(groups, minlength=size)
    successes = np.bincount(groups, rewards, size)
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, groups, rewards)
    np.maximum.at(high, groups, rewards)
    empty = trials == 0
    low[empty] = high[empty] = np.nan
    return successes, trials, low, high
