"""Does verl have the hooks that are used, is their list complete, and is a missing one named?"""

import inspect

import pytest
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from cero.verl.agent_loop import AgentLoopManagerTQ, SequentialManager, SequentialWorker, Worker
from cero.verl.hooks import HOOKS, TESTED, IncompatibleVerl, check_verl, missing_hooks
from cero.verl.preflight import Preflight
from cero.verl.trainer import ScheduledTrainer

BASE = "verl.trainer.ppo.v1.trainer_base"
LOOP = HOOKS["verl.trainer.ppo.v1.agent_loop_tq"]


def test_the_installed_verl_has_them():
    assert missing_hooks() == []


@pytest.mark.parametrize(
    "override, base, listed",
    [
        (ScheduledTrainer, PPOTrainer, HOOKS[BASE]["PPOTrainer"]),
        (SequentialManager, AgentLoopManagerTQ, LOOP["AgentLoopManagerTQ"]),
        (SequentialWorker, Worker, LOOP["AgentLoopWorkerTQ.__ray_actor_class__"]),
    ],
)
def test_every_method_that_is_overridden_is_listed(override, base, listed):
    classes = override.__mro__[: override.__mro__.index(base)] if base in override.__mro__ else [override]
    functions = {name for cls in classes for name, value in vars(cls).items() if inspect.isfunction(value)}
    overridden = {name for name in functions if name in dir(base) and name not in dir(object)}
    assert overridden == set(listed) - {"__init__"}


@pytest.mark.parametrize(
    "hooks, message",
    [
        ({BASE: {"PPOTrainer": {"_submit_prompts": ()}}}, r"trainer_base\.PPOTrainer\._submit_prompts"),
        (
            {BASE: {"PPOTrainer": {"_update_actor": ("batch", "plan")}}},
            r"_update_actor without the parameter plan \(it has self, batch, metrics\)",
        ),
        ({BASE: {"Trainer": {}}}, r"trainer_base\.Trainer"),
        ({"verl.trainer.ppo.v2": {}}, r"verl\.trainer\.ppo\.v2 \(No module named"),
        ({BASE: {"register_trainer": {None: ("mode",)}}}, "register_trainer without the parameter mode"),
    ],
)
def test_a_verl_without_one_is_refused_by_name(hooks, message):
    with pytest.raises(IncompatibleVerl, match=message) as error:
        check_verl(hooks)
    assert all(version in str(error.value) for version in TESTED)


def test_before_anything_starts(composed, monkeypatch):
    monkeypatch.delattr(PPOTrainer, "_balance_batch")
    with pytest.raises(SystemExit, match=r"cero: verl .* lacks .*PPOTrainer\._balance_batch.*0\.9\.1"):
        Preflight().on_job_start(config=composed("+recipe=cero"))
