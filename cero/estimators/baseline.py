"""What is subtracted from a reward, so that the gradient varies least? The optimal baseline of a prompt."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cero.core.arrays import AnyArray, Floats, Ints
from cero.core.checks import check_number
from cero.core.prompts import PromptIds, PromptTable, as_prompt_ids, merge_repeats, sort_ids
from cero.estimators.advantage import known_so_far

BASELINES = ("mean", "optimal")
STATE_FORMAT = "cero-baseline"
PRIOR = 2.0  # rollouts of mean weight that every prompt starts with, half of them right
FADING = 0.95  # what is left of the mean weight's history after a step: the policy grows surer
FLOOR = 1e-3  # what is added to each weight, in units of the mean weight


def score_weights(log_probs: AnyArray, mask: AnyArray) -> Floats:
    """Return how far each rollout moves the policy: the sum over its tokens of (1 - pi)^2, shape (r,), >= 0.

    The squared length of the gradient of log pi with respect to the logits is 1 - 2 pi + sum of all pi^2 for
    each token. What the tokens that were not sampled add to it is left out, since trainers keep the
    probabilities of the sampled ones only. Source: this project.

    Parameters
    ----------
    log_probs : floats, shape (r, tokens), natural logarithms of the sampled tokens' probabilities
    mask : shape (r, tokens), 1 for a token and 0 where there is none
    """
    return (np.square(np.expm1(log_probs)) * mask).sum(axis=1, dtype=np.float64)


class OptimalBaseline:
    """Learns, over a prompt's visits, the baseline under which its policy gradient varies least.

        b* = E[w r] / E[w],    w = |grad log pi|^2

    Sources: Weaver and Tao 2001; Greensmith, Bartlett and Baxter 2004. verl's optimal_token_baseline is of
    this kind. The mean reward is optimal only if right and wrong rollouts move the policy alike. Where a
    policy is sure of a wrong answer they do not: a right one is a surprise, a wrong one moves little, and b*
    is far above the mean. Then the many wrong rollouts teach what the rare right one teaches, without its
    noise. The expected gradient is the same.

    This project's part: w comes from the sampled tokens' probabilities (`score_weights`), in units of its
    mean over the run. E comes from the weights of earlier visits, which fade, and of the step's *other*
    rollouts of the prompt. So the baseline does not depend on the rollout from which it is subtracted.

    Parameters
    ----------
    forgetting : in (0, 1], the share of a prompt's weights that is left at its next visit

    Raises
    ------
    ValueError
        If `forgetting` is out of range.
    """

    def __init__(self, forgetting: float = 0.7) -> None:
        self.forgetting = check_number("forgetting", forgetting, 0, 1, open_low=True)
        self.table = PromptTable({"right": (np.float32, 0.0), "wrong": (np.float32, 0.0)})
        self._weights = np.zeros(2)  # the sum and the number of the weights so far, both fading

    def of_step(
        self,
        prompt_ids: PromptIds,
        groups: Ints,
        rewards: Floats,
        weights: ArrayLike,
        rounds: ArrayLike | None = None,
    ) -> Floats:
        """Return the baseline of each rollout of a step, and learn from all of them.

        Parameters
        ----------
        prompt_ids : of the step's prompts, shape (g,), repeats included; as for an allocator
        groups : shape (r,), the place of each rollout's prompt in `prompt_ids`, in [0, g)
        rewards : shape (r,), in [0, 1]
        weights : shape (r,), >= 0: see `score_weights`
        rounds : integers, shape (r,), or None: see `cero.estimators.advantage.known_so_far`

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
        baseline: Floats = (right[groups] + won - own) / ((right + wrong)[groups] + known - weights)

        self._weights = FADING * self._weights + new
        size = ids.size
        self._observe(ids, rows, np.bincount(groups, own, size), np.bincount(groups, weights - own, size))
        return baseline

    def remembered(self, prompt_ids: PromptIds) -> tuple[Floats, Floats]:
        """Return the weights of right and of wrong rollouts of earlier visits, the prior included.

        Two float arrays of shape (n,), above 0, in units of the mean weight.
        """
        return self._of_rows(self.table.rows(as_prompt_ids(prompt_ids)))

    def _of_rows(self, rows: Ints) -> tuple[Floats, Floats]:
        known = rows >= 0
        counts = np.full((2, rows.size), PRIOR / 2)
        for count, column in zip(counts, ("right", "wrong"), strict=True):
            count[known] += self.table[column][rows[known]]
        return counts[0], counts[1]

    def _observe(self, ids: AnyArray, rows: Ints, right: AnyArray, wrong: AnyArray) -> None:
        visited = right + wrong > 0
        order, ids = sort_ids(ids[visited])
        rows = rows[visited][order]
        if (rows < 0).any():
            rows = self.table.add(ids)
        rows, _, right, wrong = merge_repeats(rows, right[visited][order], wrong[visited][order])
        for column, weight in (("right", right), ("wrong", wrong)):
            self.table[column][rows] = self.forgetting * self.table[column][rows] + weight

    def state_dict(self) -> dict[str, Any]:
        """Return everything that was learned, as plain data and NumPy arrays. `cero.core.state` writes it."""
        return {"format": STATE_FORMAT, "weights": self._weights.tolist(), "table": self.table.columns()}

    def load_state_dict(self, state: Any) -> None:
        """Go on from a `state_dict`. Raise ValueError if it is none; nothing has changed then."""
        if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
            raise ValueError("this is no state of an optimal baseline; give what state_dict() returned")
        weights = np.asarray(state.get("weights"), np.float64)
        if weights.shape != (2,) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(f"state has weights={state.get('weights')}; the file is damaged")
        self.table.load(state["table"])
        self._weights = weights

    def __repr__(self) -> str:
        return f"OptimalBaseline(forgetting={self.forgetting}, prompts={len(self.table)})"
