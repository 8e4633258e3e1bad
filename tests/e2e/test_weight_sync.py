"""Do the rollouts come from the weights just trained? verl's own loop answers, on CPU, with a tiny Llama.

The trainer recomputes the log-probabilities of every sampled token; verl's metric
`training/rollout_actor_probs_pearson_corr` compares them with those of the sampler. At a learning rate
at which one update changes the policy visibly, they agree only if each update reached the sampler.
"""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

STEPS = 4
METRIC = "training/rollout_actor_probs_pearson_corr"

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return solution_str.count(ground_truth) / 8
"""


def make_model(folder, tied):
    """Write a random two-layer Llama with a one-character-per-token tokenizer."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ["<pad>", "<eos>", *"0123456789+= "]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens),  # no row beyond the tokenizer: verl never samples those, which would spoil the comparison
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def make_data(path, rows=64):
    """Write prompts `a+b=`; the reward counts the digit `7` in the answer."""
    from datasets import Dataset

    Dataset.from_list(
        [
            {
                "data_source": "sevens",
                "prompt": [{"role": "user", "content": f"{i % 10}+{i // 10}="}],
                "reward_model": {"style": "rule", "ground_truth": "7"},
                "extra_info": {"index": i},
            }
            for i in range(rows)
        ]
    ).to_parquet(path)


def train(folder, tied, *overrides, env=None):
    """Run `verl.trainer.main_ppo` and return its metrics, one dict per step."""
    make_model(folder / "model", tied)
    make_data(folder / "train.parquet")
    (folder / "reward.py").write_text(REWARD)
    metrics = folder / "metrics.jsonl"
    command = [
        *(sys.executable, "-m", "verl.trainer.main_ppo", "+recipe=cero_cpu", "allocator=uniform"),
        f"actor_rollout_ref.model.path={folder}/model",
        "actor_rollout_ref.actor.optim.lr=3e-3",
        "actor_rollout_ref.actor.ppo_mini_batch_size=16",
        "actor_rollout_ref.rollout.n=4",
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/train.parquet",
        "data.train_batch_size=16",
        "data.max_prompt_length=16",
        "data.max_response_length=8",
        f"reward.custom_reward_function.path={folder}/reward.py",
        "trainer.logger=[console,file]",
        "trainer.val_before_train=false",
        "trainer.resume_mode=disable",
        f"trainer.total_training_steps={STEPS}",
        f"trainer.default_local_dir={folder}/checkpoints",
        f"hydra.run.dir={folder}/hydra",
        *overrides,
    ]
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "VERL_FILE_LOGGER_PATH": str(metrics), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-8000:]
    return [json.loads(line)["data"] for line in metrics.read_text().splitlines()]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rollouts_follow_every_update(tmp_path, tied):
    steps = train(tmp_path, tied)
    assert len(steps) == STEPS
    assert [step[METRIC] > 0.99 for step in steps] == [True] * STEPS, [step[METRIC] for step in steps]
