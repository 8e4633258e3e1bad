"""What allocators with a Beta posterior for each prompt share."""

import numpy as np

from cero.allocators.base import Allocator
from cero.core import beta
from cero.core.checks import check_choice, check_number
from cero.core.prompts import as_prompt_ids

FORGETTING_UNITS = ("visit", "step")
PRIORS = ("fixed", "pooled")
RETENTIONS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.55, 0.4, 0.2)  # what forgetting=auto chooses from
SCORED = 512  # prompts a step that forgetting=auto is judged on: enough, and flat in the step's size


class PosteriorAllocator(Allocator):
    """Keeps p_i ~ Beta(a0 + s_i, b0 + f_i), and the value of a rollout under it.

    Parameters
    ----------
    value : str, a key of `cero.core.beta.VALUES`
        What a rollout is worth. "variance" is the abstract's (arXiv 2606.05606).
    forgetting : float in (0, 1], or "auto"
        Old counts are multiplied by it, because the policy moves; 1 keeps them (the stationary theory).
        "auto": the factor under which the rewards of the next visit would have been most probable, of eight,
        estimated over the run as it goes; it weakens all counts, those of the last visit too. Ours.
    forgetting_unit : "visit" or "step"
        Whether counts fade when their prompt is visited again, or with every step of the run. Ours.
    prior : "fixed" or "pooled"
        What is expected of a prompt never seen: Beta(prior_a, prior_b), or a prior of the same strength
        around the mean of all first visits so far (it starts at the fixed one). `set_pass_rates` gives single
        prompts one. Ours.
    prior_a, prior_b : float > 0
        The Beta prior; (1, 1) is uniform.
    **common : see `Allocator`
    """

    columns = {"successes": (np.float64, 0.0), "failures": (np.float64, 0.0)}

    def __init__(
        self,
        *,
        value="variance",
        forgetting=0.7,
        forgetting_unit="visit",
        prior="fixed",
        prior_a=1.0,
        prior_b=1.0,
        **common,
    ):
        self.forgetting_unit = check_choice("forgetting_unit", forgetting_unit, FORGETTING_UNITS)
        if self.forgetting_unit == "step":
            self.columns = self.columns | {"seen": (np.int32, 0)}  # the step of the last visit
        super().__init__(**common)
        self.value = check_choice("value", value, beta.VALUES)
        if forgetting != "auto":
            forgetting = check_number("forgetting (a number, or auto)", forgetting, 0, 1, open_low=True)
        elif self.forgetting_unit != "visit":
            raise ValueError("forgetting=auto is estimated from visit to visit; set forgetting_unit=visit")
        self.forgetting = forgetting
        self.prior = check_choice("prior", prior, PRIORS)
        self.prior_a = check_number("prior_a", prior_a, 0, 1e6, open_low=True)
        self.prior_b = check_number("prior_b", prior_b, 0, 1e6, open_low=True)
        self._clock = 0  # steps observed
        self._first_visits = np.zeros(2)  # successes and trials of all first visits
        self._scores = np.zeros(len(RETENTIONS))  # log-probability of what came, under each retention

    beliefs = True

    @property
    def _group(self):
        """Size of the group that values are asked for: one rollout alone would be worth 0, whoever gets it."""
        return max(self.rollouts_per_prompt, 2)

    # ---- what is known ---------------------------------------------------------------------------

    def set_pass_rates(self, prompt_ids, pass_rates, strength=4.0):
        """Start prompts at pass rates measured before the run.

        Parameters
        ----------
        prompt_ids : as for `allocate`, shape (n,); a prompt that was visited already keeps what was seen
        pass_rates : float array, shape (n,), in [0, 1]; nan where unknown
        strength : float > 0, the rollouts that a pass rate counts for

        Raises
        ------
        ValueError
            Naming what is out of range.
        """
        ids, rates = as_prompt_ids(prompt_ids), np.asarray(pass_rates, np.float64)
        strength = check_number("strength", strength, 0, 1e6, open_low=True)
        if rates.shape != ids.shape:
            raise ValueError(
                f"pass_rates has shape {rates.shape}, prompt_ids has {ids.shape}; give one for each prompt"
            )
        known = np.isfinite(rates)
        if ((rates[known] < 0) | (rates[known] > 1)).any():
            raise ValueError(
                f"pass_rates={rates[known][(rates[known] < 0) | (rates[known] > 1)][:3]} must lie in [0, 1]"
            )
        rows = self.table.add(ids[known])
        new = (self.table["successes"][rows] == 0) & (self.table["failures"][rows] == 0)
        self.table["successes"][rows[new]] = strength * rates[known][new]
        self.table["failures"][rows[new]] = strength * (1.0 - rates[known][new])

    def posterior_parameters(self, rows):
        """(a, b) of the Beta posteriors of `rows`; float arrays of that shape."""
        a, b = self._prior_parameters()
        retained = self._retained(rows)
        return a + retained * self.table["successes"][rows], b + retained * self.table["failures"][rows]

    def values(self, rows):
        """The value of a rollout, shape of `rows`, >= 0."""
        return self._value_under(*self.posterior_parameters(rows))

    def prior_value(self):
        """The value of a rollout for a prompt never seen, under the fixed prior."""
        return float(self._value_under(np.float64(self.prior_a), np.float64(self.prior_b)))

    def _value_under(self, a, b):
        return beta.VALUES[self.value](a, b, self._group)

    def success_mean(self, prompt_ids):
        rows = self.table.rows(as_prompt_ids(prompt_ids))
        means = np.full(rows.size, beta.mean(*self._prior_parameters()))
        known = rows >= 0
        means[known] = beta.mean(*self.posterior_parameters(rows[known]))
        return means

    def _prior_parameters(self):
        if self.prior == "fixed":
            return self.prior_a, self.prior_b
        strength = self.prior_a + self.prior_b
        successes, trials = self._first_visits
        mean = (self.prior_a + successes) / (strength + trials)
        return strength * mean, strength * (1.0 - mean)

    def _retained(self, rows):
        """The share of the stored counts that still holds now: a number, or an array of the shape of `rows`."""
        if self.forgetting == "auto":
            return self._retention()
        if self.forgetting_unit == "step":
            return self.forgetting ** (self._clock - self.table["seen"][rows])
        return 1.0

    def _retention(self):
        """Of RETENTIONS the one with the best score; the middle of the field while nothing is known."""
        return RETENTIONS[int(np.argmax(self._scores))] if self._scores.any() else 0.7

    # ---- what is learned -------------------------------------------------------------------------

    def _observed(self, rows, successes, trials):
        self._clock += 1
        counts = (successes, trials - successes)
        stored = tuple(self.table[column][rows] for column in ("successes", "failures"))
        visited = (stored[0] > 0) | (stored[1] > 0)
        first = ~visited
        self._first_visits += successes[first].sum(), trials[first].sum()
        if self.forgetting == "auto":
            kept = self._retention()
            self._score(*(column[visited] for column in (*stored, successes, trials)))
        elif self.forgetting_unit == "step":
            kept = self.forgetting ** (self._clock - self.table["seen"][rows])
            self.table["seen"][rows] = self._clock
        else:
            kept = self.forgetting
        for column, old, count in zip(("successes", "failures"), stored, counts, strict=True):
            self.table[column][rows] = beta.updated(old, kept, count)

    def _score(self, old_successes, old_failures, successes, trials):
        """Judge each retention by the rewards of prompts seen before: predictive log-likelihood, fading slowly."""
        if not successes.size:
            return
        part = slice(None, None, -(-successes.size // SCORED))
        a, b = self._prior_parameters()
        scores = [
            beta.log_predictive(
                a + kept * old_successes[part], b + kept * old_failures[part], successes[part], trials[part]
            ).sum()
            for kept in RETENTIONS
        ]
        self._scores = 0.98 * self._scores + np.array(scores)  # a policy learns fast at first, slowly later

    def _scalars(self):
        return (
            super()._scalars()
            | {"clock": self._clock, "first_successes": float(self._first_visits[0])}
            | {"first_trials": float(self._first_visits[1])}
            | {
                f"retention_{kept}": float(score)
                for kept, score in zip(RETENTIONS, self._scores, strict=True)
            }
        )

    def _load_scalars(self, scalars):
        super()._load_scalars(scalars)
        self._clock = int(scalars["clock"])
        self._first_visits = np.array([scalars["first_successes"], scalars["first_trials"]])
        self._scores = np.array([scalars[f"retention_{kept}"] for kept in RETENTIONS])

    def metrics(self):
        figures = super().metrics()
        if self._last_rows.size:
            a, b = self.posterior_parameters(self._last_rows)
            means = beta.mean(a, b)
            figures["posterior/mean"] = float(means.mean())
            figures["posterior/std"] = float(means.std())
            figures["posterior/strength"] = float((a + b).mean())
            figures["posterior/value"] = float(self._value_under(a, b).mean())
            if self.forgetting == "auto":
                figures["posterior/forgetting"] = self._retention()
            if self.prior == "pooled":
                figures["posterior/prior_mean"] = float(beta.mean(*self._prior_parameters()))
        return figures
