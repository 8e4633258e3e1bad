"""What allocators share that decide within a step, in rounds."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from cero.allocators.base import Allocator
from cero.allocators.beliefs import Beliefs
from cero.allocators.rounds import Step
from cero.core.arrays import Floats, Ids, Ints
from cero.core.budget import check_feasible
from cero.core.prompts import PromptIds, as_prompt_ids, sort_ids


class SequentialAllocator(Allocator):
    """Decide while a step is sampled, from the rewards that come back.

    A rule gives `_step`. The step's budget is a cap: all that is launched is paid for, the rest returns to
    the ledger. The beliefs are those before the step; a rule adds what the step shows.

    Parameters
    ----------
    **common : see `Allocator`
    """

    sequential: ClassVar[bool] = True
    beliefs: Beliefs

    def __init__(self, beliefs: Mapping[str, Any] | None = None, /, **common: Any) -> None:
        # Even where the rule does not use them, beliefs are kept, at their defaults: the advantage
        # `posterior` asks `success_mean` of every allocator.
        super().__init__({} if beliefs is None else beliefs, **common)
        if self.rollouts_per_prompt > self.n_max:
            raise ValueError(
                f"rollouts_per_prompt={self.rollouts_per_prompt} is more than n_max={self.n_max}, so no step "
                "could cost its budget; raise n_max"
            )

    def begin(self, prompt_ids: PromptIds, budget: int | None = None) -> Step:
        ids = as_prompt_ids(prompt_ids)
        cap = self._own_budget(ids) if budget is None else budget
        check_feasible(cap, ids.size, 0, self.n_max)
        self.ledger.check(int(cap))
        rows = self.table.add(ids)
        step = self._step(rows, ids, int(cap))
        self.ledger.spend(int(cap))
        return step

    def settle(self, step: Step, successes: ArrayLike, trials: ArrayLike) -> None:
        # All is checked before anything changes.
        self._check_unsettled(step)
        ids, successes, trials = self._checked_outcomes(step.ids, successes, trials)
        self._check_launched(step, trials)
        rows = self.table.rows(ids)
        if (rows < 0).any() or not 0 <= step.left <= self.ledger.spent:
            raise ValueError("this step was not begun by this allocator; settle what its begin() returned")
        np.add.at(self.table["allocated"], rows, step.launched.astype(np.int32))
        np.add.at(self.table["pending"], rows, step.launched.astype(np.int32))
        self.ledger.refund(step.left)
        self._last, self._last_rows = step.launched.copy(), np.sort(rows)
        self._learn(ids, successes, trials)
        step.settled = True

    def _lots(self, ids: Ids) -> Floats:
        """Return seeded draws in [0, 1), shape (n,), to break ties by, whatever the order of `ids`."""
        lots = np.empty(ids.size)
        lots[sort_ids(ids)[0]] = self._rng.random(ids.size)
        return lots

    # ---- what subclasses give --------------------------------------------------------------------

    @abstractmethod
    def _step(self, rows: Ints, ids: Ids, cap: int) -> Step:
        """Return the `Step` that plays the rule within `cap` rollouts.

        rows, ids: shape (n,), in the caller's order, repeats included.
        """
