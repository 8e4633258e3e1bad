"""What allocators share that decide within a step, in rounds."""

from abc import abstractmethod

import numpy as np

from cero.allocators.beliefs import PosteriorAllocator
from cero.core.budget import check_feasible
from cero.core.prompts import as_prompt_ids, sort_ids


class SequentialAllocator(PosteriorAllocator):
    """Decides while a step is sampled: `begin` gives a `cero.allocators.rounds.Step`, `settle` ends it.

    A subclass gives `_step(rows, ids, cap)`. Everything launched is paid for; what is left of the step's cap
    returns to the ledger. Posteriors are those before the step: a rule adds what the step shows.
    """

    sequential = True

    def allocate(self, prompt_ids, budget=None):
        """Raises TypeError: there is nothing to say before the first rewards; use `begin` and `settle`."""
        raise TypeError(
            f"allocator={self.name} decides within a step: use begin() and settle(), not allocate()"
        )

    def _targets(self, rows, budget):
        raise TypeError(f"allocator={self.name} has no targets before sampling")

    def begin(self, prompt_ids, budget=None):
        ids = as_prompt_ids(prompt_ids)
        cap = self._own_budget(ids) if budget is None else budget
        check_feasible(cap, ids.size, 0, self.n_max)
        self.ledger.check(int(cap))
        rows = self.table.add(ids)
        step = self._step(rows, ids, int(cap))
        self.ledger.spend(int(cap))
        return step

    def settle(self, step, successes, trials):
        # Checked before anything changes.
        ids, successes, trials = self._checked_outcomes(step.ids, successes, trials)
        if (trials > step.launched).any():
            worst = int(np.argmax(trials - step.launched))
            raise ValueError(
                f"trials={trials[worst]} for prompt {ids[worst]:#018x}, of which {step.launched[worst]} rollouts were "
                "launched; observe each rollout once"
            )
        rows = self.table.rows(ids)
        np.add.at(self.table["allocated"], rows, step.launched.astype(np.int32))
        np.add.at(self.table["pending"], rows, step.launched.astype(np.int32))
        self.ledger.refund(step.left)
        self._last, self._last_rows = step.launched.copy(), np.sort(rows)
        self.observe(ids, successes, trials)

    def _lots(self, ids):
        """Seeded draws in [0, 1), shape (n,), the same for a prompt whatever the order of `ids`: to break ties by."""
        lots = np.empty(ids.size)
        lots[sort_ids(ids)[0]] = self._rng.random(ids.size)
        return lots

    @abstractmethod
    def _step(self, rows, ids, cap):
        """The rule of one step: a `Step`. rows, ids: shape (n,), in the caller's order; repeats included."""
