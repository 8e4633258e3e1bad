"""Reinforce-Ada-Est: rollouts in proportion to 1 / sqrt(p), estimated before sampling (arXiv 2510.04996)."""

from cero.allocators.proportional import ProportionalAllocator
from cero.core import beta
from cero.core.arrays import Floats, Ints


class ReinforceAdaEst(ProportionalAllocator):
    """n_i proportional to 1 / sqrt(p_i), within bounds. The rule is published; its advantage is `ada_est`.

    p_i is the posterior mean. With forgetting it is the published moving average of Beta counts, except for
    its constants, which are not known here. `forgetting`, the prior and the bounds are this project's. So is
    the common factor by which the shares meet the step's budget (`proportional.scaled_to_sum`).

    Parameters
    ----------
    **options : see `WithBeliefs` and `UpfrontAllocator`
    """

    name = "reinforce_ada_est"

    def _weights(self, rows: Ints) -> Floats:
        return beta.inverse_sqrt_value(*self.beliefs.parameters(rows), self.rollouts_per_prompt)
