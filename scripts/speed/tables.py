"""What do the benchmarks run on? Allocators whose tables hold many prompts, and seeded steps of these."""

from functools import lru_cache

import numpy as np

from cero import make_allocator

OPTIONS = dict(rollouts_per_prompt=8, epochs=10, n_min=2, n_max=32, seed=0)
CHUNK = 2**17


def fresh(name):
    """Return an allocator that has seen nothing."""
    return make_allocator(name, **OPTIONS)


@lru_cache(maxsize=1)  # ten million prompts take seconds to make and 0.6 GB to keep
def filled(name, prompts):
    """Return an allocator that has visited `prompts` prompts twice each, and their ids, shape (prompts,)."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**64, prompts, dtype=np.uint64)
    allocator = fresh(name)
    for _ in range(2):
        for first in range(0, prompts, CHUNK):
            part = ids[first : first + CHUNK]
            n = allocator.allocate(part, budget=8 * part.size)
            rates = np.random.default_rng(first).beta(0.5, 0.5, part.size)  # the same at both visits
            allocator.observe(part, rng.binomial(n, rates), n)
    return allocator, ids


def draw(ids, prompts, rng):
    """Return (ids, success rates) of a step of different prompts in random order, shape (prompts,) each."""
    return ids[rng.choice(ids.size, prompts, replace=False)], rng.beta(0.5, 0.5, prompts)


def step(allocator, ids, rates):
    """Do a step's work in the scheduler: allocate 8 rollouts per prompt, and observe what became of them."""
    n = allocator.allocate(ids, budget=8 * ids.size)
    allocator.observe(ids, n * rates, n)
    return n
