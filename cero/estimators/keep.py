"""Of the rollouts of a step, which are trained on? Rules of selection, vectorised over groups.

A group is the rollouts of one prompt in a step. A rollout is right if its reward is above 1/2. `kept` applies
a rule and describes the arguments of all rules. What follows the star in a rule's signature are its options.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from cero.core.arrays import Bools, Floats, Ints
from cero.core.checks import check_number
from cero.core.signatures import options_of


def _rank(groups: Ints, key: Floats) -> Ints:
    """Return the rank, from 0, of each rollout in its group by ascending `key`, shape (r,)."""
    order = np.lexsort((key, groups))
    start = np.concatenate([[0], np.cumsum(np.bincount(groups))])
    rank = np.empty(groups.size, np.int64)
    rank[order] = np.arange(groups.size) - start[groups[order]]
    return rank


def keep_all(rewards: Floats, groups: Ints, lengths: Floats, rng: Generator) -> Bools:
    """Keep everything."""
    return np.ones(rewards.size, bool)


def keep_aero(
    rewards: Floats, groups: Ints, lengths: Floats, rng: Generator, *, ratio: float, count: int
) -> Bools:
    """Reject wrong rollouts where they prevail: AERO (arXiv 2602.14338, at second hand).

    A group less than half right keeps all its c right rollouts and round(ratio x c) of the wrong ones, drawn
    at random; ratio = 1 is the published optimum. A homogeneous group keeps `count` (published: 4). Others
    stay whole.
    """
    right = rewards > 0.5
    sizes = np.bincount(groups)
    correct = np.bincount(groups, right, sizes.size).astype(np.int64)
    allowed = np.full(sizes.size, np.iinfo(np.int64).max)
    rejecting = (correct > 0) & (2 * correct < sizes)
    allowed[rejecting] = np.maximum(np.rint(ratio * correct[rejecting]), 1).astype(np.int64)
    homogeneous = (correct == 0) | (correct == sizes)
    draw = rng.random(rewards.size)
    wrong_rank = _rank(groups, np.where(right, 2.0, draw))  # the wrong come first, in random order
    kept = right | (wrong_rank < allowed[groups])
    return np.where(homogeneous[groups], _rank(groups, draw) < count, kept)


def keep_balanced(rewards: Floats, groups: Ints, lengths: Floats, rng: Generator, *, count: int) -> Bools:
    """Keep `count` rollouts of a group, half right and half wrong: Reinforce-Ada (arXiv 2510.04996).

    They are drawn at random. Where one half is short, the other fills up. Smaller groups stay whole.
    """
    right = rewards > 0.5
    draw = rng.random(rewards.size)
    sizes = np.bincount(groups)
    correct = np.bincount(groups, right, sizes.size).astype(np.int64)
    wrong = sizes - correct
    half = count // 2
    take_right = np.minimum(correct, np.maximum(half, count - wrong))
    take_wrong = np.minimum(wrong, count - take_right)
    rank_right = _rank(groups, np.where(right, draw, 2.0))
    rank_wrong = _rank(groups, np.where(right, 2.0, draw))
    return np.where(right, rank_right < take_right[groups], rank_wrong < take_wrong[groups])


def keep_pods(rewards: Floats, groups: Ints, lengths: Floats, rng: Generator, *, count: int) -> Bools:
    """Keep the `count` rollouts of a group whose rewards vary most: PODS (arXiv 2504.13818).

    They are always some of the lowest and some of the highest rewards, so every split between the two is
    tried. Ties break at random.
    """
    sizes = np.bincount(groups)
    rank = _rank(groups, rewards + 1e-9 * rng.random(rewards.size))  # rewards are in [0, 1]: only ties move
    order = np.lexsort((rank, groups))
    start = np.concatenate([[0], np.cumsum(sizes)])
    first = np.concatenate([[0.0], np.cumsum(rewards[order])])
    second = np.concatenate([[0.0], np.cumsum(rewards[order] ** 2)])
    m = np.minimum(count, sizes)
    best, low_of_best = np.full(sizes.size, -np.inf), np.zeros(sizes.size, np.int64)
    for low in range(int(m.max(initial=0)) + 1):
        fits = low <= m
        low_end, high_start = start[:-1] + np.minimum(low, m), start[1:] - (m - np.minimum(low, m))
        total = first[low_end] - first[start[:-1]] + first[start[1:]] - first[high_start]
        square = second[low_end] - second[start[:-1]] + second[start[1:]] - second[high_start]
        spread = np.where(fits, square - total**2 / np.maximum(m, 1), -np.inf)
        better = spread > best + 1e-12
        best, low_of_best = np.where(better, spread, best), np.where(better, low, low_of_best)
    return (rank < low_of_best[groups]) | (rank >= (sizes - (m - low_of_best))[groups])


def keep_gfpo_length(rewards: Floats, groups: Ints, lengths: Floats, rng: Generator, *, count: int) -> Bools:
    """Keep the `count` shortest rollouts of a group: GFPO (arXiv 2508.09726)."""
    return _rank(groups, lengths + 1e-3 * rng.random(rewards.size)) < count


def keep_gfpo_efficiency(
    rewards: Floats, groups: Ints, lengths: Floats, rng: Generator, *, count: int
) -> Bools:
    """Keep the `count` rollouts of a group with most reward per token: GFPO (arXiv 2508.09726)."""
    return _rank(groups, -rewards / np.maximum(lengths, 1) + 1e-12 * rng.random(rewards.size)) < count


KEEP: dict[str, Callable[..., Bools]] = {
    "all": keep_all,
    "aero": keep_aero,
    "balanced": keep_balanced,
    "pods": keep_pods,
    "gfpo_length": keep_gfpo_length,
    "gfpo_efficiency": keep_gfpo_efficiency,
}


def kept(
    rule: str,
    rewards: ArrayLike,
    groups: ArrayLike,
    lengths: ArrayLike,
    rng: Generator,
    *,
    ratio: float = 1.0,
    count: int = 4,
) -> Bools:
    """Return which rollouts are trained on.

    >>> rng = np.random.default_rng(0)
    >>> kept("gfpo_length", [1, 0, 1], [0, 0, 0], lengths=[90, 20, 70], rng=rng, count=2)
    array([False,  True,  True])

    Parameters
    ----------
    rule : a key of KEEP
    rewards : shape (r,), in [0, 1]; above 1/2 is right
    groups : integers, shape (r,), in [0, g)
    lengths : shape (r,), in response tokens
    rng : source of the random draws
    ratio : in (0, 1e6], of `aero`: wrong rollouts kept for each right one
    count : in [1, 2**20], the rollouts that a group keeps (`aero`: that a homogeneous group keeps)

    Returns
    -------
    bool array, shape (r,). A group never loses all its rollouts.

    Raises
    ------
    ValueError
        For an unknown rule, or options out of range.
    """
    if rule not in KEEP:
        raise ValueError(f"keep rule {rule!r} is not known; choose one of {', '.join(KEEP)}")
    ratio = check_number("ratio", ratio, 0, 1e6, open_low=True)
    count = check_number("count", count, 1, 2**20, integer=True)
    rewards, groups = np.asarray(rewards, np.float64), np.asarray(groups, np.int64)
    if not rewards.size:
        return np.zeros(0, bool)
    options = {"ratio": ratio, "count": count}
    taken = {name: options[name] for name in options_of(KEEP[rule])}
    return KEEP[rule](rewards, groups, np.asarray(lengths, np.float64), rng, **taken)
