"""What does the trainer do between sampling and the actor's update? The TransferQueue is a dict here."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchdata.stateful_dataloader import StatefulDataLoader
from transfer_queue import KVBatchMeta
from verl import DataProto
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn

from cero.allocators.base import size_figures
from cero.allocators.rounds import play
from cero.estimators.advantage import Groups, advantages
from cero.estimators.baseline import OptimalBaseline
from cero.estimators.shared import stacked, trimmed
from cero.verl import queue as queue_module
from cero.verl import trainer as trainer_module
from cero.verl.identity import BUCKETS, IDS, CollateWithIds, batch_prompt_ids, slots_of_rows
from cero.verl.scheduler import _group_metrics
from cero.verl.settings import REWARDED_MANAGER, SEQUENTIAL_MANAGER
from cero.verl.trainer import CeroTrainer

PROMPTS, N = 8, 4
WEIGHTS = ["old_log_probs", "response_mask"]  # fetched for the optimal baseline


def log_prob(reward):
    """Return the log-prob of each token of a rollout; right rollouts are a surprise."""
    return math.log(0.2 if reward else 0.9)


def won(prompt, session):
    """Return the reward: of a prompt's first three rollouts, `prompt % 4` are right; all later ones are."""
    return float(session < prompt % 4 or session > 2)


class Queue:
    """Hold rows as verl's agent loop leaves them, with the reward on the last of `length` tokens."""

    def __init__(self):
        self.rows, self.cleared, self.fetched, self.advantages = {}, [], [], {}

    def put(self, uid, session, reward, outputs=1):
        for output in range(outputs):
            self.rows[f"{uid}_{session}_{output}"] = (3 + session % 2, reward)

    def batch(self):
        keys = list(self.rows)
        np.random.default_rng(len(keys)).shuffle(keys)  # as they came back
        return KVBatchMeta(keys, [{"response_len": self.rows[key][0]} for key in keys], "train")

    def kv_batch_get(self, keys, partition_id, select_fields):
        self.fetched.append(list(select_fields))
        if select_fields == ["advantages"]:
            return {"advantages": torch.tensor([self.advantages[key] for key in keys])}
        scores, masks, log_probs = [], [], []
        for key in keys:
            length, reward = self.rows.get(key, (1, 0.0))
            log_probs.append(torch.full((length,), log_prob(reward)))
            scores.append(torch.tensor([0.0] * (length - 1) + [reward]))
            masks.append(torch.ones(length, dtype=torch.int64))
        nested = {"rm_scores": scores, "loss_mask": masks, "response_mask": masks, "old_log_probs": log_probs}
        fields = {
            key: torch.nested.as_nested_tensor(nested[key], layout=torch.jagged) for key in select_fields
        }
        return TensorDict(fields, batch_size=len(keys))

    def kv_batch_put(self, keys, partition_id, fields):
        self.advantages = dict(zip(keys, fields["advantages"].tolist(), strict=True))

    def kv_clear(self, keys, partition_id):
        self.cleared += keys


def messages(prompt):
    return [{"role": "user", "content": f"{'add' if prompt % 2 else 'subtract'} {prompt} and 7"}]


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.fixture
def step(composed, monkeypatch):
    """`step(*overrides, lost=())`: (trainer, batch, queue, metrics) after one step up to the update.

    The rows in `batch` are as the update finds them; `queue.advantages` has theirs, by key.
    """

    def step(*overrides, lost=(), outputs=1, columns=None, before=None):
        config = composed(
            "+recipe=cero_cpu",
            f"data.train_batch_size={PROMPTS}",
            f"actor_rollout_ref.rollout.n={N}",
            f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
            *overrides,
        )
        uids = [f"u{i}" for i in range(PROMPTS)]
        prompts = {"uid": np.array(uids, dtype=object), "prompt_id": np.arange(PROMPTS)}
        prompts |= {"raw_prompt": objects([messages(i) for i in range(PROMPTS)])} | (columns or {})
        rows = [{name: column[i] for name, column in prompts.items()} for i in range(PROMPTS)]

        def data(self):
            """Make data as verl does: two passes over as many prompts as a step takes."""
            self.train_dataset = rows
            self.train_dataloader = SimpleNamespace(collate_fn=lambda rows: prompts)
            self.steps_per_epoch, self.total_training_steps = 1, 2

        monkeypatch.setattr(PPOTrainerSync, "_init_dataloader", data)
        trainer, queue, metrics = CeroTrainer(config), Queue(), {}
        trainer._init_dataloader()
        trainer.global_steps = 1

        class Manager:
            def open_step(self, uids, opened):
                self.step = opened

            def close_step(self):
                def sample(prompts, counts):
                    return zip(
                        *[outcome(self.step, i, n) for i, n in zip(prompts, counts, strict=True)], strict=True
                    )

                return play(
                    self.step,
                    lambda prompts, counts: [np.array(column) for column in sample(prompts, counts)],
                )

        def outcome(begun, prompt, count):
            first = begun.launched[prompt] - count
            rewards = [won(prompt, first + k) for k in range(count) if (prompt, first + k) not in lost]
            return sum(rewards), len(rewards)

        trainer.agent_loop_manager = Manager()
        trainer.actor_rollout_wg = SimpleNamespace(_query_dispatch_info=lambda mesh_name: [0])
        monkeypatch.setattr(PPOTrainerSync, "_submit_batch_to_rollout", lambda self, batch: len(batch))
        monkeypatch.setattr(queue_module, "tq", queue)
        monkeypatch.setattr(trainer_base, "tq", queue)

        def balance(self, batch, metrics):
            """Fill up to a multiple as verl does, with padding last."""
            rows = math.ceil(len(batch) / (multiple := self._get_required_batch_multiple(1))) * multiple
            pads = [f"pad_{i}_0" for i in range(rows - len(batch))]
            return KVBatchMeta(
                batch.keys + pads, batch.tags + [{"is_padding": True, "response_len": 1}] * len(pads)
            )

        def advantage(self, batch, metrics):
            """Compute advantages as verl does: from the rewards it fetches, with the config's estimator."""
            rows = [queue.rows.get(key, (1, 0.0)) for key in batch.keys]
            mask = torch.tensor([[float(i < length) for i in range(4)] for length, _ in rows])
            scores = torch.zeros_like(mask)
            for row, (length, reward) in enumerate(rows):
                scores[row, length - 1] = reward
                mask[row] *= not batch.keys[row].startswith("pad")
            uids = np.array([key.split("_")[0] for key in batch.keys], dtype=object)
            tensors = {"token_level_rewards": scores, "response_mask": mask}
            data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": uids})
            estimator = config.algorithm.adv_estimator
            data = compute_advantage_for_multi_trajectories(
                data, batch.keys, estimator, config=config.algorithm
            )
            queue.advantages = dict(zip(batch.keys, data.batch["advantages"][:, 0].tolist(), strict=True))
            return batch

        monkeypatch.setattr(PPOTrainerSync, "_balance_batch", balance)
        monkeypatch.setattr(PPOTrainerSync, "_compute_old_log_prob", lambda self, batch, metrics: batch)
        monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", advantage)
        batch = tu.get_tensordict(trainer.train_dataloader.collate_fn(rows))
        if before is not None:
            before(trainer)
        trainer._submit_batch_to_rollout(batch)
        assert IDS not in batch.keys() and BUCKETS not in batch.keys()
        trainer.asked = [int(n) for n in batch["__rollout_n__"]]
        if trainer.scheduler.allocator.sequential:
            trainer.agent_loop_manager.step = finished = trainer.agent_loop_manager.close_step()
            trainer.agent_loop_manager.close_step = lambda: finished
            launched = finished.launched
        else:
            launched = np.array(trainer.asked)
        for prompt in range(PROMPTS):
            for session in range(launched[prompt]):
                if (prompt, session) not in lost:
                    queue.put(f"u{prompt}", session, won(prompt, session), outputs)
        batch = trainer._balance_batch(queue.batch(), metrics)
        batch = trainer._compute_old_log_prob(batch, metrics)
        trainer._compute_advantage(batch, metrics)
        return trainer, batch, queue, metrics

    return step


def real(batch):
    return {key for key in batch.keys if not key.startswith("pad")}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("columns", [("data_source", "reward_model"), ("reward_model",), ()])
def test_ids_made_where_the_data_is_loaded(workers, columns):
    """They are those of the batch as verl dispatches it."""
    rows = [
        {"raw_prompt": [{"role": "user", "content": f"{i % 6}+1="}], "data_source": "sums"}
        | {"reward_model": {"style": "rule", "ground_truth": str(i % 6 + 1)}, "dummy_tensor": torch.zeros(1)}
        for i in range(8)
    ]
    rows = [{key: row[key] for key in ("raw_prompt", "dummy_tensor", *columns)} for row in rows]
    loader = StatefulDataLoader(rows, batch_size=8, num_workers=workers, collate_fn=collate_fn)
    loader.collate_fn = CollateWithIds(loader.collate_fn)
    (batch,) = loader
    ids = batch.pop(IDS).numpy().view(np.uint64)
    assert ids.tolist() == batch_prompt_ids(tu.get_tensordict(batch)).tolist() and len(set(ids.tolist())) == 6
    assert (loader.collate_fn.seconds > 0) == (workers == 0)


@pytest.mark.parametrize("bucket", ["text", "data_source"])
def test_batches_with_buckets_are_joined_as_verl_joins_them(bucket):
    """Its asynchronous trainers and a choice among candidates put batches together, long texts or short."""
    collate, batches, slots = CollateWithIds(collate_fn, bucket), [], []
    for words in (1, 400, 3):
        text = " ".join(f"{'x' * word} {word}" for word in range(words))
        rows = [
            {"raw_prompt": text, "data_source": f"of {words}", "dummy_tensor": torch.zeros(1)}
            for _ in range(2)
        ]
        slots.append(slots_of_rows(rows, bucket))
        batches.append(tu.get_tensordict(collate(rows)))
    joined = trimmed(tu.concat_tensordict(batches).pop(BUCKETS).numpy())
    np.testing.assert_array_equal(joined, stacked(slots))
    np.testing.assert_array_equal(trimmed(batches[2].pop(BUCKETS).numpy()), slots[2])
    assert trimmed(np.zeros((0, 256), np.int16)).shape == (0, 0)


def test_uniform_is_left_as_verl_has_it(step):
    trainer, batch, queue, metrics = step(
        "allocator=uniform", "actor_rollout_ref.actor.ppo_mini_batch_size=4"
    )
    assert trainer.asked == [N] * PROMPTS and trainer.record.plan.steps is None and trainer.record.scale == 1
    assert real(batch) == set(queue.rows) and not queue.cleared and metrics["cero/padded_rows"] == 0
    counts = [metrics[f"cero/rollouts/{key}"] for key in ("sampled", "observed", "kept", "trained")]
    assert counts == [PROMPTS * N] * 4


def test_a_failed_rollout_costs_and_does_not_teach(step):
    trainer, batch, queue, metrics = step(
        "allocator=uniform", "actor_rollout_ref.actor.ppo_mini_batch_size=4", lost={(2, 1)}
    )
    assert trainer.record.trials.tolist() == [4, 4, 3, 4, 4, 4, 4, 4] and trainer.record.won[2] == 2
    assert metrics["cero/rollouts/sampled"] == metrics["cero/rollouts/trained"] + 1 == 32
    # verl's two optimizer steps, of 16 rows each: one row is padding, not sixteen.
    assert trainer.record.plan.steps == 2 and len(batch) == 32 and metrics["cero/padded_rows"] == 1


def test_selection_takes_rows_out_but_nothing_from_what_is_learned(step):
    trainer, batch, queue, metrics = step(
        "allocator=cero", "cero.keep.rule=gfpo_length", "cero.keep.count=2", outputs=2
    )
    assert metrics["cero/rollouts/kept"] == metrics["cero/rollouts/trained"] == 16
    assert len(real(batch)) == 32 and set(queue.cleared) == set(queue.rows) - real(batch)  # sessions go whole
    assert all(int(key.split("_")[1]) % 2 == 0 for key in real(batch))  # the shorter ones
    assert trainer.scheduler.allocator.ledger.spent == metrics["cero/rollouts/observed"] == 32
    assert metrics["cero/tokens/sampled"] == 2 * metrics["cero/tokens/trained"] * 7 / 6
    sums = [sum(won(i, s) for s in range(4)) for i in range(PROMPTS)]
    context = trainer.record.context
    sampled = {name: (n, s) for (name, i), n, s in zip(context.place.items(), *context.sampled, strict=True)}
    assert sampled == {f"u{i}_{j}": (4, sums[i]) for i in range(PROMPTS) for j in range(4)}


@pytest.mark.parametrize(
    "mode, scale", [("token-mean", 0.75), ("seq-mean-token-sum", 0.75), ("token-sum", 1.0)]
)
def test_zeros_go_by_grpo_and_are_made_up_for(step, mode, scale):
    actor = "actor_rollout_ref.actor"
    trainer, batch, queue, metrics = step(
        "allocator=uniform",
        "cero.drop_zero_advantage=true",
        f"{actor}.loss_agg_mode={mode}",
        f"{actor}.ppo_mini_batch_size=4",
    )
    # Prompts 3 and 7 are all right; none is all wrong, since the fourth rollout is right.
    assert {key.split("_")[0] for key in queue.cleared} == {"u3", "u7"}
    assert metrics["cero/rows/dropped_as_zero"] == 8 and metrics["cero/rollouts/trained"] == 24
    assert metrics["cero/advantage_scale"] == pytest.approx(scale)


@pytest.mark.parametrize("mode, scale", [("token-mean", 69 / 101), ("seq-mean-token-sum", 24 / 32)])
def test_advantages_without_zeros_are_those_with_them_scaled(step, monkeypatch, mode, scale):
    """So that the gradient is the same. Rows of prompts 3 and 7, which are dropped, are longer."""

    def put(queue, uid, session, reward, outputs=1):
        queue.rows[f"{uid}_{session}_0"] = (4 if uid in ("u3", "u7") else 3, reward)

    monkeypatch.setattr(Queue, "put", put)
    actor = "actor_rollout_ref.actor"
    words = ("allocator=uniform", f"{actor}.loss_agg_mode={mode}", f"{actor}.ppo_mini_batch_size=4")
    whole = step(*words, lost={(2, 1)})[2]
    trainer, batch, queue, metrics = step(*words, "cero.drop_zero_advantage=true", lost={(2, 1)})
    # 31 rows are 32 with padding, and the 23 that are left are 24.
    assert metrics["cero/rollouts/trained"] == 23 and len(batch) == 24
    assert metrics["cero/advantage_scale"] == pytest.approx(scale)
    for key in real(batch):
        assert queue.advantages[key] == pytest.approx(scale * whole.advantages[key], rel=1e-5)
    assert any(queue.advantages[key] for key in real(batch))


def test_optimizer_steps_are_made_of_the_rows_there_are(step, monkeypatch):
    """verl reads two values of its config for that; the padding is dealt to all of its steps."""
    seen = []

    def update(self, batch, metrics):
        parts = self.config.actor_rollout_ref
        seen.append((parts.actor.ppo_mini_batch_size * parts.rollout.n, list(batch.keys)))

    monkeypatch.setattr(PPOTrainerSync, "_update_actor", update)
    words = ("allocator=uniform", "actor_rollout_ref.actor.ppo_mini_batch_size=2")
    trainer, batch, queue, _ = step(*words, lost={(2, 0), (2, 1), (2, 2), (5, 0), (5, 1)})
    trainer._update_actor(batch, {})
    ((rows, keys),) = seen
    assert (rows, len(keys)) == (7, 28) and sum(key.startswith("pad") for key in keys) == 1
    assert trainer.config.actor_rollout_ref.actor.ppo_mini_batch_size == 2
    seen.clear()
    monkeypatch.setattr(f"{__name__}.won", lambda prompt, session: float(prompt != 0))
    trainer, batch, queue, _ = step(*words, "cero.drop_zero_advantage=true", lost={(0, 1)})
    trainer._update_actor(batch, {})
    ((rows, keys),) = seen
    real_in = [
        sum(not key.startswith("pad") for key in keys[i : i + rows]) for i in range(0, len(keys), rows)
    ]
    assert len(real_in) == trainer.record.plan.steps and min(real_in) >= 1


def test_a_key_of_the_reward_function_is_each_rollouts_own(step, monkeypatch):
    """What counts as a success is another figure than the reward, row by row."""

    class WithFields(Queue):
        def kv_batch_get(self, keys, partition_id, select_fields):
            plain = [name for name in select_fields if name != "extra_fields"]
            data = super().kv_batch_get(keys, partition_id, plain)
            if len(plain) == len(select_fields):
                return data
            right = {key: float((int(key[1]) + int(key.split("_")[1])) % 3 == 0) for key in keys}
            fields = [{"reward_extra_info": {"acc": right[key]}} for key in keys]
            return {"extra_fields": fields} | {name: data[name] for name in plain}

    monkeypatch.setattr(f"{__name__}.Queue", WithFields)
    words = ("cero.success.key=acc", "algorithm.adv_estimator=grpo", "allocator.n_min=4", "allocator.n_max=4")
    trainer, _, _, _ = step("allocator=cero", *words)
    expected = [sum((prompt + session) % 3 == 0 for session in range(N)) for prompt in range(PROMPTS)]
    assert trainer.record.won.tolist() == expected


def test_every_prompt_counts_alike_with_that_weight(step):
    """A rollout's advantage is multiplied by rollout.n over its prompt's rollouts."""
    words = ("allocator=cero", "algorithm.cero.advantage=dr_grpo", "algorithm.cero.baseline=mean")
    plain, weighted = (
        step(*words, f"algorithm.cero.prompt_weight={weight}", lost={(2, 1), (5, 0), (5, 1)})[2].advantages
        for weight in ("trajectory", "prompt")
    )
    count = {2: 3, 5: 2}
    for key, advantage in plain.items():
        factor = N / count.get(int(key[1]), N) if not key.startswith("pad") else 1.0
        assert weighted[key] == pytest.approx(factor * advantage)


@pytest.mark.parametrize(
    "words, manager",
    [
        (["allocator=cero"], REWARDED_MANAGER),
        (["allocator=aero"], SEQUENTIAL_MANAGER),
        (
            ["allocator=uniform", "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=my.Manager"],
            "my.Manager",
        ),
    ],
)
def test_the_manager_that_verl_will_make(composed, words, manager):
    config = composed("+recipe=cero_cpu", "actor_rollout_ref.rollout.n=4", *words)
    trainer = CeroTrainer(config)
    assert config.actor_rollout_ref.rollout.agent.agent_loop_manager_class == manager
    assert trainer.replay_buffer.poll_interval == config.cero.poll_interval == 0.1


def test_the_trainer_watches_its_own_buffer(composed, monkeypatch):
    made = []

    class Recorder:
        def __init__(self, patience, save):
            self.patience, self.save, self.called = patience, save, []
            made.append(self)

        def over(self, buffer):
            self.called.append(buffer)

        def start(self):
            self.called.append("start")

    monkeypatch.setattr(trainer_module, "Watch", Recorder)
    trainer = CeroTrainer(composed("+recipe=cero", "cero.stall_timeout=2"))
    (watch,) = made
    assert watch.patience == 120 and watch.called == [trainer.replay_buffer]
    monkeypatch.setattr(CeroTrainer, "_fit", lambda self, manager: self.watch.called.append("fit"))
    trainer.scheduler = SimpleNamespace(log=SimpleNamespace(close=lambda: None))
    trainer.fit(None)
    assert watch.called[1:] == ["start", "fit"]


def test_figures_of_groups():
    won, trials = np.array([4.0, 0.0, 1.0, 0.0]), np.array([4, 2, 2, 0])  # right, wrong, mixed, none came
    low, high = np.array([1.0, 0.0, 0.0, np.nan]), np.array([1.0, 0.0, 1.0, np.nan])
    assert _group_metrics(won, trials, low, high) == {
        "cero/group/signal": 1 / 3,
        "cero/group/all_right": 1 / 3,
        "cero/group/all_wrong": 1 / 3,
        "cero/group/count": 3.0,
        "cero/score/prompt_mean": (1 + 0 + 0.5) / 3,
        "cero/rollouts/observed": 8.0,
    }
    figures = size_figures(np.array([0, 0, 4, 12]))
    assert figures["n/mean"] == 4 and figures["n/zero"] == 0.5 and figures["n/p50"] == 2
    assert figures["n/p90"] == pytest.approx(9.6) and figures["n/p10"] == 0 and figures["n/max"] == 12


@pytest.mark.parametrize("kind, zeros", [("posterior", 0), ("rloo", 8), ("aero", 0)])
def test_zeros_go_by_what_the_estimator_says(step, kind, zeros):
    _, _, _, metrics = step(
        "allocator=cero",
        "cero.drop_zero_advantage=true",
        "algorithm.cero.baseline=mean",
        f"algorithm.cero.advantage={kind}",
    )
    assert metrics["cero/rows/dropped_as_zero"] == zeros


def test_enough_rows_stay_where_nothing_has_a_signal(step, monkeypatch):
    monkeypatch.setattr(f"{__name__}.won", lambda prompt, session: 1.0)
    trainer, batch, _, metrics = step(
        "allocator=uniform", "cero.drop_zero_advantage=true", "actor_rollout_ref.actor.ppo_mini_batch_size=2"
    )
    # Four optimizer steps; a whole group, lest a part of it gets an advantage.
    assert trainer.record.plan.steps == 4 and len(real(batch)) == 4
    assert len({key.split("_")[0] for key in real(batch)}) == 1


@pytest.mark.slow
def test_rounds(step):
    trainer, batch, queue, metrics = step("allocator=aero", lost={(1, 0)})
    launched = trainer.record.rollouts.tolist()
    # Two each; without a success two more. Prompt 1's only success was lost, and with it the prompt's rounds.
    assert trainer.asked == [N] * PROMPTS and launched == [4, 2, 2, 2, 4, 2, 2, 2]
    assert trainer.scheduler.allocator.ledger.spent == 20 and metrics["cero/budget/refunded"] == 12
    assert metrics["cero/rounds/max"] == 2 and metrics["cero/rounds/mean"] == 1.25
    assert metrics["cero/rollouts/sampled"] == 20 and metrics["cero/rollouts/observed"] == 19


def test_selection_is_the_same_whoever_came_back_first(step, monkeypatch):
    kept = []
    for seed in (1, 2):
        shuffled = np.random.default_rng(seed)
        monkeypatch.setattr(Queue, "batch", lambda self, order=shuffled: reordered(self, order))
        kept.append(real(step("allocator=uniform", "cero.keep.rule=balanced", "cero.keep.count=2")[1]))
    assert kept[0] == kept[1] and len(kept[0]) == 16


def reordered(queue, rng):
    keys = list(rng.permutation(list(queue.rows)))
    return KVBatchMeta(keys, [{"response_len": queue.rows[key][0]} for key in keys], "train")


def test_a_reward_out_of_range_ends_the_run(step, monkeypatch):
    monkeypatch.setattr(f"{__name__}.won", lambda prompt, session: 2.0)
    with pytest.raises(ValueError, match="a reward of 2.0 lies outside cero.success.range"):
        step("allocator=uniform")


# Keeps all four of a group, but in the trainer's other order of events.
SELECTING = ("cero.keep.rule=gfpo_length", "cero.keep.count=4")


@pytest.mark.parametrize(
    "overrides, fetched",
    [
        (("allocator=cero", "algorithm.cero.baseline=mean"), [["rm_scores"]]),
        (("allocator=cero",), [["rm_scores"], WEIGHTS]),
        (("allocator=aero", "cero.keep.rule=all"), [["rm_scores"]]),
        (("allocator=uniform",), [["rm_scores"]]),
        (("allocator=uniform", *SELECTING), [["rm_scores"]]),
        (
            ("allocator=cero", "cero.drop_zero_advantage=true", "algorithm.cero.baseline=mean"),
            [["rm_scores", "loss_mask"]],
        ),
        (("allocator=cero", *SELECTING), [["rm_scores"], WEIGHTS]),
    ],
)
def test_rewards_are_fetched_once(step, overrides, fetched):
    trainer, batch, queue, metrics = step(*overrides)
    assert [fields for fields in queue.fetched if fields != ["advantages"]] == fetched
    assert (
        metrics["cero/time/allocate"] > 0
        and metrics["cero/time/observe"] > 0
        and not trainer.scheduler.stopwatch.take()
    )
    # If rows may be left out, verl's thread observes; the scheduler's own then has the baselines at most.
    beside = not trainer.settings.selects or WEIGHTS in fetched
    assert (metrics.get("cero/time/background", 0) > 0) == beside


@pytest.mark.slow
@pytest.mark.parametrize("allocator", ["cero", "uniform", "reinforce_ada_seq", "cero_seq"])
@pytest.mark.parametrize("outputs, lost", [(1, ()), (2, {(2, 1), (5, 0), (5, 1)})])
def test_what_is_learned_does_not_depend_on_when(step, allocator, outputs, lost):
    """Rewards are observed while the old log-probs are computed or, where rows may be left out, before."""
    overrides = (f"allocator={allocator}", "allocator.n_max=4", "algorithm.adv_estimator=cero")
    late, early = (
        step(*overrides, *more, outputs=outputs, lost=lost) for more in (("cero.keep.rule=all",), SELECTING)
    )
    weights = [WEIGHTS] if late[0].settings.baseline == "optimal" else []
    assert late[2].fetched == early[2].fetched == [["rm_scores"], *weights]
    states = [result[0].scheduler.allocator.state_dict() for result in (late, early)]
    tables = [state.pop("table") for state in states]
    for key, column in tables[0].items():
        np.testing.assert_array_equal(column, tables[1][key])
    assert repr(states[0]) == repr(states[1])
    assert late[2].advantages.keys() == early[2].advantages.keys()
    assert any(late[2].advantages.values())
    for key, advantage in late[2].advantages.items():
        assert advantage == early[2].advantages[key]
    figures = [{k: v for k, v in result[3].items() if "/time/" not in k} for result in (late, early)]
    assert figures[0] == figures[1]
    for one, other in zip(late[0].record.context.known, early[0].record.context.known, strict=True):
        np.testing.assert_array_equal(one, other)
    assert late[0].record.context.place == early[0].record.context.place


@pytest.mark.parametrize("allocator", ["cero", "uniform", "cero_seq"])
def test_the_optimal_baseline_is_what_is_subtracted(step, allocator):
    overrides = (
        "algorithm.adv_estimator=cero",
        "algorithm.cero.advantage=posterior",
        "algorithm.cero.scale=false",
    )
    trainer, batch, queue, metrics = step(
        f"allocator={allocator}",
        *overrides,
        "algorithm.cero.baseline=optimal",
        outputs=2,
        lost={(2, 1), (5, 0)},
    )
    kept = {key.rpartition("_")[0] for key in real(batch)}
    names = sorted(kept, key=lambda name: [int(part) for part in name[1:].split("_")])
    prompts = np.array([int(name[1:].split("_")[0]) for name in names])
    numbers = np.array([int(name.split("_")[1]) for name in names])
    rewards = np.array([won(*each) for each in zip(prompts, numbers, strict=True)])
    lengths = np.array([queue.rows[f"{name}_0"][0] for name in names])
    # Two outputs of a rollout count together, verl's padding not at all.
    weights = 2 * lengths * (1 - np.exp([log_prob(reward) for reward in rewards])) ** 2
    rounds = None
    if trainer.scheduler.allocator.sequential:
        rounds = trainer.record.dispatches[0].step.round_of(prompts, numbers)
    expected = OptimalBaseline().of_step(trainer.record.ids, prompts, rewards, weights, rounds)
    for name, reward, baseline in zip(names, rewards, expected, strict=True):
        assert queue.advantages[f"{name}_1"] == pytest.approx(reward - baseline, abs=1e-6)
    assert metrics["cero/baseline/mean"] == pytest.approx(expected.mean(), abs=1e-6)
    assert len(trainer.scheduler.baseline.table) == len(set(prompts))


COLUMNS = {
    "extra_info": objects([{"topic": i % 2} for i in range(PROMPTS)]),
}


@pytest.mark.parametrize("allocator", ["cero", "uniform", "cero_seq"])
@pytest.mark.parametrize("bucket", ["text", "extra_info.topic"])
def test_new_prompts_start_where_their_bucket_is(step, allocator, bucket):
    """What the data loader finds reaches the baseline and, for prompts never seen, the scale."""
    estimator = ("algorithm.adv_estimator=cero", "algorithm.cero.advantage=posterior")
    overrides = (f"allocator={allocator}", *estimator, "algorithm.cero.baseline=optimal")
    rows = [{"raw_prompt": messages(i), "extra_info": {"topic": i % 2}} for i in range(PROMPTS)]
    buckets, states = slots_of_rows(rows, bucket), []

    def learn(trainer):
        """Let other prompts have been seen: odd ones right, even ones wrong; and prompt 3 itself, too."""
        scheduler = trainer.scheduler
        for start in range(0, 80, PROMPTS):
            ids = np.arange(1000 + start, 1000 + start + PROMPTS, dtype=np.uint64)
            scheduler.baseline.of_step(
                ids, np.arange(PROMPTS), np.arange(PROMPTS) % 2 * 1.0, np.ones(PROMPTS), buckets=buckets
            )
        seen = scheduler.allocator.begin(np.array([3], np.uint64))
        scheduler.allocator.settle(seen, np.zeros(1), seen.start())
        states.append((scheduler.baseline.state_dict(), scheduler.allocator.success_mean([3])[0]))

    trainer, batch, queue, metrics = step(
        *overrides, f"algorithm.cero.bucket={bucket}", columns=COLUMNS, before=learn
    )
    state, mean = states[0]
    expected = OptimalBaseline(bucket=bucket)
    expected.load_state_dict(state)
    history = expected.expected_success(buckets)
    assert (history[::2] < 0.3).all() and (history[1::2] > 0.7).all()
    if allocator != "uniform":  # which knows nothing of any prompt
        history[3] = mean
    np.testing.assert_array_equal(trainer.record.history_mean, history)
    sessions = trainer.record.sessions
    rewards = np.array([won(*each) for each in zip(sessions.groups, sessions.numbers, strict=True)])
    lengths = np.array([queue.rows[f"{name}_0"][0] for name in sessions.names])
    weights = lengths * (1 - np.exp([log_prob(reward) for reward in rewards])) ** 2
    baselines = expected.of_step(
        trainer.record.ids, sessions.groups, rewards, weights, trainer.record.round_of(sessions), buckets
    )
    data = Groups(rewards, sessions.groups, PROMPTS, *trainer.record.context.known, baselines)
    result = advantages("posterior", data, history)
    for name, advantage in zip(sessions.names, result, strict=True):
        assert queue.advantages[f"{name}_0"] == pytest.approx(advantage, abs=1e-5)
    for name, column in expected.state_dict()["table"].items():
        np.testing.assert_allclose(column, trainer.scheduler.baseline.state_dict()["table"][name], rtol=1e-5)


def test_a_column_that_is_not_there_is_refused_at_the_start(step):
    with pytest.raises(
        ValueError, match="algorithm.cero.bucket=topik: a row .*only uid, prompt_id, raw_prompt"
    ):
        step("allocator=cero", "algorithm.cero.bucket=topik", columns=COLUMNS)


def test_without_buckets_nothing_is_made_of_them(step):
    trainer, *_ = step("allocator=cero", "algorithm.cero.bucket=null", columns=COLUMNS)
    assert trainer.train_dataloader.collate_fn.bucket is None and trainer.record.buckets is None
    assert trainer.scheduler.baseline.shared is None


@pytest.mark.parametrize("allocator", ["thompson", "cero", "uniform", "reinforce_ada_seq"])
@pytest.mark.parametrize("forgetting", [0.5, "auto"])
def test_mapp_goes_by_the_posterior_before_the_step(step, allocator, forgetting):
    options = ["algorithm.adv_estimator=cero", "algorithm.cero.advantage=mapp", "algorithm.cero.mapp_group=6"]
    if allocator in ("thompson", "cero"):
        options.append(f"allocator.forgetting={forgetting}")
    states = []

    def learn(trainer):
        allocator = trainer.scheduler.allocator
        if not allocator.sequential:  # the others meet all prompts for the first time
            ids = np.array([3, 5], np.uint64)
            seen = allocator.begin(ids)
            allocator.settle(seen, seen.start() * np.array([0.0, 1.0]), seen.launched)
            if allocator.beliefs is not None:
                states.append(allocator.beliefs.parameters(allocator.table.rows(ids)))

    trainer, batch, queue, metrics = step(f"allocator={allocator}", *options, before=learn)
    a, b = np.ones(PROMPTS), np.ones(PROMPTS)
    if states:
        kept = 0.5 if forgetting == 0.5 else 1.0  # auto has faded its parameters already
        a[[3, 5]], b[[3, 5]] = (1 + kept * (count - 1) for count in states[0])
        assert max(a.max(), b.max()) > 1.5
    sessions = trainer.record.sessions
    rewards = np.array([won(*each) for each in zip(sessions.groups, sessions.numbers, strict=True)])
    result = advantages(
        "mapp", Groups(rewards, sessions.groups, PROMPTS, prior=(a, b)), np.full(PROMPTS, 0.5), mapp_group=6
    )
    for name, advantage in zip(sessions.names, result, strict=True):
        assert queue.advantages[f"{name}_0"] == pytest.approx(advantage, abs=1e-6)


def test_a_fetch_that_fails_ends_the_run(step, monkeypatch):
    def fails(self, keys, partition_id, select_fields):
        raise ValueError("empty fields")

    monkeypatch.setattr(Queue, "kv_batch_get", fails)
    with pytest.raises(ValueError, match="empty fields"):
        step("allocator=uniform")


def test_pass_rates_of_the_data_set_start_the_posteriors(step):
    rates = np.array([0.0, 0.5, 1.0, None, 0.25, 0.25, 0.25, 0.25], dtype=object)
    trainer, *_ = step("allocator=cero", "cero.pass_rates.column=rate", columns={"rate": rates})
    before = trainer.record.dispatches[0].history_mean
    np.testing.assert_allclose(before[:5], [1 / 6, 0.5, 5 / 6, 0.5, 2 / 6])


@pytest.mark.parametrize(
    "planned, epochs, per_epoch, steps, visits",
    [(100, 1, 4, 4, 1), (100, 1000, 4, 100, 25), (6, 3, 4, 6, 2), (12, 3, 4, 12, 3)],
)
def test_the_horizon_is_verls_own(composed, monkeypatch, tmp_path, planned, epochs, per_epoch, steps, visits):
    """verl ends at total_epochs or at total_training_steps, whichever comes first."""

    def data(self):
        rows = [{"raw_prompt": "1 + 1 ="}] * 64
        self.train_dataset, self.train_dataloader = rows, SimpleNamespace(collate_fn=None)
        self.steps_per_epoch, self.total_training_steps = per_epoch, planned

    monkeypatch.setattr(PPOTrainerSync, "_init_dataloader", data)
    words = (f"trainer.total_epochs={epochs}", f"trainer.default_local_dir={tmp_path}")
    sizes = ("data.train_batch_size=16", "actor_rollout_ref.rollout.n=4")
    sizes += ("actor_rollout_ref.actor.ppo_mini_batch_size=16",)
    trainer = CeroTrainer(composed("+recipe=cero_cpu", *words, *sizes))
    trainer._init_dataloader()
    allocator = trainer.scheduler.allocator
    assert (allocator.ledger.total, allocator.epochs) == (steps * 64, visits)
