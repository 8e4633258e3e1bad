"""Rollout-GDRO: difficulty groups, a shadow price for rollouts, a square-root rule (arXiv 2601.19280)."""

import numpy as np

from cero.allocators.beliefs import PosteriorAllocator
from cero.core.checks import check_number


class Gdro(PosteriorAllocator):
    """n_b = sqrt(v_b / price) for every prompt of difficulty group b, v_b the reward variance seen there.

    Published: bins of 0.1 by an online success rate, one rollout count per bin, a mean-rollout constraint
    with one multiplier that rises while more is spent than the mean, and, as the variance-optimal allocation,
    the square root. The authors choose counts by an exponential-weights bandit per bin on the training loss;
    we apply the square root itself instead. Ours, too: bins by the mean of our posterior (theirs: pass@k in a
    window, with hysteresis), v_b as a moving average of the groups' sample variances s (n-s) / (n (n-1)), the
    multiplicative step of the price on what was asked for (what is spent always equals the budget here), and
    the common shift that makes the step exact.

    Parameters
    ----------
    bins : int >= 1
        Groups, equally wide in the success rate. Published: 10.
    smoothing : float in (0, 1]
        Weight of a step's variances in the moving average.
    price_step : float >= 0
        log(price) moves by this times (asked / rollouts_per_prompt - 1) after each step; 0 freezes it.
    **options : see `PosteriorAllocator` and `Allocator`; value is only reported
    """

    name = "gdro"

    def __init__(self, *, bins=10, smoothing=0.2, price_step=0.5, **options):
        super().__init__(**options)
        self.bins = check_number("bins", bins, 1, 1000, integer=True)
        self.smoothing = check_number("smoothing", smoothing, 0, 1, open_low=True)
        self.price_step = check_number("price_step", price_step, 0, 1e3)
        middles = (np.arange(self.bins) + 0.5) / self.bins
        self._variances = middles * (1.0 - middles)  # until a bin is seen: that of its middle
        # At this price a prompt never seen gets its equal share.
        prior = self.prior_a / (self.prior_a + self.prior_b)
        self.price = float(self._variances[self._bin(prior)] / self.rollouts_per_prompt**2)
        self.demand = float("nan")

    def _bin(self, means):
        return np.minimum((np.asarray(means) * self.bins).astype(np.int64), self.bins - 1)

    def _bins(self, rows):
        a, b = self.posterior_parameters(rows)
        return self._bin(a / (a + b))

    def _targets(self, rows, budget):
        wanted = np.sqrt(np.maximum(self._variances[self._bins(rows)], 1e-9) / self.price)
        wanted = np.clip(wanted, self.n_min, self.n_max)
        self.demand = float(wanted.mean()) if rows.size else float("nan")
        return wanted

    def _allocated(self, rows, shares, counts):
        if rows.size:
            self.price *= float(np.exp(self.price_step * (self.demand / self.rollouts_per_prompt - 1.0)))

    def _observed(self, rows, successes, trials):
        bins = self._bins(rows)  # before what is learned moves them
        groups = trials >= 2
        n, s = trials[groups], successes[groups]
        seen = np.bincount(bins[groups], minlength=self.bins)
        summed = np.bincount(bins[groups], s * (n - s) / (n * (n - 1)), self.bins)
        fresh = np.where(seen > 0, summed / np.maximum(seen, 1), self._variances)
        self._variances = self._variances + self.smoothing * (fresh - self._variances)
        super()._observed(rows, successes, trials)

    def _scalars(self):
        variances = {f"variance_{i}": float(v) for i, v in enumerate(self._variances)}
        return super()._scalars() | {"price": self.price} | variances

    def _load_scalars(self, scalars):
        super()._load_scalars(scalars)
        self.price = float(scalars["price"])
        self._variances = np.array([scalars[f"variance_{i}"] for i in range(self.bins)])

    def metrics(self):
        figures = super().metrics() | {"dual/budget": self.price}
        if self._last_rows.size:
            figures["dual/demand"] = self.demand if np.isfinite(self.demand) else 0.0
        return figures
