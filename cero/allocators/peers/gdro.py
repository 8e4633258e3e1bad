"""Rollout-GDRO: difficulty groups, a shadow price for rollouts, a square-root rule (arXiv 2601.19280)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cero.allocators.base import Description
from cero.allocators.options import WithBeliefs
from cero.allocators.upfront import UpfrontAllocator
from cero.core.arrays import Floats, Ints
from cero.core.checks import check_number

PRICES = (1e-300, 1e300)  # so that a price whose steps are large never becomes 0, infinite or nan
LARGEST_EXPONENT = 700.0  # of what a float holds


class Gdro(WithBeliefs, UpfrontAllocator):
    """n_b = sqrt(v_b / price) for every prompt of difficulty group b, v_b the reward variance seen there.

    Published are bins of 0.1 by an online success rate, with one rollout count per bin. So is a constraint on
    the mean number of rollouts, with one multiplier that rises while more is spent than the mean. The square
    root is published as the variance-optimal allocation. The authors choose counts by an exponential-weights
    bandit per bin on the training loss.

    This project takes the square root itself in place of the bandit. Its bins are by the posterior mean; the
    authors' are by pass@k in a window, with hysteresis. Here v_b is a moving average of the groups' sample
    variances s (n-s) / (n (n-1)). What is spent always equals the budget here. So the price moves by a
    multiplicative step on what was asked for. A common shift makes the step exact.

    Parameters
    ----------
    bins : int >= 1
        Groups, equally wide in the success rate. Published: 10.
    smoothing : float in (0, 1]
        Weight of a step's variances in the moving average.
    price_step : float >= 0
        log(price) moves by this times (asked / rollouts_per_prompt - 1) after each step; 0 freezes it.
    **options : see `WithBeliefs` and `UpfrontAllocator`
    """

    name = "gdro"
    state_options = ("bins",)
    idle_beside = {"smoothing": ("bins", (1,)), "price_step": ("bins", (1,))}  # all prompts are one group

    def __init__(
        self, *, bins: int = 10, smoothing: float = 0.2, price_step: float = 0.5, **options: Any
    ) -> None:
        super().__init__(**options)
        self.bins = check_number("bins", bins, 1, 1000, integer=True)
        self.smoothing = check_number("smoothing", smoothing, 0, 1, open_low=True)
        self.price_step = check_number("price_step", price_step, 0, 1e3)
        middles = (np.arange(self.bins) + 0.5) / self.bins
        self._variances = middles * (1.0 - middles)  # until a bin is seen: that of its middle
        # At this price a prompt never seen gets its equal share.
        prior = self.beliefs.prior_a / (self.beliefs.prior_a + self.beliefs.prior_b)
        self.price = float(self._variances[self._bin(prior)] / self.rollouts_per_prompt**2)
        self.demand = float("nan")

    def _bin(self, means: ArrayLike) -> Ints:
        return np.minimum((np.asarray(means) * self.bins).astype(np.int64), self.bins - 1)

    def _bins(self, rows: Ints) -> Ints:
        a, b = self.beliefs.parameters(rows)
        return self._bin(a / (a + b))

    def _targets(self, rows: Ints, budget: int) -> Floats:
        wanted = np.sqrt(np.maximum(self._variances[self._bins(rows)], 1e-9) / self.price)
        wanted = np.clip(wanted, self.n_min, self.n_max)
        self.demand = float(wanted.mean()) if rows.size else float("nan")
        return wanted

    def _allocated(self, rows: Ints, shares: Floats, counts: Ints) -> None:
        if rows.size:
            exponent = self.price_step * (self.demand / self.rollouts_per_prompt - 1.0)
            price = self.price * float(np.exp(min(exponent, LARGEST_EXPONENT)))
            self.price = min(max(price, PRICES[0]), PRICES[1])

    def _observed(self, rows: Ints, successes: Floats, trials: Ints) -> None:
        bins = self._bins(rows)
        groups = trials >= 2
        n, s = trials[groups], successes[groups]
        seen = np.bincount(bins[groups], minlength=self.bins)
        summed = np.bincount(bins[groups], s * (n - s) / (n * (n - 1)), self.bins)
        fresh = np.where(seen > 0, summed / np.maximum(seen, 1), self._variances)
        self._variances = self._variances + self.smoothing * (fresh - self._variances)

    ranges = {"price": PRICES}

    def _scalars(self) -> dict[str, float]:
        variances = {f"variance_{i}": float(v) for i, v in enumerate(self._variances)}
        return {"price": self.price} | variances

    def _load_scalars(self, scalars: Mapping[str, float]) -> None:
        self.price = float(scalars["price"])
        self._variances = np.array([scalars[f"variance_{i}"] for i in range(self.bins)])

    def metrics(self) -> dict[str, float]:
        figures = super().metrics() | {"dual/budget": self.price}
        if self._last_rows.size:
            figures["dual/demand"] = self.demand if np.isfinite(self.demand) else 0.0
        return figures

    def describe(self) -> Description:
        description = super().describe()
        description.price = self.price
        return description
