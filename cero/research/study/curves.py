"""How well did one run train? Its learning curve over a grid of rollouts that all runs of a task share.

A validation is sampled and therefore noisy. What is read off a single place of a curve (its end; where it
reaches a target) is read off the mean of that place and the one before it, for all contenders alike.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.integrate import trapezoid

from cero.research.study.archive import read_runs
from cero.research.study.plan import REFERENCE
from cero.research.study.tables import TRAIN

GROUPS = ("main", "peer", "ablation")


@dataclass(frozen=True)
class LearningCurve:
    """Holds one run, up to the budget.

    task, contender, group, split : str; seed : int
    budget, interval : rollouts; the places of the grid are 0, interval, ... budget
    accuracy : held-out accuracy at the grid's places, shape (k,), linear between validations; a run that ends
    before the budget stays at its last one
    tokens, seconds : generated and passed until there, shape (k,)
    rollouts, tokens_trained : in all; step_seconds : median of its steps
    warm_start : digest of the model it began with; "" where that was not recorded
    train_final : accuracy on the sample of train questions at the end, as `final`; nan where not measured
    """

    task: str
    contender: str
    group: str
    split: str
    seed: int
    budget: float
    interval: float
    accuracy: np.ndarray
    tokens: np.ndarray
    seconds: np.ndarray
    rollouts: float
    tokens_trained: float
    step_seconds: float
    warm_start: str = ""
    train_final: float = math.nan

    @property
    def match(self):
        """Return what two runs must share to be compared, apart from the budget of their task."""
        return self.task, self.split, self.seed, self.warm_start

    @property
    def grid(self):
        """Return the places of the grid in rollouts, shape (k,)."""
        return self.interval * np.arange(self.accuracy.size)

    @property
    def smooth(self):
        """Return the mean of each place and the one before it, the first as it is; shape (k,)."""
        before = np.concatenate([self.accuracy[:1], self.accuracy[:-1]])
        return (self.accuracy + before) / 2

    @property
    def final(self):
        """Return the accuracy at the end: the mean of the grid's last two places."""
        return float(self.smooth[-1])

    @property
    def area(self):
        """Return the mean accuracy over the budget: the area under the curve (trapezoids) over the budget."""
        return float(trapezoid(self.accuracy, self.grid) / self.budget)

    def reach(self, target):
        """Return the rollouts at which the smooth curve first reaches `target`, linear between, or nan."""
        above = np.flatnonzero(self.smooth >= target)
        if not above.size:
            return float("nan")
        k = above[0]
        if k == 0:
            return 0.0
        low, high = self.smooth[k - 1], self.smooth[k]
        return float(self.grid[k - 1] + self.interval * (target - low) / (high - low))


def common(one, other):
    """Return two curves up to the last place at which both were validated.

    Runs of the single-process experiments that stopped short of their budget lack the validation at its end.
    """
    size = min(one.accuracy.size, other.accuracy.size)
    return _until(one, size), _until(other, size)


def _until(curve, size):
    if curve.accuracy.size == size:
        return curve
    columns = {name: getattr(curve, name)[:size] for name in ("accuracy", "tokens", "seconds")}
    return replace(curve, budget=curve.interval * (size - 1), **columns)


def make_curve(table, about):
    """Return the `LearningCurve` of a run.

    table : columns as of `tables.read_table`; about : the dict of its record

    Raises ValueError if it was validated less than twice, or has no budget; KeyError or TypeError for a
    record that lacks what a curve needs.
    """
    spent = table["rollouts_spent"]
    validated = np.isfinite(table["accuracy"])
    if validated.sum() < 2:
        raise ValueError("a curve needs two validations at least; was trainer.test_freq set?")
    budget, interval = float(about["budget"]), float(about["interval"])
    if not 0 < interval <= budget < math.inf or budget / interval > 1e6:
        raise ValueError(f"budget={budget} and interval={interval} make no grid")
    words = {key: about[key] for key in ("task", "contender", "group", "split")}
    if not all(isinstance(word, str) for word in words.values()):
        raise TypeError(f"{words} must be texts")
    grid = interval * np.arange(round(budget / interval) + 1)

    def until(column):
        total = np.concatenate([[0.0], np.nancumsum(table[column][table["step"] > 0])])
        return np.interp(grid, np.concatenate([[0.0], spent[table["step"] > 0]]), total)

    return LearningCurve(
        **words,
        seed=int(about["seed"]),
        budget=budget,
        interval=interval,
        accuracy=np.interp(grid, spent[validated], table["accuracy"][validated]),
        tokens=until("tokens"),
        seconds=until("seconds"),
        rollouts=float(min(spent[-1], budget)),
        tokens_trained=float(until("tokens_trained")[-1]),
        step_seconds=float(np.nanmedian(table["seconds"])),
        warm_start=about.get("warm_start") or "",
        train_final=_train_final(table, grid),
    )


def _train_final(table, grid):
    """Return the mean accuracy on train questions at the last two places of the grid; nan if unknown."""
    measured = np.isfinite(table[TRAIN]) if TRAIN in table else np.zeros(0, bool)
    if not measured.any():
        return math.nan
    return float(np.interp(grid[-2:], table["rollouts_spent"][measured], table[TRAIN][measured]).mean())


def read_curves(folder, tell=None):
    """Return the curves of all runs under `folder`, single or packed (see `archive`).

    By task; in each the reference, main contenders, peers, ablations; by seed.

    tell : None, or a function of a message (str). With it, runs that can't be read are told and left out.

    Raises FileNotFoundError if there is none, ValueError naming the run that can't be read, or the folder if
    none of its runs can.
    """
    curves, grids = [], {}
    for where, table, record in read_runs(folder, tell):
        try:
            curve = make_curve(table, record)
            budget, interval = grids.setdefault(curve.task, (curve.budget, curve.interval))
            if (curve.budget, curve.interval) != (budget, interval):
                raise ValueError(
                    f"its budget is {curve.budget:g} rollouts, validated every {curve.interval:g}, and other "
                    f"runs of {curve.task} have {budget:g} and {interval:g}; keep them in different folders"
                )
            curves.append(curve)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            message = f"{where}: {error!r}"
            if tell is None:
                raise ValueError(message) from error
            tell(f"{message}; it is left out")
    if not curves:
        raise ValueError(f"{folder} has no run that can be read")

    def order(curve):
        kind = curve.group.partition(":")[0]
        rank = GROUPS.index(kind) if kind in GROUPS else len(GROUPS)
        return curve.task, curve.contender != REFERENCE, rank, curve.group, curve.contender, curve.seed

    return sorted(curves, key=order)
