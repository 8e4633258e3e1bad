"""How long does a checkpoint of one million prompts take, and how large is it?

    python -m pytest scripts/speed/bench_state.py

"save" is `state_dict` and `save_state` (flushed to disk). "load" is `load_state` (with checksums verified)
and `load_state_dict` into a new allocator.
"""

import pytest
from tables import filled, fresh

from cero.core.state import load_state, save_state

PROMPTS = 1_000_000
ROUNDS = 15


@pytest.fixture
def path(tmp_path):
    return tmp_path / "allocator.npz"


def save(allocator, path):
    save_state(allocator.state_dict(), path)


def load(allocator, path):
    allocator.load_state_dict(load_state(path))
    return allocator


def test_save(benchmark, path):
    allocator, _ = filled("cero", PROMPTS)
    benchmark.pedantic(save, (allocator, path), rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info.update(what="save", prompts=PROMPTS, file_bytes=path.stat().st_size)


def test_load(benchmark, path):
    allocator, _ = filled("cero", PROMPTS)
    save(allocator, path)
    loaded = benchmark.pedantic(
        load, setup=lambda: ((fresh("cero"), path), {}), rounds=ROUNDS, warmup_rounds=1
    )
    assert len(loaded.table) == PROMPTS
    benchmark.extra_info.update(what="load", prompts=PROMPTS, file_bytes=path.stat().st_size)


def test_save_and_load(benchmark, path):
    allocator, _ = filled("cero", PROMPTS)

    def both():
        save(allocator, path)
        load(fresh("cero"), path)

    benchmark.pedantic(both, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info.update(what="save and load", prompts=PROMPTS, file_bytes=path.stat().st_size)
