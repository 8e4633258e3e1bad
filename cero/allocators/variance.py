"""Rollouts in proportion to what one is worth: the plain use of the posterior variance, without prices. Ours."""

from cero.allocators.proportional import ProportionalAllocator
from cero.core.checks import check_choice


class Variance(ProportionalAllocator):
    """n_i proportional to v_i^power, v_i the value of a rollout (by default the posterior variance E[p (1-p)]).

    power = 1/2 with the variance is Neyman's rule: it minimises sum_i v_i / n_i, the summed variance of the
    prompts' mean rewards, at a given total. The value is the CERO abstract's (arXiv 2606.05606); its use here
    is ours.

    Parameters
    ----------
    power : 1.0 or 0.5
    **options : see `PosteriorAllocator` (`value`: any other takes the variance's place) and `Allocator`
    """

    name = "variance"

    def __init__(self, *, power=1.0, **options):
        super().__init__(**options)
        self.power = float(check_choice("power", power, (1.0, 0.5)))

    def _weights(self, rows):
        return self.values(rows) ** self.power
