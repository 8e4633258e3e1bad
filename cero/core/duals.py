"""The prices: projected online gradient descent on prompt duals and on the budget dual.

Saddle form (the abstract's idea, our derivation; docs/method.md):

    L = sum_k { sum_i [(mu_i - lam) x_ik - U_*(mu_i)/K] + lam B/K }

A prompt's dual is kept as its slope s_i = mu_i / v_i in (0, 1], because U_i = v_i u: then a posterior that
moves v_i moves the price with it, the projection onto [0, v_i] is one onto [0, 1], and the step needs no unit
of value.
"""

import numpy as np

SLOPE_FLOOR = 1e-6  # y*(0) is infinite for some utilities; no run allocates that far
BANG_BANG = 1e6  # a strength of `response` at which all but prices equal to a millionth end at a bound


def slope_step(slopes, rollouts, demand_per_visit, step):
    """One step of a visited prompt's dual: s <- Proj_(0,1] ( s - step (x - y*(s)/K) ).

    slopes, rollouts x, demand_per_visit y*(s)/K : arrays of shape (n,), the latter two in rollouts; step:
    slope per rollout. (d/dm U_*(m) = y*(m), by the envelope theorem.)
    """
    return np.clip(slopes - step * (rollouts - demand_per_visit), SLOPE_FLOOR, 1.0)


def response(anchor, prices, price, price_unit, rollouts_per_prompt, strength):
    """Proximal primal response, in rollouts, unbounded: anchor + nbar strength (mu - lam) / price_unit.

    It maximises (mu - lam) x - (rho/2) (x - anchor)^2 with rho = price_unit / (strength nbar); ours. strength
    = `BANG_BANG` is the limit rho -> 0, the bang-bang response of plain duals: clipped to [n_min, n_max] it
    maximises (mu - lam) x, projected onto a step's budget too. `anchor`: a number or an array of rollouts.
    """
    return anchor + rollouts_per_prompt * strength * (prices - price) / price_unit


def price_step(price, budget_per_prompt, demand_per_prompt, step, price_max):
    """One step of the budget dual: lam <- Proj_[0, vmax] ( lam - step (budget - demand) ), both per prompt."""
    return float(np.clip(price - step * (budget_per_prompt - demand_per_prompt), 0.0, price_max))


def scaled_steps(slope, price, rollouts_per_prompt, saturation, strength, epochs, step):
    """Step sizes in units, (slope per rollout, price per rollout): Newton's at the warm start, over sqrt(time). Ours.

    At the warm start (slope s, price u) a prompt's y*(s)/K moves by nbar saturation / s rollouts per unit of
    slope (exactly so for `exp`), its response by nbar strength / s, and the demand by nbar strength / u per
    unit of price: the inverses mend an imbalance in one step. epochs, step: the horizon, and the number of
    this step from 1.
    """
    return (
        slope / (rollouts_per_prompt * (saturation + strength) * np.sqrt(epochs)),
        price / (strength * rollouts_per_prompt * np.sqrt(step)),
    )


def plain_steps(value, rollouts_per_prompt, epochs):
    """As `scaled_steps`, for the textbook's c/sqrt(K); c = (size of a value) / (size of x) = v0/nbar for mu and lam.

    v0: the value under the prior. A prompt's mu = v s moves by v0/nbar per rollout, so its slope by 1/nbar.
    """
    scale = rollouts_per_prompt * np.sqrt(epochs)
    return 1.0 / scale, value / scale
