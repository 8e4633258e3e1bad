"""Which runs are planned, and which mistakes in the study's files are found?"""

import pytest
from stand_in import CONTENDERS, TASKS

from cero.research.study.plan import (
    chosen,
    lookup,
    make_runs,
    read_contenders,
    read_tasks,
    settings,
)


def test_plan(files):
    tasks = read_tasks(files[0])
    contenders, groups = read_contenders(files[1])
    assert (tasks["sums"].budget, tasks["sums"].interval) == (40, 20)
    assert contenders["n_max-16"].overrides == ("allocator=cero", "allocator.n_max=16")
    assert contenders["n_max-16"].group == "ablation:n_max" and contenders["n_max-16"].allocator == "cero"
    runs = make_runs([tasks["sums"]], list(contenders.values()), groups)
    # Seed by seed; the ablation is for tuning only.
    assert [run.name.removeprefix("sums/") for run in runs] == [
        "grpo/0", "cero/0", "n_max-16/0", "grpo/1", "cero/1", "n_max-16/1", "grpo/10", "cero/10"
    ]  # fmt: skip
    assert lookup(runs[3].overrides, "data.seed") == "1" and runs[-1].split == "confirm"
    assert lookup(("a=1", "a=2=3"), "a") == "2=3" and lookup((), "a") is None
    with pytest.raises(ValueError, match="'nobody' is not known; there are grpo, cero"):
        chosen(["nobody"], contenders, "contender")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trainer.test_freq=2", "trainer.test_freq=3", "no multiple of trainer.test_freq"),
        ("trainer.test_freq=2", "trainer.test_freq=often", "trainer.test_freq=often"),
        ("confirm: [10]", "confirm: [1]", "both for tuning and for confirming"),
        ("confirm: [10]", "final: [10]", "'final' is not known"),
        ("    about: a stand-in\n", "", "task 'sums' has no 'about'; it needs about, prepare, seeds"),
        ("tasks:", "common:", "has no 'tasks'"),
        ("about: a stand-in", "abuot: a stand-in", "'abuot' is not known"),
        (
            "about: a stand-in",
            "about: a stand-in\n    base: spare",
            "its base 'spare' must be a task further up",
        ),
    ],
)
def test_tasks_are_checked(files, old, new, message):
    files[0].write_text(TASKS.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_tasks(files[0])


def test_a_task_takes_over_another_ones_overrides(files):
    """Its own come after them, and those that are common to all tasks come once."""
    files[0].write_text(
        TASKS.replace("overrides: [\n      data.train_batch_size=1, ", "base: sums, overrides: [")
    )
    tasks = read_tasks(files[0])
    base, spare = tasks["sums"].overrides, tasks["spare"].overrides
    assert spare[: len(base)] == base and len(spare) == len(base) + 3
    assert (tasks["spare"].steps, tasks["spare"].step_rollouts) == (1, 2)  # its steps, the base's 2 prompts
    assert settings(("a=1", "b=2", "a=3")) == settings(("b=2", "a=3")) == {"a": "3", "b": "2"}


def test_shapes_and_bases(files):
    """A shape adds a contender; a base hands down overrides and steps; ablations have a base of their own."""
    files[1].write_text(
        CONTENDERS.replace(
            "contenders:", "shapes: {n2: {about: small, overrides: [n=2], steps: 2}}\ncontenders:", 1
        )
        .replace("about: this one, group: main,", "about: this one, group: main, shapes: [n2], steps: 1.5,")
        .replace("ablations:", "ablate: cero-n2\nablations:")
    )
    contenders, _ = read_contenders(files[1])
    assert list(contenders) == ["grpo", "cero", "cero-n2", "n_max-16"]
    small, ablation = contenders["cero-n2"], contenders["n_max-16"]
    assert small.overrides == ("allocator=cero", "n=2") and small.steps == ablation.steps == 3
    assert small.about == "this one; small" and small.group == "main"
    assert ablation.overrides == ("allocator=cero", "n=2", "allocator.n_max=16")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("about: fewer,", "about: fewer, shapes: [n3],", "its shape 'n3'"),
        ("  grpo:", "  base:", "there must be a contender 'grpo'"),
        (
            "group: main, overrides: [allocator=cero]",
            "group: best, overrides: []",
            "'best' is none of main, peer, ablation",
        ),
        ("about: fewer,", "about: fewer, base: nobody,", "its base 'nobody'"),
        (
            "overrides: [allocator=cero]",
            "overrides: allocator=cero",
            "overrides='allocator=cero' must be a list",
        ),
        ("main: [", "main: tune, other: [", "groups: main='tune' must be a list of texts"),
        ("about: fewer,", "about: fewer, steps: 0.5,", "steps=0.5"),
        ("about: this one,", "", "contender 'cero' has no 'about'; it needs about, overrides"),
        ("group: main, overrides: [allocator=cero]", "overrides: []", "contender 'cero' has no 'group'"),
    ],
)
def test_contenders_are_checked(files, old, new, message):
    files[1].write_text(CONTENDERS.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_contenders(files[1])
