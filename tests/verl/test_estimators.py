"""Does the estimator agree with the core, and with verl's own estimators, on verl's tensors?"""

import numpy as np
import pytest
import torch
from verl import DataProto
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

from cero.estimators.advantage import posterior_advantage
from cero.verl import estimators  # noqa: F401  (registers)
from cero.verl.context import StepContext, current, estimating
from cero.verl.sessions import final_rows

TOKENS = 6


def step(groups, rewards, pads=0, outputs=1):
    """Return (data, keys) as the trainer has them: rewards on the last tokens, padding at the end."""
    uids, keys, sessions = [], [], {}
    for group in groups:
        sessions[group] = sessions.get(group, -1) + 1
        for output in range(outputs):
            uids.append(f"u{group}")
            keys.append(f"u{group}_{sessions[group]}_{output}")
    lengths = np.random.default_rng(0).integers(1, TOKENS + 1, len(uids))
    mask = (np.arange(TOKENS) < lengths[:, None]).astype(float)
    scores = np.zeros_like(mask)
    scores[np.arange(len(uids)), lengths - 1] = np.repeat(rewards, outputs)
    uids += [f"pad{i}" for i in range(pads)]
    keys += [f"pad{i}_0_0" for i in range(pads)]
    mask, scores = (np.pad(x, ((0, pads), (0, 0))) for x in (mask, scores))
    data = DataProto.from_dict(
        tensors={"token_level_rewards": torch.tensor(scores), "response_mask": torch.tensor(mask)},
        non_tensors={"uid": np.array(uids, dtype=object)},
    )
    return data, keys


def columns(pairs):
    return tuple(np.array(column, dtype=float) for column in zip(*pairs, strict=True))


def advantages(data, keys, estimator="cero", mean=0.5, **options):
    """Return one number for each row, once it is checked to be on the response's tokens and nowhere else."""
    scores = data.batch["token_level_rewards"].sum(-1).numpy()
    by_session = {key.rsplit("_", 1)[0]: score for key, score in zip(keys, scores, strict=True)}
    by_group = {}
    for name, score in by_session.items():
        by_group.setdefault(name.rsplit("_", 1)[0], []).append(score)
    sampled = {uid: (len(group), sum(group)) for uid, group in by_group.items()} | options.pop("sampled", {})
    known = options.pop("known", {name: sampled[name.rsplit("_", 1)[0]] for name in by_session})
    uids = list(by_group)
    context = StepContext(
        place={name: i for i, name in enumerate(by_session)},
        groups=np.array([uids.index(name.rsplit("_", 1)[0]) for name in by_session]),
        history_mean=np.full(len(uids), mean),
        sampled=columns([sampled[name.rsplit("_", 1)[0]] for name in by_session]),
        known=columns([known[name] for name in by_session]),
        to_success=lambda reward: reward,
        rollouts_per_prompt=4,
        options={"history": 8.0, "scale": True, "prompt_weight": "trajectory", "advantage": "posterior"}
        | options,
    )
    with estimating(context, keys):
        out = compute_advantage_for_multi_trajectories(data, keys, estimator, config={}).batch
    mask = out["response_mask"]
    value = out["advantages"][:, 0]
    assert torch.equal(out["advantages"], value[:, None] * mask) and torch.equal(
        out["advantages"], out["returns"]
    )
    return value.numpy()


REWARDS = [1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1]
EQUAL = [0] * 4 + [1] * 4 + [2] * 4


def test_equal_groups_agree_with_grpo_in_sign_and_order():
    """Leave-one-out with little history is verl's GRPO up to a positive factor for each group."""
    grpo = advantages(*step(EQUAL, REWARDS), estimator="grpo")
    cero = advantages(*step(EQUAL, REWARDS), history=1e-6, scale=False)
    for group in range(3):
        rows = slice(4 * group, 4 * group + 4)
        ratio = cero[rows] / grpo[rows]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
        assert ratio[0] > 0


def test_same_numbers_as_the_core():
    found = advantages(*step(EQUAL, REWARDS), mean=0.3)
    np.testing.assert_allclose(found, posterior_advantage(REWARDS, EQUAL, [0.3] * 3), rtol=1e-6)


def test_unequal_groups_in_any_order():
    groups, rewards = [2, 0, 1, 1, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0, 0, 1]
    np.testing.assert_allclose(
        advantages(*step(groups, rewards)), posterior_advantage(rewards, groups, [0.5] * 3)
    )


def test_pad_rows_get_nothing_and_count_for_nothing():
    padded = advantages(*step(EQUAL, REWARDS, pads=5))
    np.testing.assert_allclose(padded[:12], advantages(*step(EQUAL, REWARDS)))
    assert (padded[12:] == 0).all()


def test_outputs_of_one_session_share_its_advantage_and_count_once():
    several = advantages(*step(EQUAL, REWARDS, outputs=3))
    np.testing.assert_allclose(several, np.repeat(advantages(*step(EQUAL, REWARDS)), 3))


def test_final_rows():
    rows, session, names = final_rows(["a_0_0", "a_0_1", "a_1_0", "b_0_1", "b_0_0", "pad77_0_0"])
    assert rows.tolist() == [1, 2, 3, 5] and session.tolist() == [0, 0, 1, 2, 2, 3]
    assert names == ["a_0", "a_1", "b_0", "pad77_0"]


def test_without_the_scheduler_it_says_so():
    data, keys = step(EQUAL, REWARDS)
    with pytest.raises(ValueError, match=r"\+recipe=cero"):
        compute_advantage_for_multi_trajectories(data, keys, "cero", config={})
    assert current() is None


@pytest.mark.parametrize("kind", ["grpo", "rloo", "dr_grpo"])
def test_kinds_that_verl_has_too_are_verls(kind):
    """verl's own estimators on equal groups (its Dr.GRPO is GRPO without the standard deviation)."""
    data, keys = step(EQUAL, REWARDS)
    found = advantages(data, keys, advantage=kind)
    groups, rewards = np.array(EQUAL), np.array(REWARDS, float)
    mean = np.bincount(groups, rewards)[groups] / 4
    verls = {
        "grpo": lambda: advantages(step(EQUAL, REWARDS)[0], keys, "grpo"),
        "rloo": lambda: advantages(step(EQUAL, REWARDS)[0], keys, "rloo"),
        "dr_grpo": lambda: rewards - mean,
    }[kind]()
    np.testing.assert_allclose(found, verls, atol=1e-5)


def test_what_was_sampled_and_not_kept_counts_in_the_baselines():
    data, keys = step([0, 0], [1, 0])
    np.testing.assert_allclose(
        advantages(data, keys, advantage="ada_global", sampled={"u0": (10, 2)}), [0.8, -0.2], rtol=1e-6
    )
    known = {"u0_0": (2, 1), "u0_1": (10, 2)}  # the second of later rounds
    got = advantages(data, keys, scale=False, history=4.0, known=known)
    np.testing.assert_allclose(got, [1 - (2 + 0) / 5, 0 - (2 + 2) / 13], rtol=1e-6)
