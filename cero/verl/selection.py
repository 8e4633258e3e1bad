"""Of the rows that a step sampled, which are trained on, and what keeps the gradient what it was?

Rows are verl's: one for each output of a session (a rollout), with keys "<uid>_<session>_<output>". A session
is kept or dropped whole.
"""

import numpy as np

from cero.estimators.keep import kept


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
