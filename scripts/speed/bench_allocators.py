"""How long does a step take, by allocator, prompts in the table and prompts in the step?

    python -m pytest scripts/speed/bench_allocators.py

`python scripts/speed/run.py` runs all benchmarks at once and makes their tables.
Every round draws other prompts, so that what is measured has not just been in a cache.
"""

import numpy as np
import pytest
from tables import draw, filled, step

CASES = [  # (prompts in the table, prompts in a step, rounds)
    (10_000, 1024, 400),
    (100_000, 1024, 400),
    (1_000_000, 1024, 400),
    (10_000_000, 1024, 400),
    (10_000_000, 65_536, 60),
]


@pytest.mark.parametrize("prompts, size, rounds", CASES)
@pytest.mark.parametrize("name", ["cero", "cero_resolve", "uniform"])
def test_step(benchmark, name, prompts, size, rounds):
    allocator, ids = filled(name, prompts)
    rng = np.random.default_rng(1)
    n = benchmark.pedantic(
        step, setup=lambda: ((allocator, *draw(ids, size, rng)), {}), rounds=rounds, warmup_rounds=3
    )
    assert n.sum() == 8 * size
    benchmark.extra_info.update(allocator=name, prompts=prompts, step=size)
