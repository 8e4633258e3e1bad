"""Which rows of a step are trained on, and how are they divided among ranks and optimizer steps?"""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from cero.verl import rows, selection
from cero.verl.sessions import Sessions


def test_sessions_in_an_order_of_their_own():
    """Two outputs of one session are one rollout; who came back first does not matter."""
    keys = ["b_1_0", "a_10_0", "a_2_1", "a_2_0", "b_0_0"]
    rollouts = Sessions.of_keys(keys, {"a": 0, "b": 1})
    assert [keys[row] for row in rollouts.rows] == ["a_2_1", "a_10_0", "b_0_0", "b_1_0"]
    assert rollouts.groups.tolist() == [0, 0, 1, 1] and rollouts.numbers.tolist() == [2, 10, 0, 1]
    assert rollouts.session_of_row.tolist() == [3, 1, 0, 0, 2]
    assert rollouts.per_session([1, 2, 3, 4, 5]).tolist() == [7, 2, 5, 1]


def test_selection_is_drawn_again_by_a_resumed_run():
    rng = np.random.default_rng(0)
    keys = [f"u{i}_{j}_0" for i in range(20) for j in range(8)]
    success = {key: float(rng.random() < 0.2) for key in keys}
    keep = {"rule": "aero", "ratio": 1.0, "count": 4}

    def kept(keys, seed, step):
        rollouts = Sessions.of_keys(keys, {f"u{i}": i for i in range(20)})
        won = np.array([success[keys[row]] for row in rollouts.rows])
        chosen = selection.select(keep, won, rollouts, np.ones(won.size), seed, step)
        return {keys[row] for row in rollouts.rows[chosen]}

    first = kept(keys, 0, 5)
    assert len(first) < len(keys)
    assert kept(list(rng.permutation(keys)), 0, 5) == first
    assert kept(keys, 0, 6) != first and kept(keys, 1, 5) != first


def test_groups_all_equal():
    groups = np.array([0, 0, 1, 1, 3, 4])
    zero = selection.groups_all_equal(np.array([0.5, 0.5, 0, 1, 1, 0]), groups)
    assert zero.tolist() == [True, True, False, False, False, True]  # alone: the raw reward is the advantage
    assert selection.groups_all_equal(np.zeros(0), np.zeros(0, np.int64)).size == 0


def test_groups_all_zero_go_whole_or_not_at_all():
    zero = selection.groups_all_zero(np.array([0.0, 0, 0, 0.1]), np.array([0, 0, 1, 1]))
    assert zero.tolist() == [True, True, False, False]


def test_keep_enough():
    """By whole groups, but for what selection took out of them."""
    stay, may = np.array([True, False, False, False, False]), np.array([True, False, True, True, True])
    groups, sizes = np.array([0, 1, 1, 1, 2]), np.array([1, 1, 2, 1, 1])
    assert selection.keep_enough(stay, may, groups, sizes, 1).tolist() == stay.tolist()
    assert selection.keep_enough(stay, may, groups, sizes, 2).tolist() == [True, False, True, True, False]
    assert selection.keep_enough(stay, may, groups, sizes, 99).tolist() == [True, False, True, True, True]


def config(**actor):
    parts = {"log_prob_use_dynamic_bsz": True, "log_prob_micro_batch_size_per_gpu": None}
    actor = {"ppo_mini_batch_size": 8, "use_dynamic_bsz": True, "ppo_micro_batch_size_per_gpu": None} | actor
    return OmegaConf.create(
        {
            "data": {"train_batch_size": 32},
            "actor_rollout_ref": {"actor": actor, "rollout": parts | {"n": 4}, "ref": parts},
        }
    )


def test_row_multiple():
    assert rows.optimizer_steps(config()) == 4
    assert rows.row_multiple(config(), 2, 4) == 8
    fixed = config(use_dynamic_bsz=False, ppo_micro_batch_size_per_gpu=3)
    assert rows.row_multiple(fixed, 2, 4) == 24
    fixed.actor_rollout_ref.rollout.log_prob_use_dynamic_bsz = False
    fixed.actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu = 8
    assert rows.row_multiple(fixed, 2, 4) == 48
    assert [rows.round_up(size, 8) for size in (1, 8, 9)] == [8, 8, 16]


@pytest.mark.slow
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.data())
def test_no_optimizer_step_is_all_padding(dp_size, steps, width, data):
    """Wherever balancing put them, if there are as many real rows as ranks x steps."""
    size = dp_size * steps * width
    pads = data.draw(st.integers(0, size - dp_size * steps))
    is_padding = np.array(data.draw(st.permutations([True] * pads + [False] * (size - pads))))
    order = rows.deal_padding(is_padding, dp_size, steps)
    assert sorted(order) == list(range(size))
    shares = order.reshape(dp_size, -1)
    for rank, share in enumerate(shares):  # balance between ranks is left as it was
        assert set(share // (steps * width)) == {rank}
    by_step = is_padding[shares].reshape(dp_size, steps, width)
    assert not by_step.all(axis=(0, 2)).any()


def test_verl_makes_optimizer_steps_of_the_size_it_is_told():
    """The method reads the two config values that are changed for a moment; this fails if verl changes it."""
    seen = {}

    class Workers:
        def update_actor(self, batch):
            seen.update(batch.extra_info)
            return {"metrics": {"actor/mfu": 0.0}}

    full = config(
        calculate_entropy=False, entropy_coeff=0.0, ppo_epochs=1, data_loader_seed=42, shuffle=False
    )
    full.actor_rollout_ref.rollout.temperature = 1.0
    trainer = SimpleNamespace(config=full, actor_rollout_wg=Workers())
    batch = SimpleNamespace(extra_info={})
    with rows.rows_per_optimizer_step(full, 13):
        PPOTrainer._update_actor(trainer, batch, {})
    assert seen["mini_batch_size"] == seen["global_batch_size"] == 13
    PPOTrainer._update_actor(trainer, batch, {})
    assert seen["mini_batch_size"] == 8 * 4
    with pytest.raises(KeyError), rows.rows_per_optimizer_step(full, 13):
        raise KeyError
    assert (full.actor_rollout_ref.actor.ppo_mini_batch_size, full.actor_rollout_ref.rollout.n) == (8, 4)
