"""How well have the expected success rates lately told prompts apart?"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from cero.core.arrays import Floats, Ints

FADING = 0.9  # of what earlier steps showed, for each later step


class Skill:
    """Judges expected success rates by what came, step by step, before they learn from it.

    Only differences between prompts count, because an allocation goes by them. So both sides are taken around
    their means over the rollouts of a step. With outcomes y_i, expectations m_i and weights t_i (rollouts),

        came = sum t (y - ybar)^2,   expected = sum t (m - mbar)^2,   both = sum t (y - ybar) (m - mbar),

    and the skill is both^2 / (came expected) of their faded sums, or 0 where `both` is negative: the squared
    correlation, which is the share of the variance of outcomes that the expected differences explain, scaled
    as fits best. The scale is left open since differences shrink while a policy learns: what is known of a
    prompt says how it did at its last visit. Each step is judged before it is learned from (this project's).

    Prompts that are all expected alike have skill 0. Single rollouts are noisy: where the rates are known
    exactly, the skill is the share of the variance of outcomes that lies between prompts, far below 1.
    """

    # What the numbers of a state can be; see `Allocator.ranges` and `Allocator.later_scalars`.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "skill_came": (0.0, 2.0**60),
        "skill_expected": (0.0, 2.0**60),
        "skill_both": (-(2.0**60), 2.0**60),
    }
    later_scalars: ClassVar[Mapping[str, float]] = dict.fromkeys(ranges, 0.0)

    def __init__(self) -> None:
        self._sums = dict.fromkeys(self.ranges, 0.0)

    @property
    def value(self) -> float:
        """Return the skill, in [0, 1]; 0 before anything was observed."""
        came, expected, both = self._sums.values()
        # A damaged state might have more of `both` than there can be.
        return min(1.0, both / came * both / expected) if min(came, expected, both) > 0 else 0.0

    def observe(self, expected: Floats, successes: Floats, trials: Ints) -> None:
        """Judge a step: what was expected of each prompt, shape (n,), and what came; trials >= 1."""
        if not trials.size:
            return
        came = successes / trials
        came = came - np.average(came, weights=trials)
        expected = expected - np.average(expected, weights=trials)
        step = (trials * came**2).sum(), (trials * expected**2).sum(), (trials * came * expected).sum()
        for name, more in zip(self._sums, step, strict=True):
            self._sums[name] = FADING * self._sums[name] + float(more)

    def scalars(self) -> dict[str, float]:
        """Return the numbers that belong to an allocator's state."""
        return dict(self._sums)

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        """Take up what `scalars` returned."""
        self._sums = {name: float(scalars[name]) for name in self._sums}
