"""What does an asynchronous run do when its budget is used up before its last step? It ends as others end.

Groups that failed or became too old are spent, and those sent later share what is left. So the last prompts
may have to go without. A step takes what there is; after it the run is saved and validated, and is over.
"""

import sys

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.utils import MetricsAggregator

from cero.verl.asynchronous import BudgetUsedUp


class EndsEarly:
    """End a run where nothing is left to train on. A mixin: it stands before `ScheduledTrainer`."""

    def __init__(self, config):
        self._finished, self._sampling = [], False  # (batch, metrics) of the parts of the step in hand
        self._made = 0  # steps of this process
        super().__init__(config)

    def on_sample_begin(self):
        self._sampling = True
        super().on_sample_begin()

    def on_sample_end(self):
        super().on_sample_end()
        self._sampling = False

    def _step_once(self, metrics, timing_raw, sample_batch_size):
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        self._finished.append((batch, metrics))
        return batch

    def step(self, metrics, timing_raw):
        self._finished, self._sampling = [], False
        try:
            batch = super().step(metrics, timing_raw)
        except BudgetUsedUp:
            if not self._finished:
                raise
            if self._sampling:
                self.on_sample_end()  # what verl does between sampling and the rest of a step
            batch = self._cut_short(metrics)
        self._made += 1
        return batch

    def _cut_short(self, metrics):
        """Return the batch of the parts that the step has made; `metrics` gets theirs, as verl joins them."""
        joined = MetricsAggregator()
        keys, tags = [], []
        for batch, of_part in self._finished:
            rows = sum(not tag.get("is_padding", False) for tag in batch.tags)
            joined.add_step_metrics(of_part, sample_count=rows)
            keys.extend(batch.keys)
            tags.extend(batch.tags)
        metrics.update(joined.get_aggregated_metrics())
        return KVBatchMeta(partition_id=batch.partition_id, keys=keys, tags=tags)

    def _fit(self, agent_loop_manager):
        try:
            super()._fit(agent_loop_manager)
        except BudgetUsedUp as reason:
            if self.global_steps == 1:
                raise RuntimeError(f"cero: {reason}") from reason  # not one step: something is wrong
            self._end(reason)

    def _end(self, reason):
        """Save and validate after the last step that was made, unless that was done, and say why it ended."""
        self.global_steps -= 1
        print(
            f"cero: the run ends after step {self.global_steps} of {self.total_training_steps}: {reason}",
            file=sys.stderr,
        )
        save, test = self.config.trainer.save_freq, self.config.trainer.test_freq
        if self._made and save > 0 and self.global_steps % save:
            self._save_checkpoint()
        if self._made and test > 0 and self.global_steps % test:
            self.on_validate_begin()
            metrics = self._validate()
            self.on_validate_end()
            self.logger.log(data=metrics, step=self.global_steps)
        self._shutdown_dump_executor()
