"""The prices: projected online gradient descent on prompt duals and on the budget dual.

Saddle form (the abstract's idea, this project's derivation; docs/method.md):

    L = sum_k { sum_i [(mu_i - lam) x_ik - U_*(mu_i)/K] + lam B/K }

A prompt's dual is kept as its slope s_i = mu_i / v_i in (0, 1], because U_i = v_i u: then a posterior that
moves v_i moves the price with it, the projection onto [0, v_i] is one onto [0, 1], and the step needs no unit
of value.
"""

import numpy as np

from cero.core.arrays import Floats

SLOPE_FLOOR = 1e-6  # y*(0) is infinite for some utilities; no run allocates that far
BANG_BANG = 1e6  # a strength of `response` at which all but prices equal to a millionth end at a bound


def slope_step(slopes: Floats, rollouts: Floats, demand_per_visit: Floats, step: float) -> Floats:
    """Return a visited prompt's dual after one step: s <- Proj_(0,1] ( s - step (x - y*(s)/K) ).

    slopes, rollouts x, demand_per_visit y*(s)/K : arrays of shape (n,), the latter two in rollouts; step:
    slope per rollout. (d/dm U_*(m) = y*(m), by the envelope theorem.)
    """
    return np.clip(slopes - step * (rollouts - demand_per_visit), SLOPE_FLOOR, 1.0)


def response(
    anchor: float | Floats,
    prices: Floats,
    price: float,
    price_unit: float,
    rollouts_per_prompt: int,
    strength: float,
) -> Floats:
    """Return the proximal primal response: anchor + nbar strength (mu - lam) / price_unit, in rollouts.

    It is not bounded. It maximises (mu - lam) x - (rho/2) (x - anchor)^2 with rho = price_unit / (strength
    nbar), and is this project's. strength = `BANG_BANG` is the limit rho -> 0, the bang-bang response of
    plain duals. Clipped to [n_min, n_max], or projected onto a step's budget, it maximises (mu - lam) x.

    Parameters
    ----------
    anchor : number or array, shape (n,), in rollouts
    prices : mu, array, shape (n,); price : lam; price_unit : all in value per rollout
    rollouts_per_prompt : nbar
    """
    return anchor + rollouts_per_prompt * strength * (prices - price) / price_unit


def price_step(
    price: float, budget_per_prompt: float, demand_per_prompt: float, step: float, price_max: float
) -> float:
    """Return the budget dual after one step: lam <- Proj_[0, vmax] ( lam - step (budget - demand) )."""
    return float(np.clip(price - step * (budget_per_prompt - demand_per_prompt), 0.0, price_max))


def scaled_steps(
    slope: float,
    price: float,
    rollouts_per_prompt: int,
    saturation: float,
    strength: float,
    epochs: int,
    step: int,
) -> tuple[float, float]:
    """Return step sizes (slope per rollout, price per rollout): Newton's at the warm start, over sqrt(time).

    At the warm start (slope s, price u) a prompt's y*(s)/K moves by nbar saturation / s rollouts per unit of
    slope (exactly so for `exp`), its response by nbar strength / s, and the demand by nbar strength / u per
    unit of price: the inverses mend an imbalance in one step. The sizes are this project's.

    Parameters
    ----------
    slope, price : s and u, the duals at the warm start
    epochs, step : the horizon, and the number of this step from 1
    """
    return (
        slope / (rollouts_per_prompt * (saturation + strength) * np.sqrt(epochs)),
        price / (strength * rollouts_per_prompt * np.sqrt(step)),
    )


def plain_steps(value: float, rollouts_per_prompt: int, epochs: int) -> tuple[float, float]:
    """Return step sizes as `scaled_steps` does, by the textbook's c / sqrt(K).

    c = (size of a value) / (size of x) = v0/nbar for mu and lam, v0 = `value` under the prior. A prompt's
    mu = v s moves by v0/nbar per rollout, so its slope by 1/nbar.
    """
    scale = rollouts_per_prompt * np.sqrt(epochs)
    return 1.0 / scale, value / scale
