"""The prices: projected online gradient descent on prompt duals and on the budget dual.

Saddle form (the abstract's idea, our derivation; docs/method.md):

    L = sum_k { sum_i [(mu_i - lam) x_ik - U_*(mu_i)/K] + lam B/K }

A prompt's dual is kept as its slope s_i = mu_i / v_i in (0, 1], because U_i = v_i u: then a posterior that moves
v_i moves the price with it, the projection onto [0, v_i] is one onto [0, 1], and the step needs no unit of value.
"""

import numpy as np

SLOPE_FLOOR = 1e-6  # y*(0) is infinite for some utilities; no run allocates that far


def slope_step(slopes, rollouts, demand_per_visit, step):
    """One step of a visited prompt's dual: s <- Proj_(0,1] ( s - step (x - y*(s)/K) ).

    slopes, rollouts x, demand_per_visit y*(s)/K : arrays of shape (n,), the latter two in rollouts; step: slope
    per rollout. (d/dm U_*(m) = y*(m), by the envelope theorem.)
    """
    return np.clip(slopes - step * (rollouts - demand_per_visit), SLOPE_FLOOR, 1.0)


def response(anchor, prices, price, price_unit, rollouts_per_prompt, strength):
    """Proximal primal response, in rollouts, unbounded: anchor + nbar strength (mu - lam) / price_unit.

    It maximises (mu - lam) x - (rho/2) (x - anchor)^2 with rho = price_unit / (strength nbar); strength -> infinity is
    the bang-bang response of plain duals. `anchor`: a number or an array of rollouts.
    """
    return anchor + rollouts_per_prompt * strength * (prices - price) / price_unit


def price_step(price, budget_per_prompt, demand_per_prompt, step, price_max):
    """One step of the budget dual: lam <- Proj_[0, vmax] ( lam - step (budget - demand) ), both per prompt."""
    return float(np.clip(price - step * (budget_per_prompt - demand_per_prompt), 0.0, price_max))
