"""How does a trainer of verl ask the rollout scheduler? By a thin adapter of its hooks.

The adapter calls `cero.verl.scheduler`, and everything that this project adds to a step is there.
The loop is verl's own. Prompts pass through `_submit_batch_to_rollout`. There each gets its number of
rollouts (verl's `__rollout_n__`), or the most that it may get where an allocator decides while it samples.
Where a step chooses among candidates, those that get none never reach that method.
The scheduler's own thread fetches and observes the outcomes while verl's thread waits for the old log-probs.
If rows may be left out of training, the rewards decide which, so it happens in `_balance_batch`, right after
sampling. The scheduler's state goes into verl's checkpoint.
"""

import sys
import time
import uuid
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from omegaconf import open_dict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils

from cero.analysis.runlog import FILE_NAME, RunLog
from cero.estimators.shared import trimmed
from cero.verl import queue, selection
from cero.verl.candidates import ROW, batches_of, check_size, make_offers, numbered, resume_pass
from cero.verl.columns import check_columns, rates_of
from cero.verl.context import estimating
from cero.verl.hooks import check_verl
from cero.verl.identity import BUCKETS, IDS, CollateWithIds, audit
from cero.verl.in_flight import left_in_flight, without_flights
from cero.verl.modes import MODES
from cero.verl.reading import read_settings
from cero.verl.resume import changes, check_pass, look_ahead, resume_state, saved_line, uncommit
from cero.verl.rows import RowPlanner, deal_padding, round_up, rows_per_optimizer_step
from cero.verl.scheduler import RolloutScheduler
from cero.verl.settings import REWARDED_MANAGER, SEQUENTIAL_MANAGER
from cero.verl.watch import Stalled, Watch


class ScheduledTrainer:
    """Make a trainer of verl ask the scheduler. A mixin: it stands before one of verl's classes.

    verl_mode : str, the name of that class among verl's trainers (trainer.v1.trainer_mode)
    scheduler_class : class of the scheduler
    """

    verl_mode = None
    scheduler_class = RolloutScheduler

    def __init__(self, config):
        check_verl()
        self.settings = read_settings(config)
        # verl compares its modes by name in many places, and takes a name it doesn't know as asynchronous.
        with open_dict(config):
            config.trainer.v1.trainer_mode = self.verl_mode
            if isinstance(config.trainer.get("resume_from_path"), str):  # verl takes "40/" for no number
                config.trainer.resume_from_path = config.trainer.resume_from_path.rstrip("/")
            # verl's task runner reads the manager's class from this very config, after this constructor.
            agent = config.actor_rollout_ref.rollout.agent
            if self.settings.make_allocator().sequential:
                agent.agent_loop_manager_class = SEQUENTIAL_MANAGER
            elif agent.get("agent_loop_manager_class") is None:
                agent.agent_loop_manager_class = REWARDED_MANAGER
        super().__init__(config)
        if self.settings.poll_interval is not None:
            self.replay_buffer.poll_interval = self.settings.poll_interval
        self.rows = RowPlanner(config, self.use_critic, self.parameter_sync_step)
        self.record = None  # of the current step

    # ---- set-up -----------------------------------------------------------------------------------

    def _init_dataloader(self):
        with batches_of(self.config, self.settings.batches_per_step):
            super()._init_dataloader()
        check_columns(self.train_dataset, self.settings, self.config.data.train_files)
        check_size(self.config, self.settings, len(self.train_dataset))
        check_pass(self.config, len(self.train_dataset))
        self.offers = make_offers(self.config, self.settings, len(self.train_dataset))
        if self.settings.returns:
            self.train_dataloader = numbered(self.train_dataloader)
        self.outlook = self._look_ahead()
        self._say_if_epochs_end_it()
        allocator = self.settings.make_allocator(self.outlook.epochs, self.outlook.total_budget)
        allocator.table.reserve(len(self.train_dataset))
        log = Path(self.config.trainer.default_local_dir) / "cero" / FILE_NAME
        self.scheduler = self.scheduler_class(
            self.settings,
            allocator,
            self.settings.make_baseline(),
            RunLog(log if self.settings.log_allocations else None),
        )
        self.train_dataloader.collate_fn = CollateWithIds(
            self.train_dataloader.collate_fn, self.settings.bucket
        )
        audit(self.train_dataset, self.config.data.get("prompt_key", "prompt"))

    def _say_if_epochs_end_it(self):
        """Print where verl will end the run, if that is before trainer.total_training_steps."""
        last, steps, of_pass = self.outlook.plan.last, self.total_training_steps, self.steps_per_epoch
        if of_pass and last < steps:
            passes = self.config.trainer.total_epochs
            print(
                f"cero: the run ends at step {last:,} of trainer.total_training_steps={steps:,}, after "
                f"trainer.total_epochs={passes} passes of {of_pass:,} steps. To spend the whole budget, set "
                f"trainer.total_epochs to {-(-steps // of_pass):,} or more",
                file=sys.stderr,
            )

    def _look_ahead(self):
        """Return the run's `Outlook`."""
        return look_ahead(self.config, self.settings, self.steps_per_epoch, self.total_training_steps)

    def _build_replay_buffer(self):
        buffer = super()._build_replay_buffer()
        self.watch = Watch(self.settings.stall_timeout * 60, self._save_stalled)
        self.watch.over(buffer)
        return buffer

    def _save_stalled(self):
        """Save what was learned since the last checkpoint, and return the folder."""
        folder = Path(self.config.trainer.default_local_dir) / "cero" / f"stalled_in_step_{self.global_steps}"
        self.scheduler.save_learned(folder)
        return folder

    def _init_resource_pool_mgr(self):
        super()._init_resource_pool_mgr()
        if self.config.trainer.device == "cpu":
            from cero.verl.cpu.workers import use_cpu_workers

            use_cpu_workers(self, detached=self.verl_mode == "separate_async")

    # ---- sampling ---------------------------------------------------------------------------------

    def _add_batch_to_generate(self):
        if self.offers is None:
            super()._add_batch_to_generate()
            return
        offer = self.offers.offer()
        parts = [self._fetch_one_gen_batch() for _ in range(offer.batches)]
        with self.scheduler.stopwatch.timed("allocate"):
            if offer.again.size:
                parts.append(self._read_again(offer.again))
            batch = self._choose(offer, parts)
        self._submit_batch_to_rollout(batch)

    def _read_again(self, places):
        """Return rows of the data set, given by their places in it, as the loader would give them."""
        collate = self.train_dataloader.collate_fn
        seconds = collate.seconds
        columns = collate([self.train_dataloader.dataset[place] for place in places.tolist()])
        collate.seconds = seconds  # it is within what the caller counts
        columns["uid"] = np.array([str(uuid.uuid4()) for _ in range(places.size)], dtype=object)
        return tensordict_utils.get_tensordict(columns)

    def _choose(self, offer, parts):
        """Return the batch (TensorDict) of the prompts that are chosen among those in `parts` (a list)."""
        ids, rates = zip(*map(self._known_of, parts), strict=True)
        self.choice = self.scheduler.choose(
            np.concatenate(ids),
            None if rates[0] is None else np.concatenate(rates),
            self.config.data.train_batch_size * self.settings.rollouts_per_prompt,
            offer,
        )
        chosen = self.choice.chosen
        if self.settings.returns:
            self.offers.settle(offer, np.concatenate([part.pop(ROW).numpy() for part in parts]), chosen)
        # Rows are picked before they are put together, because that takes a time in proportion to them.
        picked, first = [], 0
        for part in parts:
            mine = chosen[(chosen >= first) & (chosen < first + len(part))] - first
            first += len(part)
            if mine.size:
                picked.append(tensordict_utils.index_select_tensor_dict(part, torch.as_tensor(mine)))
        batch = picked[0] if len(picked) == 1 else tensordict_utils.concat_tensordict(picked)
        tensordict_utils.assign_non_tensor_data(batch, "global_steps", self.global_steps)
        return batch

    def _known_of(self, batch):
        """Return the ids of the prompts in `batch`, and their pass rates, or None if there are none."""
        ids = batch.pop(IDS).numpy().view(np.uint64)
        column = self.settings.pass_rates[0]
        return ids, None if column is None else rates_of(column, batch[column])

    def _submit_batch_to_rollout(self, batch):
        stopwatch, collate = self.scheduler.stopwatch, self.train_dataloader.collate_fn
        with stopwatch.timed("allocate"):
            batch = self._allocate(batch)
        stopwatch.add("allocate", collate.seconds)
        collate.seconds = 0.0
        return super()._submit_batch_to_rollout(batch)

    def _allocate(self, batch):
        """Return `batch` (TensorDict) with the number of rollouts of each of its prompts."""
        # The column of uids, not a list of them: making the list takes a tenth of this method's time, and
        # nothing needs it before the rollouts are back.
        uids = batch.get("uid")
        buckets = trimmed(batch.pop(BUCKETS).numpy()) if self.settings.bucket is not None else None
        if self.offers is None:
            dispatch = self.scheduler.allocate(uids, *self._known_of(batch), buckets)
        else:
            waiting = self.offers.waiting.size if self.settings.returns else None
            dispatch = self.scheduler.take_up(uids, self.choice, waiting, buckets)
        if self.scheduler.allocator.sequential:
            self.agent_loop_manager.open_step(list(batch["uid"]), dispatch.step)
        # A tensor, since verl reads each prompt's number out of it: a non-tensor column is a hundred times
        # slower.
        batch["__rollout_n__"] = torch.as_tensor(dispatch.rollouts, dtype=torch.int64)
        return batch

    def _step_once(self, metrics, timing_raw, sample_batch_size):
        if self.offers is not None:  # verl waits for as many prompts as were sent
            sample_batch_size = self.scheduler.dispatched
        return super()._step_once(metrics, timing_raw, sample_batch_size)

    def _balance_batch(self, batch, metrics, *args, **kwargs):
        scheduler, settings = self.scheduler, self.scheduler.settings
        with scheduler.stopwatch.timed("observe"):
            played = self.agent_loop_manager.close_step() if scheduler.allocator.sequential else None
            record = self.record = scheduler.open_record(batch.keys, batch.tags, played)
            if settings.selects:
                batch, before = self._observe_and_select(record, batch, metrics)
            record.rows = len(batch)

        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        with scheduler.stopwatch.timed("observe"):
            metrics["cero/padded_rows"] = len(batch) - record.rows
            batch = self._dealt(batch)
            if not settings.selects:
                record.observed = scheduler.stopwatch.beside(
                    "observe", self._observe_all, record, batch.partition_id
                )
            if settings.drop_zero_advantage:
                # The rows there would be, padding included, had no row of advantage zero been left out.
                plan_before = self.rows.plan(before["rows"], self._dp_size)
                rows_before = round_up(before["rows"], self._multiple(plan_before, self._dp_size))
                record.scale = selection.advantage_scale(
                    self.config.actor_rollout_ref.actor.loss_agg_mode,
                    tokens=before["tokens_trained"] / before["tokens"],
                    rows=len(batch) / rows_before,
                )
                metrics["cero/advantage_scale"] = record.scale
        return batch

    def _fetch(self, record, partition_id):
        settings = self.scheduler.settings
        return queue.fetch(
            record.keys,
            partition_id,
            with_extra_fields=bool(settings.success.key),
            with_tokens=settings.drop_zero_advantage,
        )

    def _observe_all(self, record, partition_id):
        return self.scheduler.observe_all(record, self._fetch(record, partition_id))

    def _observe_and_select(self, record, batch, metrics):
        """Observe what was sampled, and take out of `batch` what is not trained on.

        Returns (batch, before): what is left of verl's batch, and `before` of `RolloutScheduler.select`.
        """
        returned = self._fetch(record, batch.partition_id)
        observed, lengths, rewards = self.scheduler.observe(record, returned)
        least = self.rows.least_rows(self._dp_size) if self.scheduler.settings.drop_zero_advantage else 0
        trained, counts, before = self.scheduler.select(record, returned, lengths, rewards, self._part, least)
        metrics.update(observed | counts)
        if not trained.all():
            batch = queue.take_out(batch, trained[record.sessions.session_of_row])
        return batch, before

    @property
    def _part(self):
        """The number, from 1, of the part of the run that is trained on: one for each of `_step_once`."""
        return self.global_steps * self.parameter_sync_step + self.local_trigger_step

    # ---- the update -------------------------------------------------------------------------------

    @cached_property
    def _dp_size(self):
        """The number of the actor's data-parallel ranks, asked for as verl's `_balance_batch` does."""
        return max(self.actor_rollout_wg._query_dispatch_info("actor")) + 1

    def _get_required_batch_multiple(self, dp_size):
        self.record.plan = self.rows.plan(self.record.rows, dp_size)
        return self._multiple(self.record.plan, dp_size)

    def _multiple(self, plan, dp_size):
        return self.rows.multiple(plan, dp_size, super()._get_required_batch_multiple(dp_size))

    def _compute_old_log_prob(self, batch, metrics):
        batch = super()._compute_old_log_prob(batch, metrics)
        if self.scheduler.baseline is not None:
            self.record.baselines = self.scheduler.stopwatch.beside(
                "observe", self._learn_baselines, self.record, list(batch.keys), batch.partition_id
            )
        return batch

    def _learn_baselines(self, record, keys, partition_id):
        return self.scheduler.learn_baselines(record, keys, queue.fetch_weights(keys, partition_id))

    def _compute_advantage(self, batch, metrics):
        record = self.record
        record.metrics = metrics
        if record.observed is not None:
            metrics.update(record.observed.result())
        record.context.baselines = record.baselines
        with estimating(record.context, batch.keys):
            batch = super()._compute_advantage(batch, metrics)
        if record.baselines is not None:
            baselines = record.baselines.result()
            metrics["cero/baseline/mean"] = float(baselines[np.isfinite(baselines)].mean())
        if record.scale != 1.0:
            batch = queue.scale_advantages(batch, record.scale)
        seconds = self.scheduler.stopwatch.take()
        metrics.update({f"cero/time/{part}": value for part, value in seconds.items()})
        return batch

    def _dealt(self, batch):
        """Return `batch` with its padding spread over the optimizer steps, where one could be all padding."""
        if steps := self.rows.steps_to_deal(self.record.plan, len(batch)):
            is_padding = np.array([bool(tag.get("is_padding", False)) for tag in batch.tags])
            batch.reorder(deal_padding(is_padding, self._dp_size, steps).tolist())
        return batch

    def _update_actor(self, batch, metrics):
        steps = self.record.plan.steps
        if steps is None:
            return super()._update_actor(batch, metrics)
        with rows_per_optimizer_step(self.config, len(batch) // steps):
            return super()._update_actor(batch, metrics)

    # ---- records and checkpoints --------------------------------------------------------------------

    def fit(self, agent_loop_manager):
        self.watch.start()
        try:
            self._fit(agent_loop_manager)
        except Stalled:
            raise
        except Exception:
            # verl may notice by itself that something is missing, and then says what is, but not why.
            self.watch.tell_of_the_dead()
            raise
        finally:
            self.scheduler.log.close()

    def _take_back_flights(self):
        """Take back the rollouts that were under way when the checkpoint was made, if none will come back."""

    def _fit(self, agent_loop_manager):
        super().fit(agent_loop_manager)

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        with self.scheduler.stopwatch.timed("log"):  # reported with the next step's metrics
            self.scheduler.log_step(self.record, metrics, global_steps, epoch)

    def _validate(self):
        metrics = super()._validate()
        self.scheduler.log_validation(metrics, self.global_steps)
        return metrics

    def _save_checkpoint(self):
        # Before verl writes its commit marker, so that every committed checkpoint has the scheduler's state,
        # and the step's line. verl logs the step after its validation, which may never end.
        step, record = self.global_steps, self.record
        seconds = self.timing_raw | {"step": time.perf_counter() - record.dispatches[0].begun}
        metrics = record.metrics | {f"timing_s/{part}": value for part, value in seconds.items()}
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{step}"
        uncommit(folder)
        self.scheduler.save(
            folder,
            self.outlook.plan.at(step),
            record,
            metrics,
            epoch=(step - 1) // self.steps_per_epoch,
            waiting=self.offers.state_dict() if self.settings.returns else None,
        )
        super()._save_checkpoint()

    def _load_checkpoint(self):
        super()._load_checkpoint()
        scheduler, step = self.scheduler, self.global_steps
        if step == 0:
            scheduler.log.rewind(-1)
            return
        if self.settings.returns:
            resume_pass(self.config, self.offers)
        scheduler.log.rewind(step, saved_line(self.config, step))
        ledger, plan = scheduler.allocator.ledger, self.outlook.plan
        if not resume_state(self.config, self.settings, scheduler.allocator, scheduler.baseline):
            # cero.on_missing_state=fresh: posteriors start anew, but the rollouts of past steps are spent.
            ledger.spend(step * plan.prompts * plan.rollouts)
        else:
            self._take_back_flights()
        if changed := changes(self.config, self.settings, scheduler.allocator, self.outlook):
            print(
                f"cero: resumes at step {step} with {', '.join(changed)}; {ledger.spent:,} rollouts are "
                f"spent, and {plan.left if ledger.left is None else ledger.left:,} are left (steps: "
                f"{max(0, plan.last - step):,})",
                file=sys.stderr,
            )


@register_trainer(MODES["sync"])
class CeroTrainer(ScheduledTrainer, PPOTrainerSync):
    """Train as verl's synchronous trainer does, with each step's budget divided among its prompts."""

    def _look_ahead(self):
        return without_flights(self.config, super()._look_ahead())

    def _take_back_flights(self):
        groups = [group for group in left_in_flight(self.config).groups.values() if group.launched]
        if groups:
            rollouts = [group.launched for group in groups]
            self.scheduler.allocator.withdraw([group.prompt for group in groups], rollouts)
            print(
                f"cero: the checkpoint is of an asynchronous run: {sum(rollouts):,} rollouts that were under "
                "way then are not spent. Their prompts are not trained on in this pass; others get them",
                file=sys.stderr,
            )

    verl_mode = "sync"
