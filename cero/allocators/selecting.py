"""What allocators share that choose some of the step's prompts, and give these equal groups."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from cero.allocators.upfront import UpfrontAllocator
from cero.core.arrays import Floats, Ints
from cero.core.checks import check_number


class SelectingAllocator(UpfrontAllocator):
    """Give the chosen prompts `group` rollouts each, and the others n_min.

    A rule gives `_best`. As many prompts are chosen as the budget has groups for, to the nearest number. So
    with the usual budget and n_min=0 all of a step's own prompts are: the choice is among candidates. What
    does not divide goes to the chosen ones in equal parts, and what is above n_max for them goes to the
    others.

    Parameters
    ----------
    group : int in [max(n_min, 1), n_max], or None
        Rollouts of a chosen prompt; None: rollouts_per_prompt.
    **common : see `UpfrontAllocator`
    """

    def __init__(
        self,
        beliefs: Mapping[str, Any] | None = None,
        /,
        *,
        group: int | None = None,
        n_min: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(beliefs, n_min=n_min, **common)
        if group is not None:
            group = check_number("group (or null)", group, max(self.n_min, 1), self.n_max, integer=True)
        self.group = group

    @property
    def group_size(self) -> int:
        """The rollouts of a chosen prompt."""
        return self.rollouts_per_prompt if self.group is None else self.group

    def _targets(self, rows: Ints, budget: int) -> Floats:
        return self._candidate_targets(rows, budget, 0, rows.size)

    def _candidate_targets(self, rows: Ints, budget: int, least: int, most: int) -> Floats:
        spare, each = budget - rows.size * self.n_min, self.group_size - self.n_min
        groups = int(spare / each + 0.5) if each > 0 else rows.size
        count = min(max(groups, least, 1), most)
        targets = np.full(rows.size, float(self.n_min))
        targets[self._best(rows, count)] += spare / max(count, 1)
        return np.minimum(targets, self.n_max)

    # ---- what subclasses give --------------------------------------------------------------------

    @abstractmethod
    def _best(self, rows: Ints, count: int) -> Ints:
        """Return which of `rows` are chosen: `count` distinct places in it."""
