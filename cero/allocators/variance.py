"""Rollouts in proportion to what one is worth: the plain use of the posterior variance, without prices."""

from typing import Any

from cero.allocators.options import WithValue
from cero.allocators.proportional import ProportionalAllocator
from cero.core import beta
from cero.core.arrays import Floats, Ints
from cero.core.checks import check_choice


class Variance(WithValue, ProportionalAllocator):
    """n_i in proportion to v_i^power, v_i the value of a rollout (by default the posterior variance).

    power = 1/2 with the variance is Neyman's rule. It minimises sum_i v_i / n_i, the summed variance of the
    prompts' mean rewards, at a given total. The value is from the CERO abstract (arXiv 2606.05606). Its use
    here is this project's.

    Parameters
    ----------
    power : 1.0 or 0.5
    value : as `WithValue` has it; any other takes the variance's place
    **options : see `WithBeliefs` and `UpfrontAllocator`
    """

    name = "variance"

    def __init__(self, *, power: float = 1.0, value: beta.Value = "variance", **options: Any) -> None:
        super().__init__(value=value, **options)
        self.power = float(check_choice("power", power, (1.0, 0.5)))

    def _weights(self, rows: Ints) -> Floats:
        return self.values(rows) ** self.power
