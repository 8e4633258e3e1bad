"""Into how many optimizer steps does each number of rows go, on one GPU and on several?"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from cero.verl.record import StepRecord
from cero.verl.rows import RowPlan, RowPlanner, row_multiple
from cero.verl.trainer import CeroTrainer


def config(batch, n, mini, micro=None, log_prob_micro=None, of="rollout"):
    """Return what the planner reads of verl's config; `of` has the fixed log-prob micro-batch."""
    free = {"log_prob_use_dynamic_bsz": True, "log_prob_micro_batch_size_per_gpu": None}
    fixed = {"log_prob_use_dynamic_bsz": False, "log_prob_micro_batch_size_per_gpu": log_prob_micro}
    parts = {"rollout": dict(free), "ref": dict(free)} | ({of: fixed} if log_prob_micro else {})
    parts["rollout"]["n"] = n
    parts["actor"] = {
        "ppo_mini_batch_size": mini,
        "use_dynamic_bsz": micro is None,
        "ppo_micro_batch_size_per_gpu": micro,
    }
    return OmegaConf.create({"data": {"train_batch_size": batch}, "actor_rollout_ref": parts})


def verls(settings, dp_size):
    """Return the multiple to which verl itself pads."""
    parts = settings.actor_rollout_ref
    return math.lcm(dp_size, parts.actor.ppo_mini_batch_size * parts.rollout.n)


SHAPES = [
    dict(batch=16, n=4, mini=16),
    dict(batch=16, n=4, mini=4),
    dict(batch=10, n=4, mini=4),  # the last mini-batch is not full
    dict(batch=32, n=1, mini=8, micro=3),
    dict(batch=16, n=4, mini=16, micro=6),
    dict(batch=16, n=4, mini=8, micro=4, log_prob_micro=12),
    dict(batch=16, n=4, mini=8, log_prob_micro=5, of="ref"),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dp_size", [1, 2, 3, 5, 6, 8])
def test_every_number_of_rows_can_be_divided(shape, dp_size):
    """By ranks, optimizer steps and micro-batches of fixed sizes; verl's workers assert all three."""
    settings = config(**shape)
    planner, parts = RowPlanner(settings, False), settings.actor_rollout_ref
    nominal, planned = shape["batch"] * shape["n"], math.ceil(shape["batch"] / shape["mini"])
    for rows in range(1, 2 * nominal):
        plan = planner.plan(rows, dp_size)
        multiple = planner.multiple(plan, dp_size, verls(settings, dp_size))
        padded = -(-rows // multiple) * multiple
        steps = plan.steps or padded // (shape["mini"] * shape["n"])
        assert steps == max(1, min(planned, rows // dp_size))
        of_rank = padded // steps // dp_size
        assert (
            padded == of_rank * steps * dp_size
            and of_rank % (parts.actor.ppo_micro_batch_size_per_gpu or 1) == 0
        )
        for part in (parts.rollout, parts.ref):
            assert padded // dp_size % (part.log_prob_micro_batch_size_per_gpu or 1) == 0


def test_nominal_rows_are_left_to_verl_where_it_can_divide_them():
    planner = RowPlanner(config(16, 4, 4), has_critic=False)
    assert planner.plan(64, 1) == planner.plan(64, 8) == RowPlan(64, None)
    assert planner.plan(64, 3) == RowPlan(64, 4)  # 16 rows a mini-batch are not divided among three ranks
    assert planner.plan(63, 1) == RowPlan(63, 4) and planner.plan(3, 2) == RowPlan(3, 1)
    assert planner.least_rows(2) == 8
    fixed = RowPlanner(config(16, 4, 16, micro=6), has_critic=False)
    assert fixed.plan(64, 1) == RowPlan(64, 1)


def test_a_part_of_a_step_has_its_share():
    planner = RowPlanner(config(16, 4, 4), has_critic=False, triggers=2)
    assert planner.plan(32, 1) == RowPlan(32, None) and planner.plan(64, 1) == RowPlan(64, 2)
    assert planner.plan(31, 1) == RowPlan(31, 2) and planner.least_rows(1) == 2


def test_a_critics_rows_are_verls():
    planner = RowPlanner(config(16, 4, 4), has_critic=True)
    plan = planner.plan(63, 2)
    assert plan == RowPlan(63, None) and planner.multiple(plan, 2, 48) == 48
    # 96 rows make six mini-batches of 16, and 33 of them are padding: two may be padding only.
    assert planner.steps_to_deal(plan, 96) == 6 and planner.steps_to_deal(plan, 64) == 0


def test_row_multiple_of_a_reference_policy():
    assert row_multiple(config(16, 4, 4, log_prob_micro=5, of="ref"), 2, 4) == 2 * 20


class Ranks:
    """Play verl's worker group of four GPUs that hold two data-parallel ranks of two GPUs each."""

    def __init__(self):
        self._dispatch_info = {}

    def _query_dispatch_info(self, mesh_name):
        assert mesh_name == "actor"
        return [0, 0, 1, 1]


@pytest.mark.parametrize("has_critic, lost", [(False, 0), (False, 3), (False, 21), (True, 40)])
def test_verl_balances_what_was_planned(monkeypatch, has_critic, lost):
    """verl's own method, on two ranks: every rank has as many rows, and every optimizer step real ones."""

    def fill_up(batch, multiple, eos_token_id):
        pads = [f"pad_{i}_0" for i in range(-len(batch) % multiple)]
        tags = [{"is_padding": True, "seq_len": 2} for _ in pads]
        return KVBatchMeta(keys=batch.keys + pads, tags=batch.tags + tags, partition_id="train")

    monkeypatch.setattr(trainer_base, "upsample_batch_to_divisible_size", fill_up)
    settings = config(16, 4, 4)
    OmegaConf.update(settings, "trainer", {"critic_warmup": 0})
    OmegaConf.update(settings, "critic", {"ppo_mini_batch_size": 16})
    trainer = CeroTrainer.__new__(CeroTrainer)
    trainer.config, trainer.use_critic, trainer.global_steps = settings, has_critic, 1
    trainer.actor_rollout_wg, trainer.tokenizer = Ranks(), SimpleNamespace(eos_token_id=0)
    trainer.rows, trainer.record = RowPlanner(settings, has_critic), StepRecord([])
    rows = trainer.record.rows = 64 - lost
    lengths = np.random.default_rng(lost).integers(4, 40, rows)
    batch = KVBatchMeta(
        keys=[f"u{i}_0_0" for i in range(rows)], tags=[{"seq_len": int(length)} for length in lengths]
    )
    metrics = {}
    batch = PPOTrainer._balance_batch(trainer, batch, metrics)
    assert trainer._dp_size == 2 and trainer.record.plan == trainer.rows.plan(rows, 2)
    batch = trainer._dealt(batch)
    assert sorted(key for key in batch.keys if key[0] == "u") == sorted(f"u{i}_0_0" for i in range(rows))
    steps = trainer.record.plan.steps or len(batch) // 16
    assert steps == 4 and len(batch) == {0: 64, 3: 64, 21: 48, 40: 64}[lost]
    real = np.array([key[0] == "u" for key in batch.keys]).reshape(2, steps, -1)
    assert real.any(axis=(0, 2)).all()
