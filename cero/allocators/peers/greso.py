"""GRESO: skip prompts that showed no variance, the surer the longer they showed none (arXiv 2506.02177)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cero.allocators.upfront import UpfrontAllocator
from cero.core.arrays import Floats, Ints
from cero.core.checks import MOST_SAVED, check_number


class Greso(UpfrontAllocator):
    """Skip a prompt with probability 1 - max(p^z, floor), z its run of visits without variance; published.

    There are two p, one for runs that end all right and one for runs that end all wrong. Both start at
    `p_base` and move by `p_step` a step. Each moves down while more of the step's groups than its target are
    without variance in that way, and up otherwise. That p adapts is published. Its constants (the defaults of
    p_base, p_step and the targets) are at second hand. p_step=0 keeps it fixed.

    GRESO samples further prompts in place of those skipped. Here a step has its prompts and its exact budget.
    So the prompts that are left share it equally, up to n_max, and the skipped ones take the rest. That is
    this project's. Groups of one do not count as without variance. Nor do groups whose summed reward lies
    strictly between all wrong and all right.

    Parameters
    ----------
    p_base : float in (0, 1]
        Where p starts.
    floor : float in [0, 1]
        No prompt is visited with a smaller probability. Published: 0.01.
    p_step : float in [0, 1]
        How far p moves after a step.
    target_easy, target_hard : float in [0, 1]
        Shares of a step's groups that may be all right, all wrong.
    **common : see `UpfrontAllocator`
    """

    name = "greso"
    examples = ({"p_step": 0.3},)  # quick enough to be seen within a few steps
    idle_beside = {"target_easy": ("p_step", (0.0,)), "target_hard": ("p_step", (0.0,))}
    ranges = {"p_easy": (0.0, 1.0), "p_hard": (0.0, 1.0), "run": (-MOST_SAVED, MOST_SAVED)}
    columns = {"run": (np.int32, 0)}  # visits in a row without variance; negative: the last was all wrong

    def __init__(
        self,
        *,
        p_base: float = 0.5,
        floor: float = 0.01,
        p_step: float = 0.01,
        target_easy: float = 0.083,
        target_hard: float = 0.167,
        n_min: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(n_min=n_min, **common)
        self.p_base = check_number("p_base", p_base, 0, 1, open_low=True)
        self.floor = check_number("floor", floor, 0, 1)
        self.p_step = check_number("p_step", p_step, 0, 1)
        self.target_easy = check_number("target_easy", target_easy, 0, 1)
        self.target_hard = check_number("target_hard", target_hard, 0, 1)
        self._p = np.full(2, self.p_base)  # of runs that end all right, all wrong

    def visit_probability(self, rows: Ints) -> Floats:
        """Return max(p^z, floor), shape of `rows`."""
        run = self.table["run"][rows]
        return np.maximum(np.where(run < 0, self._p[1], self._p[0]) ** np.abs(run), self.floor)

    def _targets(self, rows: Ints, budget: int) -> Floats:
        visited = self._rng.random(rows.size) < self.visit_probability(rows)
        if not visited.any():
            visited[:] = True
        targets = np.full(rows.size, float(self.n_min))
        targets[visited] = (budget - (~visited).sum() * self.n_min) / max(visited.sum(), 1)
        return np.minimum(targets, self.n_max)

    def _observed(self, rows: Ints, successes: Floats, trials: Ints) -> None:
        groups = trials >= 2
        rows, right, wrong = rows[groups], (successes >= trials)[groups], (successes <= 0)[groups]
        if not rows.size:
            return
        longer = np.abs(self.table["run"][rows]) + 1
        self.table["run"][rows] = np.where(right, longer, np.where(wrong, -longer, 0))
        over = np.array([right.mean() >= self.target_easy, wrong.mean() >= self.target_hard])
        self._p = np.clip(self._p + np.where(over, -self.p_step, self.p_step), 0.0, 1.0)

    def _scalars(self) -> dict[str, float]:
        return {"p_easy": float(self._p[0]), "p_hard": float(self._p[1])}

    def _load_scalars(self, scalars: Mapping[str, float]) -> None:
        self._p = np.array([scalars["p_easy"], scalars["p_hard"]])

    def metrics(self) -> dict[str, float]:
        figures = super().metrics() | {"greso/p_easy": float(self._p[0]), "greso/p_hard": float(self._p[1])}
        if self._last_rows.size:
            figures["greso/visit_probability"] = float(self.visit_probability(self._last_rows).mean())
        return figures
