"""What would the best allocation have been? The offline optimum of fixed utilities, exactly.

    max sum_i v_i u(y_i)   s.t.   sum_i y_i <= B,   low <= y_i <= high

The regret is measured against it: it knows every value in advance and is bound by the run's total only.
"""

import heapq

import numpy as np


def optimum(values, budget, low, high, utility, scale):
    """Return the continuous optimum, by bisection on the one price lam of its KKT conditions.

    y_i = clip(y*(lam / v_i), low, high), where y* inverts the utility's slope.

    Parameters
    ----------
    values : float array, shape (n,), >= 0
    budget : float, rollouts in all; n low <= budget
    low, high : float, bounds on a prompt's cumulative rollouts
    utility : a class of `cero.core.utility.UTILITIES`; scale : its saturation scale, rollouts

    Returns
    -------
    (y, price): float array of shape (n,) and the price lam >= 0; lam = 0 if the budget does not bind.

    Raises
    ------
    ValueError
        If the budget is below n x low.
    """
    values = np.asarray(values, np.float64)
    if budget < values.size * low * (1 - 1e-12):
        raise ValueError(f"budget={budget} is below {values.size} prompts x low={low}")

    def demand(price):
        with np.errstate(divide="ignore"):
            slope = np.minimum(price / values, 1.0)
        return np.clip(utility.demand(np.maximum(slope, 1e-300), scale), low, high)

    if values.size * high <= budget:
        return np.full(values.size, float(high)), 0.0
    bottom, top = 0.0, float(values.max())
    for _ in range(200):
        price = 0.5 * (bottom + top)
        if demand(price).sum() > budget:
            bottom = price
        else:
            top = price
    return demand(top), top


def integer_optimum(values, budget, low, high, utility, scale):
    """Return the optimum in whole rollouts, an int64 array of shape (n,).

    Greedy on marginal gains, which is exact because the utilities are concave and separate. The arguments are
    those of `optimum`, with integer bounds and budget. O(budget log n): for small cases.
    """
    values = np.asarray(values, np.float64)
    counts = np.full(values.size, int(low), np.int64)

    def gain(i):
        return values[i] * (utility.value(counts[i] + 1, scale) - utility.value(counts[i], scale))

    heap = [(-gain(i), i) for i in range(values.size) if counts[i] < high]
    heapq.heapify(heap)
    for _ in range(int(budget - counts.sum())):
        if not heap:
            break
        _, i = heapq.heappop(heap)
        counts[i] += 1
        if counts[i] < high:
            heapq.heappush(heap, (-gain(i), i))
    return counts


def total_utility(values, allocation, utility, scale):
    """Return sum_i v_i u(y_i) of cumulative allocations y, shape (n,)."""
    return float((np.asarray(values) * utility.value(np.asarray(allocation, np.float64), scale)).sum())
