"""The prompts whose rollouts are worth most, in equal groups: a plain choice among candidates."""

from typing import Any

import numpy as np

from cero.allocators.options import WithValue
from cero.allocators.selecting import SelectingAllocator
from cero.core import beta
from cero.core.arrays import Floats, Ints


class Greedy(WithValue, SelectingAllocator):
    """Choose the prompts of the greatest value, and give each of them `group` rollouts. This project's.

    Equal values, such as those of prompts never seen, are put in order by seeded lots.

    Parameters
    ----------
    value : as `WithValue` has it, for a group of `group` rollouts
    group, n_min : as `SelectingAllocator` has them
    **options : see `WithBeliefs` and `UpfrontAllocator`
    """

    name = "greedy"
    examples = ({"value": "signal_hard"},)  # under which the pooled prior puts prompts in another order

    def __init__(self, *, value: beta.Value = "variance", **options: Any) -> None:
        super().__init__(value=value, **options)

    def _value_under(self, a: Floats, b: Floats) -> Floats:
        return beta.VALUES[self.value](a, b, max(self.group_size, 2))

    def _best(self, rows: Ints, count: int) -> Ints:
        lots = self._rng.random(rows.size)
        return np.lexsort((lots, -self.values(rows)))[:count]
