"""The rollout scheduler: all that this project adds to a training step, without a trainer and without a queue.

    allocate -> (verl samples) -> open_record -> observe [-> select] -> learn_baselines -> log -> save

A trainer's adapter calls these in this order, hands over what verl's queue holds, and passes on what comes
back. Whatever the trainer, prompts in, rollouts out; rewards in, a context for the estimator out.
"""

import numpy as np

from cero.core.state import BASELINE_FILE, STATE_FILE, save_state
from cero.estimators.advantage import group_outcomes, known_so_far
from cero.verl import selection
from cero.verl.context import StepContext
from cero.verl.record import Dispatch, StepRecord
from cero.verl.sessions import Sessions
from cero.verl.timing import Stopwatch


class RolloutScheduler:
    """Decides, observes, selects, and keeps what was learned.

    Parameters
    ----------
    settings : `cero.verl.settings.Settings`
    allocator : an allocator of `settings`
    baseline : `cero.estimators.baseline.OptimalBaseline`, or None where the estimator needs none
    log : `cero.analysis.runlog.RunLog`
    """

    def __init__(self, settings, allocator, baseline, log):
        self.settings, self.allocator, self.baseline, self.log = settings, allocator, baseline, log
        self.stopwatch = Stopwatch()
        self._dispatches = []

    # ---- before sampling ------------------------------------------------------------------------

    def allocate(self, uids, ids, pass_rates=None):
        """Decide on prompts that are about to be sampled.

        uids : verl's column of their uids; ids : uint64 array, shape (n,), prompt ids; pass_rates : float
        array, shape (n,), in [0, 1] or nan, or None: success rates measured before the run

        Returns
        -------
        Dispatch. Of an allocator that decides while it samples, its step has yet to be played; it must then
        come back by `open_record`.

        Raises
        ------
        ValueError
            If the run's budget is used up, or a pass rate lies outside [0, 1].
        """
        if pass_rates is not None:  # counts for prompts not visited yet
            self.allocator.set_pass_rates(ids, pass_rates, self.settings.pass_rates[1])
        history_mean = self.allocator.success_mean(ids)
        step = self.allocator.begin(ids, budget=ids.size * self.settings.rollouts_per_prompt)
        if self.allocator.sequential:
            rollouts = np.full(ids.size, min(step.n_max, step.cap))
        else:
            rollouts = step.start()
        dispatch = Dispatch(uids, step, history_mean, rollouts)
        self._dispatches.append(dispatch)
        return dispatch

    # ---- after sampling -------------------------------------------------------------------------

    def open_record(self, keys, tags, played=None):
        """Open the record of all prompts dispatched since the last one, whose sampling is over.

        keys, tags : of the rows that came back; played : of an allocator that decides while it samples, the
        step after its last round
        """
        record = StepRecord(self._dispatches, self.allocator.sequential, keys=list(keys), tags=list(tags))
        self._dispatches = []
        if played is not None:
            (dispatch,) = record.dispatches
            dispatch.step = played
        return record

    def observe(self, record, returned):
        """Tell the allocator what was sampled; note it in the record.

        returned : `cero.verl.queue.Returned`, of the record's rows

        Returns
        -------
        (metrics, lengths, rewards) : dict of str to float; response tokens and reward of each of
        `record.sessions`, float arrays

        Raises
        ------
        ValueError
            If a reward is no success as cero.success says; nothing is learned then.
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
        start = 0
        for dispatch in record.dispatches:
            part = slice(start, start := start + dispatch.history_mean.size)
            self.allocator.settle(dispatch.step, won[part], trials[part])
        record.context = StepContext(
            place={name: i for i, name in enumerate(sessions.names)},
            groups=sessions.groups,
            history_mean=record.history_mean,
            sampled=(trials[sessions.groups], won[sessions.groups]),
            known=known_so_far(successes, sessions.groups, record.round_of(sessions)),
            to_success=settings.to_success,
            rollouts_per_prompt=settings.rollouts_per_prompt,
            options=settings.estimator,
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
        return metrics, lengths, rewards

    def observe_all(self, record, returned):
        """Observe what was sampled, where all of it is trained on. Returns metrics, dict of str to float."""
        metrics, lengths, _ = self.observe(record, returned)
        everything = np.ones(lengths.size, bool)
        return metrics | self._count(record, lengths, everything, everything)

    def select(self, record, returned, lengths, rewards, step, least_rows):
        """Choose the sessions that are trained on.

        lengths, rewards : as `observe` returns them; step : int, the training step, of which random draws
        depend; least_rows : int, so many rows must stay if that is possible

        Returns
        -------
        (trained, metrics, before) : bool array, shape (s,); dict of str to float; and a dict of what would be
        trained on if rows of advantage zero stayed: `rows`, `tokens`, and the `tokens_trained` of these
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
        """Find the sessions whose advantage will be zero, if only those `kept` count: bool array, shape (s,)."""
        zero, groups = np.zeros(kept.size, bool), record.sessions.groups[kept]
        if self.settings.estimates:
            advantages = record.context.advantages(np.flatnonzero(kept), rewards[kept])
            zero[kept] = selection.groups_all_zero(advantages, groups)
        else:
            zero[kept] = selection.groups_all_equal(rewards[kept], groups)
        return zero

    def _count(self, record, lengths, kept, trained):
        """Note how many sessions were sampled, `kept` by the rule and `trained` on; returns metrics of it."""
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
        """Work out the optimal baseline of each session that is trained on, and learn from them.

        keys : list of str, of the rows trained on and of padding; weight_of : dict of key -> float, how far a
        row moves the policy

        Returns
        -------
        float array, shape (s,): of each of `record.sessions`; nan where it isn't trained on
        """
        trained, successes, keys_of_rows = record.sessions, record.successes, record.keys
        places = np.arange(trained.count)
        if self.settings.selects:  # not all of what was sampled
            keys_of_rows = [key for key in keys if key.rsplit("_", 2)[0] in record.place]
            trained = Sessions.of_keys(keys_of_rows, record.place)
            places = np.array([record.context.place[name] for name in trained.names], dtype=np.int64)
            successes = record.successes[places]
        weights = trained.per_session([weight_of[key] for key in keys_of_rows])
        baselines = np.full(record.sessions.count, np.nan)
        baselines[places] = self.baseline.of_step(
            record.ids, trained.groups, successes, weights, record.round_of(trained)
        )
        return baselines

    # ---- what is kept -----------------------------------------------------------------------------

    def log_step(self, record, metrics, step, epoch):
        """Write the step's line into the log; `metrics` are verl's, of which those of interest are kept."""
        kept = {key: float(value) for key, value in metrics.items() if key.startswith(("cero/", "timing_s/"))}
        self.log.step(
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
        """Write a validation's line into the log."""
        kept = {key: float(value) for key, value in metrics.items() if key.startswith("val-core/")}
        self.log.validation(step=step, spent=self.allocator.ledger.spent, metrics=kept)

    def save(self, folder):
        """Write all that was learned into `folder`, a checkpoint's (global_step_N)."""
        save_state(self.allocator.state_dict(), folder / STATE_FILE)
        if self.baseline is not None:
            save_state(self.baseline.state_dict(), folder / BASELINE_FILE)


def _group_metrics(won, trials, low, high):
    """Metrics of the step's groups; arrays of shape (g,), as `group_outcomes` returns them."""
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
