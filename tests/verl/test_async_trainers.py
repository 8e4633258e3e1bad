"""Does a whole asynchronous run go through verl's own loop, buffer and checkpoints? In one process.

As in `one_process.py`, what would need other processes is played. Here that is the queue, the engine, which
finishes some groups at each look of the buffer, and what the workers do.
"""

import copy
import itertools
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from one_process import VALIDATION, Stopped, Workers, rows_of
from tensordict import TensorDict
from verl.trainer.ppo.v1 import get_trainer_cls, replay_buffer, trainer_base
from verl.trainer.ppo.v1.trainer_separate_async import HybridEngineMode
from verl.utils import tensordict_utils
from verl.utils.skip import skip_manager

from cero.core.state import load_state
from cero.verl import async_trainers
from cero.verl import queue as queue_module
from cero.verl.modes import MODES

BATCH, ROLLOUTS, ROWS = 8, 4, 32


class Queue:
    """Hold prompts and rows as verl's TransferQueue does, in partitions that can be saved."""

    def __init__(self):
        self.parts, self.saved = {}, {}

    def kv_batch_put(self, keys, partition_id, tags=None, fields=None):
        part = self.parts.setdefault(partition_id, {})
        for i, key in enumerate(keys):
            tag, row = part.setdefault(key, ({}, {}))
            tag.update(tags[i] if tags else {})
            if fields is not None:
                row["prompt"] = tensordict_utils.index_select_tensor_dict(fields, torch.tensor([i]))

    def kv_list(self, partition_id=None):
        return {
            name: {key: dict(tag) for key, (tag, _) in part.items()}
            for name, part in self.parts.items()
            if partition_id in (None, name)
        }

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.parts.get(partition_id, {}).pop(key, None)

    def kv_batch_get(self, keys, partition_id, select_fields=None):
        part = self.parts[partition_id]
        if select_fields is None:
            return tensordict_utils.concat_tensordict([part[key][1]["prompt"] for key in keys])
        values = {
            "rm_scores": lambda row: torch.tensor([0.0, row["reward"]]),
            "old_log_probs": lambda row: torch.tensor([-0.1, -0.3]),
            "response_mask": lambda row: torch.ones(2, dtype=torch.int64),
            "loss_mask": lambda row: torch.ones(2, dtype=torch.int64),
        }
        nested = {
            name: torch.nested.as_nested_tensor(
                [values[name](part[key][1]) for key in keys], layout=torch.jagged
            )
            for name in select_fields
        }
        return TensorDict(nested, batch_size=len(keys))

    def save_checkpoint(self, path, metadata):
        Path(path).mkdir()  # verl looks whether there is one
        self.saved[path] = copy.deepcopy(self.parts)

    def load_checkpoint(self, path):
        self.parts = copy.deepcopy(self.saved[path])


class Engine:
    """Play verl's agent loop: groups finish some time after they were sent, some of them in error."""

    def __init__(self, queue, seed, failing):
        self.queue, self.rng, self.failing = queue, np.random.default_rng(seed), failing
        self.running, self.sampled = [], 0

    def generate_sequences(self, batch):
        for i, uid in enumerate(batch["uid"]):
            self.running.append((uid, int(batch["__rollout_n__"][i])))
            self.queue.kv_batch_put([uid], "train", [{"status": "running"}])

    def go_on(self, step):
        """Finish about a third of the running groups, and one at least."""
        ends = self.rng.random(len(self.running)) < 0.3
        ends[: not ends.any()] = True
        for (uid, rollouts), now in zip(list(self.running), ends.tolist(), strict=True):
            if not now:
                continue
            self.running.remove((uid, rollouts))
            self.sampled += rollouts
            fails = self.rng.random() < self.failing
            keys = [f"{uid}_{session}_0" for session in range(rollouts - fails)]
            tags = [{"response_len": 2, "min_global_steps": step - 1, "max_global_steps": step - 1}]
            self.queue.kv_batch_put(keys, "train", tags * len(keys))
            for key in keys:
                self.queue.parts["train"][key][1]["reward"] = float(self.rng.random() < 0.5)
            self.queue.kv_batch_put([uid], "train", [{"status": "failure" if fails else "finished"}])


class Bench:
    """Train in a folder, with verl's own trainer of one of its asynchronous modes."""

    def __init__(self, mode, composed, monkeypatch):
        self.mode, self.composed, self.queue, self.stop_after = mode, composed, Queue(), None
        bench = self

        def logged(data, step):
            if step == bench.stop_after:
                raise Stopped

        def balance(trainer, batch, metrics, *args, **kwargs):
            trainer._get_required_batch_multiple(1)
            return batch

        def unchanged(trainer, batch, metrics):
            return batch

        def nothing(*args, **kwargs):
            return None

        def waited(buffer, partition_id, last_debug_time):
            bench.engine.go_on(bench.trainer.global_steps)
            return last_debug_time

        for name, played in {
            "_balance_batch": balance,
            "_get_required_batch_multiple": lambda trainer, dp_size: 1,
            "_compute_old_log_prob": unchanged,
            "_compute_advantage": unchanged,
            "_update_actor": unchanged,
            "_compute_metrics": nothing,
            "_validate": lambda trainer: dict(VALIDATION),
            "on_sample_end": nothing,
            "on_step_end": nothing,
            "_start_profiling": nothing,
            "_stop_profiling": nothing,
        }.items():
            monkeypatch.setattr(get_trainer_cls(mode), name, played)
        if mode == "separate_async":  # the trainer's own engines sample for validations
            for name, then in (("rollout", HybridEngineMode.ROLLOUT), ("trainer", HybridEngineMode.TRAINER)):
                monkeypatch.setattr(
                    get_trainer_cls(mode),
                    f"switch_to_{name}",
                    lambda trainer, then=then, **kwargs: setattr(trainer, "current_mode", then),
                )
        monkeypatch.setattr(queue_module, "scale_advantages", lambda batch, factor: batch)
        monkeypatch.setattr(replay_buffer.ReplayBuffer, "_wait_for_next_poll", waited)
        for module in (queue_module, trainer_base, replay_buffer, async_trainers):
            monkeypatch.setattr(module, "tq", self.queue)
        monkeypatch.setattr(trainer_base, "Tracking", lambda **kwargs: SimpleNamespace(log=logged))
        monkeypatch.setattr(trainer_base, "ValidationGenerationsLogger", nothing)
        monkeypatch.setattr(trainer_base, "pprint", nothing)
        # verl's buffer goes by its keys. With random ones a group now and then waits until it is too old, and
        # is thrown away.
        names = itertools.count()
        uuid = SimpleNamespace(uuid4=lambda: f"{next(names):08d}")
        monkeypatch.setattr(trainer_base, "uuid", uuid)
        monkeypatch.setattr(
            trainer_base, "tqdm", lambda **kwargs: SimpleNamespace(update=nothing, close=nothing)
        )
        monkeypatch.setattr(
            trainer_base,
            "create_rl_dataset",
            lambda *args, is_train, **kwargs: rows_of(ROWS) if is_train else [0],
        )
        monkeypatch.setattr(skip_manager.SkipManager, "init", nothing)

    def config(self, folder, *overrides):
        """Return verl's config of a run: 8 of 32 prompts a step, 4 rollouts each, three passes."""
        separate = [
            "trainer.v1.separate_async.parameter_sync_step=2",
            "actor_rollout_ref.rollout.nnodes=1",
            "actor_rollout_ref.rollout.n_gpus_per_node=1",
            "actor_rollout_ref.rollout.checkpoint_engine.backend=shared_memory",
        ]
        return self.composed(
            "+recipe=cero_cpu",
            f"trainer.v1.trainer_mode={MODES[self.mode]}",
            f"trainer.v1.{self.mode}.num_warmup_batches=1.5",
            f"trainer.default_local_dir={folder}",
            "trainer.total_epochs=3",
            "trainer.save_freq=2",
            "trainer.val_before_train=false",
            f"data.train_batch_size={BATCH}",
            "data.seed=5",
            f"actor_rollout_ref.rollout.n={ROLLOUTS}",
            "allocator.n_max=12",
            f"actor_rollout_ref.actor.ppo_mini_batch_size={4 if self.mode == 'separate_async' else BATCH}",
            *(separate if self.mode == "separate_async" else []),
            *overrides,
        )

    def train(self, folder, *overrides, stop_after=None, failing=0.0):
        """Train to the end, or to the end of step `stop_after`; return the trainer."""
        self.stop_after, self.queue.parts = stop_after, {}
        self.engine = Engine(self.queue, seed=3, failing=failing)
        config = self.config(folder, *overrides)
        trainer = self.trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
        trainer.tokenizer = trainer.processor = None
        trainer.current_mode = HybridEngineMode.TRAINER
        trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[None])
        trainer._init_dataloader()
        trainer._init_dump_executor()
        trainer.actor_rollout_wg = Workers()
        trainer.actor_rollout_wg.saving = lambda path: None
        trainer._load_checkpoint()
        try:
            trainer.fit(self.engine)
        except Stopped:
            pass
        return trainer


def steps_in(folder):
    lines = (folder / "cero" / "allocations.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "step"]


@pytest.fixture(params=["colocate_async", "separate_async"])
def bench(request, composed, monkeypatch):
    return Bench(request.param, composed, monkeypatch)


TOTAL = 3 * ROWS * ROLLOUTS


NOT_TOO_OLD = "trainer.v1.sampler.max_off_policy_threshold=100"  # verl throws no group away


def test_a_run_costs_what_its_synchronous_twin_costs(bench, tmp_path):
    trainer = bench.train(tmp_path, NOT_TOO_OLD)
    ledger, flights = trainer.scheduler.allocator.ledger, trainer.scheduler.in_flight
    assert ledger.spent == ledger.total == flights.returned == bench.engine.sampled == TOTAL
    assert len(flights) == 0 and not bench.engine.running
    steps = steps_in(tmp_path)
    assert [record["step"] for record in steps] == list(range(1, 13))
    assert all(len(record["prompts"]) == BATCH for record in steps)
    times = Counter(prompt for record in steps for prompt in record["prompts"])
    assert len(times) == ROWS and set(times.values()) == {3}
    assert sum(sum(record["rollouts"]) for record in steps) == TOTAL
    assert all(record["rollouts"] == record["trials"] for record in steps)
    assert max(max(record["rollouts"]) for record in steps) > ROLLOUTS  # prompts are told apart
    assert max(record["metrics"]["cero/staleness/max"] for record in steps) >= 1
    assert not any(tag.get("is_prompt") for tag in bench.queue.kv_list("train").get("train", {}).values())


@pytest.mark.parametrize("stop_after", [1, 2, 5, 7])
def test_killed_and_resumed(bench, tmp_path, stop_after):
    bench.train(tmp_path, NOT_TOO_OLD, stop_after=stop_after)
    trainer = bench.train(tmp_path, NOT_TOO_OLD)
    ledger, flights = trainer.scheduler.allocator.ledger, trainer.scheduler.in_flight
    assert ledger.spent == ledger.total == flights.returned == flights.launched == TOTAL
    times = Counter(prompt for record in steps_in(tmp_path) for prompt in record["prompts"])
    assert len(times) == ROWS and set(times.values()) == {3}
    assert [record["step"] for record in steps_in(tmp_path)] == list(range(1, 13))
    if stop_after >= 2:
        step = stop_after // 2 * 2
        saved = load_state(tmp_path / f"global_step_{step}" / "cero" / "in_flight.npz")
        assert len(saved["table"]["uid"]) == 12  # one and a half batches


def test_a_queue_that_is_lost_gives_its_rollouts_back(bench, tmp_path):
    bench.train(tmp_path, stop_after=4)
    for path, parts in bench.queue.saved.items():
        bench.queue.saved[path] = {
            "train": {"strange": ({"is_prompt": True, "status": "finished", "global_steps": 1}, {})}
        }
        assert parts["train"]
    trainer = bench.train(tmp_path)
    ledger, flights = trainer.scheduler.allocator.ledger, trainer.scheduler.in_flight
    assert flights.withdrawn > 0 and flights.launched - flights.withdrawn == ledger.spent == TOTAL
    assert len(steps_in(tmp_path)) == 12


def test_failed_groups_are_replaced_within_the_budget(bench, tmp_path):
    # With a fixed response some prompts get nothing, and the last step has rollouts left whatever was lost.
    trainer = bench.train(tmp_path, "allocator.response=4", failing=0.15)
    ledger, flights = trainer.scheduler.allocator.ledger, trainer.scheduler.in_flight
    assert flights.lost > 0 and flights.returned + flights.lost == ledger.spent <= TOTAL
    assert len(steps_in(tmp_path)) == 12


@pytest.mark.parametrize("failing", [0.3, 0.5, 0.8])
def test_a_run_whose_budget_is_used_up_ends_as_others_do(bench, tmp_path, capsys, failing):
    """Every prompt costs 4 rollouts, lost or not, so there are none for the last steps."""
    words = ("allocator.n_min=4", "allocator.n_max=4", "trainer.test_freq=5")
    trainer = bench.train(tmp_path, *words, failing=failing)
    ledger, flights = trainer.scheduler.allocator.ledger, trainer.scheduler.in_flight
    assert ledger.spent == ledger.total == TOTAL == flights.returned + flights.lost
    steps = steps_in(tmp_path)
    last = len(steps)
    assert 1 <= last < 12 and [record["step"] for record in steps] == list(range(1, last + 1))
    assert sum(record["sampled"] for record in steps) == flights.returned
    said = capsys.readouterr().err
    assert (
        f"cero: the run ends after step {last} of 12: no rollouts are in flight for step {last + 1}" in said
    )
    assert f"{TOTAL} of {TOTAL} rollouts are spent, {flights.lost} of them lost" in said
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == str(last)
    lines = (tmp_path / "cero" / "allocations.jsonl").read_text().splitlines()
    validated = [r["step"] for r in map(json.loads, lines) if r["kind"] == "validation"]
    assert validated == sorted({*range(5, last + 1, 5), last})
    # Begun again, it says the same and changes nothing.
    again = bench.train(tmp_path, *words, failing=failing)
    assert again.global_steps == last and steps_in(tmp_path) == steps
    assert f"ends after step {last} of 12" in capsys.readouterr().err


def test_a_step_whose_last_part_was_lost_keeps_its_others(bench, tmp_path, monkeypatch):
    """The last groups are thrown away while verl waits for them: the step is what was trained until then."""
    if bench.mode != "separate_async":
        pytest.skip("a step has one part here")
    expect, seen = async_trainers.AsyncScheduler.expect, []

    def none_for_the_second_part(scheduler, size):
        seen.append(scheduler.step)
        if seen.count(3) == 2:
            scheduler.evicted([uid for uid, group in scheduler.in_flight.groups.items() if group.launched])
            scheduler.allocator.ledger.spend(scheduler.allocator.ledger.left)
        return expect(scheduler, size)

    monkeypatch.setattr(async_trainers.AsyncScheduler, "expect", none_for_the_second_part)
    trainer = bench.train(tmp_path)
    steps = steps_in(tmp_path)
    assert [len(record["prompts"]) for record in steps] == [BATCH, BATCH, BATCH // 2]
    assert steps[-1]["metrics"]["cero/rollouts/sampled"] == steps[-1]["sampled"] == sum(steps[-1]["trials"])
    assert trainer.global_steps == 3
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "3"


def test_no_step_at_all_is_an_error(bench, tmp_path):
    with pytest.raises(
        RuntimeError, match="cero: no rollouts are in flight for step 1, and none can be sent"
    ):
        bench.train(tmp_path, "allocator.n_min=4", "allocator.n_max=4", failing=1.0)


def test_dynamic_sampling_replaces_groups_without_a_signal(bench, tmp_path):
    words = ("allocator=uniform", "allocator.n_max=1024", "algorithm.filter_groups.enable=true")
    trainer = bench.train(tmp_path, *words, "trainer.total_training_steps=4")
    flights = trainer.scheduler.in_flight
    assert trainer.scheduler.allocator.ledger.total is None and flights.lost > 0
    steps = steps_in(tmp_path)
    assert [len(record["prompts"]) for record in steps] == [BATCH] * 4
    for record in steps:
        assert all(0 < won < n for won, n in zip(record["successes"], record["trials"], strict=True))


@pytest.mark.parametrize(
    "words",
    [
        ["cero.keep.rule=pods", "cero.keep.count=2"],
        ["cero.drop_zero_advantage=true", "algorithm.cero.baseline=mean", "algorithm.cero.advantage=grpo"],
        ["algorithm.cero.advantage=mapp", "allocator=mapp", "cero.staleness=0.5"],
    ],
    ids=["keep", "drop", "mapp"],
)
def test_rows_that_are_left_out_and_other_advantages(bench, tmp_path, words):
    trainer = bench.train(tmp_path, *words, "trainer.total_training_steps=4")
    assert trainer.scheduler.allocator.ledger.spent == trainer.scheduler.in_flight.returned == TOTAL // 3
    for record in steps_in(tmp_path):
        assert record["sampled"] == sum(record["trials"]) >= record["trained"] > 0
        assert record["metrics"]["cero/rollouts/trained"] == record["trained"]
    if "mapp" not in words[0]:
        assert any(record["trained"] < record["sampled"] for record in steps_in(tmp_path))


def test_a_checkpoint_of_a_run_without_the_scheduler(bench, tmp_path):
    bench.train(tmp_path, stop_after=4)
    for path in (tmp_path / "global_step_4" / "cero").iterdir():
        path.unlink()
    trainer = bench.train(tmp_path, "cero.on_missing_state=fresh")
    assert trainer.scheduler.allocator.ledger.spent == TOTAL and len(trainer.scheduler.in_flight) == 0
