"""CERO: a price for each prompt, a price for the budget, both learned online (arXiv 2606.05606)."""

import numpy as np

from cero import duals, posterior
from cero.allocators.base import check_choice, check_number
from cero.allocators.posterior import PosteriorAllocator
from cero.utility import UTILITIES


class Cero(PosteriorAllocator):
    """Projected online gradient descent on the Fenchel duals of a saturating utility of cumulative rollouts.

    The posterior variance as value, the concave saturating utility, the prompt duals, the budget dual and their
    projected online gradient descent are the abstract's. Its body is not public: the utilities' forms, the
    proximal response, the warm start and the step sizes below are ours (docs/method.md).

    Parameters
    ----------
    utility : "exp", "rational" or "log"
    saturation : float > 0
        The utility's scale t, in units of epochs x rollouts_per_prompt: how far past its equal share a prompt
        stays worth paying for. Large: winner takes all; small: everyone equally.
    response : float > 0
        How strongly rollouts follow prices: a prompt priced 10 % over the market asks for 10 % x response more.
    anchor : "equal" or "last"
        More than what: rollouts_per_prompt, or what the prompt got at its last visit. Only "last" converges to the
        offline optimum of fixed utilities (an anchor that stays put keeps pulling toward equality); "equal" is the
        steadier over few epochs.
    prompt_step, budget_step : float >= 0
        Step sizes of the two duals, in units that make 1 a sensible size (divided by sqrt(epochs) and by the
        square root of the number of steps so far); 0 freezes a dual.
    **options : see `PosteriorAllocator` and `Allocator`

    State: a slope per prompt (column "slope"), warm-started at the optimum under the prior, and `price`, the
    budget's. With a budget given for each step (verl's default here) the budget binds by itself, the common shift
    that makes the step exact plays the price's part, and `price` is what the market would ask; with
    `allocate(ids, budget=None)` it decides how much the step spends.
    """

    name = "cero"
    columns = PosteriorAllocator.columns | {
        "slope": (np.float64, 0.0),  # 0: not priced yet
        "last": (np.float32, 0.0),  # rollouts at the last visit, before rounding; 0: not visited yet
    }

    def __init__(
        self,
        *,
        utility="exp",
        saturation=1.0,
        response=2.0,
        anchor="equal",
        prompt_step=1.0,
        budget_step=1.0,
        **options,
    ):
        super().__init__(**options)
        self.utility = check_choice("utility", utility, UTILITIES)
        self.saturation = check_number("saturation", saturation, 0, 1e6, open_low=True)
        self.response = check_number("response", response, 0, 1e6, open_low=True)
        self.anchor = check_choice("anchor", anchor, ("equal", "last"))
        self.prompt_step = check_number("prompt_step", prompt_step, 0, 1e6)
        self.budget_step = check_number("budget_step", budget_step, 0, 1e6)
        self._utility = UTILITIES[utility]
        # The offline optimum under the prior gives everyone nbar: all start at that slope and its price.
        share = self.epochs * self.rollouts_per_prompt
        self._scale = self.saturation * share
        self._first_slope = float(self._utility.slope(share, self._scale))
        self._price_unit = self.prior_value() * self._first_slope
        self.price = self._price_unit
        # vmax: no price above the largest value moves anything.
        self._price_max = posterior.BOUNDS[self.value]
        self._steps = 0
        self._asked = np.zeros(0)  # what the step in hand asked for, from `_targets` to `_allocated`

    def prices(self, rows):
        """mu_i = v_i s_i of `rows`, in value per rollout; a row of -1 is a prompt never seen."""
        prices = np.full(rows.shape, self._price_unit)
        known = rows[rows >= 0]
        slopes = self.table["slope"][known]
        prices[rows >= 0] = self.values(known) * np.where(slopes > 0, slopes, self._first_slope)
        return prices

    def _response(self, rows):
        anchor = np.full(rows.shape, float(self.rollouts_per_prompt))
        if self.anchor == "last":
            known = rows >= 0
            last = self.table["last"][rows[known]]
            anchor[known] = np.where(last > 0, last, self.rollouts_per_prompt)
        prices = self.prices(rows)
        return duals.response(anchor, prices, self.price, self._price_unit, self.rollouts_per_prompt, self.response)

    def _targets(self, rows, budget):
        self._asked = self._response(rows)
        return self._asked

    def _own_budget(self, ids):
        wanted = np.clip(self._response(self.table.rows(ids)), self.n_min, self.n_max).sum()
        least = ids.size * self.n_min
        return max(least, int(wanted) if self.ledger.left is None else min(int(wanted), self.ledger.left))

    def _allocated(self, rows, shares, counts):
        demand = np.clip(self._asked, self.n_min, self.n_max).mean() if rows.size else 0.0
        self._steps += 1
        self.price = duals.price_step(
            self.price,
            self.rollouts_per_prompt,
            demand,
            self.budget_step * self._price_unit / (self.response * self.rollouts_per_prompt * np.sqrt(self._steps)),
            self._price_max,
        )
        # A prompt that occurs twice makes one step with the sum of its shares.
        rows, inverse, times = np.unique(rows, return_inverse=True, return_counts=True)
        shares = np.bincount(inverse, shares, rows.size)
        self.table["last"][rows] = shares / times
        slopes = self.table["slope"][rows]
        slopes = np.where(slopes > 0, slopes, self._first_slope)
        step = (
            self.prompt_step
            * self._first_slope
            / (self.rollouts_per_prompt * (self.saturation + self.response) * np.sqrt(self.epochs))
        )
        demand = self._utility.demand(slopes, self._scale) / self.epochs
        self.table["slope"][rows] = duals.slope_step(slopes, shares, demand, step)

    def _scalars(self):
        return {"price": float(self.price), "steps": self._steps}

    def _load_scalars(self, scalars):
        self.price, self._steps = float(scalars["price"]), int(scalars["steps"])

    def metrics(self):
        figures = super().metrics()
        slopes = self.table["slope"][self._last_rows]
        figures["dual/budget"] = float(self.price)
        if slopes.size:
            figures |= {
                "dual/prompt_mean": float(slopes.mean()),
                "dual/prompt_min": float(slopes.min()),
                "dual/prompt_max": float(slopes.max()),
            }
        return figures
