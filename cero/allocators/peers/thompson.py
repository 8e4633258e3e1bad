"""Thompson sampling toward a success rate of one half (MoPPS, arXiv 2507.04632; BOTS, arXiv 2510.26374)."""

from typing import Any

import numpy as np

from cero.allocators.options import WithBeliefs
from cero.allocators.upfront import UpfrontAllocator
from cero.core.arrays import Floats, Ints
from cero.core.checks import check_number


class Thompson(WithBeliefs, UpfrontAllocator):
    """Draw p~_i from each posterior; the share of prompts nearest to `target` get the rollouts, equally.

    Published (MoPPS) are Beta posteriors that decay, a draw from each, and a batch made of the candidates
    nearest to 1/2. That is a choice of prompts from a larger pool, as with `cero.candidates`. Without
    candidates, this project takes the step's own batch as the pool. The step's budget stays, and prompts not
    chosen get n_min. `share` and the size of the decay (`forgetting`) are this project's, too.

    Parameters
    ----------
    share : float in (0, 1]
        Share of the step's prompts that are chosen, at least one; of candidates at most as many as can get
        rollouts_per_prompt each. Where they can't take all (n_max), the rest goes to the others equally.
    target : float in [0, 1]
        Published: 0.5.
    **options : see `WithBeliefs` and `UpfrontAllocator`
    """

    name = "thompson"

    def __init__(self, *, share: float = 0.5, target: float = 0.5, n_min: int = 0, **options: Any) -> None:
        super().__init__(n_min=n_min, **options)
        self.share = check_number("share", share, 0, 1, open_low=True)
        self.target = check_number("target", target, 0, 1)

    def _targets(self, rows: Ints, budget: int) -> Floats:
        return self._nearest(rows, budget, min(rows.size, max(1, round(self.share * rows.size))))

    def _candidate_targets(self, rows: Ints, budget: int, least: int, most: int) -> Floats:
        chosen = min(round(self.share * rows.size), budget // self.rollouts_per_prompt)
        return self._nearest(rows, budget, min(max(chosen, least), most))

    def _nearest(self, rows: Ints, budget: int, chosen: int) -> Floats:
        """Return targets that give the `chosen` draws nearest to the target equal parts of the budget."""
        drawn = self._rng.beta(*self.beliefs.parameters(rows))
        nearest = np.argsort(np.abs(drawn - self.target), kind="stable")[:chosen]
        targets = np.full(rows.size, float(self.n_min))
        targets[nearest] = (budget - (rows.size - chosen) * self.n_min) / max(chosen, 1)
        # What is above n_max then goes to the others in equal parts, by the common shift that meets the
        # budget.
        return np.minimum(targets, self.n_max)
