"""How do verl's asynchronous trainers ask the scheduler? By the synchronous one's adapter, and little more.

verl's replay buffer decides which groups are trained on, thrown away or waited for, and tells nobody. So
those three methods of the buffer are wrapped (`tap`). And no more prompts are sent than training takes until
its end, which verl doesn't look at.
"""

import torch
import transfer_queue as tq
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.utils import tensordict_utils

from cero.verl.asynchronous import AsyncScheduler, joined, metrics_of_parts
from cero.verl.early_end import EndsEarly
from cero.verl.hooks import ASYNC_HOOKS, check_verl
from cero.verl.in_flight import resume_flights, with_flights
from cero.verl.modes import MODES
from cero.verl.trainer import ScheduledTrainer

TRAIN = "train"  # verl's partition of the queue
TAPPED = ("_materialize_batch", "_clear_groups", "_has_enough_samples")


def tap(buffer, scheduler):
    """Tell `scheduler()`, an `AsyncScheduler`, what `buffer` (verl's ReplayBufferAsync) does with groups.

    Raises ValueError, naming key and remedy, if the buffer has not verl's methods.
    """
    missing = [name for name in TAPPED if not hasattr(buffer, name)]
    if missing:
        raise ValueError(
            f"trainer.v1.sampler.custom_sampler.name={type(buffer).__name__} has no {', '.join(missing)}, by "
            "which the rollouts of asynchronous trainers are counted; derive it from verl's "
            "ReplayBufferAsync, or set trainer.v1.sampler.custom_sampler.path=null"
        )
    materialize, clear, has_enough = (getattr(buffer, name) for name in TAPPED)

    def materialized(partition_id, selected_prompt_uids, *args, **kwargs):
        if partition_id == TRAIN:
            scheduler().selected(list(selected_prompt_uids))
        return materialize(partition_id, selected_prompt_uids, *args, **kwargs)

    def cleared(partition_id, uids):
        if partition_id == TRAIN:
            scheduler().evicted(sorted(uids))
        return clear(partition_id, uids)

    def enough(global_steps, partition_id, batch_size, sampleable_keys):
        if partition_id == TRAIN:  # fewer than verl asks for, where groups were lost that nothing can replace
            batch_size = scheduler().at_most(batch_size)
        return has_enough(global_steps, partition_id, batch_size, sampleable_keys)

    for name, tapped in zip(TAPPED, (materialized, cleared, enough), strict=True):
        setattr(buffer, name, tapped)


class AsyncTrainer(EndsEarly, ScheduledTrainer):
    """Make an asynchronous trainer of verl ask the scheduler. A mixin, as `ScheduledTrainer` is."""

    scheduler_class = AsyncScheduler

    def __init__(self, config):
        check_verl(ASYNC_HOOKS)
        self._parts = []  # records of the parts of the step in hand
        super().__init__(config)

    def _build_replay_buffer(self):
        buffer = super()._build_replay_buffer()
        tap(buffer, lambda: self.scheduler)
        return buffer

    def _look_ahead(self):
        return with_flights(self.config, super()._look_ahead())

    # ---- sampling ---------------------------------------------------------------------------------

    def _add_prompts_to_generate(self, num_prompts):
        wanted = self.scheduler.admit(num_prompts)
        return super()._add_prompts_to_generate(wanted) if wanted else 0

    def _add_batch_to_generate(self):
        self._add_prompts_to_generate(self.config.data.train_batch_size)

    def _submit_batch_to_rollout(self, batch):
        self.scheduler.step = self.global_steps
        return super()._submit_batch_to_rollout(batch)

    def _allocate(self, batch):
        batch = super()._allocate(batch)
        # Prompts without rollouts would be finished at once, and a part of a step might be made of them only.
        asked = torch.nonzero(batch["__rollout_n__"]).flatten()
        if len(asked) < len(batch):
            batch = tensordict_utils.index_select_tensor_dict(batch, asked)
            tensordict_utils.assign_non_tensor_data(batch, "global_steps", self.global_steps)
        return batch

    # ---- training ---------------------------------------------------------------------------------

    def step(self, metrics, timing_raw):
        self._parts = []
        self.scheduler.step_begins(self.global_steps)
        batch = super().step(metrics, timing_raw)
        metrics.update(metrics_of_parts(self._parts))
        self.record = joined(self._parts)
        self.record.metrics = metrics
        return batch

    def _step_once(self, metrics, timing_raw, sample_batch_size):
        return super()._step_once(metrics, timing_raw, self.scheduler.expect(sample_batch_size))

    def _balance_batch(self, batch, metrics, *args, **kwargs):
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        self._parts.append(self.record)
        return batch

    # ---- checkpoints ------------------------------------------------------------------------------

    def _load_checkpoint(self):
        super()._load_checkpoint()
        scheduler = self.scheduler
        if self.global_steps:
            resume_flights(self.config, scheduler.in_flight)
        queued = queued_prompts()
        strange = scheduler.begin(self._prompts_left(), queued)
        forget(strange, scheduler.in_flight)
        self._restored_tq_prompt_count = len(scheduler.in_flight)

    def _prompts_left(self):
        """Return the prompts, int, that training takes from the next step to the run's end."""
        return max(0, self.outlook.plan.last - self.global_steps) * self.config.data.train_batch_size


def queued_prompts():
    """Return the uids of the prompts in verl's queue, to be trained on: set of str."""
    data = tq.kv_list(TRAIN) or {}
    return {key for key, tag in data.get(TRAIN, {}).items() if tag.get("is_prompt", False)}


def forget(strange, in_flight):
    """Take out of verl's queue the prompts `strange` (set of uids), and rows whose prompt is not in flight.

    A checkpoint is written before its step's rows leave the queue, so they come back with it.
    """
    data = (tq.kv_list(TRAIN) or {}).get(TRAIN, {})
    gone = [key for key in data if key in strange or key.split("_")[0] not in in_flight.groups]
    if gone:
        tq.kv_clear(keys=gone, partition_id=TRAIN)


@register_trainer(MODES["colocate_async"])
class CeroColocateAsync(AsyncTrainer, PPOTrainerColocateAsync):
    """Train as verl's PPOTrainerColocateAsync does, with rollouts divided among the prompts."""

    verl_mode = "colocate_async"


@register_trainer(MODES["separate_async"])
class CeroSeparateAsync(AsyncTrainer, PPOTrainerSeparateAsync):
    """Train as verl's PPOTrainerSeparateAsync does, with rollouts divided among the prompts."""

    verl_mode = "separate_async"
