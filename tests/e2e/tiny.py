"""What is the smallest task that trains through verl's whole stack? A random Llama and one-digit sums."""

import os
import signal
import subprocess
import sys
import time

import psutil

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SHAPE = dict(
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    initializer_range=0.1,
)


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
        # No token beyond the tokenizer's: verl never samples such tokens, which would spoil comparisons.
        vocab_size=len(tokens),
        **SHAPE,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def make_data(path, rows=64):
    """Write different prompts `a+b=`; what is rewarded is up to the test's reward function."""
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


def command(folder, *overrides, recipe="cero_cpu"):
    """Return the command line of a run of 16 prompts x 4 a step; list of str.

    folder : holds model/, train.parquet and reward.py
    """
    return [
        *(sys.executable, "-m", "verl.trainer.main_ppo", f"+recipe={recipe}"),
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
        f"trainer.default_local_dir={folder}/checkpoints",
        f"hydra.run.dir={folder}/hydra",
        *overrides,
    ]


def run(arguments, folder, **environment):
    """Run a command in `folder` and return its output; fail with the end of the output unless it exits 0."""
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=900)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert process.returncode == 0, output[-8000:]
    return output


def kill_after_step(arguments, folder, step):
    """Start a run in `folder` and kill -9 it, with everything it started, once `step` is in its log."""
    from cero.analysis.runlog import read_log

    log = folder / "checkpoints" / "cero" / "allocations.jsonl"
    with (folder / "killed.log").open("w") as output:
        process = subprocess.Popen(arguments, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 900
            while not log.exists() or step not in [record["step"] for record in read_log(log)]:
                said = (folder / "killed.log").read_text()[-8000:]
                assert process.poll() is None, said
                assert time.monotonic() < deadline, f"the run did not get to step {step}: {said}"
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.send_signal(signal.SIGKILL)
            process.kill()
            process.wait()


# What is rewarded is learned within a step, since the learning rate is high.
SEVENS_REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return solution_str.count(ground_truth) / 8
"""


def train_at_a_high_rate(folder, steps, path, *overrides):
    """Run `steps` steps in `folder`, which change the policy visibly; metrics are in metrics.jsonl.

    path : a folder of modules for the run
    """
    make_model(folder / "model", tied=True)
    make_data(folder / "train.parquet")
    (folder / "reward.py").write_text(SEVENS_REWARD)
    arguments = command(
        folder,
        "actor_rollout_ref.actor.optim.lr=1e-3",
        "trainer.val_before_train=false",
        "trainer.resume_mode=disable",
        f"trainer.total_training_steps={steps}",
        *overrides,
    )
    path = os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH")]))
    run(arguments, folder, VERL_FILE_LOGGER_PATH=str(folder / "metrics.jsonl"), PYTHONPATH=path)
