"""What does a step's sample teach? The gradient of each group's logit, under training's own advantages."""

from typing import NamedTuple

import numpy as np

from cero.estimators.advantage import Groups, advantages, known_so_far
from cero.estimators.keep import kept


class Rollouts(NamedTuple):
    """Holds the rollouts of a step, arrays of shape (r,).

    group : place of each one's prompt in the step, int; reward : 0.0 or 1.0, as the verifier says
    right : whether it truly is right, bool; round : in which of its prompt's rounds it was drawn, from 0
    size : prompts in the step, int
    """

    group: np.ndarray
    reward: np.ndarray
    right: np.ndarray
    round: np.ndarray
    size: int

    @classmethod
    def of_counts(cls, counts, size):
        """Return the rollouts of draws: (prompt, round, rollouts, right, missed, faked), int arrays.

        missed : right rollouts that the verifier failed; faked : wrong ones that it passed.
        """
        prompt, rounds, n, right, missed, faked = counts
        kinds = np.stack([right - missed, missed, faked, n - right - faked], axis=1).ravel()
        at = np.repeat(np.arange(kinds.size), kinds)
        draw, kind = at // 4, at % 4
        return cls(prompt[draw], np.isin(kind, (0, 2)).astype(float), kind < 2, rounds[draw], size)

    @property
    def n(self):
        """Return the rollouts of each prompt, int, shape (size,)."""
        return np.bincount(self.group, minlength=self.size)

    @property
    def rewarded(self):
        """Return each prompt's rollouts with reward 1, all that a trainer can see of the right ones."""
        return np.bincount(self.group, self.reward, self.size)

    @property
    def signal(self):
        """Return whether both rewards occur in the group; bool, shape (size,)."""
        return (self.rewarded > 0) & (self.rewarded < self.n)


def group_gradient(rollouts, p, history_mean, method, rollouts_per_prompt, rng, prior=None):
    """Return sum_j A_ij (c_ij - p_i) of each group over the rollouts kept, divided by their number.

    rollouts : `Rollouts`
    p : success probabilities of the policy that learns, shape (size,)
    history_mean : the posterior's mean before the step, in (0, 1), shape (size,)
    method : `methods.Method`, for its estimator and its rule of selection
    rng : NumPy generator, for rules that draw what they keep
    prior : (a, b) of the prompts' posteriors before the step, each of shape (size,), for `mapp`; or None

    Returns
    -------
    (float array of shape (size,), number of rollouts with an advantage other than 0).
    """
    rounds = rollouts.round if method.estimator == "posterior" else None
    trials, successes = known_so_far(rollouts.reward, rollouts.group, rounds)
    stays = slice(None)
    if method.keep != "all":
        lengths = np.ones(rollouts.group.size)  # a rollout is a rollout here
        stays = kept(
            method.keep,
            rollouts.reward,
            rollouts.group,
            lengths,
            rng,
            ratio=method.ratio,
            count=method.count,
        )
    group = rollouts.group[stays]
    if not group.size:
        return np.zeros(rollouts.size), 0
    advantage = advantages(
        method.estimator,
        Groups(rollouts.reward[stays], group, rollouts.size, trials[stays], successes[stays], None, prior),
        history_mean,
        prompt_weight=method.weight,
        rollouts_per_prompt=rollouts_per_prompt,
        history=method.history,
    )
    score = rollouts.right[stays] - p[group]
    return np.bincount(group, advantage * score, rollouts.size) / group.size, int((advantage != 0).sum())
