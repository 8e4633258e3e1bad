"""Options that several rules take: how prompts are judged, and what a rollout is worth."""

from typing import Any, ClassVar, Literal

import numpy as np

from cero.allocators.base import Allocator, Description, IdleBeside, option_names
from cero.allocators.beliefs import Beliefs, ForgettingUnit, Prior
from cero.core import beta
from cero.core.arrays import Floats, Ints
from cero.core.checks import check_choice


class WithBeliefs(Allocator):
    """For a rule that goes by what is known of prompts: the options of its `Beliefs`.

    A rule inherits from this class first, then from `UpfrontAllocator` or `SequentialAllocator`.

    Parameters
    ----------
    forgetting, forgetting_unit, prior, prior_a, prior_b : see `Beliefs`
    **common : see the other class
    """

    beliefs: Beliefs
    state_options = ("forgetting_unit",)
    idle_beside: ClassVar[IdleBeside] = {"forgetting_unit": ("forgetting", (1.0,))}

    def __init__(
        self,
        *,
        forgetting: float | Literal["auto"] = 0.7,
        forgetting_unit: ForgettingUnit = "visit",
        prior: Prior = "fixed",
        prior_a: float = 1.0,
        prior_b: float = 1.0,
        **common: Any,
    ) -> None:
        beliefs = {
            "forgetting": forgetting,
            "forgetting_unit": forgetting_unit,
            "prior": prior,
            "prior_a": prior_a,
            "prior_b": prior_b,
        }
        super().__init__(beliefs, **common)

    def _option(self, name: str) -> Any:
        return getattr(self.beliefs if name in option_names(Beliefs) else self, name)


class WithValue(WithBeliefs):
    """For a rule that prices rollouts by what they are worth under the beliefs.

    Parameters
    ----------
    value : str, a key of `cero.core.beta.VALUES`
        What a rollout is worth. "variance" is the abstract's (arXiv 2606.05606), the others are this
        project's.
    **options : see `WithBeliefs`
    """

    def __init__(self, *, value: beta.Value = "variance", **options: Any) -> None:
        super().__init__(**options)
        self.value = check_choice("value", value, beta.VALUES)

    def values(self, rows: Ints) -> Floats:
        """Return the value of a rollout, shape of `rows`, >= 0."""
        return self._value_under(*self.beliefs.parameters(rows))

    def _worth(self, rows: Ints) -> Floats:
        return self.values(rows)

    def prior_value(self) -> float:
        """Return the value of a rollout under the fixed prior, whatever was seen: the unit of prices."""
        return self._value_of(self.beliefs.prior_a, self.beliefs.prior_b)

    def new_value(self) -> float:
        """Return the value of a rollout for a prompt never seen."""
        return self._value_of(*self.beliefs.prior_parameters())

    def _value_of(self, a: float, b: float) -> float:
        return float(self._value_under(np.asarray(a, np.float64), np.asarray(b, np.float64)))

    def _value_under(self, a: Floats, b: Floats) -> Floats:
        # In a group of one no rollout would be worth anything, whoever gets it.
        return beta.VALUES[self.value](a, b, max(self.rollouts_per_prompt, 2))

    def metrics(self) -> dict[str, float]:
        figures = super().metrics()
        if self._last_rows.size:
            figures["posterior/value"] = float(self.values(self._last_rows).mean())
        return figures

    def describe(self) -> Description:
        description = super().describe()
        description.columns["value"] = self.values(np.arange(len(self.table)))
        return description
