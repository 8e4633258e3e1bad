"""What does the scheduler do where verl samples ahead, and groups come back in any order?

verl's asynchronous trainers send prompts before they are needed and train on whatever is finished. So prompts
are allocated when they are sent, in portions of any size, and observed when they are trained on. Between the
two they are in `InFlight`. Three rules follow.

- A run costs what its synchronous twin costs. Training needs a known number of prompts until its end, and
  no more than that are sent. Each portion gets its even share of the rollouts that are left.
- What was lost is spent: a group that failed, or that verl threw away because it was too old, was sampled.
  The prompts that are sent later share what is left; under `uniform` the last ones get nothing instead.
- A baseline goes by what was known when its group was sent.
"""

import time

import numpy as np

from cero.allocators.base import size_figures
from cero.allocators.rounds import OneRound
from cero.estimators.baseline import PRIOR
from cero.verl.in_flight import IN_FLIGHT_FILE, Group, InFlight, buckets_of
from cero.verl.record import Dispatch, StepRecord
from cero.verl.scheduler import RolloutScheduler

# Metrics that add up over the parts of a training step, and those that are of the run, not of a part.
SUMMED = (
    "cero/rollouts/",
    "cero/tokens/",
    "cero/rows/",
    "cero/time/",
    "cero/padded_rows",
    "cero/group/count",
)
# Means and shares of the groups that came back.
OF_GROUPS = ("cero/group/", "cero/score/", "cero/staleness/mean")
OF_THE_RUN = ("cero/budget/", "cero/prompts/", "cero/in_flight/", "cero/posterior/", "cero/dual/")


class BudgetUsedUp(RuntimeError):
    """Nothing is in flight, and nothing can be sent: the run can't go on."""


class AsyncScheduler(RolloutScheduler):
    """Decide on rollouts when prompts are sent, and learn from them when they are trained on.

    The methods are called in this order, by verl's thread:

        begin, then for each training step: step_begins, admit, allocate, and for each of its parts:
        expect, (evicted, admit, allocate)*, selected, open_record, observe, ...

    Attributes
    ----------
    in_flight : `InFlight`
    to_train : int, prompts that training still takes until the run's end, those in flight included
    step : int, the training step, from 1
    """

    def __init__(self, settings, allocator, baseline, log):
        super().__init__(settings, allocator, baseline, log)
        self.in_flight = InFlight(self.settings.bucket)
        self.to_train, self.step = 0, 1
        self._size, self._selected = 0, []
        self._begun = time.perf_counter()

    def begin(self, to_train, queued=()):
        """Take note of what is left to train on, and return what the queue should not hold.

        Parameters
        ----------
        to_train : int, prompts that training takes from now to the run's end
        queued : uids of the prompts that verl's queue brought back from a checkpoint

        Prompts in flight that the queue has not will never come back. Their rollouts are taken back.

        Returns
        -------
        set of str: uids among `queued` that are not in flight, so that nothing is known of them
        """
        self.to_train = to_train
        busy = {uid for uid, group in self.in_flight.groups.items() if group.launched}
        self.withdraw(sorted(busy - set(queued)))
        return set(queued) - busy

    def withdraw(self, uids):
        """Take back the rollouts of prompts in flight that will never be sampled; uids : list of str."""
        groups = self.in_flight.take(uids)
        if groups:
            rollouts = [group.launched for group in groups]
            self.allocator.withdraw(_ids(groups), rollouts)
            self.in_flight.withdrawn += sum(rollouts)

    def step_begins(self, step):
        """Note that training step `step` (int) begins."""
        self.step, self._begun = step, time.perf_counter()

    # ---- before sampling ------------------------------------------------------------------------

    @property
    def unsent(self):
        """The number of prompts that training still takes and that were not sent yet."""
        return max(0, self.to_train - len(self.in_flight))

    def admit(self, prompts):
        """Return how many of `prompts` (int) prompts that verl wants to send can be sent.

        Not more than training will take, and not more than the budget pays for.
        """
        prompts = min(prompts, self.unsent)
        left = self.allocator.ledger.left
        if left is None:
            return prompts
        return min(prompts, left // self._least) if self._least else prompts * (left > 0)

    @property
    def _least(self):
        """The fewest rollouts of a prompt that is sent: n_min, or rollout.n where all get the same."""
        return self.allocator.n_min if self.allocator.chooses else self.allocator.least_rollouts()

    def _budget(self, prompts):
        left = self.allocator.ledger.left
        if left is None:
            return super()._budget(prompts)
        least, most = max(1, prompts * self._least), min(left, prompts * self.allocator.n_max)
        return min(max(left * prompts // max(self.unsent, prompts), least), most)

    def allocate(self, uids, ids, pass_rates=None, buckets=None):
        """Decide as `RolloutScheduler.allocate` does, and note that the prompts are in flight.

        Together they get their even share of the rollouts that the run has left.
        """
        dispatch = super().allocate(uids, ids, pass_rates, buckets)
        self._dispatches.clear()
        zeros = np.zeros(ids.size)
        prior = (self._prior(ids) if self._needs_prior else None) or (zeros, zeros)
        known = np.zeros((ids.size, 3))
        if self.baseline is not None:
            known = self.baseline.known_now(ids, buckets)
        columns = (
            uids.tolist(),
            ids.tolist(),
            dispatch.rollouts.tolist(),
            dispatch.history_mean.tolist(),
            np.column_stack(prior).tolist(),
            known.tolist(),
            [()] * ids.size if buckets is None else buckets.tolist(),
        )
        for uid, prompt, launched, mean, before, remembered, bucket in zip(*columns, strict=True):
            group = Group(
                prompt, launched, self.step - 1, mean, tuple(before), tuple(remembered), tuple(bucket)
            )
            self.in_flight.send(str(uid), group)
        return dispatch

    # ---- while the queue is waited for ------------------------------------------------------------

    def expect(self, size):
        """Return for how many finished groups the next part of a training step should wait.

        size : int, the prompts that it trains on. Those without rollouts have no group, and never come back.
            Each part takes as many of them as the share that they have among all prompts in flight.

        Raises
        ------
        BudgetUsedUp
            If nothing is in flight that could come back.
        """
        self._size, busy = size, self.at_most(size)
        flights, prompts = self.in_flight.busy, len(self.in_flight)
        share = round(flights * min(size, prompts) / prompts)
        later = -(-max(0, prompts - size) // size)  # parts that need a group of those in flight, too
        return min(busy, max(1, min(share, flights - later)))

    def at_most(self, groups):
        """Return `groups` (int), or the number of groups in flight if that is smaller.

        Raises BudgetUsedUp, as `expect` does, if there is none.
        """
        busy = self.in_flight.busy
        if not busy:
            raise BudgetUsedUp(
                f"no rollouts are in flight for step {self.step}, and none can be sent: "
                f"{self.allocator.ledger.spent} of {self.allocator.ledger.total} rollouts are spent, "
                f"{self.in_flight.lost} of them lost with groups that failed or were too old. See why they "
                "are lost, or train for fewer steps"
            )
        return min(groups, busy)

    def evicted(self, uids):
        """Note that verl threw away the finished groups of `uids` (list of str); they stay spent."""
        groups = self.in_flight.take(uids)
        self.in_flight.landed(sum(group.launched for group in groups), 0)

    def selected(self, uids):
        """Note that verl takes the finished groups of `uids` (list of str) to train on next."""
        self._selected.extend(uids)

    # ---- after sampling -------------------------------------------------------------------------

    def open_record(self, keys, tags, played=None):
        """Return the record of the selected prompts, and of their share of those without rollouts."""
        selected, self._selected = self._selected, []
        uids = selected + self.in_flight.idle(max(0, self._size - len(selected)))
        groups = self.in_flight.take(uids)
        self.to_train -= self._size
        step = OneRound(_ids(groups), [group.launched for group in groups])
        step.start()
        dispatch = Dispatch(
            np.array(uids, object),
            step,
            np.array([group.history_mean for group in groups]),
            step.launched,
            None if self.settings.bucket is None else buckets_of(groups),
            begun=self._begun,
        )
        return AsyncRecord(
            [dispatch],
            keys=list(keys),
            tags=list(tags),
            known=_known_of(groups),
            groups=groups,
            version=self.step - 1,
        )

    def _prior_of(self, record):
        prior = np.array([group.prior for group in record.groups])
        # A group that was sent under other settings has none; then it is as without a posterior.
        means, none = record.history_mean, ~prior.any(axis=1)
        prior[none] = 2 * np.column_stack([means, 1 - means])[none]
        return tuple(prior.T)

    def _settle(self, record):
        record.lags = record.lags_of_groups()
        weights = None
        if self.settings.staleness < 1.0:
            weights = np.maximum(self.settings.staleness**record.lags, np.finfo(np.float64).tiny)
        self.allocator.observe(record.ids, record.won, record.trials, weights)
        self.in_flight.landed(int(record.rollouts.sum()), int(record.trials.sum()))

    def observe(self, record, returned):
        """Observe as `RolloutScheduler.observe` does; the metrics say how old what came back was, too."""
        metrics, lengths, rewards = super().observe(record, returned)
        metrics |= {f"cero/{key}": value for key, value in size_figures(record.rollouts).items()}
        lags = record.lags[record.trials > 0]
        if lags.size:
            metrics["cero/staleness/mean"], metrics["cero/staleness/max"] = (
                float(lags.mean()),
                float(lags.max()),
            )
        return metrics | self._counts(), lengths, rewards

    def _counts(self):
        """Return metrics of what is in flight, and of what was lost so far."""
        figures = {
            "prompts": len(self.in_flight),
            "rollouts": self.in_flight.rollouts,
            "lost": self.in_flight.lost,
            "withdrawn": self.in_flight.withdrawn,
        }
        return {f"cero/in_flight/{key}": float(value) for key, value in figures.items()}

    def _more_files(self):
        return {IN_FLIGHT_FILE: self._writer(self.in_flight.state_dict())}


class AsyncRecord(StepRecord):
    """Hold what one part of a training step did.

    groups : list of `Group`, one for each prompt
    version : int, the policy's version when it was trained on
    lags : int array, by how many versions each prompt's oldest rollout is older; None until observed
    """

    def __init__(self, dispatches, *, groups, version, **fields):
        super().__init__(dispatches, **fields)
        self.groups, self.version, self.lags = groups, version, None

    def lags_of_groups(self):
        """Return `lags`, by what verl says of each row; of a prompt without any, by when it was sent."""
        versions = np.array([group.version for group in self.groups], np.int64)
        first = np.full(versions.size, self.version + 1)
        for row, session in enumerate(self.sessions.session_of_row.tolist()):
            sampled_at = self.tags[row].get("min_global_steps")
            place = self.sessions.groups[session]
            if sampled_at is not None and sampled_at < first[place]:
                first[place] = sampled_at
        return np.maximum(self.version - np.where(first > self.version, versions, first), 0)


def joined(records):
    """Return one record of all parts of a training step, for the log and for the checkpoint.

    records : list of `StepRecord`, one or more
    """
    if len(records) == 1:
        return records[0]
    whole = StepRecord([dispatch for record in records for dispatch in record.dispatches])
    whole.won = np.concatenate([record.won for record in records])
    whole.trials = np.concatenate([record.trials for record in records])
    whole.counts = {key: sum(record.counts[key] for record in records) for key in records[0].counts}
    whole.metrics = dict(records[-1].metrics)
    return whole


def metrics_of_parts(records):
    """Return those metrics of a training step that verl would not join rightly: it weighs parts by rows.

    They are sums over the parts, means over their groups, figures of all their prompts, or the last value.

    records : list of `StepRecord`, the parts
    """
    metrics, groups = {}, [record.metrics.get("cero/group/count", 0.0) for record in records]
    all_groups = max(sum(groups), 1.0)
    for record, count in zip(records, groups, strict=True):
        for key, value in record.metrics.items():
            if key.startswith(SUMMED):
                metrics[key] = metrics.get(key, 0.0) + value
            elif key.startswith(OF_GROUPS):
                metrics[key] = metrics.get(key, 0.0) + value * count / all_groups
            elif key.startswith(OF_THE_RUN):
                metrics[key] = value
    rollouts = np.concatenate([record.rollouts for record in records])
    return metrics | {f"cero/{key}": value for key, value in size_figures(rollouts).items()}


def _known_of(groups):
    """Return `OptimalBaseline.known_now` when the groups were sent: float array, shape (g, 3).

    A group that was sent under other settings has none; then nothing is known of its prompt.
    """
    known = np.array([group.known for group in groups], np.float64).reshape(-1, 3)
    known[~known[:, :2].any(axis=1)] = PRIOR / 2, PRIOR / 2, 0.0
    return known


def _ids(groups):
    return np.array([group.prompt for group in groups], np.uint64)
