"""Knapsack RL: each prompt's rollouts as an item with a value and a cost (arXiv 2509.25849)."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from cero.allocators.base import Description
from cero.allocators.beliefs import MOST_COUNTED
from cero.allocators.upfront import UpfrontAllocator
from cero.core.arrays import Bools, Floats, Ints
from cero.core.checks import check_choice, check_number
from cero.core.prompts import PromptIds, as_prompt_ids

Solver = Literal["greedy", "exact"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)
LARGEST = 2**33  # sums that the exact solver may form: about a minute


def group_value(n: ArrayLike, p: ArrayLike) -> Floats:
    """Return (1 - p^n - (1-p)^n) p (1-p)^2, 0 for n = 0: the chance of a signal times its worth; published.

    n : int array >= 0; p : float array in [0, 1], broadcast against each other. Returns floats in [0, 4/27).
    """
    n, p = np.asarray(n), np.asarray(p, np.float64)
    return np.where(n > 0, (1.0 - p**n - (1.0 - p) ** n) * p * (1.0 - p) ** 2, 0.0)


def marginal_values(p: ArrayLike, n_min: int, n_max: int) -> Floats:
    """Return what rollout n_min + 1, ..., n_max of each prompt adds, shape (prompts, n_max - n_min).

    No row increases.

    From n to n+1 the value grows by p (1-p)^2 (p^n (1-p) + (1-p)^n p): a sum of falling powers, so it is
    concave in n for n >= 1, whatever p. It is not for the first two rollouts (n_min = 0), of which the first
    is worth nothing without the second: each counts half of the pair here.
    """
    p = np.asarray(p, np.float64)[:, None]
    n = np.arange(n_min, n_max)
    gains = p * (1.0 - p) ** 2 * (p**n * (1.0 - p) + (1.0 - p) ** n * p)
    if n_min == 0:
        gains[:, :2] = gains[:, 1:2] / 2.0
    return gains


def greedy(p: Floats, budget: int, n_min: int, n_max: int) -> Floats:
    """Return the allocation of the greatest marginal values: shape (n,), summing to `budget`.

    Optimal for n_min >= 1, where values are concave; with n_min = 0 a pair of rollouts may be torn at the
    margin. Equal values at the margin share what is left. budget : int within prompts x [n_min, n_max].
    """
    extra = int(budget) - p.size * n_min
    if extra <= 0 or n_max == n_min:
        return np.full(p.shape, float(n_min))
    gains = marginal_values(p, n_min, n_max)
    margin = np.partition(gains.ravel(), gains.size - extra)[gains.size - extra]
    sure = (gains > margin * (1.0 + 1e-12)).sum(axis=1)
    tied = (gains >= margin * (1.0 - 1e-12)).sum(axis=1) - sure
    return n_min + sure + tied * (extra - sure.sum()) / max(tied.sum(), 1)


def exact(p: Floats, budget: int, n_min: int, n_max: int) -> Ints:
    """Return the allocation of greatest value, by dynamic programming over prompts: shape (n,), sum `budget`.

    Takes O(prompts x budget x (n_max - n_min)), all budgets and counts at once for each prompt.

    Raises
    ------
    ValueError
        If that is more than LARGEST.
    """
    extra, most = int(budget) - p.size * n_min, n_max - n_min
    if p.size * (extra + 1) * (most + 1) > LARGEST:
        raise ValueError(
            f"solver=exact would take {p.size} prompts x {extra + 1} budgets x {most + 1} counts; set "
            "solver=greedy, which is as good for n_min >= 1"
        )
    values = group_value(np.arange(n_min, n_max + 1), p[:, None])[:, ::-1]
    best = np.full(most + extra + 1, -np.inf)  # the first `most` entries stand for negative budgets
    best[most] = 0.0
    taken = np.zeros((p.size, extra + 1), np.int32)
    for i in range(p.size):
        # Column j of a window ending at budget b is b - (most - j).
        candidates = np.lib.stride_tricks.sliding_window_view(best, most + 1) + values[i]
        # Of equal values the fewest rollouts: the last column.
        taken[i] = candidates[:, ::-1].argmax(axis=1)
        best[most:] = candidates.max(axis=1)
    counts, left = np.empty(p.size, np.int64), extra
    for i in range(p.size - 1, -1, -1):
        counts[i] = n_min + taken[i, left]
        left -= taken[i, left]
    return counts


class Knapsack(UpfrontAllocator):
    """Maximise sum_i (1 - p_i^n - (1-p_i)^n) p_i (1-p_i)^2 over the step's prompts; published.

    p is the share of successes at the prompt's last visit. Where that visit had fewer than `window` rollouts,
    p is that of the latest `window` rewards. Of a visit only the number of successes is kept, so what is
    needed of earlier visits enters in proportion. That is this project's. Successes are rounded to whole ones
    before p is called 0 or 1.

    Prompts with p = 0 or 1 get n_min, and prompts never seen rollouts_per_prompt. The rest of the budget is
    divided by value. What is beyond n_max for all these goes to prompts with p = 0, equally, and at last to
    everyone. All of this is published but the last.

    Parameters
    ----------
    solver : "greedy" or "exact"
        By marginal values, or by dynamic programming (published). The value is concave for n >= 1, so with
        n_min >= 1 both are optimal. Only with n_min = 0 the exact one can be better, by part of one pair of
        rollouts.
    window : int >= 1
        Published: 16.
    n_min, n_max : int
        Published: 2, 128.
    **common : see `UpfrontAllocator`
    """

    name = "knapsack"
    ranges = {"recent_successes": (0.0, MOST_COUNTED), "recent_trials": (0.0, MOST_COUNTED)}
    columns = {"recent_successes": (np.float64, 0.0), "recent_trials": (np.float64, 0.0)}

    def __init__(
        self, *, solver: Solver = "greedy", window: int = 16, n_max: int = 128, **common: Any
    ) -> None:
        super().__init__(n_max=n_max, **common)
        self.solver = check_choice("solver", solver, SOLVERS)
        self.window = check_number("window", window, 1, 2**20, integer=True)

    def _targets(self, rows: Ints, budget: int) -> Floats:
        trials, successes = self.table["recent_trials"][rows], self.table["recent_successes"][rows]
        whole = np.rint(successes)
        unseen = trials <= 0
        wrong = ~unseen & (whole <= 0)
        open_ = ~unseen & ~wrong & (whole < np.rint(trials))
        targets = np.full(rows.size, float(self.n_min))
        targets[unseen] = self.rollouts_per_prompt
        left = int(round(budget - targets[~open_].sum()))
        share = int(np.clip(left, open_.sum() * self.n_min, open_.sum() * self.n_max))
        if open_.any():
            solve = exact if self.solver == "exact" else greedy
            p = np.clip(successes[open_] / trials[open_], 1e-9, 1.0 - 1e-9)
            targets[open_] = solve(p, share, self.n_min, self.n_max)
        if left > share and wrong.any():
            targets[wrong] = min(self.n_min + (left - share) / wrong.sum(), self.n_max)
        return targets

    def success_mean(self, prompt_ids: PromptIds) -> Floats:
        rows = self.table.rows(as_prompt_ids(prompt_ids))
        means = np.full(rows.size, 0.5)
        known = rows >= 0
        trials, successes = (self.table[key][rows[known]] for key in ("recent_trials", "recent_successes"))
        means[known] = (successes + 1.0) / (trials + 2.0)
        return means

    def _has_evidence(self, rows: Ints) -> Bools:
        return self.table["recent_trials"][rows] > 0

    def describe(self) -> Description:
        description = super().describe()
        description.columns["posterior_mean"] = self.success_mean(self.table["id"])
        return description

    def _observed(self, rows: Ints, successes: Floats, trials: Ints) -> None:
        old = self.table["recent_trials"][rows]
        wanted = np.clip(self.window - trials, 0, old)
        kept = wanted / np.maximum(old, 1.0)
        self.table["recent_successes"][rows] = successes + kept * self.table["recent_successes"][rows]
        self.table["recent_trials"][rows] = trials + wanted
