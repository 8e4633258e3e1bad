"""MaPP's selection: prompts drawn by the chance that their group shows both outcomes (arXiv 2609.34990)."""

from typing import Any, Literal

import numpy as np

from cero.allocators.options import WithBeliefs
from cero.allocators.selecting import SelectingAllocator
from cero.core import beta
from cero.core.arrays import Floats, Ints


class Mapp(WithBeliefs, SelectingAllocator):
    """Draw prompts with probability in proportion to w_i, and give each of them G = `group` rollouts.

        w = 1 - B(a+G, b) / B(a, b) - B(a, b+G) / B(a, b) = E[1 - p^G - (1-p)^G],  p ~ Beta(a, b)

    Published are the weight, Beta(1, 1) as prior, counts that fade by 0.5 a visit, and the choice among all
    prompts of the data set. How the authors draw a batch without repeats is not known here. This project
    draws one prompt after the other, each in proportion among those that are left. It does so by the keys of
    Efraimidis and Spirakis (Information Processing Letters 97, 2006): the smallest of E_i / w_i are chosen,
    with E_i exponential. The choice is among the step's candidates. The advantage published with it is one of
    the estimator's.

    Parameters
    ----------
    group, n_min : as `SelectingAllocator` has them; a group counts as one of two rollouts at least
    forgetting : as `Beliefs` has it. Published: 0.5.
    **options : see `WithBeliefs` and `UpfrontAllocator`
    """

    name = "mapp"

    def __init__(self, *, forgetting: float | Literal["auto"] = 0.5, **options: Any) -> None:
        super().__init__(forgetting=forgetting, **options)

    def weights(self, rows: Ints) -> Floats:
        """Return w of `rows`, in (0, 1), that shape."""
        return beta.signal_value(*self.beliefs.parameters(rows), max(self.group_size, 2))

    def _worth(self, rows: Ints) -> Floats:
        return self.weights(rows)

    def _best(self, rows: Ints, count: int) -> Ints:
        keys = self._rng.standard_exponential(rows.size) / np.maximum(self.weights(rows), 1e-300)
        return np.argsort(keys, kind="stable")[:count]
