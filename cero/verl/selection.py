"""Which rows of a step are trained on, and how does the gradient stay the same when rows are left out?

Rows are verl's: one for each output of a session (a rollout), with the key "<uid>_<session>_<output>". A
session is kept or dropped whole.
"""

import numpy as np

from cero.estimators.keep import kept


def select(keep, successes, rollouts, lengths, seed, step):
    """Return which sessions the keep rule keeps: bool array, shape (s,).

    Parameters
    ----------
    keep : dict of options of `cero.estimators.keep.kept`
    successes, lengths : float arrays, shape (s,)
    rollouts : `Sessions`
    seed, step : int; random draws depend on nothing else, so that a resumed run repeats them
    """
    rng = np.random.default_rng((seed, step))
    options = {key: value for key, value in keep.items() if key != "rule"}
    return kept(keep["rule"], successes, rollouts.groups, lengths, rng, **options)


def groups_all_equal(rewards, groups):
    """Return which sessions have advantage zero under verl's GRPO and RLOO: bool array, shape (s,).

    Those are the sessions of groups whose rewards are all equal. A group of one session has its raw reward as
    advantage there.
    """
    size = int(groups.max(initial=-1)) + 1
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, groups, rewards)
    np.maximum.at(high, groups, rewards)
    alone = np.bincount(groups, minlength=size)[groups] == 1
    return np.where(alone, rewards == 0, (low == high)[groups])


def groups_all_zero(advantages, groups):
    """Return which sessions belong to groups in which every advantage is zero: bool array, shape (s,).

    Only whole groups may go, because a missing session would change the baseline of those that stay.
    """
    other = np.bincount(groups, advantages != 0, int(groups.max(initial=-1)) + 1)
    return other[groups] == 0


def keep_enough(stay, may_stay, groups, rows_of_session, least):
    """Add sessions that may stay, group by group, until at least `least` rows stay: bool array, shape (s,).

    Whole groups are added: in a part of a group, advantages might differ from zero, and a group of one would
    have its raw reward.

    stay, may_stay : bool arrays, shape (s,); groups, rows_of_session : arrays, shape (s,)
    """
    stay = stay.copy()
    for group in np.unique(groups[~stay & may_stay]):
        if rows_of_session[stay].sum() >= least:
            break
        stay |= may_stay & (groups == group)
    return stay


def advantage_scale(loss_agg_mode, tokens, rows):
    """Return the factor on the advantages that makes up for a divisor of the loss that rows left out change.

    verl's policy losses are sums over tokens, homogeneous of degree one in the advantage. They are divided by
    the number of tokens (`token-mean`), of rows with padding (`seq-mean-*`), or not at all (`token-sum`).

    loss_agg_mode : str, verl's actor.loss_agg_mode
    tokens, rows : float, the share of tokens, and of rows with padding, that is trained on
    """
    if loss_agg_mode == "token-sum":
        return 1.0
    return tokens if loss_agg_mode == "token-mean" else rows
