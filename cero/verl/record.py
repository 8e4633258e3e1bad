"""What did one training step do, from its sampling to its metrics?"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cero.allocators.rounds import Step
from cero.verl.context import StepContext
from cero.verl.rows import RowPlan
from cero.verl.sessions import Sessions
from cero.verl.timing import Pending


@dataclass
class Dispatch:
    """Prompts on their way; all of one length.

    uids : verl's column of their uids, anything with `tolist()`
    step : the allocator's, of these prompts
    history_mean : float array, E[p] of each before this step's rewards, in (0, 1)
    rollouts : int array: rollouts of each, or the most it may get where the allocator decides as it samples
    """

    uids: object
    step: Step
    history_mean: np.ndarray
    rollouts: np.ndarray


@dataclass
class StepRecord:
    """What one training step did; arrays of shape (prompts,) unless another is named.

    dispatches : of the step; one, unless verl's filter_groups refills it
    sequential : whether it was sampled in rounds, in which case there is one dispatch
    keys, tags : of the rows that came back
    won, trials : successes and rollouts that came back; None until observed
    sessions, successes : `Sessions` that came back, and the success of each, shape (s,); None until observed
    context : what the estimator goes by; None until observed
    observed : metrics of what was observed, on their way; None where they were needed before verl could go on
    baselines : what the optimal baseline says, on its way; None where it isn't learned
    counts : dict of rollouts sampled, kept by the rule, trained on
    plan : `RowPlan` of the rows that are trained on
    scale : factor on the advantages
    """

    dispatches: list[Dispatch]
    sequential: bool = False
    keys: list = field(default_factory=list)
    tags: list = field(default_factory=list)
    won: np.ndarray | None = None
    trials: np.ndarray | None = None
    sessions: Sessions | None = None
    successes: np.ndarray | None = None
    context: StepContext | None = None
    observed: Pending | None = None
    baselines: Pending | None = None
    counts: dict = field(default_factory=dict)
    plan: RowPlan | None = None
    scale: float = 1.0

    @cached_property
    def uids(self):
        """Uids of the prompts, list of str."""
        return [str(uid) for dispatch in self.dispatches for uid in dispatch.uids.tolist()]

    @cached_property
    def place(self):
        """Dict of uid -> place of the prompt in the step."""
        return {uid: i for i, uid in enumerate(self.uids)}

    @property
    def ids(self):
        """Prompt ids, uint64."""
        return np.concatenate([dispatch.step.ids for dispatch in self.dispatches])

    @property
    def rollouts(self):
        """Rollouts launched, int64."""
        return np.concatenate([dispatch.step.launched for dispatch in self.dispatches])

    @property
    def history_mean(self):
        """E[p] of each prompt before this step's rewards, float."""
        return np.concatenate([dispatch.history_mean for dispatch in self.dispatches])

    @property
    def cap(self):
        """Rollouts that the step might have launched, int."""
        return sum(dispatch.step.cap for dispatch in self.dispatches)

    def round_of(self, sessions):
        """In which of its prompt's rounds each of these `Sessions` was launched; None where there is but one."""
        if not self.sequential:
            return None
        return self.dispatches[0].step.round_of(sessions.groups, sessions.numbers)
