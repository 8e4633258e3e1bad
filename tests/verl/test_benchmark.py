"""scripts/benchmark/*.yaml: every task and contender of the study, composed and validated as verl does."""

from pathlib import Path

import pytest

from cero import available_allocators
from cero.research.study.plan import REFERENCE, SHIPPED, lookup, make_run, read_contenders, read_tasks
from cero.research.study.runner import Runner
from cero.verl.reading import read_settings

ROOT = Path(__file__).parents[2]
TASKS = read_tasks(ROOT / "scripts" / "benchmark" / "tasks.yaml")
CONTENDERS, GROUPS = read_contenders(ROOT / "scripts" / "benchmark" / "contenders.yaml")
PRETRAINED, _ = read_contenders(ROOT / "scripts" / "benchmark" / "pretrained.yaml")
THERE = [label for label, each in CONTENDERS.items() if each.allocator in available_allocators()]


def checked(composed, task, contender, seed=3):
    """The config of a run's real command line, checked as before training: (config, settings)."""
    words = Runner("out", "work").words(make_run(task, contender, seed, "tune"))
    # Hydra's own keys are no part of what `compose` returns.
    config = composed(
        *(word for word in words[words.index("verl.trainer.main_ppo") + 1 :] if "hydra." not in word)
    )
    composed.check(config)
    return config, read_settings(config)


@pytest.mark.slow
@pytest.mark.parametrize("label", THERE)
def test_contender_composes_and_validates(composed, label):
    contender = CONTENDERS[label]
    task = TASKS["arithmetic"]
    config, settings = checked(composed, task, contender)
    assert config.allocator.name == contender.allocator
    # What is the same for all: budget, order of prompts, validation.
    rollouts = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    assert rollouts <= task.step_rollouts and rollouts * config.trainer.total_training_steps >= task.budget
    assert config.trainer.total_training_steps == round(task.steps * contender.steps)
    assert config.actor_rollout_ref.rollout.val_kwargs.do_sample
    assert len(config.data.val_files) * config.actor_rollout_ref.rollout.val_kwargs.n == 4
    seeds = (config.data.seed, config.allocator.seed, config.actor_rollout_ref.rollout.seed)
    assert seeds == (3, 3, 3) and config.actor_rollout_ref.actor.data_loader_seed == 3
    steps = config.trainer.total_training_steps
    settings.make_allocator(epochs=steps // 10, total_budget=steps * rollouts)


@pytest.mark.parametrize("name", TASKS)
def test_task_composes_and_validates(composed, name):
    task = TASKS[name]
    config, _ = checked(composed, task, CONTENDERS[REFERENCE])
    assert config.data.train_files == f"work/data/{name}/train.parquet"
    assert config.trainer.default_local_dir == f"work/runs/{name}/{REFERENCE}/3"
    assert (ROOT / config.reward.custom_reward_function.path).is_file()
    assert (ROOT / task.prepare[1]).is_file() and "{data}" in task.prepare
    assert task.steps * config.data.train_batch_size >= 2 * 480 or not task.in_study  # prompts are seen again


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fewshot-fresh", "fewshot-192"])
@pytest.mark.parametrize("label", PRETRAINED)
def test_contender_on_a_pretrained_model(composed, label, name):
    """All have 64 rollouts a step, as many steps, one update a step, and the task's validations."""
    contender, task = PRETRAINED[label], TASKS[name]
    config, settings = checked(composed, task, contender)
    prompts, n = config.data.train_batch_size, config.actor_rollout_ref.rollout.n
    assert prompts * n == task.step_rollouts == 64
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == prompts
    assert config.trainer.total_training_steps == task.steps * contender.steps
    assert config.trainer.test_freq == task.number("trainer.test_freq")
    rate = lookup(task.overrides, "actor_rollout_ref.actor.optim.lr")
    expected = label.split("-", 2)[2] if contender.group.startswith("ablation") else rate
    assert config.actor_rollout_ref.actor.optim.lr == float(expected)
    settings.make_allocator(epochs=1, total_budget=64 * task.steps)


def test_baseline_is_grpo(composed):
    config, settings = checked(composed, TASKS["arithmetic"], CONTENDERS[REFERENCE])
    assert config.algorithm.adv_estimator == "grpo" and settings.allocator == "uniform"
    assert settings.make_allocator().allocate(range(48), 384).tolist() == [8] * 48


def test_dapo_filters(composed):
    config, settings = checked(composed, TASKS["arithmetic"], CONTENDERS["dapo"])
    assert config.algorithm.filter_groups.enable and not settings.budgeted
    assert config.algorithm.adv_estimator == "grpo"


def test_seeds_confirm_what_was_not_tuned():
    for task in TASKS.values():
        assert task.about and not set(task.seeds.get("tune", ())) & set(task.seeds.get("confirm", ()))
    studied = [task for task in TASKS.values() if task.in_study]
    assert len(studied) >= 2 and all("confirm" in task.seeds for task in studied)


def test_contenders_are_comparable():
    """A new allocator need not compete, but those that do are compared fairly."""
    assert {CONTENDERS[label].allocator for label in THERE} >= {"uniform", "cero"}
    assert all(contender.about for contender in CONTENDERS.values())
    # Nobody overrides what keeps the comparison fair.
    shared = ("data.seed", "actor_rollout_ref.actor.optim.lr")
    assert not [c.label for c in CONTENDERS.values() for key in shared if lookup(c.overrides, key)]
    # Another shape of a step is more steps, which says so in its name and has a control of that very shape.
    shape = (
        "actor_rollout_ref.rollout.n",
        "data.train_batch_size",
        "actor_rollout_ref.actor.ppo_mini_batch_size",
    )
    shapes = {c.label: tuple(lookup(c.overrides, key) for key in shape) for c in CONTENDERS.values()}
    controls = {
        "n1": ("grpo-20x2", "even-n1")
    }  # without groups there is no GRPO: as many rollouts and updates instead
    for label, (n, *prompts) in shapes.items():
        if CONTENDERS[label].group.startswith("ablation"):
            assert (n, *prompts) in (shapes[SHIPPED], shapes[f"{REFERENCE}-n2"])  # that of what they change
        elif n is None:
            assert prompts == [None, None]
        elif label not in controls["n1"]:
            shape = label.rpartition("-")[2]
            assert shape == f"n{n}"
            if shape in controls:
                rollouts = {int(shapes[control][0]) * int(shapes[control][1]) for control in controls[shape]}
                assert rollouts == {int(n) * int(prompts[0])}
                assert {CONTENDERS[control].steps for control in controls[shape]} == {CONTENDERS[label].steps}
            else:
                assert shapes[f"{REFERENCE}-{shape}"] == (n, *prompts)
        if n is not None:
            assert prompts[0] == prompts[1]  # one update a step, as the tasks have it
