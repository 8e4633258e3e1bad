"""No allocator takes an option that its rule ignores.

Each option is tried with other values, found from its type hint: the words of a `Literal`, the other `bool`,
numbers around its value. One of them has to change what the same prompts, rewards and budgets lead to. An
option whose effect shows only beside other settings is looked for under the class's `examples`, too.
"""

import types
from functools import cache
from typing import Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from contract import MOST, drive, ids, rewards_of

from cero import available_allocators
from cero.allocators import UpfrontAllocator, allocator_class, option_names
from cero.allocators.rounds import play

# What a run decides for all allocators alike.
OF_THE_RUN = dict(rollouts_per_prompt=8, epochs=5, seed=3, total_budget=None)
# Rollouts of each step for 24 prompts: the usual budget, left open, one that does not divide, small, large.
BUDGETS = (192, 192, 185, None, 24, 960, 192, None, 100, 150, 192, 191)
# Three in four rollouts fail; halfway, prompts become others.
REWARDS = [rewards_of(40, seed) * rewards_of(40, seed + 10) for seed in (0, 1)]
COUNTED = np.arange(MOST)


def played(cls, options, budgets=BUDGETS):
    """All that a run of a few steps does: rollouts, rounds, refusals. None if the options are refused."""
    try:
        allocator = cls(**(OF_THE_RUN | options))
    except ValueError:
        return None
    trace, prompts = [], np.random.default_rng(1)
    for k, budget in enumerate(budgets):
        chosen = prompts.integers(0, 40, 24)  # some of them twice
        try:
            step = allocator.begin(ids(40)[chosen], budget)
        except ValueError:
            trace.append("refused")
            continue
        rewards = REWARDS[k // 6][chosen]
        if allocator.sequential:
            drive(step, rewards, np.random.default_rng(k))
        else:
            play(step, lambda of, n, rewards=rewards: ((rewards[of] * (COUNTED < n[:, None])).sum(axis=1), n))
        allocator.settle(step, step.successes, step.trials)
        trace.append((step.launched.tolist(), step.rounds.tolist()))
    return trace


def alternatives(hint, current):
    """Other values of an option with this type hint, whether it allows them or not."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    near = current if isinstance(current, int | float) and not isinstance(current, bool) else 4
    for kind in kinds:
        if get_origin(kind) is Literal:
            yield from get_args(kind)
        elif kind is bool:
            yield from (True, False)
        elif kind is int:
            yield from (2 * near, near + 1, near - 1, near // 2, 1, 2, 3, 4, 16)
        elif kind is float:
            yield from (2.0 * near, near / 2, near + 1.0, 0.0, 0.1, 0.5, 0.9, 1.0)


def type_hints(cls):
    """Type hint of each option of a class."""
    hints = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base):
            hints |= get_type_hints(vars(base)["__init__"]) if base is not object else {}
    return hints


@cache
def usual_runs(cls):
    """(options, what a run with them does) for the defaults and each of the class's `examples`."""
    return [(options, played(cls, options)) for options in ({}, *cls.examples)]


def changes_something(cls, option):
    """Whether some value of `option` leads to other rollouts, or to another step being refused."""
    for example, usual in usual_runs(cls):
        if usual is None:
            continue
        current = cls(**(OF_THE_RUN | example)).options()[option]
        for value in alternatives(type_hints(cls)[option], current):
            other = played(cls, example | {option: value}) if value != current else None
            if other is not None and other != usual:
                return True
    return False


OPTIONS = [
    (name, option)
    for name in available_allocators()
    for option in option_names(allocator_class(name))
    if option not in OF_THE_RUN
]


@pytest.mark.parametrize("name, option", OPTIONS)
def test_option_changes_something(name, option):
    if (name, option) == ("vip", "predictor"):
        pytest.importorskip("sklearn")  # scripts/check.sh has it
    assert changes_something(allocator_class(name), option), (
        f"no value of {name}'s option {option} that was tried changes a rollout; take it out of the class, "
        "or name settings under which it matters in `examples`"
    )


IDLE = [
    (name, option, other, value, budgets)
    for name in available_allocators()
    for cls in allocator_class(name).__mro__
    for kind, budgets in (("idle_beside", BUDGETS), ("idle_in_runs", (192,) * 12))
    for option, (other, values) in vars(cls).get(kind, {}).items()
    for value in values
]


@pytest.mark.slow
@pytest.mark.parametrize("name, option, other, value, budgets", IDLE)
def test_what_is_called_idle_is(name, option, other, value, budgets):
    cls = allocator_class(name)
    usual = played(cls, {other: value}, budgets)
    current = cls(**(OF_THE_RUN | {other: value})).options()[option]
    others = [
        played(cls, {other: value, option: each}, budgets)
        for each in alternatives(type_hints(cls)[option], current)
    ]
    assert usual is not None and any(each is not None for each in others)
    assert all(each in (None, usual) for each in others)


# What keeps something else of each prompt, or of each of its bins. A run that resumes with another value of
# these is told to set it back (tests/verl/test_resume.py).
OF_THE_STATE = ("averaging", "forgetting_unit", "bins", "predictor")


@pytest.mark.parametrize("name, option", [each for each in OPTIONS if each[1] not in OF_THE_STATE])
def test_a_state_is_taken_up_whatever_the_option(name, option):
    cls = allocator_class(name)
    saved = cls(**OF_THE_RUN)
    state = saved.state_dict()
    for value in alternatives(type_hints(cls)[option], saved.options()[option]):
        try:
            other = cls(**(OF_THE_RUN | {option: value}))
        except ValueError:  # no value for this class
            continue
        other.load_state_dict(state)


class Deaf(UpfrontAllocator):
    """Everyone alike; `luck` is ignored, and `tilt` is used only with mood="bad"."""

    examples = ({"mood": "bad"},)

    def __init__(self, *, luck: float = 0.5, tilt: int = 1, mood: Literal["good", "bad"] = "good", **common):
        super().__init__(**common)
        self.luck, self.tilt, self.mood = luck, tilt, mood

    def _targets(self, rows, budget):
        return 8.0 + (self.tilt * (rows % 3) if self.mood == "bad" else 0.0 * rows)


def test_an_ignored_option_is_found_out():
    found = [option for option in option_names(Deaf) if option not in OF_THE_RUN]
    assert [option for option in found if not changes_something(Deaf, option)] == ["luck"]
