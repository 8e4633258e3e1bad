"""How much did each rollout teach? Advantages for groups of any size, one and homogeneous ones included."""

import numpy as np

PROMPT_WEIGHTS = ("trajectory", "prompt")


def posterior_advantage(
    rewards, groups, history_mean, *, history=8.0, scale=True, prompt_weight="trajectory", rollouts_per_prompt=None
):
    """Advantage over a baseline of what the **other** rollouts say: earlier ones (the posterior) and this step's. Ours.

        b_ij = (h q_i + sum_{l != j} r_il) / (h + n_i - 1),     A_ij = (r_ij - b_ij) [/ sqrt(b_ij (1 - b_ij))]

    b_ij does not depend on r_ij given the policy, so (without the division) the gradient is unbiased for every
    n_i >= 1; homogeneous groups keep a small, well-signed signal. With h -> 0 it is the leave-one-out baseline.

    Parameters
    ----------
    rewards : float array, shape (r,), in [0, 1]
    groups : int array, shape (r,): the group of each rollout, in [0, g)
    history_mean : float array, shape (g,), in (0, 1): E[p_i] before this step's rewards, q_i above
    history : float > 0: pseudo-rollouts h that the history counts for
    scale : divide by sqrt(b (1 - b)), for advantages of GRPO's size
    prompt_weight : "trajectory" (each rollout counts once) or "prompt" (times rollouts_per_prompt / n_i, so that
        each prompt counts once, as under GRPO)
    rollouts_per_prompt : float, needed with "prompt"

    Returns
    -------
    float array, shape (r,)

    Raises
    ------
    ValueError
        Naming the argument that is out of range.
    """
    rewards, groups = np.asarray(rewards, np.float64), np.asarray(groups, np.int64)
    history_mean = np.asarray(history_mean, np.float64)
    if not (np.isfinite(rewards) & (rewards >= 0) & (rewards <= 1)).all():
        raise ValueError(
            f"rewards={rewards[~((rewards >= 0) & (rewards <= 1))][:3]} must lie in [0, 1]; map them first"
        )
    if not ((history_mean > 0) & (history_mean < 1)).all():
        raise ValueError("history_mean must lie in (0, 1); a Beta posterior's mean does")
    if not history > 0:
        raise ValueError(f"history={history} must be above 0: a group of one has no other baseline")
    if prompt_weight not in PROMPT_WEIGHTS:
        raise ValueError(f"prompt_weight={prompt_weight!r} is not known; choose one of {', '.join(PROMPT_WEIGHTS)}")
    sizes = np.bincount(groups, minlength=history_mean.size)
    sums = np.bincount(groups, rewards, history_mean.size)
    baseline = (history * history_mean[groups] + sums[groups] - rewards) / (history + sizes[groups] - 1)
    advantages = rewards - baseline
    if scale:
        advantages /= np.sqrt(baseline * (1.0 - baseline))
    if prompt_weight == "prompt":
        if rollouts_per_prompt is None:
            raise ValueError("prompt_weight='prompt' needs rollouts_per_prompt")
        advantages *= rollouts_per_prompt / sizes[groups]
    return advantages


def group_outcomes(rewards, groups, size):
    """What each group showed.

    rewards, groups: shape (r,), as above; size: number of groups g. Returns (successes, trials, minimum, maximum),
    arrays of shape (g,); an empty group has 0, 0, nan, nan.
    """
    trials = np.bincount(groups, minlength=size)
    successes = np.bincount(groups, rewards, size)
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, groups, rewards)
    np.maximum.at(high, groups, rewards)
    empty = trials == 0
    low[empty] = high[empty] = np.nan
    return successes, trials, low, high
