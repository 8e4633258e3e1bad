"""What did one training step do, from sampling to metrics?"""

import time
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cero.allocators.rounds import Step
from cero.estimators.shared import stacked
from cero.verl.context import StepContext
from cero.verl.rows import RowPlan
from cero.verl.sessions import Sessions
from cero.verl.timing import Pending


@dataclass
class Dispatch:
    """Hold the n prompts that were sent to the sampler in one batch.

    uids : verl's column of their uids, anything with `tolist()`, length n
    step : the allocator's step of these prompts
    history_mean : float array, shape (n,), in (0, 1): E[p] of each prompt before this step's rewards
    rollouts : int array, shape (n,): rollouts of each prompt, or the most that it may get where the allocator
        decides while it samples
    buckets : int16 array, shape (n, k), of `cero.estimators.shared`; None without algorithm.cero.bucket
    figures : dict of str to float, metrics of how they were chosen, where there were candidates
    begun : seconds of `time.perf_counter` at which they were dispatched
    """

    uids: object
    step: Step
    history_mean: np.ndarray
    rollouts: np.ndarray
    buckets: np.ndarray | None = None
    figures: dict = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)


@dataclass
class StepRecord:
    """Hold what one training step did. Arrays have one entry for each prompt unless another shape is named.

    dispatches : list of `Dispatch`; there is one, unless verl's filter_groups refills the step
    sequential : whether the step was sampled in rounds, in which case there is one dispatch
    keys, tags : of the rows that came back
    won, trials : successes and rollouts that came back; None until observed
    sessions, successes : `Sessions` that came back, and the success of each, shape (s,); None until observed
    context : `StepContext` for the estimator; None until observed
    observed : `Pending` metrics of what was observed; None where verl's thread observed by itself
    baselines : `Pending` baselines, float array, shape (s,); None where none is learned
    counts : dict of the rollouts sampled, kept by the rule, and trained on
    rows : rows that are trained on, int, padding not counted; plan : their `RowPlan`
    scale : factor on the advantages
    known : float array, shape (g, 3), of `OptimalBaseline.known_now` when the prompts were sent; None: as now
    metrics : dict of verl's metrics of the step, to which verl adds
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
    rows: int = 0
    plan: RowPlan | None = None
    scale: float = 1.0
    known: np.ndarray | None = None
    metrics: dict = field(default_factory=dict)

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
        """Prompt ids, uint64 array."""
        return np.concatenate([dispatch.step.ids for dispatch in self.dispatches])

    @property
    def rollouts(self):
        """Rollouts launched, int64 array."""
        return np.concatenate([dispatch.step.launched for dispatch in self.dispatches])

    @property
    def history_mean(self):
        """E[p] of each prompt before this step's rewards, float array."""
        return np.concatenate([dispatch.history_mean for dispatch in self.dispatches])

    @property
    def buckets(self):
        """Buckets of each prompt, int16 array of shape (g, k); None without algorithm.cero.bucket."""
        parts = [dispatch.buckets for dispatch in self.dispatches]
        return None if parts[0] is None else stacked(parts)

    @property
    def cap(self):
        """Most rollouts that the step might have launched, int."""
        return sum(dispatch.step.cap for dispatch in self.dispatches)

    def round_of(self, sessions):
        """Return the round in which each of these `Sessions` was launched: int array; None without rounds."""
        if not self.sequential:
            return None
        return self.dispatches[0].step.round_of(sessions.groups, sessions.numbers)
