"""AERO: explore every prompt, then rescue the ones that are all wrong (arXiv 2602.14338)."""

from typing import Any

import numpy as np

from cero.allocators.rounds import Step
from cero.allocators.sequential import SequentialAllocator
from cero.core.arrays import Ids, Ints
from cero.core.checks import check_number


class Rescue(Step):
    """Each prompt for itself: `explore` rollouts; while u <= threshold, `extra` more, up to n_max in all.

    u is the share of successes among the prompt's rollouts so far.
    """

    def __init__(self, ids: Ids, cap: int, n_max: int, explore: int, extra: int, threshold: float) -> None:
        super().__init__(ids, cap, n_max)
        self.explore, self.extra, self.threshold = explore, extra, threshold

    def _first(self) -> Ints:
        return np.full(self.ids.size, min(self.explore, max(self.cap // max(self.ids.size, 1), 1)))

    def _next(self, idle: Ints) -> Ints:
        failing = self.successes[idle] <= self.threshold * self.trials[idle]
        return np.where(failing, self.extra, 0)


class Aero(SequentialAllocator):
    """AERO's sampling (arXiv 2602.14338): exploration and iterative rescue. The paper's rule, at second hand.

    With selective rejection (`cero.keep.rule=aero`) and the Bayesian advantage
    (`algorithm.cero.advantage=aero`) it is the whole method: `+recipe=aero`.

    Parameters
    ----------
    n_explore : int or None
        Rollouts of every prompt. Published: 8 of 16. None: half of rollouts_per_prompt.
    n_extra : int
        Rollouts of one rescue. Published: 2.
    n_total : int or None
        Rollouts of one prompt at most. Published: 16. None: rollouts_per_prompt, so that no step can need
        more than uniform GRPO would spend.
    u_rescue : float in [0, 1]
        A prompt is rescued while its share of successes is at most this. Published, e.g.: 0.
    n_max : int >= n_total
        A larger n_total is refused, and so is a step's budget of more than this per prompt.
    **common : see `SequentialAllocator`
    """

    name = "aero"

    def __init__(
        self,
        *,
        n_explore: int | None = None,
        n_extra: int = 2,
        n_total: int | None = None,
        u_rescue: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.n_explore = (
            None if n_explore is None else check_number("n_explore", n_explore, 1, 2**20, integer=True)
        )
        self.n_total = None if n_total is None else check_number("n_total", n_total, 1, 2**20, integer=True)
        self.n_extra = check_number("n_extra", n_extra, 1, 2**20, integer=True)
        self.u_rescue = check_number("u_rescue", u_rescue, 0, 1)
        explore, total = self._bounds()
        if explore > self.rollouts_per_prompt:
            raise ValueError(
                f"n_explore={explore} is more than rollouts_per_prompt={self.rollouts_per_prompt}: exploring "
                "alone would break the step's budget; lower n_explore, or raise actor_rollout_ref.rollout.n"
            )
        if explore > total:
            raise ValueError(f"n_explore={explore} is more than n_total={total}; raise n_total")
        if total > self.n_max:
            raise ValueError(
                f"n_total={total} is more than n_max={self.n_max}; raise n_max, or lower n_total"
            )

    def _bounds(self) -> tuple[int, int]:
        """Return (first rollouts, rollouts at most) of every prompt."""
        explore = self.n_explore if self.n_explore is not None else max(1, self.rollouts_per_prompt // 2)
        return explore, self.n_total if self.n_total is not None else self.rollouts_per_prompt

    def least_rollouts(self) -> int:
        return self._bounds()[0]

    def _step(self, rows: Ints, ids: Ids, cap: int) -> Step:
        explore, total = self._bounds()
        return Rescue(ids, cap, total, explore, self.n_extra, self.u_rescue)
