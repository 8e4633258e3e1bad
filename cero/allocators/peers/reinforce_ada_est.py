"""Reinforce-Ada-Est: rollouts in proportion to 1 / sqrt(p), estimated before sampling (arXiv 2510.04996)."""

from cero.allocators.proportional import ProportionalAllocator
from cero.core import beta


class ReinforceAdaEst(ProportionalAllocator):
    """n_i proportional to 1 / sqrt(p_i), within bounds. The rule is published; its advantage is `ada_est`.

    p_i is the mean of our Beta posterior: with forgetting it is the published moving average of Beta counts
    but for its constants, which we do not know; `forgetting`, the prior and the bounds are ours. That the
    shares meet the step's budget by a common factor is ours too (`proportional.scaled_to_sum`).

    **options : see `PosteriorAllocator` and `Allocator`; value is only reported
    """

    name = "reinforce_ada_est"

    def _weights(self, rows):
        return beta.inverse_sqrt_value(*self.posterior_parameters(rows), self.rollouts_per_prompt)
