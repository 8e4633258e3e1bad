"""What allocators with a Beta posterior for each prompt share."""

import numpy as np

from cero import posterior
from cero.allocators.base import Allocator, check_choice, check_number
from cero.prompts import as_prompt_ids


class PosteriorAllocator(Allocator):
    """Keeps p_i ~ Beta(prior_a + s_i, prior_b + f_i), and the value of a rollout under it.

    Parameters
    ----------
    value : str, a key of `cero.posterior.VALUES`
        What a rollout is worth. "variance" is the abstract's (arXiv 2606.05606).
    forgetting : float in (0, 1]
        Old counts are multiplied by it at each visit; 1 keeps them (the stationary theory). Ours.
    prior_a, prior_b : float > 0
        The Beta prior; (1, 1) is uniform.
    **common : see `Allocator`
    """

    columns = {"successes": (np.float64, 0.0), "failures": (np.float64, 0.0)}

    def __init__(self, *, value="variance", forgetting=0.7, prior_a=1.0, prior_b=1.0, **common):
        super().__init__(**common)
        self.value = check_choice("value", value, posterior.VALUES)
        self.forgetting = check_number("forgetting", forgetting, 0, 1, open_low=True)
        self.prior_a = check_number("prior_a", prior_a, 0, 1e6, open_low=True)
        self.prior_b = check_number("prior_b", prior_b, 0, 1e6, open_low=True)

    def posterior_parameters(self, rows):
        """(a, b) of the Beta posteriors of `rows`; float arrays of that shape."""
        return self.prior_a + self.table["successes"][rows], self.prior_b + self.table["failures"][rows]

    def values(self, rows):
        """The value of a rollout, shape of `rows`, >= 0."""
        return posterior.VALUES[self.value](*self.posterior_parameters(rows), self.rollouts_per_prompt)

    def prior_value(self):
        """The value of a rollout for a prompt never seen."""
        return float(
            posterior.VALUES[self.value](np.float64(self.prior_a), np.float64(self.prior_b), self.rollouts_per_prompt)
        )

    def success_mean(self, prompt_ids):
        rows = self.table.rows(as_prompt_ids(prompt_ids))
        means = np.full(rows.size, posterior.mean(self.prior_a, self.prior_b))
        known = rows >= 0
        means[known] = posterior.mean(*self.posterior_parameters(rows[known]))
        return means

    def metrics(self):
        figures = super().metrics()
        if self._last_rows.size:
            a, b = self.posterior_parameters(self._last_rows)
            figures["posterior/mean"] = float(posterior.mean(a, b).mean())
            figures["posterior/std"] = float(posterior.mean(a, b).std())
            figures["posterior/strength"] = float((a + b).mean())
            figures["posterior/value"] = float(self.values(self._last_rows).mean())
        return figures

    def _observed(self, rows, successes, trials):
        for column, count in (("successes", successes), ("failures", trials - successes)):
            self.table[column][rows] = posterior.updated(self.table[column][rows], self.forgetting, count)
