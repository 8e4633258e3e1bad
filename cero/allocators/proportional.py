"""What allocators share that give rollouts in proportion to a weight."""

from abc import abstractmethod

import numpy as np

from cero.allocators.beliefs import PosteriorAllocator

BISECTIONS = 64  # halvings of log(factor): below float resolution
SMALLEST = 1e-12  # of the greatest weight: keeps the factor that n_max needs finite


def scaled_to_sum(weights, budget, n_min, n_max):
    """clip(c weights, n_min, n_max) for the one factor c with which it sums to `budget`.

    Unlike a common shift, a factor keeps the proportions of all that are not at a bound. c is found by
    bisection of its logarithm. Ours; with n_min = 0 and n_max out of reach it is budget * weights /
    sum(weights).

    Parameters
    ----------
    weights : float array, shape (n,), finite, >= 0; all zero counts as all equal
    budget : int, feasible (see `cero.core.budget.check_feasible`)

    Returns
    -------
    float array, shape (n,)
    """
    weights = np.asarray(weights, np.float64)
    greatest = weights.max(initial=0.0)
    if greatest <= 0:
        return np.clip(np.full(weights.shape, budget / max(weights.size, 1)), n_min, n_max)
    weights = np.maximum(weights / greatest, SMALLEST)
    low, high = np.log(max(n_min, SMALLEST)), np.log(n_max / weights.min())
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if np.clip(np.exp(middle) * weights, n_min, n_max).sum() > budget:
            high = middle
        else:
            low = middle
    return np.clip(np.exp(low) * weights, n_min, n_max)


class ProportionalAllocator(PosteriorAllocator):
    """A subclass gives `_weights(rows)`, >= 0, shape of `rows`; bounds and the budget are met by a common factor."""

    @abstractmethod
    def _weights(self, rows):
        """How much of the budget each of `rows` gets, up to a common factor: float array of that shape, >= 0."""

    def _targets(self, rows, budget):
        return scaled_to_sum(self._weights(rows), budget, self.n_min, self.n_max)
