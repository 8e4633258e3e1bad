"""Of the rows that a step sampled, which are trained on, and what keeps the gradient what it was?

Rows are verl's: one for each output of a session (a rollout), with keys "<uid>_<session>_<output>". A session
is kept or dropped whole.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from cero.estimators.keep import kept
from cero.verl.estimators import final_rows


@dataclass
class Rollouts:
    """The finished sessions of a step, in an order that does not depend on who came back first.

    rows : int array, shape (s,): row of each session's last output, which has its reward
    session_of_row : int array, shape (r,): a row's session
    groups, numbers : int arrays, shape (s,): a session's prompt (place in the step) and its number in the
    group
    names : list of str, "<uid>_<session>"
    """

    rows: np.ndarray
    session_of_row: np.ndarray
    groups: np.ndarray
    numbers: np.ndarray
    names: list

    @classmethod
    def of_keys(cls, keys, group_of_uid):
        """keys : list of str, none of them padding; group_of_uid : dict of uid -> place of the prompt in the step"""
        rows, session_of_row, names = final_rows(keys)
        parts = [name.rpartition("_") for name in names]
        groups = np.array([group_of_uid[uid] for uid, _, _ in parts], dtype=np.int64)
        numbers = np.array([int(number) for _, _, number in parts], dtype=np.int64)
        order = np.lexsort((numbers, groups))
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        names = [names[session] for session in order]
        return cls(rows[order], place[session_of_row], groups[order], numbers[order], names)

    def per_session(self, of_rows):
        """Sum over each session's rows of `of_rows` (shape (r,)): float array, shape (s,)."""
        return np.bincount(self.session_of_row, of_rows, self.rows.size)


def select(keep, successes, rollouts, lengths, seed, step):
    """Sessions that the keep rule keeps: bool array, shape (s,).

    keep : options of `cero.estimators.keep.kept`; successes, lengths : float arrays, shape (s,); seed, step :
    what is drawn depends on nothing else, so that a resumed run draws it again
    """
    rng = np.random.default_rng((seed, step))
    options = {key: value for key, value in keep.items() if key != "rule"}
    return kept(keep["rule"], successes, rollouts.groups, lengths, rng, **options)


def groups_all_equal(rewards, groups):
    """Whether a session's advantage is zero under GRPO and RLOO: bool array, shape (s,).

    That is so where all of a group have one reward. A group of one has its raw reward as advantage there.
    """
    size = int(groups.max(initial=-1)) + 1
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, groups, rewards)
    np.maximum.at(high, groups, rewards)
    alone = np.bincount(groups, minlength=size)[groups] == 1
    return np.where(alone, rewards == 0, (low == high)[groups])


def groups_all_zero(advantages, groups):
    """Sessions of groups in which every advantage is zero: bool array, shape (s,).

    Whole groups only: what goes must not change the baseline of what stays.
    """
    other = np.bincount(groups, advantages != 0, int(groups.max(initial=-1)) + 1)
    return other[groups] == 0


def keep_enough(stay, may_stay, groups, rows_of_session, least):
    """Let sessions that may stay do so after all, group by group, until `least` rows do.

    Whole groups: a part of a group might have another advantage than zero; a group of one its raw reward.
    stay, may_stay : bool arrays, shape (s,); groups, rows_of_session : arrays, shape (s,). Returns a bool
    array.
    """
    stay = stay.copy()
    for group in np.unique(groups[~stay & may_stay]):
        if rows_of_session[stay].sum() >= least:
            break
        stay |= may_stay & (groups == group)
    return stay


def advantage_scale(loss_agg_mode, tokens, rows):
    """Factor on the advantages that undoes what leaving out rows of advantage zero does to the loss's divisor.

    verl's policy losses are sums over tokens, homogeneous of degree one in the advantage, divided by tokens
    (`token-mean`), by rows including padding (`seq-mean-*`) or by nothing (`token-sum`).

    tokens, rows : share of tokens and of rows (padding included) that is trained on
    """
    if loss_agg_mode == "token-sum":
        return 1.0
    return tokens if loss_agg_mode == "token-mean" else rows


def round_up(rows, multiple):
    """The least multiple of `multiple` that is not below `rows`."""
    return -(-rows // multiple) * multiple


def optimizer_steps(config):
    """Optimizer steps that verl makes of the number of rows it foresees: those of any other number, too."""
    return math.ceil(config.data.train_batch_size / config.actor_rollout_ref.actor.ppo_mini_batch_size)


def row_multiple(config, dp_size, steps):
    """Rows must be a multiple of this, so that ranks, optimizer steps and fixed micro-batches divide evenly."""
    parts = config.actor_rollout_ref
    per_rank = steps
    if not parts.actor.use_dynamic_bsz:
        per_rank *= parts.actor.ppo_micro_batch_size_per_gpu or 1
    for part in (parts.rollout, parts.ref):
        if not part.log_prob_use_dynamic_bsz:
            per_rank = math.lcm(per_rank, part.log_prob_micro_batch_size_per_gpu or 1)
    return dp_size * per_rank


def deal_padding(is_padding, dp_size, steps):
    """Order of the rows in which no optimizer step is left with padding alone (its loss would be 0 / 0).

    verl puts padding last in each rank's share, and an optimizer step is a slice of it. Here each rank's real
    rows are dealt to its slices in turn; with dp_size x steps real rows or more, every step then has one on
    some rank.

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
    """Within it, verl's trainer makes optimizer steps of `rows` rows.

    verl derives that number, in `_update_actor`, from two values of the config: ppo_mini_batch_size x
    rollout.n. There is no other way to tell it, short of copying the method. The workers have configs of
    their own.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    before = actor.ppo_mini_batch_size, rollout.n
    actor.ppo_mini_batch_size, rollout.n = rows, 1
    try:
        yield
    finally:
        actor.ppo_mini_batch_size, rollout.n = before
