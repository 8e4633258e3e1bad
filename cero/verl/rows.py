"""How many rows does a step train on, how many optimizer steps do they make, and how are they laid out?

verl plans for data.train_batch_size x rollout.n rows. A step has another number of rows if rounds ended
early, rows were left out of training, or rollouts failed. verl would then add padding up to the next multiple
of a large number. Here the padding goes up to the smallest multiple that still divides evenly.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np


def round_up(rows, multiple):
    """Return the least multiple of `multiple` that is not below `rows`; all are numbers of rows."""
    return -(-rows // multiple) * multiple


def optimizer_steps(config):
    """Return the number of optimizer steps that verl plans for a training step; `config` is verl's."""
    return math.ceil(config.data.train_batch_size / config.actor_rollout_ref.actor.ppo_mini_batch_size)


def row_multiple(config, dp_size, steps):
    """Return the number of which the number of rows must be a multiple.

    Then `dp_size` ranks, `steps` optimizer steps and micro-batches of a fixed size divide the rows evenly.
    """
    parts = config.actor_rollout_ref
    per_rank = steps
    if not parts.actor.use_dynamic_bsz:
        per_rank *= parts.actor.ppo_micro_batch_size_per_gpu or 1
    for part in (parts.rollout, parts.ref):
        if not part.log_prob_use_dynamic_bsz:
            per_rank = math.lcm(per_rank, part.log_prob_micro_batch_size_per_gpu or 1)
    return dp_size * per_rank


@dataclass(frozen=True)
class RowPlan:
    """Hold the number of rows of one training step and of its optimizer steps.

    rows : int, rows that are trained on, padding not counted
    steps : int, the optimizer steps they make; or None, where verl's own code decides, padding included

    Both numbers are over all ranks.
    """

    rows: int
    steps: int | None


class RowPlanner:
    """Make the `RowPlan` of each training step.

    Parameters
    ----------
    config : verl's config
    has_critic : bool; if true every plan is verl's own, because verl splits a critic's batch by a fixed size
    triggers : int, the equal parts that a training step's prompts are trained on in, one after the other
        (verl's parameter_sync_step); each has a plan of its own

    `dp_size` is everywhere the number of the actor's data-parallel ranks. There are fewer of them than GPUs
    where sequences or the model are divided among GPUs.
    """

    def __init__(self, config, has_critic, triggers=1):
        self._config, self._has_critic = config, has_critic
        # Read once: a look-up in verl's config takes as long as the arithmetic that follows it.
        self._nominal = config.data.train_batch_size * config.actor_rollout_ref.rollout.n // triggers
        self._verls_rows = (
            config.actor_rollout_ref.actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
        )
        self._steps = max(1, optimizer_steps(config) // triggers)

    def least_rows(self, dp_size):
        """Return the least number of rows, int, with which every rank has one for each optimizer step."""
        return self._steps * dp_size

    def plan(self, rows, dp_size):
        """Return the `RowPlan` for `rows` rows, padding not counted."""
        if self._has_critic or (rows == self._nominal and self._verl_can_divide(dp_size)):
            return RowPlan(rows, None)
        # As many optimizer steps as verl plans, unless some rank would have no row for one of them.
        return RowPlan(rows, max(1, min(self._steps, rows // dp_size)))

    def _verl_can_divide(self, dp_size):
        """Tell whether verl's own optimizer steps of the nominal rows can be divided among the ranks."""
        rows = self._verls_rows
        padded = round_up(self._nominal, math.lcm(dp_size, rows))
        return rows % dp_size == 0 and padded % row_multiple(self._config, dp_size, padded // rows) == 0

    def multiple(self, plan, dp_size, verls):
        """Return the number of which the padded rows of `plan` are a multiple; `verls` is verl's own."""
        return verls if plan.steps is None else row_multiple(self._config, dp_size, plan.steps)

    def steps_to_deal(self, plan, padded):
        """Return the number of optimizer steps that could be all padding as verl lays out the rows, or 0.

        padded : int, the rows of the step with padding
        """
        if plan.steps is not None:
            return plan.steps if plan.steps > 1 and padded > plan.rows else 0
        return padded // self._verls_rows if padded - plan.rows >= self._verls_rows else 0


def deal_padding(is_padding, dp_size, steps):
    """Return an order of the rows in which no optimizer step is all padding (its loss would be 0 / 0).

    verl puts padding last in each rank's share, and an optimizer step is a slice of that share, unless
    actor.shuffle draws it. Here each rank's real rows are dealt to its slices in turn. If there are at least
    dp_size x steps real rows, every step then has one on some rank.

    is_padding : bool array, shape (r,), r a multiple of dp_size x steps. Returns an int array, shape (r,).
    """
    order = []
    for share in np.split(np.arange(is_padding.size), dp_size):
        real, padding = share[~is_padding[share]], share[is_padding[share]]
        for i in range(steps):
            mine = real[i::steps]
            fill = share.size // steps - mine.size
            order.extend([*mine, *padding[:fill]])
            padding = padding[fill:]
    return np.array(order, dtype=np.int64)


@contextmanager
def rows_per_optimizer_step(config, rows):
    """Have verl's trainer make optimizer steps of `rows` rows within the context.

    In `_update_actor`, verl computes that number from two values of its config, ppo_mini_batch_size x
    rollout.n, and takes it from nowhere else. So both values are changed here, and put back at the end. The
    workers have configs of their own, so nothing else sees the change.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    before = actor.ppo_mini_batch_size, rollout.n
    actor.ppo_mini_batch_size, rollout.n = rows, 1
    try:
        yield
    finally:
        actor.ppo_mini_batch_size, rollout.n = before
