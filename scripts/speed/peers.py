"""How do others find an allocation? Three solvers, each as fast as plain SciPy, NumPy and cvxpy allow.

They get success probabilities or values, a budget and bounds, and return rollouts. They have no tables and
learn nothing.
"""

import cvxpy as cp
import numpy as np
from scipy import optimize


def vip_slsqp(p, budget, n_min, n_max, max_iterations=200):
    """Return VIP's allocation: the least sum p (1-p) (n-1)/n^2 with sum n = budget, by SLSQP and rounding.

    p : success probabilities, shape (n,). SLSQP gets the exact gradient; the objective is convex for n >= 3.
    The result is (int64 counts, shape (n,); SciPy's result, whose `success` tells whether it converged).
    """
    weight = p * (1 - p)
    result = optimize.minimize(
        lambda n: (weight * (n - 1) / n**2).sum(),
        np.full(p.size, budget / p.size),
        jac=lambda n: weight * (2 - n) / n**3,
        bounds=[(n_min, n_max)] * p.size,
        constraints={"type": "eq", "fun": lambda n: n.sum() - budget, "jac": np.ones_like},
        method="SLSQP",
        options={"maxiter": max_iterations, "ftol": 1e-9},
    )
    counts = np.clip(np.floor(result.x + 1e-9).astype(np.int64), n_min, n_max)
    while (rest := int(budget - counts.sum())) > 0:
        gain = weight * ((counts - 1) / counts**2 - counts / (counts + 1) ** 2)
        best = np.argsort(np.where(counts < n_max, -gain, np.inf), kind="stable")[:rest]
        counts[best] += 1
    return counts, result


def knapsack_values(p, n_min, n_max):
    """Return Knapsack RL's value of n = n_min ... n_max rollouts, shape (prompts, choices).

    It is (1 - p^n - (1-p)^n) p (1-p)^2.
    """
    n = np.arange(n_min, n_max + 1)
    p = p[:, None]
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2


def knapsack_dp(p, budget, n_min, n_max):
    """Return the exact optimum of the sum of `knapsack_values` with sum n = budget: int64 counts, shape (n,).

    It is dynamic programming over prompts and budget, vectorised over the budget: O(prompts x choices x
    budget) operations, and Python loops over prompts and choices only.
    """
    values = knapsack_values(p, n_min, n_max)
    prompts, choices = values.shape
    extra = budget - prompts * n_min  # what is shared out beyond n_min each
    best = np.full(extra + 1, -np.inf)
    best[0] = 0.0
    chosen = np.zeros((prompts, extra + 1), np.int16)
    candidate, better = np.empty(extra + 1), np.empty(extra + 1, bool)
    for i in range(prompts):
        after = best + values[i, 0]
        for k in range(1, min(choices, extra + 1)):
            total = np.add(best[:-k], values[i, k], out=candidate[k:])
            mask = np.greater(total, after[k:], out=better[k:])
            np.copyto(after[k:], total, where=mask)
            np.copyto(chosen[i, k:], k, where=mask)
        best = after
    counts, left = np.empty(prompts, np.int64), extra
    for i in reversed(range(prompts)):
        counts[i] = chosen[i, left]
        left -= counts[i]
    return counts + n_min


class ConvexProgram:
    """Finds the offline optimum of the exponential utility as a cvxpy program.

    That is max sum v t (1 - exp(-y/t)) with sum y <= budget. The program is made once and solved for new
    values `v` (shape (n,)) in each step, so cvxpy compiles what it does with parameters only once.
    """

    def __init__(self, prompts, budget, low, high, scale):
        self.y = cp.Variable(prompts)
        self.v = cp.Parameter(prompts, nonneg=True)
        gain = scale * (1 - cp.exp(-self.y / scale))
        limits = [cp.sum(self.y) <= budget, self.y >= low, self.y <= high]
        self.problem = cp.Problem(cp.Maximize(self.v @ gain), limits)

    def solve(self, v):
        """Return y, shape (n,)."""
        self.v.value = v
        self.problem.solve(solver=cp.CLARABEL)
        return self.y.value
