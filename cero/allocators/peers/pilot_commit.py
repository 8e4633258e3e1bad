"""Pilot-Commit: a pilot for all, the rest of the budget for the prompts in between (arXiv 2605.26606)."""

from typing import Any

import numpy as np

from cero.allocators.rounds import Rounds, Step
from cero.allocators.sequential import SequentialAllocator
from cero.core.arrays import Bools, Floats, Ids, Ints
from cero.core.checks import check_number


def _within(rates: Floats, low: float, high: float) -> Bools:
    return (rates >= low - 1e-9) & (rates <= high + 1e-9)


class PilotThenCommit(Rounds):
    """`first` rollouts for all; all that is left, in equal shares, for those with low <= p <= high.

    lots : distinct floats, shape (n,): where the rest does not divide, those drawn lowest get one more.
    """

    def __init__(
        self, ids: Ids, cap: int, n_max: int, first: int, low: float, high: float, lots: Floats
    ) -> None:
        super().__init__(ids, cap, n_max, rounds=1, quorum=1.0)
        self.first, self.low, self.high, self.lots = first, low, high, lots

    def _first(self) -> Ints:
        return np.full(self.ids.size, min(self.first, max(self.cap // max(self.ids.size, 1), 1)))

    def _spend(self, idle: Ints, budget: int) -> Ints:
        rates = self.successes[idle] / np.maximum(self.trials[idle], 1)
        kept = np.flatnonzero(_within(rates, self.low, self.high))
        counts = np.zeros(idle.size, np.int64)
        if kept.size:
            counts[kept] = budget // kept.size
            counts[kept[np.argsort(self.lots[idle[kept]], kind="stable")[: budget % kept.size]]] += 1
        return counts


class PilotCommit(SequentialAllocator):
    """Two phases: a pilot estimates each prompt's success rate, then the rest goes to those worth it.

    Published are 16 to 32 pilot rollouts, the rule to keep low <= p <= high, and 48 to 96 rollouts to commit.
    This project makes the pilot a share of the step's budget; both published pairs are 1/4. It also divides
    the rest among the step's own prompts, up to n_max each. The authors draw further prompts until a batch is
    full, defer the hard ones to a buffer and evict the solved ones. What nobody can take returns to the run's
    budget.

    A pilot that is not followed by a commit is trained on as well. Where its rewards are all the same, that
    changes nothing under GRPO's advantage.

    Parameters
    ----------
    pilot : float in (0, 1]
        Rollouts of the pilot over rollouts_per_prompt. A pilot has two rollouts or more, because one can only
        tell the rates 0 and 1.
    low, high : float in [0, 1]
        Published: 0.125, 0.75. A pilot of fewer than 8 rollouts tells only coarser rates: one of two rollouts
        tells 0, 1/2 and 1.
    **common : see `SequentialAllocator`
    """

    name = "pilot_commit"
    idle_in_runs = {"low": ("pilot", (1.0,)), "high": ("pilot", (1.0,))}  # nothing is left to commit

    def __init__(self, *, pilot: float = 0.25, low: float = 0.125, high: float = 0.75, **common: Any) -> None:
        super().__init__(**common)
        self.pilot = check_number("pilot", pilot, 0, 1, open_low=True)
        self.low = check_number("low", low, 0, 1)
        self.high = check_number("high", high, 0, 1)
        if self.low > self.high:
            raise ValueError(
                f"low={self.low} is above high={self.high}, so no prompt could be kept; lower low"
            )
        self._pilot = min(max(2, int(self.pilot * self.rollouts_per_prompt + 0.5)), self.rollouts_per_prompt)
        rates = np.arange(self._pilot + 1) / self._pilot
        # A pilot that is all of the budget leaves nothing to commit, to whomever.
        if self._pilot < self.rollouts_per_prompt and not _within(rates, self.low, self.high).any():
            raise ValueError(
                f"a pilot of {self._pilot} (pilot={self.pilot}, "
                f"rollouts_per_prompt={self.rollouts_per_prompt}) knows only the rates "
                f"{', '.join(f'{rate:.3g}' for rate in rates)}, none within low={self.low} ... "
                f"high={self.high}, so no prompt could be kept; raise pilot or rollouts_per_prompt"
            )

    def _step(self, rows: Ints, ids: Ids, cap: int) -> Step:
        return PilotThenCommit(ids, cap, self.n_max, self._pilot, self.low, self.high, self._lots(ids))
