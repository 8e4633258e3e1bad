"""scripts/step_cost.py: that it compares like with like, and says what it measured."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import step_cost  # noqa: E402

OURS = ("allocator", "cero", "trainer.v1.trainer_mode", "algorithm.cero")


def flat(config, prefix=""):
    """{dotted key: value} of a config, without interpolations resolved that only a run can resolve."""
    out = {}
    for key, value in OmegaConf.to_container(config, resolve=False).items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            out |= flat(OmegaConf.create(value), f"{name}.")
        else:
            out[name] = OmegaConf.select(config, key) if isinstance(value, str) and "${" not in value else value
    return out


def test_verls_trainer_gets_the_config_of_ours(composed):
    """But for our own sections, the two GRPO runs differ in nothing."""
    verl, uniform = (composed(*step_cost.overrides(arm, "/task", "/out", 5)) for arm in ("verl", "uniform"))
    assert verl.algorithm.adv_estimator == uniform.algorithm.adv_estimator == "grpo"
    assert verl.cero.poll_interval == uniform.cero.poll_interval
    OmegaConf.set_struct(uniform, False)
    uniform.algorithm.adv_estimator = "grpo"
    verl, uniform = (
        {key: value for key, value in flat(config).items() if not key.startswith(OURS)} for config in (verl, uniform)
    )
    assert verl == uniform


def test_arms_spend_the_same(composed):
    for arm in step_cost.ARMS:
        config = composed(*step_cost.overrides(arm, "/task", "/out", 5))
        assert config.data.train_batch_size * config.actor_rollout_ref.rollout.n == 384
        assert config.actor_rollout_ref.actor.optim.lr == 1e-9 and config.trainer.total_training_steps == 5


def test_the_plain_trainer_is_verls():
    """It is known where it was asked for, is verl's but for two methods, and elsewhere verl does not know it."""
    code = (
        "from verl.trainer.ppo.v1 import get_trainer_cls; cls = get_trainer_cls('plain_cpu')\n"
        "print(cls.__mro__[1].__name__, *sorted(name for name in vars(cls) if callable(vars(cls)[name])))"
    )
    run = lambda **more: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code], env=os.environ | more, capture_output=True, text=True
    )
    asked = run(VERL_USE_EXTERNAL_MODULES="cero.verl.cpu.plain")
    assert asked.stdout.split() == ["PPOTrainerSync", "__init__", "_init_resource_pool_mgr"], asked.stderr
    assert "Unknown trainer 'plain_cpu'" in run().stderr


def test_ratio():
    rng = np.random.default_rng(0)
    theirs = rng.normal(3, 0.1, 60)
    value, (low, high) = step_cost.ratio(1.5 * rng.permutation(theirs), theirs)
    assert value == pytest.approx(1.5) and low < 1.5 < high and high - low < 0.1


def test_the_scheduler_by_itself_and_the_page(composed, tmp_path):
    scale = step_cost.at_scale(composed, 8, 4, 100, 3, tmp_path)
    assert all(scale[key] > 0 for key in ("allocate", "observe", "log"))
    assert len((tmp_path / "allocations.jsonl").read_text().splitlines()) == 4

    def steps(seconds, scheduler):
        return [{"seconds": seconds + 0.01 * i, "cpu": 2 * seconds, "scheduler": scheduler} for i in range(20)]

    runs = {"verl": [steps(2.0, None)], "uniform": [steps(2.1, 0.002)], "cero": [steps(2.0, 0.001)]}
    part = {"machine": step_cost.machine(), "load": [1.0, 2.0], "runs": runs}
    text = step_cost.page({"side by side": part, "scale": [scale]})
    assert "| 1.048 [" in text and "| 1.000 [" in text and "0.048%" in text and "8 x 4" in text
    assert "Ratios by round: uniform 1.048; cero 1.000." in text
