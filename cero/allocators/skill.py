"""How much better than the base rate have the expected success rates lately been?"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from cero.core.arrays import Floats, Ints

FADING = 0.9  # of what earlier steps showed, for each later step


class Skill:
    """Judges expected success rates by what came, step by step, before they learn from it.

    In each step the squared error of the expected rates is compared with that of the base rate, the step's
    own mean for every prompt. Only differences between prompts count, because a policy that has improved
    lifts all prompts, and an allocation goes by the differences. So both sides are taken around their means:
    with outcomes y_i, expectations m_i and weights t_i (rollouts),

        base = sum t (y - ybar)^2,   won = base - sum t (y - ybar - (m - mbar))^2,

    and the skill is the ratio of their faded sums, cut to [0, 1]. This is the Brier skill score of the
    differences, computed prequentially (this project's). Prompts that are all expected alike have skill 0.
    Single rollouts are noisy: where the rates are known exactly, it is the share of the variance of outcomes
    that lies between prompts, far below 1.
    """

    # What the numbers of a state can be; see `Allocator.ranges`.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "skill_won": (-(2.0**60), 2.0**60),
        "skill_base": (0.0, 2.0**60),
    }
    later_scalars: ClassVar[Mapping[str, float]] = {"skill_won": 0.0, "skill_base": 0.0}

    def __init__(self) -> None:
        self._won = self._base = 0.0

    @property
    def value(self) -> float:
        """Return the skill, in [0, 1]; 0 before anything was observed."""
        return min(1.0, max(0.0, self._won / self._base)) if self._base > 0 else 0.0

    def observe(self, expected: Floats, successes: Floats, trials: Ints) -> None:
        """Judge a step: what was expected of each prompt, shape (n,), and what came; trials >= 1."""
        if not trials.size:
            return
        came = successes / trials
        came = came - np.average(came, weights=trials)
        expected = expected - np.average(expected, weights=trials)
        base = float((trials * came**2).sum())
        self._base = FADING * self._base + base
        self._won = FADING * self._won + base - float((trials * (came - expected) ** 2).sum())

    def scalars(self) -> dict[str, float]:
        """Return the numbers that belong to an allocator's state."""
        return {"skill_won": self._won, "skill_base": self._base}

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        """Take up what `scalars` returned."""
        self._won, self._base = float(scalars["skill_won"]), float(scalars["skill_base"])
