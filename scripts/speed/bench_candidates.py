"""How long does it take to choose a step's prompts among 16 x 1,024 candidates?

    python -m pytest scripts/speed/bench_candidates.py     or, with all others: python scripts/speed/run.py

`choose` is the allocator's part, and observing. `in the trainer` is what verl's thread waits for before it
sends the prompts: the choice, and picking the chosen rows out of verl's batches. These are made before the
clock starts.
"""

import uuid

import numpy as np
import pytest
import torch
from scheduler import compose
from tables import CHUNK, OPTIONS, draw

from cero import make_allocator

FACTOR, BATCH, KNOWN, N = 16, 1024, 1_000_000, 8
NAMES = ("cero", "greedy", "mapp", "thompson")


def filled(name):
    """Return (allocator, ids): it has visited each of KNOWN ids once; ids uint64, shape (KNOWN,)."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**64, KNOWN, dtype=np.uint64)
    allocator = make_allocator(name, **OPTIONS | {"n_min": 0})
    for first in range(0, KNOWN, CHUNK):
        part = ids[first : first + CHUNK]
        n = allocator.allocate(part, budget=N * part.size)
        allocator.observe(part, rng.binomial(n, rng.beta(0.5, 0.5, part.size)), n)
    return allocator, ids


def choose(allocator, ids, rates):
    """Do a step's work: choose, and observe outcomes; return the choice."""
    choice = allocator.choose(ids, N * BATCH)
    n = choice.step.start()
    allocator.observe(choice.step.ids, n * rates[choice.chosen], n)
    return choice


@pytest.mark.parametrize("name", NAMES)
def test_choose(benchmark, name):
    allocator, ids = filled(name)
    rng = np.random.default_rng(1)
    choice = benchmark.pedantic(
        choose,
        setup=lambda: ((allocator, *draw(ids, FACTOR * BATCH, rng)), {}),
        rounds=50,
        warmup_rounds=3,
    )
    assert choice.step.launched.sum() == N * BATCH
    benchmark.extra_info.update(
        allocator=name, what="choose", offered=FACTOR * BATCH, chosen=choice.chosen.size
    )


def batches(collate, count):
    """Return `count` batches of BATCH prompts, as verl's loader gives them to its trainer."""
    from verl.utils import tensordict_utils as tu

    made = []
    for _ in range(count):
        columns = collate(
            [
                {
                    "raw_prompt": [{"role": "user", "content": f"{i}+1="}],
                    "data_source": "sums",
                    "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
                    "extra_info": {"index": i},
                    "index": i,
                    "dummy_tensor": torch.zeros(1),
                }
                for i in np.random.default_rng().integers(0, KNOWN, BATCH).tolist()
            ]
        )
        columns["uid"] = np.array([str(uuid.uuid4()) for _ in range(BATCH)], dtype=object)
        made.append(tu.get_tensordict(columns))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_in_the_trainer(benchmark, name):
    from verl.utils.dataset.rl_dataset import collate_fn

    from cero.analysis.runlog import RunLog
    from cero.verl.candidates import make_offers
    from cero.verl.identity import CollateWithIds
    from cero.verl.reading import read_settings
    from cero.verl.scheduler import RolloutScheduler
    from cero.verl.trainer import CeroTrainer

    trainer = object.__new__(CeroTrainer)  # without workers, model and data
    trainer.config = compose(
        "+recipe=cero_cpu",
        f"allocator={name}",
        f"cero.candidates={FACTOR}",
        f"data.train_batch_size={BATCH}",
        f"actor_rollout_ref.rollout.n={N}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}",
    )
    trainer.settings, trainer.global_steps = read_settings(trainer.config), 1
    trainer.offers = make_offers(trainer.config, trainer.settings, KNOWN)
    allocator = trainer.settings.make_allocator(epochs=10)
    allocator.table.reserve(KNOWN)
    baseline = trainer.settings.make_baseline()
    trainer.scheduler = RolloutScheduler(trainer.settings, allocator, baseline, RunLog(None))
    collate = CollateWithIds(collate_fn, trainer.settings.bucket)

    def step(parts):
        batch = trainer._choose(trainer.offers.offer(), parts)
        trainer._allocate(batch)
        trainer.scheduler._dispatches.clear()
        return batch

    batch = benchmark.pedantic(
        step, setup=lambda: ((batches(collate, FACTOR),), {}), rounds=10, warmup_rounds=1
    )
    assert int(batch["__rollout_n__"].sum()) == N * BATCH
    benchmark.extra_info.update(
        allocator=name, what="in the trainer", offered=FACTOR * BATCH, chosen=len(batch)
    )
