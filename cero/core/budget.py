"""How are real-valued targets made into rollouts that cost exactly the budget, and who keeps count?"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from cero.core.arrays import Floats, Ints
from cero.core.checks import is_whole, shown

Rounding = Literal["systematic", "largest_remainder"]
MOST_TOTAL = 2**62  # rollouts of a run: what int64 and a float hold
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)


def check_feasible(budget: float, prompts: int, n_min: int, n_max: int) -> None:
    """Raise ValueError unless `prompts` prompts of n_min to n_max rollouts each can cost exactly `budget`."""
    if not is_whole(budget):
        raise ValueError(f"budget={shown(budget)} is not a whole number of rollouts")
    low, high = prompts * n_min, prompts * n_max
    if budget < low:
        raise ValueError(
            f"budget={shown(budget)} is below {prompts} prompts x n_min={n_min} = {low}; "
            "lower n_min or raise the budget"
        )
    if budget > high:
        raise ValueError(
            f"budget={shown(budget)} is above {prompts} prompts x n_max={n_max} = {high}; "
            "raise n_max or lower the budget"
        )


def project_to_sum(targets: ArrayLike, budget: float, n_min: float, n_max: float) -> Floats:
    """Return the Euclidean projection of `targets` onto {x : sum x = budget, n_min <= x <= n_max}.

    It is clip(targets + c, n_min, n_max) for the one shift c (a price, in rollouts) that meets the budget.
    The sum is piecewise linear in c, so c is found exactly, from the sorted breakpoints. Source: the
    projection is a textbook's; that a step's rollouts are made to cost the budget by it is this project's
    choice.

    >>> project_to_sum([1.0, 6.0, 9.0], budget=12, n_min=2, n_max=8)
    array([2. , 3.5, 6.5])

    Parameters
    ----------
    targets : float array, shape (n,), finite, in rollouts
    budget : whole number of rollouts, feasible (see `check_feasible`)
    n_min, n_max : bounds of each element, in rollouts

    Returns
    -------
    float array, shape (n,), summing to `budget` up to rounding error
    """
    targets = np.asarray(targets, np.float64)
    if targets.size == 0:
        return targets.copy()
    # The sum rises in c with a slope equal to the number of prompts strictly between their bounds.
    ordered = -np.sort(-targets)
    breaks = np.concatenate([n_min - ordered, n_max - ordered])
    order = np.argsort(breaks, kind="stable")  # of two ascending runs: a merge
    breaks = breaks[order]
    slope = np.cumsum(np.where(order < targets.size, 1, -1))
    sums = n_min * targets.size + np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(breaks))])
    at = int(np.clip(np.searchsorted(sums, budget, side="right") - 1, 0, breaks.size - 1))
    shift = breaks[at] + ((budget - sums[at]) / slope[at] if slope[at] > 0 else 0.0)
    return np.clip(targets + shift, n_min, n_max)


def round_to_sum(
    targets: ArrayLike,
    budget: int,
    n_min: int,
    n_max: int,
    rng: np.random.Generator | None = None,
    rounding: Rounding = "systematic",
) -> Ints:
    """Return integers next to `targets` that sum to `budget` exactly and stay within [n_min, n_max].

    >>> round_to_sum([2.0, 3.5, 6.5], budget=12, n_min=2, n_max=8, rounding="largest_remainder")
    array([2, 4, 6])

    Parameters
    ----------
    targets : float array, shape (n,), within [n_min, n_max], summing to `budget` (see `project_to_sum`)
    rng : source of the one random number that "systematic" needs
    rounding : "systematic" rounds up with probability equal to the fraction (unbiased: E[n] = target), by one
        uniform draw along the cumulated fractions. "largest_remainder" gives the rest to the largest
        fractions, ties to the earlier prompt (deterministic, biased).

    Returns
    -------
    int64 array, shape (n,)

    Raises
    ------
    ValueError
        If "systematic" has something to round and no `rng`.
    """
    targets = np.asarray(targets, np.float64)
    if targets.size == 0:
        return np.zeros(0, np.int64)
    counts = np.floor(targets + 1e-9).astype(np.int64)
    fractions = np.clip(targets - counts, 0.0, 1.0)
    rest = int(budget - counts.sum())
    if rest > 0:
        if rounding == "systematic":
            if rng is None:
                raise ValueError("rounding='systematic' needs rng; give a numpy.random.Generator")
            cumulated = np.cumsum(fractions)
            drawn = rng.random()
            if cumulated[-1] > 0:  # else there is no fraction to go by, only float error of huge targets
                cumulated *= rest / cumulated[-1]  # the sum is `rest` but for float error; make it exact
                ticks = np.floor(cumulated - drawn).astype(np.int64) + 1
                ticks[-1] = rest
                counts += np.diff(ticks, prepend=0)
        else:
            counts[np.argsort(-fractions, kind="stable")[:rest]] += 1
    counts = np.clip(counts, n_min, n_max)
    # Float error can leave single rollouts over; give or take them where there is room.
    gap = int(budget - counts.sum())
    if gap:
        room = np.flatnonzero(counts < n_max if gap > 0 else counts > n_min)
        room = room[np.argsort(-np.sign(gap) * (targets - counts)[room], kind="stable")]
        while gap:
            step = room[: abs(gap)]
            counts[step] += np.sign(gap)
            gap = int(budget - counts.sum())
            room = room[counts[room] < n_max] if gap > 0 else room[counts[room] > n_min]
    return counts


class Ledger:
    """Counts the rollouts that a run has spent, of `total`; `total` is None where no global budget was set.

    >>> ledger = Ledger(total=100)
    >>> ledger.spend(64)
    >>> ledger.left
    36
    """

    def __init__(self, total: float | None = None) -> None:
        if total is not None and (not is_whole(total) or not 0 <= total <= MOST_TOTAL):
            raise ValueError(
                f"total_budget={shown(total)} must be a whole number of rollouts, 0 to {MOST_TOTAL}, or None"
            )
        self.total = None if total is None else int(total)
        self.spent = 0

    @property
    def left(self) -> int | None:
        """Return the rollouts left, or None without a global budget."""
        return None if self.total is None else self.total - self.spent

    def check(self, rollouts: int) -> None:
        """Raise ValueError if spending `rollouts`, a whole number, more would break the global budget."""
        if not is_whole(rollouts):
            raise ValueError(f"budget={shown(rollouts)} is not a whole number of rollouts")
        rollouts = int(rollouts)  # one of NumPy's small kinds would overflow in the sum
        if self.total is not None and self.spent + rollouts > self.total:
            raise ValueError(
                f"budget={shown(rollouts)} would bring the run to {shown(self.spent + rollouts)} rollouts, "
                f"over its total_budget={self.total} ({self.left} left); raise total_budget or ask for less"
            )

    def spend(self, rollouts: int) -> None:
        """Count `rollouts` as spent. Raise ValueError if they would break the global budget."""
        if not is_whole(rollouts) or rollouts < 0:
            raise ValueError(f"can't spend {shown(rollouts)} rollouts; give a whole number, 0 or more")
        self.check(rollouts)
        self.spent += int(rollouts)

    def refund(self, rollouts: int) -> None:
        """Give back rollouts that were counted and not launched. Raise ValueError if they are too many."""
        if not is_whole(rollouts) or not 0 <= rollouts <= self.spent:
            raise ValueError(f"can't refund {shown(rollouts)} of {self.spent} rollouts spent")
        self.spent -= int(rollouts)

    def state_dict(self) -> dict[str, Any]:
        """Return what was spent, and of how much, as plain data."""
        return {"spent": self.spent, "total": self.total}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError unless `state` fits: it may not have spent more than the total configured now."""
        spent = state.get("spent") if isinstance(state, Mapping) else None
        if not isinstance(spent, int) or isinstance(spent, bool) or not 0 <= spent <= MOST_TOTAL:
            raise ValueError(f"ledger: spent={shown(spent)} must be an integer, 0 to {MOST_TOTAL}")
        total = state.get("total")
        if total is not None and (type(total) is not int or not 0 <= total <= MOST_TOTAL):
            raise ValueError(f"ledger: total={shown(total)} must be an integer, 0 to {MOST_TOTAL}, or None")
        if self.total is not None and spent > self.total:
            raise ValueError(
                f"ledger: the saved run had spent {spent} rollouts, "
                f"over this run's total_budget={self.total}; train for more steps, or start a new run"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, under the total configured now. Raise ValueError if it does not fit."""
        self.check_state(state)
        self.spent = state["spent"]
