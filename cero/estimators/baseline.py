"""What is subtracted from a reward, so that the gradient varies least? The optimal baseline of a prompt."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cero.core.arrays import AnyArray, Floats, Ints
from cero.core.checks import as_numbers, check_number, shown
from cero.core.prompts import PromptIds, PromptTable, as_prompt_ids, merge_repeats, sort_ids
from cero.estimators.advantage import known_so_far
from cero.estimators.shared import Shared, make_shared

BASELINES = ("mean", "optimal")
STATE_FORMAT = "cero-baseline"
SHARED_PREFIX = "shared."  # of the arrays of a state that belong to the buckets
PRIOR = 2.0  # rollouts of mean weight that every prompt starts with; half of them are right, without buckets
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

    A prompt never seen starts at PRIOR rollouts of mean weight. Half of them are right or, with `bucket`, as
    many as earlier steps make expected of prompts like it (`cero.estimators.shared`). Its own evidence is
    added to that, visit by visit.

    Parameters
    ----------
    forgetting : in (0, 1], the share of a prompt's weights that is left at its next visit
    bucket : what makes prompts alike
        `cero.estimators.shared.TEXT`, another text (the name of a column of the data set), or None: nothing.

    Raises
    ------
    ValueError
        If `forgetting` is out of range.
    """

    def __init__(self, forgetting: float = 0.7, bucket: str | None = None) -> None:
        self.forgetting = check_number("forgetting", forgetting, 0, 1, open_low=True)
        self.bucket = bucket
        self.shared = None if bucket is None else make_shared(bucket)
        self.table = PromptTable({"right": (np.float32, 0.0), "wrong": (np.float32, 0.0)})
        self._weights = np.zeros(2)  # the sum and the number of the weights so far, both fading

    def of_step(
        self,
        prompt_ids: PromptIds,
        groups: Ints,
        rewards: Floats,
        weights: ArrayLike,
        rounds: ArrayLike | None = None,
        buckets: AnyArray | None = None,
        known: Floats | None = None,
    ) -> Floats:
        """Return the baseline of each rollout of a step, and learn from all of them.

        Parameters
        ----------
        prompt_ids : of the step's prompts, shape (g,), repeats included; as for an allocator
        groups : shape (r,), the place of each rollout's prompt in `prompt_ids`, in [0, g)
        rewards : shape (r,), in [0, 1]
        weights : shape (r,), >= 0: see `score_weights`
        rounds : integers, shape (r,), or None: see `cero.estimators.advantage.known_so_far`
        buckets : slots of each prompt, shape (g, k), with -1 where there is none; see
            `cero.estimators.shared`. They are needed exactly if the baseline was made with a `bucket`.
        known : what `known_now` returned when the rollouts were sent to be sampled, shape (g, 3); None: now
            Needed where steps overlap. A slow rollout comes back after more outcomes of other rollouts than a
            fast one, so what is known by then depends on it.

        Returns
        -------
        float array, shape (r,), in (0, 1)

        Raises
        ------
        ValueError
            If a weight is negative or not finite, a reward is not in [0, 1], a group is none of the step's,
            shapes don't fit, or buckets are missing; nothing has changed then.
        """
        ids = as_prompt_ids(prompt_ids)
        weights = as_numbers("weights", weights)
        _check_rollouts(groups, rewards, weights, ids.size)
        if self.shared is not None or buckets is not None:
            self._checked(buckets, ids.size)
        if known is not None:
            known = as_numbers("known", known)
            if known.shape != (ids.size, 3):
                raise ValueError(f"known has shape {known.shape}; give what known_now() returned")
            if not (np.isfinite(known).all() and (known[:, :2] > 0).all() and (known[:, 2] >= 0).all()):
                raise ValueError(
                    "known must be finite, its first two columns above 0 and its third 0 or more"
                )
        good = np.isfinite(weights) & (weights >= 0)
        if not good.all():
            raise ValueError(f"weights={weights[~good][:3]} must be finite and >= 0")
        if not weights.size:
            return np.zeros(0)
        new = np.array([weights.sum(), weights.size])
        total, number = self._weights if self._weights[0] > 0 else new
        rows = self.table.rows(ids)
        if known is None:
            weights = weights / total * number + FLOOR if total > 0 else np.ones(weights.size)
            right, wrong = self._of_rows(rows, buckets)
        else:
            right, wrong, unit = known.T
            unit = np.where(unit > 0, unit, total / number)[groups]
            weights = np.where(unit > 0, weights / np.where(unit > 0, unit, 1.0), 1.0) + FLOOR
        drawn, won = known_so_far(rewards, groups, rounds, weights)
        own = weights * rewards
        baseline: Floats = (right[groups] + won - own) / ((right + wrong)[groups] + drawn - weights)

        self._weights = FADING * self._weights + new
        size = ids.size
        weighted = _summed(groups, own, size), _summed(groups, weights - own, size)
        self._observe(ids, rows, *weighted)
        if self.shared is not None and buckets is not None:
            plain = _summed(groups, rewards, size), _summed(groups, 1.0 - rewards, size)
            self.shared.learn(buckets, weighted, plain)
        return baseline

    def remembered(self, prompt_ids: PromptIds, buckets: AnyArray | None = None) -> tuple[Floats, Floats]:
        """Return the weights of right and of wrong rollouts of earlier visits, the prior included.

        Two float arrays of shape (n,), above 0, in units of the mean weight. `buckets`: see `of_step`.
        """
        return self._of_rows(self.table.rows(as_prompt_ids(prompt_ids)), buckets)

    def known_now(self, prompt_ids: PromptIds, buckets: AnyArray | None = None) -> Floats:
        """Return what the baselines of prompts go by now, for `of_step` later: float array, shape (n, 3).

        The columns are both of `remembered`, and the mean weight so far, 0 where there is none.
        """
        right, wrong = self.remembered(prompt_ids, buckets)
        unit = self._weights[0] / self._weights[1] if self._weights[0] > 0 else 0.0
        return np.column_stack([right, wrong, np.full(right.size, unit)])

    def expected_success(self, buckets: AnyArray) -> Floats:
        """Return the success probability to be expected of prompts in these buckets, by earlier steps alone.

        Shape (g,), in (0, 1). `buckets` are those of `of_step`. Raises ValueError without a `bucket`.
        """
        shared, buckets = self._checked(buckets, len(buckets))
        success: Floats = shared.expected(buckets)[1]
        return success

    def _checked(self, buckets: AnyArray | None, size: int) -> tuple[Shared, AnyArray]:
        """Return what learns over `buckets`, and these. Raise ValueError unless they fit `size` prompts."""
        if self.shared is None or buckets is None:
            have = "none were" if buckets is None else "some were"
            raise ValueError(f"bucket={self.bucket!r}, but {have} given; give buckets exactly if it is set")
        if buckets.ndim != 2 or len(buckets) != size:
            raise ValueError(f"buckets have shape {buckets.shape}; give one row for each of {size} prompts")
        return self.shared, buckets

    def _of_rows(self, rows: Ints, buckets: AnyArray | None) -> tuple[Floats, Floats]:
        if self.shared is None and buckets is None:
            counts = np.full((2, rows.size), PRIOR / 2)
        else:
            shared, buckets = self._checked(buckets, rows.size)
            expected = shared.expected(buckets)[0]
            counts = PRIOR * np.array([expected, 1.0 - expected])
        known = rows >= 0
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
        state: dict[str, Any] = {"format": STATE_FORMAT, "weights": self._weights.tolist()}
        columns = self.table.columns()
        if self.shared is not None:
            state["bucket"] = self.bucket
            columns |= {SHARED_PREFIX + name: array for name, array in self.shared.columns().items()}
        return state | {"table": columns}

    def load_state_dict(self, state: Any) -> None:
        """Go on from a `state_dict`. Raise ValueError if it is none; nothing has changed then.

        A state without buckets, or with those of another `bucket`, leaves this baseline's to start anew.
        """
        if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
            raise ValueError("this is no state of an optimal baseline; give what state_dict() returned")
        weights = np.asarray(state.get("weights"), np.float64)
        good = weights.shape == (2,) and bool((np.isfinite(weights) & (weights >= 0)).all())
        if not good or (weights[0] > 0) > (weights[1] > 0):  # a sum of no weights
            raise ValueError(f"state has weights={state.get('weights')}; the file is damaged")
        columns = state.get("table")
        if not isinstance(columns, Mapping):
            raise ValueError(f"state has table={shown(columns)}; the file is damaged")
        for name in ("right", "wrong"):
            if (np.asarray(columns.get(name, 0.0)) < 0).any():
                raise ValueError(f"state holds a negative number in {name!r}; the file is damaged")
        shared = {
            name.removeprefix(SHARED_PREFIX): array
            for name, array in columns.items()
            if name.startswith(SHARED_PREFIX)
        }
        goes_on = state.get("bucket") == self.bucket
        if self.shared is not None and goes_on:
            self.shared.check_columns(shared)
        self.table.load({name: columns[name] for name in columns if not name.startswith(SHARED_PREFIX)})
        self._weights = weights
        if self.shared is not None and goes_on:
            self.shared.load(shared)
        elif self.shared is not None:
            self.shared.forget()

    def __repr__(self) -> str:
        options = f"forgetting={self.forgetting}, bucket={self.bucket!r}"
        return f"OptimalBaseline({options}, prompts={len(self.table)})"


def _check_rollouts(groups: ArrayLike, rewards: ArrayLike, weights: Floats, size: int) -> None:
    """Raise ValueError unless each of `weights` has a group, in [0, size), and a reward, in [0, 1]."""
    groups, rewards = np.asarray(groups), as_numbers("rewards", rewards)
    for key, array in (("groups", groups), ("rewards", rewards)):
        if array.shape != weights.shape:
            raise ValueError(f"{key} has shape {array.shape}, weights has {weights.shape}; give one for each")
    if groups.size and (groups.dtype.kind not in "iu" or groups.min() < 0 or groups.max() >= size):
        raise ValueError(f"groups={groups.tolist()[:5]} must be places of the step's {size} prompts")
    good = (rewards >= 0) & (rewards <= 1)
    if not good.all():
        raise ValueError(f"rewards={rewards[~good][:3]} must lie in [0, 1]; map them first")


def _summed(groups: Ints, values: Floats, size: int) -> Floats:
    """Return the sum of `values` over each group, shape (size,)."""
    return np.bincount(groups, values, size).astype(np.float64, copy=False)
