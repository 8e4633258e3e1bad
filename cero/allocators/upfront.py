"""What allocators share that decide before sampling: bounds, exact integers, and a shorter interface."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cero.allocators.base import Allocator
from cero.allocators.rounds import OneRound, Step
from cero.core.arrays import Floats, Ints
from cero.core.budget import ROUNDINGS, Rounding, check_feasible, project_to_sum, round_to_sum
from cero.core.checks import check_choice, check_number
from cero.core.prompts import PromptIds, as_prompt_ids, merge_repeats, sort_ids


class UpfrontAllocator(Allocator):
    """Decide before sampling: a step has one round, and `allocate` and `observe` do without a step.

    A rule gives `_targets`, real-valued; this class makes them whole numbers within the bounds that cost
    exactly the budget.

    Parameters
    ----------
    rollouts_per_prompt, epochs, seed, total_budget : see `Allocator`
    n_min, n_max : int, 0 <= n_min <= rollouts_per_prompt <= n_max
        Bounds on a prompt's rollouts in one step. A budget that can't be met within them is refused.
    rounding : "systematic" (unbiased, seeded) or "largest_remainder" (deterministic)
        How real-valued rollouts become whole ones, see `cero.core.budget.round_to_sum`.
    """

    def __init__(
        self,
        beliefs: Mapping[str, Any] | None = None,
        /,
        *,
        rollouts_per_prompt: int,
        epochs: int,
        n_min: int = 2,
        n_max: int = 32,
        seed: int = 0,
        total_budget: int | None = None,
        rounding: Rounding = "systematic",
    ) -> None:
        super().__init__(
            beliefs,
            rollouts_per_prompt=rollouts_per_prompt,
            epochs=epochs,
            n_max=n_max,
            seed=seed,
            total_budget=total_budget,
        )
        self.n_min = int(check_number("n_min", n_min, 0, self.n_max, integer=True))
        if not self.n_min <= self.rollouts_per_prompt <= self.n_max:
            raise ValueError(
                f"rollouts_per_prompt={self.rollouts_per_prompt} lies outside n_min={self.n_min} ... "
                f"n_max={self.n_max}, so no step could cost its budget; widen the bounds"
            )
        self.rounding = check_choice("rounding", rounding, ROUNDINGS)

    def allocate(self, prompt_ids: PromptIds, budget: int | None = None) -> Ints:
        """Return the rollouts of each prompt of a step.

        Parameters
        ----------
        prompt_ids, budget : as for `begin`; the budget is spent exactly

        Returns
        -------
        int64 array, shape (n,), each within [n_min, n_max], summing to `budget`. It does not depend on the
        order of the prompts: permuted prompts get permuted rollouts.

        Raises
        ------
        ValueError
            If the budget can't be met within the bounds, or breaks the run's; nothing has changed then.
        """
        order, ids = sort_ids(as_prompt_ids(prompt_ids))
        if budget is None:
            budget = self._own_budget(ids)
        check_feasible(budget, ids.size, self.n_min, self.n_max)
        budget = int(budget)
        self.ledger.check(budget)

        distinct, times = merge_repeats(ids)
        distinct_rows = self.table.add(distinct)
        rows = np.repeat(distinct_rows, times)
        shares = project_to_sum(self._targets(rows, budget), budget, self.n_min, self.n_max)
        counts = round_to_sum(shares, budget, self.n_min, self.n_max, self._rng, self.rounding)
        self.ledger.spend(budget)
        added = merge_repeats(rows, counts.astype(np.int32))[2]
        self.table["allocated"][distinct_rows] += added
        self.table["pending"][distinct_rows] += added
        self._allocated(rows, shares, counts)

        result = np.empty_like(counts)
        result[order] = counts
        self._last, self._last_rows = result, rows
        self._last_distinct = distinct, distinct_rows
        return result.copy()

    def observe(self, prompt_ids: PromptIds, successes: ArrayLike, trials: ArrayLike) -> None:
        """Learn from rewards.

        Parameters
        ----------
        prompt_ids : as for `begin`, shape (n,); repeats are added up
        successes : floats, shape (n,), 0 <= successes <= trials; fractional where rewards are
        trials : integers, shape (n,); at most what was allocated to the prompt and not yet observed
            Fewer are fine: a rollout that failed teaches nothing, but stays spent.

        Raises
        ------
        ValueError
            On anything else; nothing has changed then.
        """
        self._learn(*self._checked_outcomes(prompt_ids, successes, trials))

    def begin(self, prompt_ids: PromptIds, budget: int | None = None) -> Step:
        ids = as_prompt_ids(prompt_ids)
        return OneRound(ids, self.allocate(ids, budget))

    def settle(self, step: Step, successes: ArrayLike, trials: ArrayLike) -> None:
        self._check_unsettled(step)
        self.observe(step.ids, successes, trials)
        step.settled = True

    def least_rollouts(self) -> int:
        return max(self.n_min, 1)

    # ---- what subclasses give --------------------------------------------------------------------

    @abstractmethod
    def _targets(self, rows: Ints, budget: int) -> Floats:
        """Return the rollouts wished for, real-valued and unbounded, shape of `rows`.

        They are then made to cost `budget`. rows: in ascending order of the prompts' ids, repeats included.
        """

    def _allocated(self, rows: Ints, shares: Floats, counts: Ints) -> None:
        """Take note of what was given, real-valued and rounded; rows as for `_targets`."""
