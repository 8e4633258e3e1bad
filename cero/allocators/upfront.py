"""What allocators share that decide before sampling: bounds, exact integers, and a shorter interface."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from cero.allocators.base import Allocator
from cero.allocators.rounds import OneRound, Step
from cero.core.arrays import Bools, Floats, Ids, Ints
from cero.core.budget import ROUNDINGS, Rounding, check_feasible, project_to_sum, round_to_sum
from cero.core.checks import as_numbers, check_choice, check_number, is_whole, shown
from cero.core.prompts import PromptIds, as_prompt_ids, merge_repeats, sort_ids


@dataclass
class Choice:
    """What became of a step's candidates.

    Attributes
    ----------
    offered : int, the candidates n
    chosen : int64 array, shape (k,), ascending: the places of the chosen prompts among the candidates
    step : Step of these prompts only, in that order; each gets at least one rollout
    forced : int, how many of them are there only because `least` asked for more than the rule chose
    value_ratio : float or None
        Mean value of a rollout of the chosen prompts, over that of all candidates; None where the allocator
        keeps no beliefs.
    """

    offered: int
    chosen: Ints
    step: Step
    forced: int
    value_ratio: float | None


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

    Attributes
    ----------
    chooses : bool
        Whether the rule tells prompts apart, so that it can choose among candidates.
    """

    chooses: ClassVar[bool] = True

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

        rows = self._rows_of(ids)
        self._wished = self._targets(rows, budget)
        shares, counts = self._whole(self._wished, budget, self.n_min)
        self._spend(ids, rows, shares, counts)
        result = np.empty_like(counts)
        result[order] = counts
        self._last = result
        return result.copy()

    def choose(self, prompt_ids: PromptIds, budget: int, least: int = 1, most: int | None = None) -> Choice:
        """Choose the prompts of a step among candidates, and divide the budget among them.

        It is the rule's usual division of `budget` among all candidates, and the chosen ones are those that
        get rollouts. Nothing is noted of the others: for the allocator they were not visited.

        >>> from cero import make_allocator
        >>> allocator = make_allocator("greedy", rollouts_per_prompt=4, epochs=2)
        >>> allocator.set_pass_rates(["1+1=", "17*23=", "2^61="], [1.0, 0.5, 0.0])
        >>> choice = allocator.choose(["1+1=", "17*23=", "2^61="], budget=4)
        >>> choice.chosen.tolist(), choice.step.start().tolist()
        ([1], [4])

        Parameters
        ----------
        prompt_ids : as for `begin`, shape (n,), n >= 1; a prompt that occurs twice is two candidates
        budget : int, rollouts to spend, exactly
        least, most : int, 1 <= least <= most <= n; None: n, or the budget if that is smaller
            Bounds on the number of chosen prompts. Where the rule chooses too few, those with the largest
            targets of the others join them. Where it chooses too many, those with the smallest go. Ties are
            broken by seeded lots. The budget is then divided among those chosen as their targets ask
            (this project's).

        Raises
        ------
        ValueError
            If n_min is not 0, if the budget can't be met within the bounds, or if it breaks the run's;
            nothing has changed then.
        """
        if self.n_min:
            raise ValueError(
                f"n_min={self.n_min} would give every candidate rollouts, so there is no choice; set n_min=0"
            )
        order, ids = sort_ids(as_prompt_ids(prompt_ids))
        for key, value in (("budget", budget), ("least", least), ("most", 1 if most is None else most)):
            if not is_whole(value):
                raise ValueError(f"{key}={shown(value)} is not a whole number")
        budget, least = int(budget), int(least)
        most = min(ids.size, budget) if most is None else int(most)
        if not 1 <= least <= most <= min(ids.size, budget):
            raise ValueError(
                f"least={shown(least)} and most={shown(most)} prompts of {ids.size} can't be chosen with "
                f"budget={shown(budget)}; give 1 <= least <= most <= {shown(min(ids.size, budget))}"
            )
        check_feasible(budget, most, 0, self.n_max)
        least = max(least, -(-budget // self.n_max))
        self.ledger.check(budget)

        rows = self._rows_of(ids)
        targets = self._candidate_targets(rows, budget, least, most)
        counts = self._whole(targets, budget, 0)[1]
        wanted = counts > 0
        number = int(wanted.sum())
        members = np.flatnonzero(wanted)
        if not least <= number <= most:
            lots = self._rng.random(rows.size)
            best = np.lexsort((lots, -targets, ~wanted))[: min(max(number, least), most)]
            members = np.sort(best)
            counts[members] = self._whole(targets[members], budget, 1)[1]
        chosen: Bools = np.zeros(rows.size, bool)
        chosen[members] = True
        ratio = self._value_ratio(rows, chosen)
        self._wished = targets[members]
        # A chosen prompt has its whole rollouts noted, not its share: of the shares of candidates that were
        # rounded to none nothing is noted, so the others' alone would sum to less than was spent.
        self._spend(ids[members], rows[members], counts[members].astype(np.float64), counts[members])

        places = order[members]
        by_place = np.argsort(places)
        self._last = counts[members][by_place]
        return Choice(
            rows.size,
            places[by_place],
            OneRound(ids[members][by_place], self._last),
            max(0, least - number),
            ratio,
        )

    def _rows_of(self, ids: Ids) -> Ints:
        """Return the rows of sorted `ids`, repeats included; those that are unknown are added."""
        distinct, times = merge_repeats(ids)
        return np.repeat(self.table.add(distinct), times)

    def _whole(self, targets: Floats, budget: int, n_min: int) -> tuple[Floats, Ints]:
        """Return `targets` made to cost the budget within n_min ... n_max: real-valued, and whole."""
        finite = np.isfinite(targets)
        if not finite.all():
            raise ValueError(
                f"allocator={self.name} wishes {targets[~finite][0]} rollouts for a prompt; this is a fault "
                "of its _targets(), which must return finite numbers"
            )
        shares = project_to_sum(targets, budget, n_min, self.n_max)
        return shares, round_to_sum(shares, budget, n_min, self.n_max, self._rng, self.rounding)

    def _spend(self, ids: Ids, rows: Ints, shares: Floats, counts: Ints) -> None:
        """Note what sorted `ids`, repeats included, are given."""
        self.ledger.spend(int(counts.sum()))
        distinct = merge_repeats(ids)[0]
        distinct_rows, _, added = merge_repeats(rows, counts.astype(np.int32))
        self.table["allocated"][distinct_rows] += added
        self.table["pending"][distinct_rows] += added
        self._allocated(rows, shares, counts)
        self._last_rows = rows
        self._last_distinct = distinct, distinct_rows

    def _value_ratio(self, rows: Ints, chosen: Bools) -> float | None:
        """Return the mean value of a rollout of the `chosen` of `rows`, over that of all; or None."""
        values = self._worth(rows)
        if values is None or not values.any():
            return None
        return float(values[chosen].mean() / values.mean())

    def observe(
        self,
        prompt_ids: PromptIds,
        successes: ArrayLike,
        trials: ArrayLike,
        weights: ArrayLike | None = None,
    ) -> None:
        """Learn from rewards, in any order and in any portions; each call counts as a step.

        A portion should hold all outcomes of a prompt's visit. The beliefs fade what they held of it before
        with each portion, so one outcome at a time counts for less than all at once.

        Parameters
        ----------
        prompt_ids : as for `begin`, shape (n,); repeats are added up
        successes : floats, shape (n,), 0 <= successes <= trials; fractional where rewards are
        trials : integers, shape (n,); at most what was allocated to the prompt and not yet observed
            Fewer are fine: a rollout that failed teaches nothing, but stays spent.
        weights : floats, shape (n,), in (0, 1], or None
            What an outcome counts for in the beliefs, e.g. less if an old policy sampled it. None: 1.

        Raises
        ------
        ValueError
            On anything else; nothing has changed then.
        """
        outcomes = self._checked_outcomes(prompt_ids, successes, trials)
        if weights is None:
            self._learn(*outcomes)
            return
        weights = as_numbers("weights", weights)
        if weights.shape != outcomes[0].shape or not ((weights > 0) & (weights <= 1)).all():
            raise ValueError(
                f"weights={weights.ravel().tolist()[:5]} must be one number in (0, 1] for each of "
                f"{outcomes[0].size} prompts"
            )
        self._learn(*outcomes, weights)

    def withdraw(self, prompt_ids: PromptIds, rollouts: ArrayLike) -> None:
        """Take back rollouts that were allocated and will never be launched; they are no longer spent.

        What the allocation taught the rule (its prices, say) stays.

        Parameters
        ----------
        prompt_ids : as for `begin`, shape (n,); repeats are added up
        rollouts : integers, shape (n,); at most what was allocated to the prompt and not yet observed

        Raises
        ------
        ValueError
            If they are more than that; nothing has changed then.
        """
        rollouts = as_numbers("rollouts", rollouts)
        ids, _, counts = self._checked_outcomes(prompt_ids, np.zeros(rollouts.shape), rollouts, "rollouts")
        order, ids = sort_ids(ids)
        ids, _, counts = merge_repeats(ids, counts[order])
        rows = self.table.rows(ids)
        pending = self._pending(rows)
        if (counts > pending).any():
            worst = int(np.argmax(counts - pending))
            raise ValueError(
                f"rollouts={counts[worst]} of prompt {ids[worst]:#018x} can't be taken back; it has "
                f"{pending[worst]} allocated and not yet observed"
            )
        self.ledger.refund(int(counts.sum()))
        for column in ("allocated", "pending"):
            self.table[column][rows[counts > 0]] -= counts[counts > 0].astype(np.int32)

    def begin(self, prompt_ids: PromptIds, budget: int | None = None) -> Step:
        ids = as_prompt_ids(prompt_ids)
        return OneRound(ids, self.allocate(ids, budget))

    def settle(self, step: Step, successes: ArrayLike, trials: ArrayLike) -> None:
        self._check_unsettled(step)
        ids, successes, trials = self._checked_outcomes(step.ids, successes, trials)
        self._check_launched(step, trials)
        self._learn(ids, successes, trials)
        if isinstance(step, OneRound) and (step.launched < step.counts).any():  # it was not started
            self.withdraw(step.ids, step.counts - step.launched)
        step.settled = True

    def least_rollouts(self) -> int:
        return max(self.n_min, 1)

    # ---- what subclasses give --------------------------------------------------------------------

    @abstractmethod
    def _targets(self, rows: Ints, budget: int) -> Floats:
        """Return the rollouts wished for, real-valued and unbounded, shape of `rows`.

        They are then made to cost `budget`. rows: in ascending order of the prompts' ids, repeats included.
        """

    def _candidate_targets(self, rows: Ints, budget: int, least: int, most: int) -> Floats:
        """Return `_targets` where the step's prompts are chosen among `rows`, `least` to `most` of them.

        For rules that set how many prompts they choose; the others need not know.
        """
        return self._targets(rows, budget)

    def _allocated(self, rows: Ints, shares: Floats, counts: Ints) -> None:
        """Take note of what was given, real-valued and rounded.

        rows : as for `_targets`; but of candidates only those chosen, with their whole rollouts as shares.
        `self._wished` is what `_targets` returned for them.
        """
