"""How much time does the scheduler take by itself, in steps of real size, without verl's parts?"""

import uuid
from pathlib import Path

import numpy as np
import torch

PARTS = ("allocate", "observe", "log")  # of the scheduler's time in verl's thread


def compose(*overrides):
    """Return verl's config with these overrides."""
    import hydra

    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        return hydra.compose("ppo_trainer", overrides=list(overrides))


def at_scale(compose, prompts, rollouts, known, steps, folder):
    """Return the seconds that a step spends in the scheduler: a dict, medians over `steps` steps.

    The scheduler and the estimator are called as a trainer calls them, in the order and in the threads of
    `cero.verl.trainer`, on batches as verl makes them. verl's parts of the step and its queue are left out:
    rewards are at hand, and so are the log-probs that the optimal baseline reads, 4 for each rollout. While
    the scheduler's thread works, verl's waits.

    Parameters
    ----------
    compose : callable, overrides -> verl's config
    prompts, rollouts : int, the prompts of a step and the mean rollouts of each
    known : int, prompts in the allocator's table before the first step
    steps : int, steps that count; one more comes before them
    folder : of the log
    """
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.rl_dataset import collate_fn

    from cero.analysis.runlog import RunLog
    from cero.estimators.baseline import score_weights
    from cero.estimators.shared import trimmed
    from cero.verl.context import estimating
    from cero.verl.estimators import compute_cero_advantage
    from cero.verl.identity import BUCKETS, IDS, CollateWithIds
    from cero.verl.queue import Returned
    from cero.verl.reading import read_settings
    from cero.verl.scheduler import RolloutScheduler

    config = compose(
        "+recipe=cero_cpu",
        f"data.train_batch_size={prompts}",
        f"actor_rollout_ref.rollout.n={rollouts}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts}",
    )
    settings, rng = read_settings(config), np.random.default_rng(0)
    allocator = settings.make_allocator(epochs=10)
    allocator.table.reserve(known + (steps + 1) * prompts)
    allocator.table.add(rng.integers(0, 2**64, known, dtype=np.uint64))
    log = RunLog(Path(folder) / "allocations.jsonl")
    scheduler = RolloutScheduler(settings, allocator, settings.make_baseline(), log)
    stopwatch, collate = scheduler.stopwatch, CollateWithIds(collate_fn, settings.bucket)

    def weights(keys):
        log_probs = np.log(rng.random((len(keys), 4), np.float32) + 1e-6)
        return dict(zip(keys, score_weights(log_probs, np.ones_like(log_probs)).tolist(), strict=True))

    def observe(record, keys, reward_of):
        rewards = np.array([reward_of[key] for key in keys])
        return scheduler.observe_all(record, Returned(rewards, None, np.zeros(len(keys))))

    def learn(record, keys):
        return scheduler.learn_baselines(record, keys, weights(keys))

    found = []
    for step in range(steps + 1):
        batch = collate(problems(prompts, rng))
        batch["uid"] = np.array([str(uuid.uuid4()) for _ in range(prompts)], dtype=object)
        batch = tu.get_tensordict(batch)
        with stopwatch.timed("allocate"):
            ids, buckets = batch.pop(IDS).numpy().view(np.uint64), trimmed(batch.pop(BUCKETS).numpy())
            dispatch = scheduler.allocate(batch.get("uid"), ids, None, buckets)
            batch["__rollout_n__"] = torch.as_tensor(dispatch.rollouts, dtype=torch.int64)
        stopwatch.add("allocate", collate.seconds)
        collate.seconds = 0.0
        keys = [
            f"{uid}_{session}_0"
            for uid, n in zip(batch["uid"], batch["__rollout_n__"], strict=True)
            for session in range(n)
        ]
        rng.shuffle(keys)
        reward_of = dict(zip(keys, (rng.random(len(keys)) < 0.5).astype(np.float64).tolist(), strict=True))
        tags = [{"response_len": 4, "seq_len": 8} for _ in keys]

        with stopwatch.timed("observe"):
            record = scheduler.open_record(keys, tags)
            record.observed = stopwatch.beside("observe", observe, record, keys, reward_of)
        record.observed.wait()
        with stopwatch.timed("observe"):
            record.baselines = stopwatch.beside("observe", learn, record, keys)
        record.baselines.wait()

        metrics = {f"timing_s/{i}": 0.123456789 for i in range(8)} | record.observed.result()
        rewards = np.zeros((len(keys), 4), np.float32)
        rewards[:, -1] = [reward_of[key] for key in keys]
        uids = np.array([key.split("_")[0] for key in keys], dtype=object)
        record.context.baselines = record.baselines
        with estimating(record.context, keys):
            compute_cero_advantage(torch.from_numpy(rewards), torch.ones(rewards.shape), index=uids)
        seconds = stopwatch.take()
        with stopwatch.timed("log"):
            scheduler.log_step(record, metrics, step, 0)
        found.append({key: seconds.get(key, 0.0) for key in (*PARTS, "background")})
    parts = {key: float(np.median([step[key] for step in found[1:]])) for key in found[0]}
    return {"prompts": prompts, "rollouts": rollouts, "known": known, "steps": steps, **parts}


def problems(prompts, rng):
    """Return rows as verl's data set has them, with messages as long as a problem in words; list of dict.

    A message has 75 words of 5,000, the first ones most often, as words are.
    """
    words = np.minimum(rng.zipf(1.3, (prompts, 75)), 5000)
    return [
        {
            "raw_prompt": [{"role": "user", "content": f"{' '.join(f'w{_letters(w)}' for w in row)} {n}?"}],
            "reward_model": {"style": "rule", "ground_truth": str(n)},
            "data_source": "problems",
        }
        for row, n in zip(words.tolist(), rng.integers(0, 2**62, prompts), strict=True)
    ]


def _letters(number):
    return "".join(chr(97 + int(digit)) for digit in str(number))
