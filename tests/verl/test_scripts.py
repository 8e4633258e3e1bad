"""scripts/qwen2.5-math-*.sh: the command line that each really runs, composed and validated as verl does."""

import os
import re
import shlex
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.config import omega_conf_to_dataclass, validate_config

from cero.verl.settings import read_settings

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("qwen2.5-math-*.sh"))
pytestmark = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


@pytest.fixture
def overrides_of(tmp_path):
    """`overrides_of(script, *args, **environment)`: the arguments with which the script starts verl; list of str.

    A `python` that only writes down its arguments stands first in PATH.
    """
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    unset = {key: value for key, value in os.environ.items() if key not in ("MODEL", "DATA", "OUT", "GPUS", "NODES")}

    def overrides_of(script, *args, **environment):
        env = unset | {"PATH": f"{python.parent}:{os.environ['PATH']}"} | environment
        done = subprocess.run(
            ["bash", script, *args], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        words = done.stdout.split("\0")[:-1]
        assert words[:2] == ["-m", "verl.trainer.main_ppo"]
        return words[2:]

    return overrides_of


def checked(config):
    """What verl and the plugin check before anything is loaded. Returns the allocator."""
    validate_config(config, need_reference_policy(config), need_critic(config))
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    return read_settings(config).make_allocator()


def required_multiple(config):
    """The number of rows to a multiple of which verl pads a batch."""
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    trainer = SimpleNamespace(config=config, use_critic=need_critic(config), global_steps=1)
    return PPOTrainer._get_required_batch_multiple(trainer, gpus)


def test_is_bash(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert len(SCRIPTS) == 2


def test_composes_and_validates(script, composed, overrides_of):
    config = composed(*overrides_of(script))
    allocator = checked(config)
    assert (config.allocator.name, config.algorithm.adv_estimator) == ("cero", "cero")
    assert (allocator.n_min, allocator.n_max, allocator.rollouts_per_prompt) == (2, 32, 8)
    assert config.trainer.experiment_name == f"{script.stem}-cero"
    assert config.trainer.default_local_dir == f"runs/math/{script.stem}-cero"
    assert list(config.trainer.logger) == ["console", "tensorboard"]
    assert config.actor_rollout_ref.model.path.lower() == f"qwen/{script.stem}"
    assert not need_reference_policy(config) and not need_critic(config)


@pytest.mark.parametrize("gpus", [8, 4])
def test_batches_need_no_padding(script, composed, overrides_of, gpus):
    config = composed(*overrides_of(script, GPUS=str(gpus)))
    checked(config)
    assert config.trainer.n_gpus_per_node == gpus
    rows = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    assert rows % required_multiple(config) == 0
    assert gpus % config.actor_rollout_ref.rollout.tensor_model_parallel_size == 0


def test_lengths(script, composed, overrides_of):
    """Qwen2.5-Math's context holds prompt and response, and a micro-batch holds one such row."""
    config = composed(*overrides_of(script))
    longest = config.data.max_prompt_length + config.data.max_response_length
    assert longest == 4096
    assert config.actor_rollout_ref.rollout.prompt_length + config.actor_rollout_ref.rollout.response_length == longest
    assert config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu >= longest


def test_baseline_is_grpo(script, composed, overrides_of):
    config = composed(*overrides_of(script, "allocator=uniform"))
    allocator = checked(config)
    assert config.algorithm.adv_estimator == "grpo"
    assert config.trainer.default_local_dir == f"runs/math/{script.stem}-uniform"
    prompts, rollouts = config.data.train_batch_size, config.actor_rollout_ref.rollout.n
    assert allocator.allocate(range(prompts), budget=prompts * rollouts).tolist() == [rollouts] * prompts


def test_further_overrides_win(script, composed, overrides_of):
    config = composed(*overrides_of(script, "allocator.n_max=16", "data.train_batch_size=64", "trainer.nnodes=2"))
    assert checked(config).n_max == 16
    assert config.data.train_batch_size == 64 and config.trainer.nnodes == 2


def test_environment(script, composed, overrides_of, tmp_path):
    places = {name: str(tmp_path / f"my {name.lower()}") for name in ("MODEL", "DATA", "OUT")}
    config = composed(*overrides_of(script, GPUS="2", NODES="4", **places))
    assert config.actor_rollout_ref.model.path == places["MODEL"]
    assert config.data.train_files == f"{places['DATA']}/train.parquet"
    assert all(file.startswith(places["DATA"]) for file in config.data.val_files)
    assert config.trainer.default_local_dir.startswith(places["OUT"])
    assert (config.trainer.n_gpus_per_node, config.trainer.nnodes) == (2, 4)


def test_reward_loads_and_fits_the_range(script, composed, overrides_of):
    config = composed(*overrides_of(script))
    score = get_custom_reward_fn(config)
    score = partial(score, data_source="math_dapo", ground_truth="3")
    results = [score(solution_str=text)["score"] for text in ("", r"\boxed{3}", r"\boxed{\frac{6}{2}}")]
    assert results == [*config.cero.success.range, 1] and config.cero.success.key is None


def test_commands_of_the_header(script, composed, overrides_of):
    """The header's commands are ones that work: prepare.py takes and writes what is said, overrides compose."""
    header = script.read_text().split("set -euo pipefail")[0]
    commands = re.findall(r"^# {3}(\S.*?)(?: {2,}#.*)?$", header, flags=re.MULTILINE)
    runs = [command for command in commands if script.name in command]
    prepares = [command for command in commands if "prepare.py" in command]
    assert len(runs) >= 4 and len(prepares) == 1
    for command in runs:
        before, after = command.split(f"bash scripts/{script.name}")
        environment = dict(word.split("=") for word in shlex.split(before))
        arguments = shlex.split(after)
        if arguments != ["--cfg", "job"]:
            checked(composed(*overrides_of(script, *arguments, **environment)))
    options = shlex.split(prepares[0])[1:]
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import prepare\n"
        "print(prepare.arguments().parse_args(sys.argv[2:]).out, *prepare.VALIDATION)"
    )
    folder = ROOT / Path(options[0]).parent
    done = subprocess.run(
        [sys.executable, "-c", code, folder, *options[1:]], capture_output=True, text=True, check=True
    )
    out, *sets = done.stdout.split()
    config = composed(*overrides_of(script))
    assert config.data.train_files == f"{out}/train.parquet"
    assert list(config.data.val_files) == [f"{out}/{name}.parquet" for name in sets]


def test_scripts_differ_only_in_size(script, overrides_of):
    """Each can be read alone, so most of the text is there twice: it must stay the same."""
    ours, other = ({key for key in overrides_of(each)} for each in (script, SCRIPTS[script == SCRIPTS[0]]))
    assert {override.split("=")[0] for override in ours - other} == {
        "actor_rollout_ref.model.path",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
        "actor_rollout_ref.rollout.tensor_model_parallel_size",
        "trainer.experiment_name",
        "trainer.save_freq",
    }
