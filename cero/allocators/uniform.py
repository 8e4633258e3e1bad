"""GRPO's own rule: the same number of rollouts for every prompt."""

import numpy as np

from cero.allocators.base import Allocator


class Uniform(Allocator):
    """Every prompt gets budget / prompts; what does not divide goes to prompts at random."""

    name = "uniform"

    def __init__(self, *, n_min=0, n_max=1024, **common):
        super().__init__(n_min=n_min, n_max=n_max, **common)

    def _targets(self, rows, budget):
        return np.full(rows.size, budget / max(rows.size, 1))
