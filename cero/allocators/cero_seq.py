"""CERO, sequential: the step's budget is spent in rounds. This project's, not the paper's."""

from typing import Any

import numpy as np

from cero.allocators.options import WithBeliefs
from cero.allocators.rounds import Rounds, Step
from cero.allocators.sequential import SequentialAllocator
from cero.core import beta
from cero.core.arrays import Floats, Ids, Ints
from cero.core.checks import check_number


class LookThenBuy(Rounds):
    """A first look at most prompts, then rounds of buying the rollouts worth most under what was seen.

    Parameters
    ----------
    ids, cap, n_max, rounds, quorum : see `Rounds`
    a, b : float arrays, shape (n,), Beta posteriors before the step
    first : int array, shape (n,), rollouts of the first look
        If nobody gets any, the first round is bought at once.
    lots : float array, shape (n,), distinct, in [0, 1)
        To break ties by: prompts never seen before tie wherever their rewards do.
    """

    def __init__(
        self,
        ids: Ids,
        cap: int,
        n_max: int,
        rounds: int,
        quorum: float,
        a: Floats,
        b: Floats,
        first: Ints,
        lots: Floats,
    ) -> None:
        super().__init__(ids, cap, n_max, rounds, quorum)
        self.a, self.b, self.first, self.lots = a, b, first, lots

    def _first(self) -> Ints:
        if self.first.any() or self.cap == 0:
            return self.first
        budget = -(-self.cap // self.rounds_left)
        self.rounds_left -= 1
        return self._spend(np.arange(self.ids.size), budget)

    def _spend(self, idle: Ints, budget: int) -> Ints:
        values = marginal_values(
            self.a[idle], self.b[idle], self.successes[idle], self.trials[idle], min(budget, self.n_max)
        )
        values *= 1.0 + 1e-9 * self.lots[idle, None]
        open_ = self.launched[idle, None] + np.arange(values.shape[1]) < self.n_max
        return buy(np.where(open_, values, -np.inf), budget)


def marginal_values(a: Floats, b: Floats, successes: Floats, trials: Ints, most: int) -> Floats:
    """Return what the next `most` rollouts of each prompt are worth, one by one, in the order of buying.

    With p ~ Beta(a + s, b + f), h = E[1-p], n = trials, and j = 0, 1, ... the rollouts bought so far, the
    value is h times:

        no success yet    E[(1-p)^j p]                       the chance that the next one is the first success
        no failure yet    E[p^j (1-p)]                       the chance that it is the first failure
        both seen         E[p (1-p)] (1/(n+j) - 1/(n+j+1))   what it takes off the variance of the mean reward
        not sampled       E[p^j (1-p) + (1-p)^j p]           j >= 2: the chance that it is the first to differ
                          E[p (1-p)]                         j < 2: they are worth something as a pair

    These values are this project's.

    Parameters
    ----------
    a, b, successes, trials : arrays, shape (n,)

    Returns
    -------
    float array, shape (n, most), non-increasing in each row
    """
    failures = trials - successes
    a, b = a + successes, b + failures
    hard = b / (a + b)
    total = (a + b)[:, None]
    j = np.arange(most)

    def in_a_row(count: Floats) -> Floats:
        """Return E[q^j] for q ~ Beta(count, total - count): a product of ratios of successive moments."""
        ratios = (count[:, None] + j[:-1]) / (total + j[:-1])
        return np.cumprod(np.concatenate([np.ones((count.size, 1)), ratios], axis=1), axis=1)

    first_success = in_a_row(b) * a[:, None] / (total + j)
    first_failure = in_a_row(a) * b[:, None] / (total + j)
    n = trials[:, None] + j
    spread = (a * b / ((a + b) * (a + b + 1)))[:, None]  # E[p (1-p)]
    variance = spread / np.maximum(n * (n + 1), 1)
    neither = first_success + first_failure
    # Two rollouts differ with probability 2 E[p (1-p)], and one is worth nothing without the other: half
    # each.
    neither[:, :2] = spread
    one_kind = np.where((failures <= 0)[:, None], first_failure, variance)
    values = np.where((successes <= 0)[:, None], first_success, one_kind)
    return hard[:, None] * np.where((trials == 0)[:, None], neither, values)


def buy(values: Floats, budget: int) -> Ints:
    """Return how many of each row's values are among the `budget` greatest.

    values : float array, shape (n, m), non-increasing in each row; -inf is never bought. Returns shape (n,).
    """
    counts = np.zeros(values.shape[0], np.int64)
    flat = values.ravel()
    budget = min(int(budget), int(np.isfinite(flat).sum()))
    if budget <= 0:
        return counts
    best = np.argpartition(-flat, budget - 1)[:budget]
    return np.bincount(best // values.shape[1], minlength=counts.size)


class CeroSeq(WithBeliefs, SequentialAllocator):
    """A first look at every prompt that is not as good as solved, then rounds bought by marginal value.

    The price of a round is the value of the last rollout it buys. All that are worth more are bought,
    whichever prompt they belong to. Unlike `cero` it looks at this step's own rewards, and unlike the paper
    it values the completion of a group. The rule is this project's.

    Parameters
    ----------
    n_first : int >= 1
        Rollouts of the first look.
    skip : float in [0, 1]
        Share of the step's prompts that get no first look: those that the posterior calls least worth one.
        Prompts never seen are not skipped. Those skipped may still be bought later.
    rounds : int >= 1
        Rounds after the first look.
    quorum : float in (0, 1]
        A round starts when this share of the last one's prompts is back; 1 waits for all.
    **options : see `WithBeliefs` and `SequentialAllocator`
    """

    name = "cero_seq"
    examples = ({"n_first": 1},)  # what one rollout per prompt allows

    def __init__(
        self,
        *,
        n_first: int = 2,
        skip: float = 0.25,
        rounds: int = 3,
        quorum: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.n_first = check_number("n_first", n_first, 1, self.n_max, integer=True)
        self.skip = check_number("skip", skip, 0, 1)
        self.rounds = check_number("rounds", rounds, 1, 1000, integer=True)
        self.quorum = check_number("quorum", quorum, 0, 1, open_low=True)
        if self.n_first > self.rollouts_per_prompt:
            raise ValueError(
                f"n_first={self.n_first} is more than rollouts_per_prompt={self.rollouts_per_prompt}: the "
                "first look alone would break the step's budget; lower n_first, or raise "
                "actor_rollout_ref.rollout.n"
            )

    def _step(self, rows: Ints, ids: Ids, cap: int) -> Step:
        a, b = self.beliefs.parameters(rows)
        first = np.full(ids.size, min(self.n_first, max(cap // max(ids.size, 1), 1)))
        worth = beta.signal_hard_value(a, b, max(self.rollouts_per_prompt, 2))
        lots = self._lots(ids)
        skipped = np.lexsort((lots, worth))[: int(self.skip * ids.size)]
        first[skipped[self.beliefs.has_evidence(rows)[skipped]]] = 0
        # A budget below one rollout for each prompt: the first look is for those worth most.
        looked = np.flatnonzero(first)
        first[looked[np.lexsort((lots[looked], worth[looked]))[: max(looked.size - cap, 0)]]] = 0
        return LookThenBuy(ids, cap, self.n_max, self.rounds, self.quorum, a, b, first, lots)
