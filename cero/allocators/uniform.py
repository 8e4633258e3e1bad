"""GRPO's own rule: the same number of rollouts for every prompt."""

from typing import Any

import numpy as np

from cero.allocators.upfront import UpfrontAllocator
from cero.core.arrays import Floats, Ints


class Uniform(UpfrontAllocator):
    """Give every prompt budget / prompts; what does not divide goes to prompts at random.

    Parameters
    ----------
    n_min, n_max : int
        They only refuse a budget which would give every prompt too few or too many. Within the bounds, all
        shares are equal. GRPO learns nothing from a group of one.
    **common : see `UpfrontAllocator`
    """

    name = "uniform"
    chooses = False

    def __init__(self, *, n_min: int = 0, n_max: int = 1024, **common: Any) -> None:
        super().__init__(n_min=n_min, n_max=n_max, **common)

    def least_rollouts(self) -> int:
        return self.rollouts_per_prompt

    def _targets(self, rows: Ints, budget: int) -> Floats:
        return np.full(rows.size, budget / max(rows.size, 1))
