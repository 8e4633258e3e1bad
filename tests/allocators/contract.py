"""What the contract tests share: allocators that fit, prompts, rewards, and steps played to their end."""

import numpy as np

from cero import make_allocator
from cero.allocators import allocator_class, option_names

COMMON = dict(rollouts_per_prompt=8, epochs=5, n_min=2, n_max=32, seed=3)
MOST = 64  # rollouts that a test's prompt can get


def make(name, **options):
    """Make an allocator with COMMON, as far as it takes it; where that does not fit, by its `examples`."""
    cls = allocator_class(name)
    known = {key: value for key, value in COMMON.items() if key in option_names(cls)}
    for example in ({}, *cls.examples):
        try:
            return make_allocator(name, **(known | dict(example) | options))
        except ValueError as refused:
            error = refused
    raise error


def ids(count, start=0):
    """`count` prompts' ids, shape (count,)."""
    return np.arange(start, start + count, dtype=np.uint64) * np.uint64(2654435761)


def success_rates(prompt_ids):
    """A fixed success probability for each prompt, spread over (0, 1) with many near the ends."""
    return np.random.default_rng(7).beta(0.5, 0.5, 4096)[np.asarray(prompt_ids, np.uint64) % np.uint64(4096)]


def rewards_of(count, seed, fractional=False):
    """Reward of every rollout that could be launched, shape (count, MOST)."""
    rng = np.random.default_rng(seed)
    rewards = rng.random((count, MOST)) < rng.beta(0.4, 0.4, count)[:, None]
    return rewards * rng.random((count, MOST)) if fractional else rewards.astype(np.float64)


def drive(step, rewards, order=None, failures=0.0, stop_after=None, flying=None):
    """Report until nothing is in flight, in an order drawn by `order`; checks the step on the way."""
    order = order or np.random.default_rng(0)
    if flying is None:
        counts = step.start()
        assert counts.dtype == np.int64 and counts.shape == step.ids.shape
        flying = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    reports = 0
    while flying and reports != stop_after:
        prompt = list(flying)[order.integers(len(flying))]
        flown = flying.pop(prompt)
        first = step.launched[prompt] - flown
        came = flown if order.random() >= failures else int(order.integers(0, flown))
        answer = step.report(prompt, rewards[prompt, first : first + came].sum(), came)
        assert not set(answer) & set(flying)
        flying |= {i: n for i, n in answer.items() if n}
        assert step.launched.sum() <= step.cap and step.launched.max(initial=0) <= step.n_max
        assert (step.trials <= step.launched).all() and (step.successes <= step.trials).all()
        reports += 1
    assert flying or step.over
    return flying
