"""Does the gradient stay the same when rows of advantage zero are left out?

With verl's own losses, every aggregation, and a real model.
"""

import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from transformers import LlamaConfig, LlamaForCausalLM
from verl import DataProto
from verl.trainer.ppo.core_algos import agg_loss
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
from verl.workers.config import FSDPActorConfig, PolicyLossConfig
from verl.workers.utils.losses import ppo_loss

from cero.verl.estimator_rules import PROPORTIONAL_LOSSES
from cero.verl.rows import round_up
from cero.verl.selection import advantage_scale, groups_all_equal

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from tiny import SHAPE  # noqa: E402

AGGREGATIONS = (
    "token-mean",
    "token-sum",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
    "seq-mean-token-mean",
)
PROMPT, RESPONSE, VOCABULARY, MULTIPLE = 5, 9, 32, 4
GROUPS = np.repeat(np.arange(6), [4, 2, 5, 3, 4, 1])
REWARDS = np.array([0, 1, 0, 0] + [1, 1] + [0] * 5 + [1, 0, 1] + [0.5] * 4 + [0])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, **SHAPE, attn_implementation="eager")
    return LlamaForCausalLM(config).double()


@pytest.fixture(scope="module")
def rows(model):
    """Rows with responses of many lengths, verl's GRPO advantages, and old log-probs where PPO clips some."""
    rng = np.random.default_rng(0)
    lengths = torch.as_tensor(rng.integers(1, RESPONSE + 1, GROUPS.size))
    mask = (torch.arange(RESPONSE) < lengths[:, None]).double()
    scores = torch.zeros_like(mask)
    scores[torch.arange(GROUPS.size), lengths - 1] = torch.as_tensor(REWARDS)
    uids = np.array([f"u{group}" for group in GROUPS], dtype=object)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": scores, "response_mask": mask}, non_tensors={"uid": uids}
    )
    keys = [f"{uid}_{i}_0" for i, uid in enumerate(uids)]
    advantages = compute_advantage_for_multi_trajectories(data, keys, "grpo", config={}).batch["advantages"]
    sequences = [torch.as_tensor(rng.integers(0, VOCABULARY, PROMPT + int(n))) for n in lengths]
    with torch.no_grad():
        now = log_probs(model, sequences)
    noise = [torch.as_tensor(rng.normal(0, 0.3, int(n))) for n in lengths]
    return [
        {
            "sequence": sequence,
            "advantages": advantages[i, : lengths[i]],
            "old_log_probs": now[i][PROMPT - 1 : -1] + noise[i],
        }
        for i, sequence in enumerate(sequences)
    ]


def log_probs(model, sequences):
    """Return each token's log-prob given those before it, at the place of the token before, as verl has it.

    The last place has a dummy.
    """
    # In one batch: what is padded on the right changes nothing before it.
    padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    logits = model(padded).logits.log_softmax(-1)
    out = []
    for row, sequence in zip(logits, sequences, strict=True):
        chosen = row[: len(sequence) - 1].gather(1, sequence[1:, None])[:, 0]
        out.append(torch.cat([chosen, row.new_zeros(1)]))
    return out


def equal(one, other):
    """Return whether vectors agree to a millionth of the largest entry; Llama's norms are in float32."""
    return torch.allclose(one, other, rtol=0, atol=1e-6 * float(other.abs().max()))


def nested(tensors):
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def gradient(model, rows, config, rows_with_padding, scale=1.0):
    """Return the gradient of verl's loss as one vector, summed over two micro-batches as in verl's engine."""
    model.zero_grad()
    tokens = sum(len(row["advantages"]) for row in rows)
    for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        data = TensorDict(
            {
                "prompts": nested([row["sequence"][:PROMPT] for row in part]),
                "responses": nested([row["sequence"][PROMPT:] for row in part]),
                "response_mask": nested([torch.ones_like(row["advantages"]) for row in part]),
                "old_log_probs": nested([row["old_log_probs"] for row in part]),
                "advantages": nested([scale * row["advantages"] for row in part]),
            },
            batch_size=len(part),
        )
        for key, value in (
            ("dp_size", 1),
            ("batch_num_tokens", tokens),
            ("global_batch_size", rows_with_padding),
        ):
            data.set_non_tensor(key, value)
        model_output = {"log_probs": nested(log_probs(model, [row["sequence"] for row in part]))}
        loss, _ = ppo_loss(config, model_output, data)
        loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.fixture(scope="module")
def with_and_without(model, rows):
    """`with_and_without(aggregation, **loss)`: three gradients and the scale; each case is computed once.

    The gradients are those of all rows, of the rows left, and of these with the scale.
    loss : options of verl's policy_loss
    """
    return cache(partial(compare, model, rows))


def compare(model, rows, aggregation, **loss):
    config = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=4,
        use_dynamic_bsz=True,
        loss_agg_mode=aggregation,
        loss_scale_factor=RESPONSE if aggregation == "seq-mean-token-sum-norm" else None,
        policy_loss=PolicyLossConfig(**loss),
    )
    zero = groups_all_equal(REWARDS, GROUPS)
    left = [row for row, gone in zip(rows, zero, strict=True) if not gone]
    before, after = round_up(len(rows), MULTIPLE), round_up(len(left), MULTIPLE)
    assert (len(rows), len(left), before, after) == (19, 7, 20, 8)
    tokens, tokens_left = (sum(len(row["advantages"]) for row in part) for part in (rows, left))
    scale = advantage_scale(aggregation, tokens_left / tokens, after / before)
    return (
        gradient(model, rows, config, before),
        gradient(model, left, config, after),
        gradient(model, left, config, after, scale),
        scale,
    )


def test_the_rows_that_go_are_those_of_advantage_zero(rows):
    zero = np.array([bool((row["advantages"] == 0).all()) for row in rows])
    np.testing.assert_array_equal(groups_all_equal(REWARDS, GROUPS), zero)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_same_gradient(with_and_without, aggregation):
    whole, _, scaled, _ = with_and_without(aggregation)
    assert whole.abs().max() > 1e-3
    assert equal(scaled, whole)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_not_without_the_scale(with_and_without, aggregation):
    """The test above can fail."""
    whole, left, _, scale = with_and_without(aggregation)
    assert equal(left, whole) == (aggregation == "token-sum")
    assert (scale == 1) == (aggregation == "token-sum")
    assert equal(left * scale, whole)


@pytest.mark.parametrize("loss", PROPORTIONAL_LOSSES)
@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_every_loss_that_is_let_through(with_and_without, aggregation, loss):
    whole, _, scaled, _ = with_and_without(aggregation, loss_mode=loss)
    assert equal(scaled, whole)


@pytest.mark.parametrize("loss", [{"loss_mode": "dro", "dro_beta": 0.1}, {"loss_mode": "geo_mean"}])
def test_some_that_are_not_would_change_it(with_and_without, loss):
    assert loss["loss_mode"] not in PROPORTIONAL_LOSSES
    whole, _, scaled, _ = with_and_without("token-mean", **loss)
    assert not equal(scaled, whole)


def test_the_norm_needs_a_constant():
    """seq-mean-token-sum-norm without loss_scale_factor is refused: its divisor is the width of the batch."""
    loss, mask = torch.ones(2, 4), torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
    wide, narrow = (
        agg_loss(loss[rows, :width], mask[rows, :width], "seq-mean-token-sum-norm", global_batch_size=2)
        for rows, width in (([1], 4), ([1], 2))
    )
    assert wide * 2 == narrow
