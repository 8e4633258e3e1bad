"""What did one training step do, from its sampling to its metrics?"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from tensordict import NonTensorStack

from cero.allocators.rounds import Step
from cero.verl.selection import Rollouts


@dataclass
class Dispatch:
    """Prompts on their way: verl's column of their uids, their step, E[p] of each before it; all of one length."""

    uids: NonTensorStack
    step: Step
    history_mean: np.ndarray


@dataclass
class StepRecord:
    """What one training step did, from its sampling to its metrics; arrays of shape (prompts,).

    dispatches : of the step, one unless verl's filter_groups refills it
    sequential : whether it was sampled in rounds, in which case there is one dispatch
    keys, tags : of the rows that came back
    observed : what `cero.verl.outcomes.observe_all` returns, on its way; None where rows may be left out
    won, trials : successes and rollouts that came back; None until observed
    sampled, successes : `Rollouts` that came back, and of each its success; None until observed
    known : dict of "<uid>_<session>" -> (trials, successes) that its baseline may use
    baselines : what `cero.verl.outcomes.optimal_baselines` returns, on its way; None: not asked for
    counts : rollouts sampled, kept by the rule, trained on
    steps : optimizer steps; None: those that verl makes of the number of rows it foresaw
    scale : factor on the advantages
    """

    dispatches: list
    sequential: bool = False
    keys: list = field(default_factory=list)
    tags: list = field(default_factory=list)
    observed: Future | None = None
    won: np.ndarray = None
    trials: np.ndarray = None
    sampled: Rollouts = None
    successes: np.ndarray = None
    known: dict = field(default_factory=dict)
    baselines: Future | None = None
    counts: dict = field(default_factory=dict)
    steps: int | None = None
    scale: float = 1.0

    @cached_property
    def uids(self):
        return [str(uid) for dispatch in self.dispatches for uid in dispatch.uids.tolist()]

    @cached_property
    def place(self):
        """Dict of uid -> place of the prompt in the step."""
        return {uid: i for i, uid in enumerate(self.uids)}

    @property
    def ids(self):
        return np.concatenate([dispatch.step.ids for dispatch in self.dispatches])

    @property
    def rollouts(self):
        return np.concatenate([dispatch.step.launched for dispatch in self.dispatches])

    @property
    def cap(self):
        return sum(dispatch.step.cap for dispatch in self.dispatches)

    def round_of(self, rollouts):
        """In which of its prompt's rounds each of these `Rollouts` was launched; None where there is but one."""
        if not self.sequential:
            return None
        return self.dispatches[0].step.round_of(rollouts.groups, rollouts.numbers)
