"""What allocators share that give rollouts in proportion to a weight."""

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike

from cero.allocators.options import WithBeliefs
from cero.allocators.upfront import UpfrontAllocator
from cero.core.arrays import Floats, Ints

BISECTIONS = 64  # halvings of log(factor): below float resolution
SMALLEST = 1e-12  # of the greatest weight: keeps the factor that n_max needs finite


def scaled_to_sum(weights: ArrayLike, budget: int, n_min: int, n_max: int) -> Floats:
    """Return clip(c weights, n_min, n_max) for the one factor c with which it sums to `budget`.

    Unlike a common shift, a factor keeps the proportions of all that are not at a bound. Bisection of its
    logarithm finds c (this project's). With n_min = 0 and n_max out of reach the result is budget * weights /
    sum(weights).

    Parameters
    ----------
    weights : float array, shape (n,), finite, >= 0; all zero counts as all equal
    budget : int, feasible (see `cero.core.budget.check_feasible`)

    Returns
    -------
    float array, shape (n,)
    """
    shares = np.asarray(weights, np.float64)
    greatest = shares.max(initial=0.0)
    if greatest <= 0:
        return np.clip(np.full(shares.shape, budget / max(shares.size, 1)), n_min, n_max)
    shares = np.maximum(shares / greatest, SMALLEST)
    low, high = np.log(max(n_min, SMALLEST)), np.log(n_max / shares.min())
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if np.clip(np.exp(middle) * shares, n_min, n_max).sum() > budget:
            high = middle
        else:
            low = middle
    return np.clip(np.exp(low) * shares, n_min, n_max)


class ProportionalAllocator(WithBeliefs, UpfrontAllocator):
    """Give rollouts in proportion to a weight; one common factor meets the budget within the bounds.

    A rule gives `_weights`.
    """

    @abstractmethod
    def _weights(self, rows: Ints) -> Floats:
        """Return how much of the budget each of `rows` gets, up to a common factor: that shape, >= 0."""

    def _targets(self, rows: Ints, budget: int) -> Floats:
        return scaled_to_sum(self._weights(rows), budget, self.n_min, self.n_max)
