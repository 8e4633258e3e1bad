"""VIGOR: widen the groups of greatest reward variance, round by round (arXiv 2607.22002)."""

from typing import Any, Literal, get_args

import numpy as np

from cero.allocators.rounds import Rounds, Step
from cero.allocators.sequential import SequentialAllocator
from cero.core.arrays import Floats, Ids, Ints
from cero.core.checks import check_choice, check_number

Growth = Literal["total", "round"]


class Widen(Rounds):
    """`first` rollouts for all; then `rounds` times the share `alpha` of the prompts in play goes on.

    lots : distinct floats, shape (n,), to break ties of equal variance; growth as in `Vigor`.
    """

    def __init__(
        self,
        ids: Ids,
        cap: int,
        n_max: int,
        rounds: int,
        first: int,
        alpha: float,
        growth: Growth,
        lots: Floats,
    ) -> None:
        super().__init__(ids, cap, n_max, rounds, quorum=1.0)
        self.first, self.alpha, self.growth, self.lots = first, alpha, growth, lots
        self.done = 0  # rounds after the first
        self.in_play = np.ones(self.ids.size, bool)

    def _first(self) -> Ints:
        return np.full(self.ids.size, min(self.first, max(self.cap // max(self.ids.size, 1), 1)))

    def _spend(self, idle: Ints, budget: int) -> Ints:
        self.done += 1
        rates = self.successes[idle] / np.maximum(self.trials[idle], 1)
        variance = np.where(self.in_play[idle], rates * (1.0 - rates), -1.0)
        wide = max(1, int(self.alpha**self.done * self.ids.size + 0.5))
        chosen = np.lexsort((self.lots[idle], -variance))[:wide]
        chosen = chosen[self.in_play[idle[chosen]]]
        self.in_play[:] = False
        self.in_play[idle[chosen]] = True
        aim = np.rint(self.first / self.alpha**self.done)
        had = self.launched[idle[chosen]] if self.growth == "total" else 0
        counts = np.zeros(idle.size, np.int64)
        counts[chosen] = np.minimum(np.maximum(aim - had, 1), self.left // max(chosen.size, 1))
        return counts


class Vigor(SequentialAllocator):
    """All prompts start with m0 rollouts; in T rounds the share alpha of greatest variance grows by 1/alpha.

    The abstract and summaries of the paper say: m0 for all, T rounds, the top alpha expanded by gamma, alpha
    gamma = 1. They leave open whether gamma widens the group or its next batch of rollouts; `growth` sets it.
    Three things are this project's: the values of T and alpha, the seeded breaking of ties (many groups share
    a variance), and that m0 follows from the budget.

    Parameters
    ----------
    n_first : int or None
        m0. None: the most with which the whole plan fits the step's budget, and at least 1. Where even that
        does not fit, groups grow as far as the budget goes; with one rollout per prompt none does.
    rounds : int >= 1
        T, after the first.
    alpha : float in (0, 1)
        Share of the prompts in play that goes on; gamma = 1 / alpha.
    growth : "total" or "round"
        With "total" the prompts in play have m0 gamma^t rollouts in all after t rounds. What could be trained
        on stays prompts x m0, and the plan costs 1 + T (1-alpha) times that. With "round" they get
        m0 gamma^t more in round t, and the plan costs 1 + T times prompts x m0.
    **common : see `SequentialAllocator`
    """

    name = "vigor"

    def __init__(
        self,
        *,
        n_first: int | None = None,
        rounds: int = 2,
        alpha: float = 0.5,
        growth: Growth = "total",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.n_first = None if n_first is None else check_number("n_first", n_first, 1, 2**20, integer=True)
        self.rounds = check_number("rounds", rounds, 1, 1000, integer=True)
        self.alpha = check_number("alpha", alpha, 0, 1, open_low=True)
        self.growth = check_choice("growth", growth, get_args(Growth))
        if self.alpha == 1:
            raise ValueError("alpha=1.0 would keep every prompt in play, and no group grow; set it below 1")
        if self._size() * self._cost() > self.rollouts_per_prompt + 1e-9 and self.n_first is not None:
            raise ValueError(
                f"n_first={self.n_first} with rounds={self.rounds}, alpha={self.alpha}, growth={self.growth} "
                f"needs {self._size() * self._cost():g} rollouts a prompt, more than rollouts_per_prompt="
                f"{self.rollouts_per_prompt}; lower n_first, or raise actor_rollout_ref.rollout.n"
            )

    def _cost(self) -> float:
        """Return the rollouts of the whole plan over those of the first round."""
        return 1.0 + self.rounds * (1.0 - self.alpha if self.growth == "total" else 1.0)

    def _size(self) -> int:
        """Return m0."""
        return (
            self.n_first
            if self.n_first is not None
            else max(1, int(self.rollouts_per_prompt / self._cost() + 1e-9))
        )

    def _step(self, rows: Ints, ids: Ids, cap: int) -> Step:
        return Widen(
            ids, cap, self.n_max, self.rounds, self._size(), self.alpha, self.growth, self._lots(ids)
        )
