"""The plugin registers itself, costs little, and never fails unseen."""

import json
import os
import subprocess
import sys

import pytest

RUN = [sys.executable, "-m", "verl.trainer.main_ppo"]


def python(code, *argv, **env):
    result = subprocess.run(
        [sys.executable, "-c", code, *argv],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=120,
    )
    return result


def test_registers_without_environment_variable():
    code = """
import verl, json
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
print(json.dumps([get_trainer_cls("cero").__name__, get_adv_estimator_fn("cero").__module__]))
"""
    result = python(code)
    assert json.loads(result.stdout.splitlines()[-1]) == ["CeroTrainer", "cero.verl.estimators"], (
        result.stderr
    )


def test_import_verl_stays_light():
    """No trainer, no Hydra, no vLLM, no plotting: what a process that does not train pays for is small modules."""
    code = """
import sys, verl
heavy = ["verl.trainer.ppo.v1", "hydra", "vllm", "matplotlib", "scipy", "cero.verl.trainer", "cero.allocators"]
print([name for name in heavy if name in sys.modules])
"""
    result = python(code)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout


BREAK = "import sys; sys.modules['wrapt'] = None\n"


@pytest.mark.parametrize("argument", ["+recipe=[cero,cpu]", "allocator=uniform"])
def test_a_broken_plugin_ends_a_run_that_asked_for_it(argument):
    result = python(BREAK + "import verl; print('went on')", argument)
    assert result.returncode != 0 and "went on" not in result.stdout
    assert "cero: the verl plugin could not be loaded" in result.stderr and "wrapt" in result.stderr


def test_a_broken_plugin_says_so_and_leaves_others_alone():
    result = python(BREAK + "import verl; print('went on')", "data.train_batch_size=8")
    assert result.returncode == 0 and "went on" in result.stdout
    assert "cero: the verl plugin could not be loaded" in result.stderr


def test_without_plugins_the_allocator_word_fails_in_hydra():
    """VERL_USE_EXTERNAL_PLUGINS=none: none of our code runs, so only Hydra can refuse `allocator=`."""
    env = {**os.environ, "VERL_USE_EXTERNAL_PLUGINS": "none"}
    result = subprocess.run(
        [*RUN, "+recipe=cero", "allocator=cero", "--cfg", "job"],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )
    assert result.returncode != 0 and "allocator" in result.stderr


def test_bad_settings_stop_before_ray():
    result = subprocess.run(
        [*RUN, "+recipe=cero", "actor_rollout_ref.rollout.n=8", "allocator.n_max=4"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode != 0
    assert "rollouts_per_prompt=8 lies outside" in result.stderr
    assert "ray init" not in result.stdout and "Traceback" not in result.stderr
