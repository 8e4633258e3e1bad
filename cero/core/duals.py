"""How do prices move? Projected online gradient descent on a dual for each prompt and one for the budget.

The saddle form has its idea from CERO's abstract (arXiv 2606.05606) and its derivation from this project (see
the method's pages of the documentation):

    L = sum_k { sum_i [(mu_i - lam) x_ik - U_*(mu_i)/K] + lam B/K }

Here prompt i gets x_ik rollouts in epoch k of K, mu_i is the prompt's price, lam the budget's, B the run's
budget and U_* the utility's conjugate (`cero.core.utility`). Prices are in units of value per rollout.

A prompt's dual is kept as its slope s_i = mu_i / v_i in (0, 1], because U_i = v_i u. So a posterior that
moves the value v_i moves the price with it, the projection onto [0, v_i] is one onto [0, 1], and a step has
no unit of value.
"""

import numpy as np

from cero.core.arrays import FloatOrFloats, Floats

SLOPE_FLOOR = 1e-6  # y*(0) is infinite for some utilities; no run allocates that far
BANG_BANG = 1e6  # a strength of `response` at which all but prices equal to a millionth end at a bound


def slope_step(slopes: Floats, rollouts: Floats, demand_per_visit: Floats, step: float) -> Floats:
    """Return the slopes of visited prompts after one step: s <- Proj_(0,1] ( s - step (x - y*(s)/K) ).

    It is a gradient step, since d/dm U_*(m) = y*(m) by the envelope theorem.

    Parameters
    ----------
    slopes : s, shape (n,), in (0, 1]
    rollouts : x, shape (n,)
    demand_per_visit : y*(s)/K, shape (n,), in rollouts
    step : the step's size, in slope per rollout

    Returns
    -------
    float array, shape (n,), in [SLOPE_FLOOR, 1]
    """
    return np.clip(slopes - step * (rollouts - demand_per_visit), SLOPE_FLOOR, 1.0)


def response(
    anchor: FloatOrFloats,
    prices: Floats,
    price: float,
    price_unit: float,
    rollouts_per_prompt: float,
    strength: float,
) -> Floats:
    """Return the proximal response in rollouts, anchor + nbar strength (mu - lam) / price_unit.

    It maximises (mu - lam) x - (rho/2) (x - anchor)^2 with rho = price_unit / (strength nbar), without bounds
    on x. Source: this project. strength = `BANG_BANG` stands for the limit rho -> 0, the bang-bang response
    of plain duals: clipped to [n_min, n_max] it maximises (mu - lam) x, and it still does after the
    projection onto a step's budget.

    Parameters
    ----------
    anchor : rollouts that a prompt at the market's price asks for: a number, or shape (n,)
    prices, price : mu, shape (n,), and lam
    price_unit : the price that differences of prices are measured by, above 0
    rollouts_per_prompt : nbar
    strength : rollouts asked for, in units of nbar, for a difference of one `price_unit`

    Returns
    -------
    float array, shape (n,), of any sign
    """
    return anchor + rollouts_per_prompt * strength * (prices - price) / price_unit


def price_step(
    price: float, budget_per_prompt: float, demand_per_prompt: float, step: float, price_max: float
) -> float:
    """Return the budget's price after one step: lam <- Proj_[0, vmax] ( lam - step (budget - demand) ).

    Budget and demand are in rollouts per prompt, `step` in price per rollout; vmax is `price_max`.
    """
    return float(np.clip(price - step * (budget_per_prompt - demand_per_prompt), 0.0, price_max))


def scaled_steps(
    slope: float,
    price: float,
    rollouts_per_prompt: float,
    saturation: float,
    strength: float,
    epochs: int,
    step: int,
) -> tuple[float, float]:
    """Return both step sizes, in slope and in price per rollout: Newton's at the warm start, over sqrt(time).

    At the warm start (slope s, price u) a prompt's y*(s)/K moves by nbar saturation / s rollouts per unit of
    slope (exactly so for `exp`), its response by nbar strength / s, and the demand by nbar strength / u per
    unit of price. The inverses mend an imbalance in one step. Source: this project.

    Parameters
    ----------
    slope, price : s and u at the warm start
    rollouts_per_prompt : nbar
    saturation : the utility's scale, in units of epochs x rollouts_per_prompt
    strength : of `response`
    epochs, step : the run's length K, and the number of this step, from 1
    """
    return (
        slope / (rollouts_per_prompt * (saturation + strength) * np.sqrt(epochs)),
        price / (strength * rollouts_per_prompt * np.sqrt(step)),
    )


def plain_steps(value: float, rollouts_per_prompt: float, epochs: int) -> tuple[float, float]:
    """Return both step sizes, as `scaled_steps` does, by the textbook's rule c/sqrt(K).

    c is the size of a value over the size of x, v0/nbar, for mu as for lam; v0 = `value` is that under the
    prior. A prompt's mu = v s moves by v0/nbar per rollout, so its slope moves by 1/nbar.
    """
    scale = rollouts_per_prompt * np.sqrt(epochs)
    return 1.0 / scale, value / scale
