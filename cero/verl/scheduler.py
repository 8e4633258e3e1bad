"""What does this project add to a training step, without a trainer and without a queue?

    allocate -> (verl samples) -> open_record -> observe [-> select] -> learn_baselines [-> save] -> log_step

With candidates `choose` and `take_up` take the place of `allocate`.
A trainer's adapter calls these methods in this order. It hands over what verl's queue holds, and passes on
what comes back. For every trainer it is the same: prompts go in and rollouts per prompt come out; rewards go
in and a context for the estimator comes out.
"""

import json

import numpy as np

from cero.core.state import BASELINE_FILE, STATE_FILE, STEP_FILE, save_state, write_atomically
from cero.estimators.advantage import group_outcomes, known_so_far
from cero.verl import selection
from cero.verl.candidates import WAITING_FILE
from cero.verl.context import StepContext
from cero.verl.in_flight import IN_FLIGHT_FILE
from cero.verl.record import Dispatch, StepRecord
from cero.verl.resume import CANDIDATES, PLAN
from cero.verl.sessions import Sessions
from cero.verl.timing import Stopwatch


class RolloutScheduler:
    """Decide on the rollouts of a step, observe their rewards, select, and keep what was learned.

    Parameters
    ----------
    settings : `cero.verl.settings.Settings`
    allocator : an allocator made by `settings.make_allocator`
    baseline : `cero.estimators.baseline.OptimalBaseline`, or None where the estimator learns none
    log : `cero.analysis.runlog.RunLog`
    """

    def __init__(self, settings, allocator, baseline, log):
        self.settings, self.allocator, self.baseline, self.log = settings, allocator, baseline, log
        self.stopwatch = Stopwatch()
        self._dispatches = []

    # ---- before sampling ------------------------------------------------------------------------

    def allocate(self, uids, ids, pass_rates=None, buckets=None):
        """Decide how many rollouts each prompt gets that is about to be sampled.

        Parameters
        ----------
        uids : verl's column of the prompts' uids, length n
        ids : uint64 array, shape (n,), prompt ids
        pass_rates : success rates measured before the run: float array, shape (n,), in [0, 1] or nan; or None
        buckets : what makes prompts alike (`cero.estimators.shared`): int16 array, shape (n, k); or None

        Returns
        -------
        Dispatch. An allocator that decides while it samples gets its step played by others afterwards; the
        played step then comes back through `open_record`.

        Raises
        ------
        ValueError
            If the run's budget is used up, or a pass rate lies outside [0, 1].
        """
        if pass_rates is not None:  # the allocator takes them for prompts not visited yet
            self.allocator.set_pass_rates(ids, pass_rates, self.settings.pass_rates[1])
        history_mean = self._history_mean(ids, buckets)
        step = self.allocator.begin(ids, budget=self._budget(ids.size))
        if self.allocator.sequential:
            rollouts = np.full(ids.size, min(step.n_max, step.cap))
        else:
            rollouts = step.start()
        dispatch = Dispatch(uids, step, history_mean, rollouts, buckets)
        self._dispatches.append(dispatch)
        return dispatch

    def _budget(self, prompts):
        """Return the rollouts of `prompts` (int) prompts that are to be sampled next."""
        return prompts * self.settings.rollouts_per_prompt

    def choose(self, ids, pass_rates, budget, offer):
        """Choose the prompts that are sampled among candidates, and decide how many rollouts each gets.

        Parameters
        ----------
        ids, pass_rates : as for `allocate`, of n candidates
        budget : int, rollouts of the step, spent exactly
        offer : `cero.verl.candidates.Offer`, with bounds on the number of chosen prompts

        Returns
        -------
        `cero.allocators.upfront.Choice`, to be given to `take_up` once the chosen prompts have their uids

        Raises
        ------
        ValueError
            As `allocate` does.
        """
        if pass_rates is not None:
            self.allocator.set_pass_rates(ids, pass_rates, self.settings.pass_rates[1])
        return self.allocator.choose(ids, budget, offer.least, offer.most)

    def take_up(self, uids, choice, waiting=None, buckets=None):
        """Return the `Dispatch` of the chosen prompts, which are about to be sampled.

        uids : verl's column of their uids, in the order of `choice.step`; choice : of `choose`
        waiting : int, the candidates that will be offered again, or None where none are
        buckets : as for `allocate`, of the chosen prompts
        """
        step = choice.step
        dispatch = Dispatch(uids, step, self._history_mean(step.ids, buckets), step.start(), buckets)
        figures = {
            "count": choice.offered,
            "chosen": step.ids.size,
            "forced": choice.forced,
            "value_ratio": choice.value_ratio,
            "waiting": waiting,
        }
        dispatch.figures = {
            f"cero/candidates/{key}": float(value) for key, value in figures.items() if value is not None
        }
        self._dispatches.append(dispatch)
        return dispatch

    @property
    def dispatched(self):
        """The number of prompts that were dispatched since the last record."""
        return sum(dispatch.rollouts.size for dispatch in self._dispatches)

    def _history_mean(self, ids, buckets):
        """Return E[p] of each prompt, by its own past or, where it has none, by prompts of its buckets."""
        if buckets is None:
            return self.allocator.success_mean(ids)
        return self.allocator.success_mean_or(ids, self.baseline.expected_success(buckets))

    def _prior(self, ids):
        """Return (a, b) of the posteriors of prompts before this step, faded as their visit will fade them.

        Two float arrays, shape (n,); None where the allocator keeps no posteriors.
        """
        beliefs = self.allocator.beliefs
        if beliefs is None:
            return None
        return beliefs.faded_parameters(self.allocator.table.rows(ids))

    # ---- after sampling -------------------------------------------------------------------------

    def open_record(self, keys, tags, played=None):
        """Return the record of all prompts dispatched since the last record; their sampling is over.

        Parameters
        ----------
        keys, tags : of the rows that came back, two sequences of one length
        played : the step after its last round, where the allocator decides while it samples; else None
        """
        record = StepRecord(self._dispatches, self.allocator.sequential, keys=list(keys), tags=list(tags))
        self._dispatches = []
        if played is not None:
            (dispatch,) = record.dispatches
            dispatch.step = played
        return record

    def observe(self, record, returned):
        """Tell the allocator what was sampled, and note it in the record.

        Parameters
        ----------
        record : StepRecord of `open_record`
        returned : `cero.verl.queue.Returned`, of the record's rows

        Returns
        -------
        metrics : dict of str to float
        lengths, rewards : float arrays, shape (s,): response tokens and reward of each of `record.sessions`

        Raises
        ------
        ValueError
            If cero.success makes no success, in [0, 1], of a reward. Nothing is learned then.
        """
        settings, sessions = self.settings, Sessions.of_keys(record.keys, record.place)
        rewards = returned.rewards[sessions.rows]
        if settings.success.key is None:
            successes = settings.success.of_rewards(rewards)
        else:
            pairs = zip(rewards, sessions.rows, strict=True)
            successes = np.array(
                [settings.success.of(reward, returned.extra_fields[row]) for reward, row in pairs]
            )
        won, trials, low, high = group_outcomes(successes, sessions.groups, len(record.uids))
        record.won, record.trials, record.sessions, record.successes = won, trials, sessions, successes
        prior = self._prior_of(record) if self._needs_prior else None
        self._settle(record)
        record.context = StepContext(
            place={name: i for i, name in enumerate(sessions.names)},
            groups=sessions.groups,
            history_mean=record.history_mean,
            sampled=(trials[sessions.groups], won[sessions.groups]),
            known=known_so_far(successes, sessions.groups, record.round_of(sessions)),
            to_success=settings.to_success,
            rollouts_per_prompt=settings.rollouts_per_prompt,
            options=settings.estimator,
            prior=prior,
        )

        lengths = sessions.per_session([tag["response_len"] for tag in record.tags])
        metrics = _group_metrics(won, trials, low, high)
        metrics["cero/tokens/sampled"] = float(lengths.sum())
        if record.sequential:
            rounds = record.dispatches[0].step.rounds
            metrics["cero/rounds/mean"], metrics["cero/rounds/max"] = (
                float(rounds.mean()),
                float(rounds.max()),
            )
            metrics["cero/budget/refunded"] = float(record.cap - record.rollouts.sum())
        metrics.update({f"cero/{key}": value for key, value in self.allocator.metrics().items()})
        for dispatch in record.dispatches:
            metrics.update(dispatch.figures)
        return metrics, lengths, rewards

    @property
    def _needs_prior(self):
        return self.settings.estimator["advantage"] == "mapp"

    def _prior_of(self, record):
        """Return what was known of the record's prompts when they were sent to be sampled; see `_prior`."""
        return self._prior(record.ids)

    def _settle(self, record):
        """Tell the allocator what came back of the record's prompts."""
        start = 0
        for dispatch in record.dispatches:
            part = slice(start, start := start + dispatch.history_mean.size)
            self.allocator.settle(dispatch.step, record.won[part], record.trials[part])

    def observe_all(self, record, returned):
        """Observe what was sampled and train on all of it. Return metrics, a dict of str to float."""
        metrics, lengths, _ = self.observe(record, returned)
        everything = np.ones(lengths.size, bool)
        return metrics | self._count(record, lengths, everything, everything)

    def select(self, record, returned, lengths, rewards, step, least_rows):
        """Choose the sessions that are trained on.

        Parameters
        ----------
        record, returned : as for `observe`
        lengths, rewards : as `observe` returns them
        step : int, the training step; the random draws depend on it and on the allocator's seed
        least_rows : int, the number of rows that must stay if there are so many

        Returns
        -------
        trained : bool array, shape (s,), of `record.sessions`
        metrics : dict of str to float
        before : dict of what would be trained on if rows of advantage zero stayed: their `rows`, their
            `tokens`, and `tokens_trained`, the tokens of the rows that do stay
        """
        settings, sessions = self.settings, record.sessions
        rows = sessions.per_session(np.ones(len(record.keys)))
        tokens = sessions.per_session(returned.tokens)
        kept = selection.select(settings.keep, record.successes, sessions, lengths, self.allocator.seed, step)
        trained = kept
        if settings.drop_zero_advantage:
            zero = self._zero_advantage(record, rewards, kept)
            trained = selection.keep_enough(kept & ~zero, kept, sessions.groups, rows, least_rows)
        before = {
            "rows": int(rows[kept].sum()),
            "tokens": float(tokens[kept].sum()),
            "tokens_trained": float(tokens[trained].sum()),
        }
        return trained, self._count(record, lengths, kept, trained), before

    def _zero_advantage(self, record, rewards, kept):
        """Find the sessions whose advantage is zero when only `kept` ones are trained on.

        kept : bool array, shape (s,). Returns a bool array, shape (s,).
        """
        zero, groups = np.zeros(kept.size, bool), record.sessions.groups[kept]
        if self.settings.estimates:
            advantages = record.context.advantages(np.flatnonzero(kept), rewards[kept])
            zero[kept] = selection.groups_all_zero(advantages, groups)
        else:
            zero[kept] = selection.groups_all_equal(rewards[kept], groups)
        return zero

    def _count(self, record, lengths, kept, trained):
        """Note how many sessions were sampled, kept by the rule and trained on; return metrics of it.

        lengths : float array, shape (s,), response tokens; kept, trained : bool arrays, shape (s,)
        """
        sessions = record.sessions
        rows = sessions.per_session(np.ones(sessions.session_of_row.size))
        record.counts = {
            "sampled": int(record.rollouts.sum()),
            "kept": int(kept.sum()),
            "trained": int(trained.sum()),
        }
        return {f"cero/rollouts/{key}": value for key, value in record.counts.items()} | {
            "cero/tokens/trained": float(lengths[trained].sum()),
            "cero/rows/dropped_by_selection": float(rows[~kept].sum()),
            "cero/rows/dropped_as_zero": float(rows[kept & ~trained].sum()),
        }

    def learn_baselines(self, record, keys, weight_of):
        """Compute the optimal baseline of each session that is trained on, and learn from these sessions.

        Parameters
        ----------
        record : StepRecord that has been observed
        keys : list of str, of the rows trained on and of padding
        weight_of : dict of key -> float, how far a row moves the policy

        Returns
        -------
        float array, shape (s,): the baseline of each of `record.sessions`; nan where it isn't trained on
        """
        trained, successes, keys_of_rows = record.sessions, record.successes, record.keys
        places = np.arange(trained.count)
        if self.settings.selects:  # some sampled rows may be gone, and the order is the batch's
            keys_of_rows = [key for key in keys if key.rsplit("_", 2)[0] in record.place]
            trained = Sessions.of_keys(keys_of_rows, record.place)
            places = np.array([record.context.place[name] for name in trained.names], dtype=np.int64)
            successes = record.successes[places]
        weights = trained.per_session([weight_of[key] for key in keys_of_rows])
        baselines = np.full(record.sessions.count, np.nan)
        baselines[places] = self.baseline.of_step(
            record.ids,
            trained.groups,
            successes,
            weights,
            record.round_of(trained),
            record.buckets,
            record.known,
        )
        return baselines

    # ---- what is kept -----------------------------------------------------------------------------

    def log_step(self, record, metrics, step, epoch):
        """Write the step's line into the log.

        metrics : dict of verl's metrics; those under cero/ and timing_s/ are kept
        step, epoch : int, the training step and the pass over the data
        """
        self.log.step(**self._line(record, metrics, step, epoch))

    def _line(self, record, metrics, step, epoch):
        """Return the arguments of `RunLog.step`, a dict; those of `log_step`."""
        kept = {key: float(value) for key, value in metrics.items() if key.startswith(("cero/", "timing_s/"))}
        return dict(
            step=step,
            epoch=epoch,
            budget=record.cap,
            spent=self.allocator.ledger.spent,
            prompts=[f"{prompt:016x}" for prompt in record.ids.tolist()],
            rollouts=record.rollouts.tolist(),
            successes=[round(value, 6) for value in record.won.tolist()],
            trials=record.trials.tolist(),
            **record.counts,
            metrics=kept,
        )

    def log_validation(self, metrics, step):
        """Write a validation's line into the log; of verl's `metrics`, those under val-core/ are kept."""
        kept = {key: float(value) for key, value in metrics.items() if key.startswith("val-core/")}
        self.log.validation(step=step, spent=self.allocator.ledger.spent, metrics=kept)

    def save(self, folder, plan, record, metrics, epoch, waiting=None):
        """Write all that was learned, and the step's line of the log, into a checkpoint's folder.

        The log itself is made durable, too. So a checkpoint whose commit marker is written afterwards has all
        that its steps did, wherever the run is killed.

        Parameters
        ----------
        folder : Path, a checkpoint's global_step_N
        plan : `cero.verl.resume.Plan` as of this step
        record, metrics, epoch : as for `log_step`; those metrics that there are yet
        waiting : state of the candidates that are to be offered again (`cero.verl.candidates.Pass`), or None

        Raises
        ------
        OSError
            If a file can't be written. The message names it, and the remedy.
        """
        self.log.sync()
        state = self.allocator.state_dict() | {PLAN: plan.state_dict()}
        if self.settings.candidates > 1:
            state[CANDIDATES] = self.settings.offers
        files = {STATE_FILE: self._writer(state)}
        if waiting is not None:
            files[WAITING_FILE] = self._writer(waiting)
        if self.baseline is not None:
            files[BASELINE_FILE] = self._writer(self.baseline.state_dict())
        if self.log.path is not None:
            line = json.dumps(self.log.step_record(**self._line(record, metrics, plan.step, epoch))).encode()
            files[STEP_FILE] = lambda path: write_atomically(path, lambda file: file.write(line))
        files |= self._more_files()
        for name in (STATE_FILE, BASELINE_FILE, WAITING_FILE, IN_FLIGHT_FILE, STEP_FILE):
            path = folder / name
            try:
                if name in files:
                    files[name](path)
                else:
                    path.unlink(missing_ok=True)  # of an earlier run in this folder, with other settings
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"{path} could not be written ({error.strerror or error}). The checkpoint of step "
                    f"{plan.step} is not complete and does not count; the last one before it is intact. Make "
                    "room in trainer.default_local_dir, and give the same command again, with "
                    "trainer.resume_mode=auto, to go on from there",
                ) from error

    def _more_files(self):
        """Return what else belongs into a checkpoint: dict of file (Path) -> function that writes it."""
        return {}

    def save_learned(self, folder):
        """Write all that was learned so far into `folder` (Path), which is no checkpoint."""
        save_state(self.allocator.state_dict(), folder / STATE_FILE)
        if self.baseline is not None:
            save_state(self.baseline.state_dict(), folder / BASELINE_FILE)

    @staticmethod
    def _writer(state):
        return lambda path: save_state(state, path)


def _group_metrics(won, trials, low, high):
    """Return metrics of the step's groups; the arrays, shape (g,), are those of `group_outcomes`."""
    drawn = trials > 0

    def share(kind):
        return float((kind & drawn).sum() / max(drawn.sum(), 1))

    return {
        "cero/group/signal": share(low < high),
        "cero/group/all_right": share((low == high) & (low == 1)),
        "cero/group/all_wrong": share((low == high) & (low == 0)),
        "cero/group/count": float(drawn.sum()),
        "cero/score/prompt_mean": float((won[drawn] / trials[drawn]).mean()) if drawn.any() else 0.0,
        "cero/rollouts/observed": float(trials.sum()),
    }
