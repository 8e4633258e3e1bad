"""What does the scheduler take by itself, in steps of real size? Our trainer's own methods, without verl's parts."""

import uuid
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch

PARTS = ("allocate", "observe", "log")  # of the scheduler's time in verl's thread


def compose(*overrides):
    """verl's config with these overrides."""
    import hydra

    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        return hydra.compose("ppo_trainer", overrides=list(overrides))


def at_scale(compose, prompts, rollouts, known, steps, folder):
    """Seconds in the scheduler, medians over `steps` steps with `known` prompts in its table; figures as one dict.

    Our trainer's own methods and timers, on batches as verl makes them, with verl's parts of the step left
    out, and the queue: rewards are at hand, and so are the log-probs that the optimal baseline reads, 4 a
    rollout. While our thread works, verl's waits.
    """
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.rl_dataset import collate_fn

    from cero.analysis.runlog import RunLog
    from cero.estimators.baseline import score_weights
    from cero.verl import outcomes
    from cero.verl.estimators import compute_cero_advantage
    from cero.verl.identity import CollateWithIds
    from cero.verl.settings import read_settings
    from cero.verl.trainer import CeroTrainer

    config = compose(
        "+recipe=cero_cpu", f"data.train_batch_size={prompts}", f"actor_rollout_ref.rollout.n={rollouts}"
    )
    trainer, rng = CeroTrainer.__new__(CeroTrainer), np.random.default_rng(0)
    trainer.config, trainer.settings = config, read_settings(config)
    trainer.allocator = trainer.settings.make_allocator(epochs=10)
    trainer.allocator.table.reserve(known + (steps + 1) * prompts)
    trainer.allocator.table.add(rng.integers(0, 2**64, known, dtype=np.uint64))
    trainer.use_critic, trainer._dispatches, trainer._scheduler_seconds = False, [], {}
    trainer.run_log = RunLog(Path(folder) / "allocations.jsonl")
    trainer.train_dataloader = SimpleNamespace(collate_fn=CollateWithIds(collate_fn))

    def fetch(keys, partition_id, settings):
        return np.array([reward_of[key] for key in keys]), None, np.zeros(len(keys))

    def advantage(trainer, batch, metrics):
        wait([trainer._record.baselines])
        rewards = np.zeros((len(batch), 4), np.float32)
        rewards[:, -1] = [reward_of[key] for key in batch.keys]
        uids = np.array([key.split("_")[0] for key in batch.keys], dtype=object)
        compute_cero_advantage(torch.from_numpy(rewards), torch.ones(rewards.shape), index=uids)
        return batch

    def fetch_weights(keys, partition_id):
        log_probs = np.log(rng.random((len(keys), 4), np.float32) + 1e-6)
        return dict(zip(keys, score_weights(log_probs, np.ones_like(log_probs)).tolist(), strict=True))

    def old_log_prob(trainer, batch, metrics):
        wait([trainer._record.observed])
        return batch

    verl = {
        "_submit_batch_to_rollout": lambda trainer, batch: len(batch),
        "_balance_batch": lambda trainer, batch, metrics: batch,
        "_compute_old_log_prob": old_log_prob,
        "_compute_advantage": advantage,
        "_compute_metrics": lambda *arguments: None,
    }
    found = []
    queue = patch.multiple(outcomes, fetch=fetch, fetch_weights=fetch_weights)
    with patch.multiple(PPOTrainerSync, **verl), queue:
        for step in range(steps + 1):
            batch = trainer.train_dataloader.collate_fn(problems(prompts, rng))
            batch["uid"] = np.array([str(uuid.uuid4()) for _ in range(prompts)], dtype=object)
            batch, metrics = tu.get_tensordict(batch), {f"timing_s/{i}": 0.123456789 for i in range(8)}
            trainer._submit_batch_to_rollout(batch)
            keys = [
                f"{uid}_{session}_0"
                for uid, n in zip(batch["uid"], batch["__rollout_n__"], strict=True)
                for session in range(n)
            ]
            rng.shuffle(keys)
            reward_of = dict(
                zip(keys, (rng.random(len(keys)) < 0.5).astype(np.float64).tolist(), strict=True)
            )
            tags = [{"response_len": 4, "seq_len": 8} for _ in keys]
            batch = trainer._balance_batch(KVBatchMeta(keys, tags, "train"), metrics)
            batch = trainer._compute_old_log_prob(batch, metrics)
            trainer._compute_advantage(batch, metrics)
            trainer._compute_metrics(batch, metrics, {}, step, 0)
            found.append({key: metrics.get(f"cero/time/{key}", 0.0) for key in (*PARTS, "background")})
    parts = {key: float(np.median([step[key] for step in found[1:]])) for key in found[0]}
    return {"prompts": prompts, "rollouts": rollouts, "known": known, "steps": steps, **parts}


def problems(prompts, rng):
    """Rows as verl's data set gives them: messages as long as a problem in words."""
    text = "A question of some length, as problems in words are, which is put to a model. " * 5
    return [
        {
            "raw_prompt": [{"role": "user", "content": f"{text}{n}?"}],
            "reward_model": {"style": "rule", "ground_truth": str(n)},
            "data_source": "problems",
        }
        for n in rng.integers(0, 2**62, prompts)
    ]
