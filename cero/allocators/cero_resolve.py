"""CERO re-solved: at each step, the price that is right for what is left. This project's, not the paper's."""

from typing import Any

import numpy as np

from cero.allocators.base import Description
from cero.allocators.options import WithValue
from cero.allocators.upfront import UpfrontAllocator
from cero.core import beta
from cero.core.arrays import Floats, Ints
from cero.core.checks import MOST_SAVED, check_choice, check_number
from cero.core.utility import UTILITIES, UtilityName

BISECTIONS = 60  # halvings of log(price): far below float resolution


class CeroResolve(WithValue, UpfrontAllocator):
    """Certainty equivalence: at each step one price lam, so that the rollouts below sum to the budget.

        n_i(lam) = clip((y*_i(lam) - Y_i) / visits left, n_min, n_max)

    Y_i is what prompt i has had. y*_i(lam) is what it should have had by the end at that price under the
    current posteriors. The rule has no step sizes and forgets past prices. It spends each step exactly, and
    for fixed utilities it follows the offline optimum (`cero regret`).

    Parameters
    ----------
    n_min, n_max, value : as `Cero` has them
    utility : "exp", "rational" or "log"
        Of a prompt's cumulative rollouts, see `cero.core.utility`; the first two saturate.
    saturation : float > 0
        The utility's scale, in units of epochs x rollouts_per_prompt.
    **options : see `WithBeliefs` and `UpfrontAllocator`
    """

    name = "cero_resolve"
    columns = {"visits": (np.int32, 0)}
    ranges = {"visits": (0, MOST_SAVED)}

    def __init__(
        self,
        *,
        n_min: int = 0,
        n_max: int = 64,
        value: beta.Value = "signal_hard",
        utility: UtilityName = "exp",
        saturation: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(n_min=n_min, n_max=n_max, value=value, **options)
        self.utility = check_choice("utility", utility, UTILITIES)
        self.saturation = check_number("saturation", saturation, 0, 1e6, open_low=True)
        self._utility = UTILITIES[utility]
        self._scale = self.saturation * self.epochs * self.rollouts_per_prompt
        self.price = float("nan")  # of the last step

    def _wanted(self, price: float, values: Floats, had: Ints, left: Ints) -> Floats:
        slopes = np.clip(price / values, 1e-12, 1.0)
        return np.clip((self._utility.demand(slopes, self._scale) - had) / left, self.n_min, self.n_max)

    def _targets(self, rows: Ints, budget: int) -> Floats:
        values = np.maximum(self.values(rows), 1e-12)
        had = self.table["allocated"][rows]
        left = np.maximum(self.epochs - self.table["visits"][rows], 1)
        low, high = np.log(1e-14), np.log(values.max(initial=1e-12))
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            if self._wanted(np.exp(middle), values, had, left).sum() > budget:
                low = middle
            else:
                high = middle
        self.price = float(np.exp(high))
        return self._wanted(self.price, values, had, left)

    def _allocated(self, rows: Ints, shares: Floats, counts: Ints) -> None:
        np.add.at(self.table["visits"], rows, 1)

    def metrics(self) -> dict[str, float]:
        figures = super().metrics()
        if np.isfinite(self.price):
            figures["dual/budget"] = self.price
        return figures

    def describe(self) -> Description:
        description = super().describe()
        description.columns["visits"] = self.table["visits"]
        description.price = self.price if np.isfinite(self.price) else None
        return description
