"""Does scripts/gpu/ start what its arms say? The scripts are run with a stand-in for Python and no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cero.verl.preflight import Preflight
from cero.verl.reading import read_settings

GPU = Path(__file__).parents[2] / "scripts" / "gpu"
ARMS = {"grpo": 8, "grpo-2": 2, "cero": 1, "cero-family": 1, "even": 1, "aero": 8, "cero_seq": 8}
STAND_IN = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


def train(folder, arm, *further, **environment):
    """Run train.sh; return the completed process, and the words that it gave to Python."""
    python = folder / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    words = ["bash", str(GPU / "train.sh"), arm, "fresh", str(folder / "out"), "4", *further]
    environment = os.environ | {"PYTHON": str(python), "TASK": "/task"} | environment
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    log = folder / "out" / "train.log"
    return done, json.loads(log.read_text()) if log.exists() else None


@pytest.mark.parametrize("rollouts", [128, 1024])
@pytest.mark.parametrize("arm", ARMS)
def test_arms(arm, rollouts, composed, tmp_path):
    _, words = train(tmp_path, arm, ROLLOUTS=str(rollouts), RECIPE="cero")
    assert words[:2] == ["-m", "verl.trainer.main_ppo"]
    config = composed(*words[2:])
    composed.check(config)
    Preflight().on_job_start(config)
    group = config.actor_rollout_ref.rollout.n
    assert group == ARMS[arm] and config.data.train_batch_size * group == rollouts
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == config.data.train_batch_size
    allocator = read_settings(config).make_allocator()
    assert allocator.name == {"aero": "aero", "cero_seq": "cero_seq"}.get(
        arm, "cero" if group == 1 else "uniform"
    )


def test_further_overrides_win(composed, tmp_path):
    _, words = train(tmp_path, "cero", "trainer.save_freq=2", "trainer.resume_mode=auto", RECIPE="cero_cpu")
    config = composed(*words[2:])
    assert (config.trainer.save_freq, config.trainer.resume_mode) == (2, "auto")
    assert config.trainer.device == "cpu" and config.trainer.total_training_steps == 4


@pytest.mark.parametrize(
    "arm, rollouts, message",
    [("best", "128", "best: grpo, grpo-2"), ("aero", "12", "needs a multiple of 8"), ("grpo", "4", "of 8")],
)
def test_what_can_not_be_trained_is_refused(arm, rollouts, message, tmp_path):
    done, words = train(tmp_path, arm, ROLLOUTS=rollouts)
    assert done.returncode == 2 and message in done.stderr and words is None


@pytest.mark.parametrize("script", ["train.sh", "go.sh", "resume.sh", "collect.sh"])
def test_a_script_without_arguments_says_how_it_is_used(script):
    done = subprocess.run(["bash", str(GPU / script)], capture_output=True, text=True)
    assert done.returncode == 2 and f"bash scripts/gpu/{script} " in done.stderr
    assert not any(line.startswith(("#", "set -")) for line in done.stderr.splitlines())
