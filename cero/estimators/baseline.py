"""Against what is a reward measured, so that the gradient varies least? The optimal baseline, prompt by prompt."""

import numpy as np

from cero.core.checks import check_number
from cero.core.prompts import PromptTable, as_prompt_ids, merge_repeats, sort_ids
from cero.estimators.advantage import known_so_far

BASELINES = ("mean", "optimal")
STATE_FORMAT = "cero-baseline"
PRIOR = 2.0  # rollouts that a prompt never seen is known by, half of them right
FADING = 0.95  # of the mean weight, by step: the policy grows surer
FLOOR = 1e-3  # of the mean weight: what a rollout counts for at least


def score_weights(log_probs, mask):
    """How far each rollout moves the policy: sum over its tokens of (1 - pi)^2, shape (r,), >= 0.

    The squared length of the gradient of log pi with respect to the logits is 1 - 2 pi + sum of all pi^2 for
    each token; what the tokens not sampled add to that is left out, since trainers keep the sampled ones'
    only. Ours.

    log_probs, mask : float arrays, shape (r, tokens): of the tokens sampled; 0 where there is none
    """
    return (np.square(np.expm1(log_probs)) * mask).sum(axis=1, dtype=np.float64)


class OptimalBaseline:
    """The baseline under which a prompt's policy gradient varies least, learned over its visits.

        b* = E[w r] / E[w],    w = |grad log pi|^2

    (Weaver and Tao 2001; Greensmith, Bartlett and Baxter 2004; verl's optimal_token_baseline is of this
    kind.) The mean reward is optimal only if right and wrong rollouts move the policy alike. Where a policy
    is sure of a wrong answer they do not: a right one is a surprise, a wrong one moves little, and b* is far
    above the mean, so that the many wrong ones teach what the rare right one teaches, without its noise. The
    expected gradient is the same.

    Ours: w from the sampled tokens' probabilities (`score_weights`), in units of their mean over the run; E
    from the weights of earlier visits, which fade, and of the step's *other* rollouts of the prompt; so b
    does not depend on the rollout it is subtracted from.

    Parameters
    ----------
    forgetting : float in (0, 1], what is left of a prompt's weights at its next visit
    """

    def __init__(self, forgetting=0.7):
        self.forgetting = check_number("forgetting", forgetting, 0, 1, open_low=True)
        self.table = PromptTable({"right": (np.float32, 0.0), "wrong": (np.float32, 0.0)})
        self._weights = np.zeros(2)  # sum and number of the weights so far, fading

    def of_step(self, prompt_ids, groups, rewards, weights, rounds=None):
        """The baseline of each rollout of a step, and learn from them all.

        Parameters
        ----------
        prompt_ids : of the step's prompts, shape (g,), repeats included; as for an allocator
        groups : int array, shape (r,): place of each rollout's prompt, in [0, g)
        rewards : float array, shape (r,), in [0, 1]
        weights : float array, shape (r,), >= 0: see `score_weights`
        rounds : int array, shape (r,), or None: see `cero.estimators.advantage.known_so_far`

        Returns
        -------
        float array, shape (r,), in (0, 1)

        Raises
        ------
        ValueError
            If a weight is negative or not finite; nothing has changed then.
        """
        ids = as_prompt_ids(prompt_ids)
        weights = np.asarray(weights, np.float64)
        good = np.isfinite(weights) & (weights >= 0)
        if not good.all():
            raise ValueError(f"weights={weights[~good][:3]} must be finite and >= 0")
        if not weights.size:
            return np.zeros(0)
        new = np.array([weights.sum(), weights.size])
        total, number = self._weights if self._weights[0] > 0 else new
        weights = weights / total * number + FLOOR if total > 0 else np.ones(weights.size)
        rows = self.table.rows(ids)
        right, wrong = self._of_rows(rows)
        known, won = known_so_far(rewards, groups, rounds, weights)
        own = weights * rewards
        baseline = (right[groups] + won - own) / ((right + wrong)[groups] + known - weights)

        self._weights = FADING * self._weights + new
        size = ids.size
        self._observe(ids, rows, np.bincount(groups, own, size), np.bincount(groups, weights - own, size))
        return baseline

    def remembered(self, prompt_ids):
        """(right, wrong): what earlier visits weigh, the prior included; two float arrays, shape (n,), > 0."""
        return self._of_rows(self.table.rows(as_prompt_ids(prompt_ids)))

    def _of_rows(self, rows):
        known = rows >= 0
        counts = np.full((2, rows.size), PRIOR / 2)
        for count, column in zip(counts, ("right", "wrong"), strict=True):
            count[known] += self.table[column][rows[known]]
        return counts[0], counts[1]

    def _observe(self, ids, rows, right, wrong):
        visited = right + wrong > 0
        order, ids = sort_ids(ids[visited])
        rows = rows[visited][order]
        if (rows < 0).any():
            rows = self.table.add(ids)
        rows, _, right, wrong = merge_repeats(rows, right[visited][order], wrong[visited][order])
        for column, weight in (("right", right), ("wrong", wrong)):
            self.table[column][rows] = self.forgetting * self.table[column][rows] + weight

    def state_dict(self):
        """Everything that was learned: plain data and NumPy arrays; `cero.core.state` writes it."""
        return {"format": STATE_FORMAT, "weights": self._weights.tolist(), "table": self.table.columns()}

    def load_state_dict(self, state):
        """Take up a `state_dict`. Raises ValueError if it is none; nothing has changed then."""
        if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
            raise ValueError("this is no state of an optimal baseline; give what state_dict() returned")
        weights = np.asarray(state.get("weights"), np.float64)
        if weights.shape != (2,) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(f"state has weights={state.get('weights')}; the file is damaged")
        self.table.load(state["table"])
        self._weights = weights

    def __repr__(self):
        return f"OptimalBaseline(forgetting={self.forgetting}, prompts={len(self.table)})"
