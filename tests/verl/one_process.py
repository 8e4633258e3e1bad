"""How does a whole run go through verl's own loop in one process, without workers, engine or queue?

verl's trainer is real where it counts for a resume: its loader, its loop, its checkpoints, and the order of
these. What would need other processes is played: sampling, the queue, the workers' files, validation.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.skip import skip_manager

from cero.allocators.rounds import play
from cero.core.state import COMMIT_MARKER
from cero.verl import queue as queue_module
from cero.verl.trainer import CeroTrainer

VALIDATION = {"val-core/sums/acc/mean@1": 0.5}


def rows_of(count, first=0):
    """Return `count` rows of a data set, as verl's own gives them; they differ in their text."""
    return [
        {
            "raw_prompt": [{"role": "user", "content": f"{i}+1="}],
            "data_source": "sums",
            "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
            "dummy_tensor": torch.zeros(1),
        }
        for i in range(first, first + count)
    ]


def reward(messages):
    """Return the reward of every rollout of a prompt: it differs between prompts, so there is to learn."""
    return int(messages[0]["content"].split("+")[0]) * 37 % 11 / 10


class Queue:
    """Hold the rows of one step as verl's TransferQueue does."""

    def __init__(self):
        self.rewards = {}

    def kv_batch_get(self, keys, partition_id, select_fields):
        fields = {
            name: torch.nested.as_nested_tensor([self._field(name, key) for key in keys], layout=torch.jagged)
            for name in select_fields
        }
        return TensorDict(fields, batch_size=len(keys))

    def _field(self, name, key):
        value = self.rewards.get(key, 0.0)
        return {
            "rm_scores": torch.tensor([0.0, value]),
            "old_log_probs": torch.tensor([-0.1, -value - 0.1]),
            "response_mask": torch.ones(2, dtype=torch.int64),
        }[name]

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.rewards.pop(key, None)


class Manager:
    """Play verl's agent loop: sample what was asked for, in rounds where the allocator decides in them."""

    def __init__(self, queue):
        self.queue, self.opened = queue, None

    def open_step(self, uids, step):
        self.opened = step

    def sample(self, batch):
        prompts = [
            (uid, reward(messages)) for uid, messages in zip(batch["uid"], batch["raw_prompt"], strict=True)
        ]
        counts = [int(n) for n in batch["__rollout_n__"]]
        if self.opened is not None:
            means = np.array([mean for _, mean in prompts])
            counts = play(self.opened, lambda asked, n: (means[asked] * n, n)).launched.tolist()
        for (uid, mean), count in zip(prompts, counts, strict=True):
            self.queue.rewards |= {f"{uid}_{session}_0": mean for session in range(count)}

    def close_step(self):
        step, self.opened = self.opened, None
        return step


class Workers:
    """Play verl's worker group: what it saves is one file, and it has seen what it loads."""

    def save_checkpoint(self, path, *args, **kwargs):
        Path(path).mkdir(parents=True, exist_ok=True)
        self.saving(path)

    def load_checkpoint(self, local_path, **kwargs):
        self.loaded = local_path

    def _query_dispatch_info(self, mesh_name):
        """Return the data-parallel rank of each worker; there is one."""
        return [0]

    def saving(self, path):
        """Do what a test wants done here."""


class Stopped(Exception):
    """Ends a run where a test wants it to end."""


class Bench:
    """Train in `folder`, over `rows`, as often as a test wants.

    stop_after : the step after whose end the run is stopped; None: it goes to its end
    """

    def __init__(self, composed, monkeypatch):
        self.composed, self.queue, self.stop_after = composed, Queue(), None
        self.rows = rows_of(32)
        bench = self

        def logged(step, **kwargs):
            bench.at("logged by verl")
            if step == bench.stop_after:
                raise Stopped

        def submit(trainer, batch):
            trainer.agent_loop_manager.sample(batch)
            return len(batch)

        def balance(trainer, batch, metrics, *args, **kwargs):
            trainer._get_required_batch_multiple(1)
            return batch

        def step(trainer, metrics, timing_raw):
            trainer.prepare_step()
            keys = list(bench.queue.rewards)
            batch = KVBatchMeta(keys=keys, tags=[{"response_len": 2}] * len(keys), partition_id="train")
            for part in (trainer._balance_batch, trainer._compute_old_log_prob, trainer._compute_advantage):
                batch = part(batch, metrics=metrics)
            timing_raw["gen"] = 0.25
            return batch

        def validate(trainer):
            bench.at("validating")
            return dict(VALIDATION)

        def unchanged(trainer, batch, metrics):
            return batch

        def nothing(*args, **kwargs):
            return None

        def metrics_of(trainer, batch, metrics, timing_raw, global_steps, epoch):
            bench.at("before the log")
            metrics.update({f"timing_s/{part}": seconds for part, seconds in timing_raw.items()})

        for name, played in {
            "step": step,
            "_submit_batch_to_rollout": submit,
            "_balance_batch": balance,
            "_get_required_batch_multiple": lambda trainer, dp_size: 1,
            "_compute_old_log_prob": unchanged,
            "_compute_advantage": unchanged,
            "_compute_metrics": metrics_of,
            "_validate": validate,
            "on_step_end": nothing,
            "_start_profiling": nothing,
            "_stop_profiling": nothing,
        }.items():
            monkeypatch.setattr(PPOTrainerSync, name, played)
        monkeypatch.setattr(queue_module, "tq", self.queue)
        monkeypatch.setattr(trainer_base, "tq", self.queue)
        monkeypatch.setattr(
            trainer_base, "Tracking", lambda **kwargs: SimpleNamespace(log=lambda data, step: logged(step))
        )
        monkeypatch.setattr(trainer_base, "ValidationGenerationsLogger", nothing)
        monkeypatch.setattr(trainer_base, "pprint", nothing)
        monkeypatch.setattr(
            trainer_base, "tqdm", lambda **kwargs: SimpleNamespace(update=nothing, close=nothing)
        )
        monkeypatch.setattr(
            trainer_base,
            "create_rl_dataset",
            lambda *args, is_train, **kwargs: self.rows if is_train else [0],
        )
        monkeypatch.setattr(skip_manager.SkipManager, "init", nothing)

    def at(self, point):
        """Take note that the run is at a point; a test may replace it."""

    def config(self, folder, *overrides):
        """Return verl's config of a run: 8 of 32 prompts a step, 4 rollouts each, three passes."""
        return self.composed(
            "+recipe=cero_cpu",
            f"trainer.default_local_dir={folder}",
            "trainer.total_epochs=3",
            "trainer.save_freq=3",
            "trainer.test_freq=3",
            "trainer.val_before_train=false",
            "data.train_batch_size=8",
            "data.seed=5",
            "actor_rollout_ref.rollout.n=4",
            "actor_rollout_ref.actor.ppo_mini_batch_size=1",
            *overrides,
        )

    def train(self, folder, *overrides, stop_after=None):
        """Train to the end, or to the end of step `stop_after`; return the trainer."""
        self.stop_after = stop_after
        self.queue.rewards.clear()
        trainer = self.trainer = CeroTrainer(self.config(folder, *overrides))
        trainer.tokenizer = trainer.processor = None
        trainer._init_dataloader()
        trainer._init_dump_executor()
        trainer.actor_rollout_wg = Workers()
        trainer.actor_rollout_wg.saving = lambda path: self.at("saved by the workers")
        trainer._load_checkpoint()
        try:
            trainer.fit(Manager(self.queue))
        except Stopped:
            pass
        return trainer


def marker(folder):
    """Return the step of a folder's newest complete checkpoint, int."""
    return int((folder / COMMIT_MARKER).read_text())
