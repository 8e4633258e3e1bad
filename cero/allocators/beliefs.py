"""What is known of prompts, from their rewards so far: a Beta posterior for each."""

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from cero.core import beta
from cero.core.arrays import Bools, Floats, Ids, Ints
from cero.core.budget import MOST_TOTAL
from cero.core.checks import MOST_SAVED, as_numbers, at_ends, check_choice, check_number
from cero.core.prompts import PromptTable

ForgettingUnit = Literal["visit", "step"]
Prior = Literal["fixed", "pooled"]
RETENTIONS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.55, 0.4, 0.2)  # what forgetting=auto chooses from
MOST_COUNTED = 2.0**32  # a prompt's successes or failures: its rollouts, and those of a pass rate
LEAST_PRIOR = 1e-6  # of either count of the prior: a value is told from 0 then, whatever the other count is
SCORED = 512  # prompts of a step that forgetting=auto is judged on: enough, and no more in a larger step


class Beliefs:
    """What is known of each prompt's success probability: p_i ~ Beta(a0 + s_i, b0 + f_i).

    An allocator holds one as `beliefs`. The counts s_i and f_i are the columns "successes" and "failures" of
    the allocator's table. Beta posteriors are the abstract's (arXiv 2606.05606); forgetting, its units and
    the pooled prior are this project's.

    Parameters
    ----------
    table : PromptTable, which gets the columns; `rows` are always rows of it
    forgetting : float in (0, 1], or "auto"
        Old counts are multiplied by it, because the policy changes; 1 keeps them. "auto" takes, of eight
        factors, the one under which the rewards of the next visit would have been most probable, estimated as
        the run goes. It weakens all counts, those of the last visit too.
    forgetting_unit : "visit" or "step"
        Whether counts fade when their prompt is visited again, or with every step of the run.
    prior : "fixed" or "pooled"
        What is expected of a prompt never seen: Beta(prior_a, prior_b), or a prior of the same strength
        around the mean of all first visits so far, which starts at the fixed one. `set_pass_rates` gives
        single prompts one of their own.
    prior_a, prior_b : float in [1e-6, 1e6]
        The Beta prior; (1, 1) is uniform. Of a smaller count nothing would be left beside the other one.

    Raises
    ------
    ValueError
        Naming the option, its value and the remedy.
    """

    # What the columns and numbers of a state can be; see `Allocator.ranges`.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "successes": (0.0, MOST_COUNTED),
        "failures": (0.0, MOST_COUNTED),
        "seen": (0, MOST_SAVED),
        "clock": (0, MOST_SAVED),
        "first_successes": (0.0, MOST_TOTAL),
        "first_trials": (0.0, MOST_TOTAL),
    }

    def __init__(
        self,
        table: PromptTable,
        *,
        forgetting: float | Literal["auto"] = 0.7,
        forgetting_unit: ForgettingUnit = "visit",
        prior: Prior = "fixed",
        prior_a: float = 1.0,
        prior_b: float = 1.0,
    ) -> None:
        self.forgetting_unit = check_choice("forgetting_unit", forgetting_unit, get_args(ForgettingUnit))
        if not (isinstance(forgetting, str) and forgetting == "auto"):
            forgetting = float(
                check_number("forgetting (a number, or auto)", forgetting, 0, 1, open_low=True)
            )
        elif forgetting_unit != "visit":
            raise ValueError("forgetting=auto is estimated from visit to visit; set forgetting_unit=visit")
        self.forgetting = forgetting
        self.prior = check_choice("prior", prior, get_args(Prior))
        self.prior_a = float(check_number("prior_a", prior_a, LEAST_PRIOR, 1e6))
        self.prior_b = float(check_number("prior_b", prior_b, LEAST_PRIOR, 1e6))
        table.add_columns({"successes": (np.float64, 0.0), "failures": (np.float64, 0.0)})
        if forgetting_unit == "step":
            table.add_columns({"seen": (np.int32, 0)})  # the step of the last visit
        self._table = table
        self._clock = 0  # steps observed
        self._first_visits = np.zeros(2)  # successes and trials of all first visits
        self._scores = np.zeros(len(RETENTIONS))  # log-probability of what came, under each retention

    # ---- what is known ---------------------------------------------------------------------------

    def parameters(self, rows: Ints) -> tuple[Floats, Floats]:
        """Return (a, b) of the Beta posteriors of `rows`; both of that shape."""
        a, b = self.prior_parameters()
        retained = self._retained(rows)
        return a + retained * self._table["successes"][rows], b + retained * self._table["failures"][rows]

    def faded_parameters(self, rows: Ints) -> tuple[Floats, Floats]:
        """Return (a, b) of `rows`, faded as a visit will fade them; both of that shape.

        Row -1 is a prompt never seen.
        """
        prior = self.prior_parameters()
        a, b = (np.full(rows.size, count) for count in prior)
        known = rows >= 0
        a[known], b[known] = self.parameters(rows[known])
        # With forgetting=auto, the parameters are faded already.
        kept = 1.0 if self.forgetting == "auto" else self.forgetting
        return prior[0] + kept * (a - prior[0]), prior[1] + kept * (b - prior[1])

    def prior_parameters(self) -> tuple[float, float]:
        """Return (a, b) of what is expected of a prompt never seen."""
        if self.prior == "fixed":
            return self.prior_a, self.prior_b
        strength = self.prior_a + self.prior_b
        successes, trials = self._first_visits
        mean = (self.prior_a + successes) / (strength + trials)
        return strength * mean, strength * (1.0 - mean)

    def mean(self, rows: Ints) -> Floats:
        """Return the expected success probability of `rows`, in (0, 1); row -1 is a prompt never seen."""
        means = np.full(rows.size, beta.mean(*self.prior_parameters()))
        known = rows >= 0
        means[known] = beta.mean(*self.parameters(rows[known]))
        return means

    def has_evidence(self, rows: Ints) -> Bools:
        """Return of which of `rows` anything is known, bool, that shape: outcomes, or a pass rate."""
        return (self._table["successes"][rows] > 0) | (self._table["failures"][rows] > 0)

    def retention(self) -> float:
        """Return what forgetting=auto multiplies old counts by: of RETENTIONS, or 0.7 at first."""
        return RETENTIONS[int(np.argmax(self._scores))] if self._scores.any() else 0.7

    def metrics(self, rows: Ints) -> dict[str, float]:
        """Return figures of the posteriors of `rows`, one or more; see `Allocator.metrics`."""
        a, b = self.parameters(rows)
        means = beta.mean(a, b)
        figures = {
            "posterior/mean": float(means.mean()),
            "posterior/std": float(means.std()),
            "posterior/strength": float((a + b).mean()),
            "posterior/value": float(beta.moment(a, b, 1, 1).mean()),
        }
        if self.forgetting == "auto":
            figures["posterior/forgetting"] = self.retention()
        if self.prior == "pooled":
            figures["posterior/prior_mean"] = float(beta.mean(*self.prior_parameters()))
        return figures

    def _retained(self, rows: Ints) -> float | Floats:
        """Return the share of the stored counts that still holds: a number, or one for each of `rows`."""
        if self.forgetting == "auto":
            return self.retention()
        if self.forgetting_unit == "step":
            return self.forgetting ** (self._clock - self._table["seen"][rows])
        return 1.0

    # ---- what is learned -------------------------------------------------------------------------

    def set_pass_rates(self, ids: Ids, pass_rates: ArrayLike, strength: float) -> None:
        """Start prompts at pass rates measured before the run; see `Allocator.set_pass_rates`."""
        rates = at_ends(as_numbers("pass_rates", pass_rates), 0.0, 1.0)
        strength = float(check_number("strength", strength, 0, 1e6, open_low=True))
        if rates.shape != ids.shape:
            raise ValueError(
                f"pass_rates has shape {rates.shape}, prompt_ids has {ids.shape}; give one for each prompt"
            )
        known = ~np.isnan(rates)
        if ((rates[known] < 0) | (rates[known] > 1)).any():
            raise ValueError(
                f"pass_rates={rates[known][(rates[known] < 0) | (rates[known] > 1)][:3]} must lie in [0, 1]"
            )
        rows = self._table.add(ids[known])
        new = ~self.has_evidence(rows)
        self._table["successes"][rows[new]] = strength * rates[known][new]
        self._table["failures"][rows[new]] = strength * (1.0 - rates[known][new])

    def observe(self, rows: Ints, successes: Floats, trials: Ints) -> None:
        """Take up a step's outcomes: distinct `rows`, 0 <= successes <= trials, trials >= 1."""
        self._clock += 1
        counts = (successes, trials - successes)
        stored = tuple(self._table[column][rows] for column in ("successes", "failures"))
        visited = self.has_evidence(rows)
        first = ~visited
        self._first_visits += successes[first].sum(), trials[first].sum()
        kept: float | Floats
        if self.forgetting == "auto":
            kept = self.retention()
            self._score(*(column[visited] for column in (*stored, successes, trials)))
        elif self.forgetting_unit == "step":
            kept = self.forgetting ** (self._clock - self._table["seen"][rows])
            self._table["seen"][rows] = self._clock
        else:
            kept = self.forgetting
        for column, old, count in zip(("successes", "failures"), stored, counts, strict=True):
            self._table[column][rows] = beta.updated(old, kept, count)

    def _score(self, old_successes: Floats, old_failures: Floats, successes: Floats, trials: Floats) -> None:
        """Judge each retention by the rewards of prompts seen before; old judgements fade slowly."""
        if not successes.size:
            return
        part = slice(None, None, -(-successes.size // SCORED))
        a, b = self.prior_parameters()
        scores = [
            beta.log_predictive(
                a + kept * old_successes[part], b + kept * old_failures[part], successes[part], trials[part]
            ).sum()
            for kept in RETENTIONS
        ]
        # Fading, because a policy learns fast at first and slowly later.
        self._scores = 0.98 * self._scores + np.array(scores)

    # ---- state -----------------------------------------------------------------------------------

    def scalars(self) -> dict[str, float]:
        """Return the numbers that belong to the state beside the table."""
        successes, trials = self._first_visits.tolist()
        scores = zip(RETENTIONS, self._scores.tolist(), strict=True)
        return {"clock": self._clock, "first_successes": successes, "first_trials": trials} | {
            f"retention_{kept}": score for kept, score in scores
        }

    def load_scalars(self, scalars: Mapping[str, float]) -> None:
        """Take up what `scalars` returned."""
        self._clock = int(scalars["clock"])
        self._first_visits = np.array([scalars["first_successes"], scalars["first_trials"]])
        self._scores = np.array([scalars[f"retention_{kept}"] for kept in RETENTIONS])
