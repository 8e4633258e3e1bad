"""CERO, sequential: the step's budget is spent in rounds over all its prompts. Ours; not in the paper."""

import numpy as np

from cero.allocators.rounds import Rounds
from cero.allocators.sequential import SequentialAllocator
from cero.core import beta
from cero.core.checks import check_number


class LookThenBuy(Rounds):
    """A first look at most prompts, then rounds of buying the rollouts worth most under what was seen.

    a, b : Beta posteriors before the step, shape (n,); first : rollouts of the first look, shape (n,); lots :
    distinct floats in [0, 1), shape (n,), to break ties by (prompts never seen before tie wherever their
    rewards do)
    """

    def __init__(self, ids, cap, n_max, rounds, quorum, a, b, first, lots):
        super().__init__(ids, cap, n_max, rounds, quorum)
        self.a, self.b, self.first, self.lots = a, b, first, lots

    def _first(self):
        return self.first

    def _spend(self, idle, budget):
        values = marginal_values(
            self.a[idle], self.b[idle], self.successes[idle], self.trials[idle], min(budget, self.n_max)
        )
        values *= 1.0 + 1e-9 * self.lots[idle, None]
        open_ = self.launched[idle, None] + np.arange(values.shape[1]) < self.n_max
        return buy(np.where(open_, values, -np.inf), budget)


def marginal_values(a, b, successes, trials, most):
    """What the next `most` rollouts of each prompt are worth one by one, in the order in which they would be bought.

    With p ~ Beta(a + s, b + f), h = E[1-p] and n = trials:

        no success yet    h (E[(1-p)^j] - E[(1-p)^(j+1)])     the chance that rollout j+1 brings the missing
        outcome no failure yet    h (E[p^j] - E[p^(j+1)]) both seen         h E[p(1-p)] (1/(n+j) - 1/(n+j+1))
        what it takes off the variance of the group's mean not sampled       h E[p^j (1-p) + (1-p)^j p], the
        chance that rollout j+1 is the first to differ (j >= 2);
                          h E[p(1-p)] for each of the first two, which are worth something as a pair only

    Ours. a, b, successes, trials: shape (n,). Returns a float array of shape (n, most), non-increasing in
    each row.
    """
    failures = trials - successes
    a, b = a + successes, b + failures
    hard = b / (a + b)
    j = np.arange(most)
    # E[(1-p)^j] - E[(1-p)^(j+1)] = E[(1-p)^j p], by the ratios of successive moments.
    wrong_so_far = np.cumprod(
        np.concatenate([np.ones((a.size, 1)), (b[:, None] + j[:-1]) / ((a + b)[:, None] + j[:-1])], axis=1),
        axis=1,
    )
    right_so_far = np.cumprod(
        np.concatenate([np.ones((a.size, 1)), (a[:, None] + j[:-1]) / ((a + b)[:, None] + j[:-1])], axis=1),
        axis=1,
    )
    first_success = wrong_so_far * a[:, None] / ((a + b)[:, None] + j)
    first_failure = right_so_far * b[:, None] / ((a + b)[:, None] + j)
    n = trials[:, None] + j
    variance = (a * b / ((a + b) * (a + b + 1)))[:, None] / np.maximum(n * (n + 1), 1)
    unseen = (trials == 0)[:, None]
    neither = first_success + first_failure
    # Two rollouts differ with chance 2 E[p (1-p)], and neither is worth anything without the other: half
    # each.
    neither[:, :2] = (a * b / ((a + b) * (a + b + 1)))[:, None]
    values = np.where(
        (successes <= 0)[:, None], first_success, np.where((failures <= 0)[:, None], first_failure, variance)
    )
    return hard[:, None] * np.where(unseen, neither, values)


def buy(values, budget):
    """How many of each row's values are among the `budget` greatest: int64 array, shape (n,). No row may increase."""
    counts = np.zeros(values.shape[0], np.int64)
    flat = values.ravel()
    budget = min(int(budget), int(np.isfinite(flat).sum()))
    if budget <= 0:
        return counts
    best = np.argpartition(-flat, budget - 1)[:budget]
    return np.bincount(best // values.shape[1], minlength=counts.size)


class CeroSeq(SequentialAllocator):
    """A first look at every prompt that is not as good as solved, then rounds bought by marginal value. Ours.

    The price of a round is the value of the last rollout it buys: all that are worth more are bought,
    whosever they are. Unlike `cero` it looks at this step's own rewards, and unlike the paper it values the
    completion of a group.

    Parameters
    ----------
    n_first : int >= 1
        Rollouts of the first look.
    skip : float in [0, 1)
        Share of the step's prompts that get no first look: those that the posterior calls least worth one.
        They may still be bought later.
    rounds : int >= 1
        Rounds after the first look.
    quorum : float in (0, 1]
        A round starts when this share of the last one's prompts is back; 1 waits for all.
    **options : see `PosteriorAllocator` and `Allocator`; n_min and value are not used
    """

    name = "cero_seq"

    def __init__(self, *, n_first=2, skip=0.25, rounds=3, quorum=1.0, **options):
        super().__init__(**options)
        self.n_first = check_number("n_first", n_first, 1, self.n_max, integer=True)
        self.skip = check_number("skip", skip, 0, 1)
        self.rounds = check_number("rounds", rounds, 1, 1000, integer=True)
        self.quorum = check_number("quorum", quorum, 0, 1, open_low=True)
        if self.n_first > self.rollouts_per_prompt:
            raise ValueError(
                f"n_first={self.n_first} is more than rollouts_per_prompt={self.rollouts_per_prompt}: the first look "
                "alone would break the step's budget; lower n_first, or raise actor_rollout_ref.rollout.n"
            )

    def _step(self, rows, ids, cap):
        a, b = self.posterior_parameters(rows)
        first = np.full(ids.size, min(self.n_first, cap // max(ids.size, 1)))
        worth = beta.signal_hard_value(a, b, self._group)
        # Prompts never seen are always looked at.
        lots = self._lots(ids)
        skipped = np.lexsort((lots, worth))[: int(self.skip * ids.size)]
        known = self.table["successes"][rows] + self.table["failures"][rows] > 0
        first[skipped[known[skipped]]] = 0
        return LookThenBuy(ids, cap, self.n_max, self.rounds, self.quorum, a, b, first, lots)
