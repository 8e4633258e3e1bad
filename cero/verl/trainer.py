"""verl's synchronous trainer with a rollout scheduler: allocate, observe, select, save.

The loop is verl's own. Prompts pass through `_submit_batch_to_rollout`, where each gets its number of
rollouts (verl's `__rollout_n__`), or the most that it may get where an allocator decides while it samples.
The outcomes are fetched and observed by a thread of ours, while verl's waits for the old log-probs. Where
rows are left out of training, that is decided on the rewards, so it is done in `_balance_batch`, right after
sampling. The state goes into verl's checkpoint.
"""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import transfer_queue as tq
from omegaconf import open_dict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from cero.analysis.runlog import FILE_NAME, RunLog
from cero.core.state import BASELINE_FILE, save_state
from cero.verl import outcomes, selection
from cero.verl.estimators import set_context
from cero.verl.identity import IDS, CollateWithIds
from cero.verl.record import Dispatch, StepRecord
from cero.verl.settings import (
    AGENT_LOOP_MANAGER,
    ESTIMATOR,
    STATE_FILE,
    TRAINER_MODE,
    read_settings,
    resume_state,
)


def _numbers(column):
    """A column of a dispatch batch as floats; nan where it holds None."""
    return np.array([float("nan") if value is None else float(value) for value in outcomes.plain(column)])


@register_trainer(TRAINER_MODE)
class CeroTrainer(PPOTrainerSync):
    """PPOTrainerSync that spends each step's budget prompt by prompt. See `cero.verl.settings` for its config."""

    def __init__(self, config):
        self.settings = read_settings(config)
        # An unknown mode name switches verl to asynchronous behaviour in many places; we are its sync
        # trainer.
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
            # verl's task runner reads it from this very config, once the trainer is set up.
            if self.settings.make_allocator().sequential:
                config.actor_rollout_ref.rollout.agent.agent_loop_manager_class = AGENT_LOOP_MANAGER
        super().__init__(config)
        if self.settings.poll_interval is not None:
            self.replay_buffer.poll_interval = self.settings.poll_interval
        self._dispatches = []
        self._record = None
        self._dp_size = None
        self._scheduler_seconds = {}

    # ---- set-up ----------------------------------------------------------------------------------

    def _init_dataloader(self):
        super()._init_dataloader()
        column = self.settings.pass_rates[0]
        if column is not None and column not in self.train_dataset[0]:
            raise ValueError(
                f"cero.pass_rates.column={column} is no column of data.train_files={self.config.data.train_files}; "
                f"there are {', '.join(self.train_dataset[0])}"
            )
        steps, batch = self.total_training_steps, self.config.data.train_batch_size
        self.allocator = self.settings.make_allocator(
            epochs=max(1, math.ceil(steps / max(self.steps_per_epoch, 1))),
            total_budget=steps * batch * self.settings.rollouts_per_prompt,
        )
        self.allocator.table.reserve(len(self.train_dataset))
        self.train_dataloader.collate_fn = CollateWithIds(self.train_dataloader.collate_fn)
        log = Path(self.config.trainer.default_local_dir) / "cero" / FILE_NAME
        self.run_log = RunLog(log if self.settings.log_allocations else None)

    def _init_resource_pool_mgr(self):
        super()._init_resource_pool_mgr()
        if self.config.trainer.device == "cpu":
            from cero.verl.cpu.workers import use_cpu_workers

            use_cpu_workers(self)

    # ---- a step ----------------------------------------------------------------------------------

    @contextmanager
    def _timed(self, what):
        """Count what is done within it as the scheduler's time."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = self._scheduler_seconds.get(what, 0.0)
            self._scheduler_seconds[what] = spent + time.perf_counter() - started

    def _beside(self, function, *arguments):
        """Have our thread call `function`, in its turn; returns a future. Counted is its CPU time: it waits a lot."""

        def call():
            started = time.thread_time()
            result = function(*arguments)
            spent = self._scheduler_seconds.get("background", 0.0)
            self._scheduler_seconds["background"] = spent + time.thread_time() - started
            return result

        return self._background.submit(call)

    def _submit_batch_to_rollout(self, batch):
        with self._timed("allocate"):
            self._allocate(batch)
        collate = self.train_dataloader.collate_fn
        self._scheduler_seconds["allocate"] += collate.seconds
        collate.seconds = 0.0
        return super()._submit_batch_to_rollout(batch)

    def _allocate(self, batch):
        ids = batch.pop(IDS).numpy().view(np.uint64)
        column, strength = self.settings.pass_rates
        if column is not None:  # counts for prompts not visited yet
            self.allocator.set_pass_rates(ids, _numbers(batch[column]), strength)
        history_mean = self.allocator.success_mean(ids)
        step = self.allocator.begin(ids, budget=len(batch) * self.settings.rollouts_per_prompt)
        if self.allocator.sequential:
            rollouts = np.full(len(batch), min(step.n_max, step.cap))
            self.agent_loop_manager.begin(list(batch["uid"]), step)
        else:
            rollouts = step.start()
        # A tensor: verl takes each prompt's number out of it, and a non-tensor column takes a hundred times
        # as long.
        batch["__rollout_n__"] = torch.as_tensor(rollouts, dtype=torch.int64)
        # The column, not its list: that takes a tenth of all this, and is made when nobody waits.
        self._dispatches.append(Dispatch(batch.get("uid"), step, history_mean))

    def _balance_batch(self, batch, metrics, *args, **kwargs):
        with self._timed("observe"):
            record = self._record = self._take_dispatches()
            record.keys, record.tags = list(batch.keys), list(batch.tags)
            if self.settings.selects:
                batch, before = self._observe_and_select(record, batch, metrics)
            record.steps = self._optimizer_steps(len(batch))

        rows = len(batch)
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        with self._timed("observe"):
            metrics["cero/padded_rows"] = padded = len(batch) - rows
            if record.steps is not None and record.steps > 1 and padded:
                is_padding = np.array([bool(tag.get("is_padding", False)) for tag in batch.tags])
                batch.reorder(selection.deal_padding(is_padding, self._dp_size, record.steps).tolist())
            if not self.settings.selects:
                record.observed = self._beside(
                    outcomes.observe_all, record, batch.partition_id, self.settings, self.allocator
                )
            if self.settings.drop_zero_advantage:
                rows_before = selection.round_up(before["rows"], self._row_multiple(before["rows"]))
                record.scale = selection.advantage_scale(
                    self.config.actor_rollout_ref.actor.loss_agg_mode,
                    tokens=before["tokens_trained"] / before["tokens"],
                    rows=len(batch) / rows_before,
                )
                metrics["cero/advantage_scale"] = record.scale
        return batch

    # Kept, since reading verl's config takes as long as much of what is done with it.

    @cached_property
    def _estimates(self):
        """Whether advantages are ours."""
        return self.config.algorithm.adv_estimator == ESTIMATOR

    @cached_property
    def _background(self):
        """A thread that works while verl's waits for its workers: one thing at a time, in the order they came."""
        return ThreadPoolExecutor(1, thread_name_prefix="cero")

    @cached_property
    def baseline(self):
        return self.settings.make_baseline()

    @cached_property
    def _nominal_rows(self):
        """So many rows verl foresees."""
        return self.config.data.train_batch_size * self.settings.rollouts_per_prompt

    def _observe_and_select(self, record, batch, metrics):
        """Observe what was sampled; take out what is not trained on. Returns (batch, figures before zeros went)."""
        settings = self.settings
        rewards, extra_fields, tokens = outcomes.fetch(record.keys, batch.partition_id, settings)
        lengths, rewards = outcomes.observe(record, settings, self.allocator, rewards, extra_fields, metrics)
        sampled, successes = record.sampled, record.successes
        rows, tokens = sampled.per_session(np.ones(len(batch))), sampled.per_session(tokens)
        kept = selection.select(
            settings.keep, successes, sampled, lengths, self.allocator.seed, self.global_steps
        )
        trained = kept
        if settings.drop_zero_advantage:
            zero = outcomes.zero_advantage(record, settings, self._estimates, rewards, kept)
            trained = selection.keep_enough(kept & ~zero, kept, sampled.groups, rows, self._least_rows())
        outcomes.count(record, lengths, kept, trained, metrics)

        figures = {
            "rows": int(rows[kept].sum()),
            "tokens": float(tokens[kept].sum()),
            "tokens_trained": float(tokens[trained].sum()),
        }
        if not trained.all():
            stays = trained[sampled.session_of_row]
            gone = [key for key, stay in zip(batch.keys, stays, strict=True) if not stay]
            batch = batch.select_keys([key for key, stay in zip(batch.keys, stays, strict=True) if stay])
            tq.kv_clear(keys=gone, partition_id=batch.partition_id)
        return batch, figures

    def _take_dispatches(self):
        """A record of all prompts dispatched since the last step, whose sampling is over."""
        record, self._dispatches = StepRecord(self._dispatches, self.allocator.sequential), []
        if record.sequential:
            (dispatch,) = record.dispatches
            dispatch.step = self.agent_loop_manager.end()
        return record

    # ---- rows of a number that verl did not foresee ----------------------------------------------

    def _gpus(self):
        return self.config.trainer.n_gpus_per_node * self.config.trainer.nnodes

    def _least_rows(self):
        """So many rows must stay that each rank has one for each optimizer step."""
        return selection.optimizer_steps(self.config) * self._gpus()

    def _optimizer_steps(self, rows):
        if self.use_critic or rows == self._nominal_rows:
            return None
        # Fewer only if some rank would have no row for one of them.
        return max(1, min(selection.optimizer_steps(self.config), rows // self._gpus()))

    def _row_multiple(self, rows):
        """To a multiple of what `rows` rows are filled up."""
        steps = self._optimizer_steps(rows)
        if steps is None:
            return super()._get_required_batch_multiple(self._dp_size)
        return selection.row_multiple(self.config, self._dp_size, steps)

    def _get_required_batch_multiple(self, dp_size):
        self._dp_size = dp_size
        if self._record.steps is None:
            return super()._get_required_batch_multiple(dp_size)
        return selection.row_multiple(self.config, dp_size, self._record.steps)

    # ---- the update ------------------------------------------------------------------------------

    def _compute_old_log_prob(self, batch, metrics):
        batch = super()._compute_old_log_prob(batch, metrics)
        record = self._record
        if self.baseline is not None:
            record.baselines = self._beside(
                outcomes.optimal_baselines,
                record,
                self.settings,
                self.baseline,
                list(batch.keys),
                batch.partition_id,
            )
        return batch

    def _compute_advantage(self, batch, metrics):
        record, keys = self._record, list(batch.keys)

        def context():
            """What the estimator goes by, for the rows `keys`."""
            baselines = None
            with self._timed("observe"):
                if record.baselines is not None:
                    baselines, metrics["cero/baseline/mean"] = record.baselines.result()
                return outcomes.estimator_context(record, self.settings, keys, baselines)

        if record.observed is not None:
            with self._timed("observe"):
                metrics.update(record.observed.result())
        set_context(context)
        try:
            batch = super()._compute_advantage(batch, metrics)
        finally:
            set_context(None)
        if record.scale != 1.0:
            data = tq.kv_batch_get(
                keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages"]
            )
            data["advantages"] = data["advantages"] * record.scale
            batch = tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)
        metrics.update({f"cero/time/{key}": value for key, value in self._scheduler_seconds.items()})
        self._scheduler_seconds = {}
        return batch

    def _update_actor(self, batch, metrics):
        if self._record.steps is None:
            return super()._update_actor(batch, metrics)
        with selection.rows_per_optimizer_step(self.config, len(batch) // self._record.steps):
            return super()._update_actor(batch, metrics)

    # ---- records ---------------------------------------------------------------------------------

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        with self._timed("log"):  # which the next step's metrics will say
            self._log_step(metrics, global_steps, epoch)

    def _log_step(self, metrics, global_steps, epoch):
        record = self._record
        kept = {key: float(value) for key, value in metrics.items() if key.startswith(("cero/", "timing_s/"))}
        self.run_log.step(
            step=global_steps,
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

    def _validate(self):
        metrics = super()._validate()
        kept = {key: float(value) for key, value in metrics.items() if key.startswith("val-core/")}
        self.run_log.validation(step=self.global_steps, spent=self.allocator.ledger.spent, metrics=kept)
        return metrics

    # ---- checkpoints -----------------------------------------------------------------------------

    def _save_checkpoint(self):
        # Before verl writes its commit marker: a checkpoint that counts has our state.
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        save_state(self.allocator.state_dict(), folder / STATE_FILE)
        if self.baseline is not None:
            save_state(self.baseline.state_dict(), folder / BASELINE_FILE)
        super()._save_checkpoint()

    def _load_checkpoint(self):
        super()._load_checkpoint()
        self.run_log.rewind(self.global_steps if self.global_steps else -1)
        if self.global_steps == 0:
            return
        if not resume_state(self.config, self.settings, self.allocator, self.baseline):
            # cero.on_missing_state=fresh: the posterior starts anew, the steps already trained are spent.
            done = self.global_steps * self.config.data.train_batch_size * self.settings.rollouts_per_prompt
            self.allocator.ledger.spend(done)
