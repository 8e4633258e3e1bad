"""The tasks with fresh data: what is compared on them composes, validates and has enough prompts."""

from pathlib import Path

import pytest
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from cero.research.study.plan import make_run, read_contenders, read_tasks, settings
from cero.research.study.runner import Runner
from cero.verl.reading import read_settings

ROOT = Path(__file__).parents[2]
TASKS = read_tasks(ROOT / "scripts" / "benchmark" / "tasks.yaml")
CONTENDERS, _ = read_contenders(ROOT / "scripts" / "benchmark" / "contenders.yaml")
PROMPTS = {"letters-480": 480, "letters-4800": 4800, "letters-fresh": 40960}
LABELS = (
    "grpo", "grpo-20x2", "even-n1", "even-text-n1", "cero-n1", "cero-text-n1", "cero-auto-text-n1",
    "mapp", "mapp-n1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("name", ["letters-4800", "letters-fresh"])
def test_contender_on_fresh_data(composed, name, label):
    task, contender = TASKS[name], CONTENDERS[label]
    words = Runner("out", "work").words(make_run(task, contender, 3, "tune"))
    config = composed(
        *(word for word in words[words.index("verl.trainer.main_ppo") + 1 :] if "hydra." not in word)
    )
    validate_config(config, need_reference_policy(config), need_critic(config))
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    settings = read_settings(config)
    steps = config.trainer.total_training_steps
    rollouts = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    assert steps * rollouts == task.budget == TASKS["letters"].budget
    assert settings.make_allocator(epochs=1, total_budget=task.budget).name == contender.allocator
    assert settings.bucket == ("text" if "-text-" in label else None)
    if label not in ("grpo", "mapp"):
        assert (steps, rollouts) == (256, 40)
    assert config.trainer.total_epochs == (1 if name == "letters-fresh" else 1000)
    # A single pass has room for four candidates for each prompt of the longest contender.
    assert name != "letters-fresh" or 4 * steps * config.data.train_batch_size <= PROMPTS[name]
    held_out, train = config.data.val_files[:4], config.data.val_files[4:]
    assert list(held_out) == [f"work/data/{name}/test.parquet"] * 4
    assert list(train) == [f"work/data/{name}/train_sample.parquet"]


def test_only_the_number_of_prompts_differs_from_letters():
    letters = TASKS["letters"]
    for name, prompts in PROMPTS.items():
        task = TASKS[name]
        assert not task.in_study  # it runs when it is named
        more = () if name == "letters-480" else ("--more", str(prompts - 480))
        at = letters.prepare.index("--steps")
        assert task.prepare == (*letters.prepare[:at], *more, *letters.prepare[at:])
        other, known = settings(task.overrides), settings(letters.overrides)
        other.pop("data.val_files"), known.pop("data.val_files")
        if name == "letters-fresh":
            known["trainer.total_epochs"] = "1"
        assert other == known
        assert not set(task.seeds["confirm"]) & {seed for split in letters.seeds.values() for seed in split}
