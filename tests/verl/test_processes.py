"""What does a fresh process get that imports verl?

Importing verl takes ten seconds, so each test starts one process, and asks it all that can be asked there.
"""

import json
import os
import subprocess
import sys

import pytest

from cero.research.speed.turns import arm_of
from cero.verl import plugin

NAMES = ("VERL_PLATFORM", "VERL_USE_EXTERNAL_PLUGINS", "VERL_USE_EXTERNAL_MODULES")


def python(code, **env):
    """Run `code` in a fresh interpreter; of NAMES, its environment has only those in `env`."""
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | env, capture_output=True, text=True, timeout=300
    )


def said(result):
    """Return what the process printed by its function `say`: a dict."""
    lines = [line.removeprefix("SAID ") for line in result.stdout.splitlines() if line.startswith("SAID ")]
    return dict(item for line in lines for item in json.loads(line).items())


START = """
import json, runpy, sys
def say(**items):
    print("SAID", json.dumps(items), flush=True)
def main_ppo(*words):
    sys.argv = ["main_ppo", *words]
    runpy.run_module("verl.trainer.main_ppo", run_name="__main__", alter_sys=True)
"""

# What a process that does not train must not pay for.
HEAVY = [
    "verl.trainer.ppo.v1",
    "hydra",
    "vllm",
    "matplotlib",
    "scipy",
    "cero.verl.trainer",
    "cero.allocators",
]
PLAIN = """
import verl
say(heavy=[name for name in HEAVY if name in sys.modules],
    cpu=sorted(name for name in sys.modules if name.startswith("cero.verl.cpu.")))
from verl.workers.rollout.replica import RolloutReplicaRegistry
say(rollout=RolloutReplicaRegistry._registry["vllm"].__module__)
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.v1 import get_trainer_cls
say(trainer=get_trainer_cls("cero").__name__, estimator=get_adv_estimator_fn("cero").__module__)
try:
    get_trainer_cls("turns")
except Exception as error:
    say(turns=str(error))
main_ppo("+recipe=cero", "actor_rollout_ref.rollout.n=8", "allocator.n_max=4")
"""


@pytest.mark.e2e
def test_a_process_like_any_other():
    """It registers without an environment variable, stays light, and stops bad settings before Ray."""
    result = python(f"{START}\nHEAVY = {HEAVY}\n{PLAIN}")
    found = said(result)
    assert found["heavy"] == [], result.stdout
    assert found["cpu"] == ["cero.verl.cpu.platform"]
    assert found["rollout"] == "verl.workers.rollout.replica"
    assert (found["trainer"], found["estimator"]) == ("CeroTrainer", "cero.verl.estimators"), result.stderr
    assert "Unknown trainer 'turns'" in found["turns"]  # of scripts/step_cost.py, which asks for it by name
    assert result.returncode != 0
    assert "rollouts_per_prompt=8 lies outside" in result.stderr
    assert "ray init" not in result.stdout and "Traceback" not in result.stderr


CPU = """
import verl
import verl.utils.device as device
say(device=[device.get_device_name(), device.get_nccl_backend(), device.is_support_ipc()])
from verl.workers.rollout.replica import RolloutReplicaRegistry
say(rollout=RolloutReplicaRegistry._registry["vllm"].__module__)
from cero.verl.agent_loop import SequentialWorker
from verl.trainer.ppo.v1 import agent_loop_tq
from cero.verl.cpu.agent_loop import CpuWorker
say(worker=agent_loop_tq.AgentLoopWorkerTQ.__ray_actor_class__ is CpuWorker,
    in_rounds=issubclass(SequentialWorker, CpuWorker))
"""
TAKE_TURNS = """
from types import SimpleNamespace
from hydra import compose, initialize_config_module
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

def data(self):
    self.train_dataset = [{"raw_prompt": [{"role": "user", "content": "2 + 2"}]}] * 1024
    self.train_dataloader = SimpleNamespace(collate_fn=None)
    self.steps_per_epoch, self.total_training_steps = 1, 7

PPOTrainerSync._init_dataloader = data
with initialize_config_module("verl.trainer.config", version_base=None):
    config = compose("ppo_trainer", overrides=["+recipe=cero_cpu", "trainer.v1.trainer_mode=turns"])
trainer = get_trainer_cls("turns")(config)
trainer._init_dataloader()
turns = []
for trainer.global_steps in range(1, 8):
    trainer.on_step_begin()
    scheduled = "CeroTrainer" in [cls.__name__ for cls in type(trainer).__mro__]
    turn = [scheduled, config.algorithm.adv_estimator, trainer.train_dataloader.collate_fn.on]
    if scheduled:
        scheduler = trainer.scheduler
        turn += [scheduler.allocator.name, scheduler.settings.estimates, scheduler.baseline is not None]
    turns.append(turn)
say(turns=turns)
"""


@pytest.mark.e2e
def test_a_process_that_is_told_to_use_the_cpu_and_to_take_turns():
    """All of it is the CPU's, the worker that samples in rounds as well.

    With the module of scripts/step_cost.py, trainers take turns: in verl's turn the trainer has no method of
    the plugin; else it has a scheduler and its estimator.
    """
    modules = {"VERL_USE_EXTERNAL_MODULES": "cero.research.speed.turns"}
    result = python(START + CPU + TAKE_TURNS, VERL_PLATFORM="cpu", **modules)
    assert result.returncode == 0, result.stderr
    found = said(result)
    assert found["device"] == ["cpu", "gloo", False]
    assert found["rollout"] == "cero.verl.cpu.rollout"
    assert found["worker"] and found["in_rounds"]
    expected = {
        "verl": [False, "grpo", False],
        "uniform": [True, "grpo", True, "uniform", False, False],
        "cero": [True, "cero", True, "cero", True, True],
    }
    assert found["turns"] == [expected[arm_of(step)] for step in range(1, 8)]


@pytest.mark.parametrize(
    "word",
    [
        "+recipe=cero",
        "+recipe=aero",
        "++recipe=aero_cpu",
        "+recipe=[mine,cero]",
        "+recipe=mine",
        "+recipe@x=cero",
    ]
    + ["allocator=uniform", "+allocator=uniform", "allocator.n_max=8", "++allocator.luck=1"],
)
def test_what_only_the_plugin_understands(word, monkeypatch, capsys):
    """With a plugin that can't be loaded, such a word ends the process: verl would train something else."""
    monkeypatch.setattr(sys, "argv", ["main_ppo", "data.train_batch_size=8", word])
    with pytest.raises(SystemExit, match="(?s)no wrapt.*stopping: without the plugin"):
        plugin._fail(ImportError("no wrapt"))
    monkeypatch.setattr(sys, "argv", ["main_ppo", "data.train_batch_size=8", "trainer.recipes=1"])
    plugin._fail(ImportError("no wrapt"))
    assert "no wrapt" in capsys.readouterr().err


WITHOUT = """
import importlib, os
try:
    main_ppo("+recipe=cero", "allocator=cero", "--cfg", "job")
except SystemExit as error:
    say(without=error.code, plugin="cero.verl.plugin" in sys.modules)
print("END OF THE RUN WITHOUT PLUGINS", file=sys.stderr, flush=True)

import verl
os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "auto"
sys.modules["wrapt"] = None

def import_verl(*words):  # again, with its plugins
    sys.argv = ["main_ppo", *words]
    sys.modules.pop("cero.verl.plugin", None)
    importlib.reload(verl)

import_verl("data.train_batch_size=8")
say(other="went on")
print("END OF THE RUN WITHOUT A RECIPE", file=sys.stderr, flush=True)
try:
    import_verl("+recipe=[cero,cpu]")
except SystemExit as error:
    say(recipe=str(error))
import_verl("allocator=uniform")
say(allocator="went on")
"""


@pytest.mark.e2e
def test_a_process_without_the_plugin_or_with_a_broken_one():
    """A run that asked for the plugin never trains without it; other runs go on.

    Without plugins none of this package's code runs, so only Hydra can refuse `allocator=`. The module that
    the plugin lacks here is wrapt.
    """
    result = python(START + WITHOUT, VERL_USE_EXTERNAL_PLUGINS="none")
    found = said(result)
    without, rest = result.stderr.split("END OF THE RUN WITHOUT PLUGINS")
    assert found["without"] not in (0, None) and not found["plugin"] and "allocator" in without
    other, asked = rest.split("END OF THE RUN WITHOUT A RECIPE")
    assert found["other"] == "went on" and "cero: the verl plugin could not be loaded" in other
    for message in (found["recipe"], asked):
        assert "cero: the verl plugin could not be loaded" in message and "wrapt" in message
    assert result.returncode != 0 and "allocator" not in found
