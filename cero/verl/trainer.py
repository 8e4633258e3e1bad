"""verl's synchronous trainer with a rollout scheduler: allocate, observe, save.

The loop is verl's own. Prompts pass through `_submit_batch_to_rollout`, where each gets its number of rollouts
(verl's `__rollout_n__`); rewards are seen in `_compute_advantage`; the state goes into verl's checkpoint.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import transfer_queue as tq
from omegaconf import open_dict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from cero.advantage import group_outcomes
from cero.runlog import FILE_NAME, RunLog
from cero.state import save_state
from cero.verl.estimators import StepContext, final_rows, set_context
from cero.verl.identity import batch_prompt_ids
from cero.verl.settings import STATE_FILE, TRAINER_MODE, read_settings, resume_state


@dataclass
class Dispatch:
    """Prompts on their way: uids and ids as dispatched, rollouts given, E[p] before; all of one length."""

    uids: list
    ids: np.ndarray
    rollouts: np.ndarray
    history_mean: np.ndarray


def _plain(column):
    """A non-tensor column as a list; TransferQueue returns it as one of several list-likes."""
    return [getattr(value, "data", value) for value in column]


@register_trainer(TRAINER_MODE)
class CeroTrainer(PPOTrainerSync):
    """PPOTrainerSync that spends each step's budget prompt by prompt. See `cero.verl.settings` for its config."""

    def __init__(self, config):
        self.settings = read_settings(config)
        # An unknown mode name switches verl to asynchronous behaviour in many places; we are its sync trainer.
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        if self.settings.poll_interval is not None:
            self.replay_buffer.poll_interval = self.settings.poll_interval
        self._dispatches = []
        self._scheduler_seconds = {}

    # ---- set-up -----------------------------------------------------------------------------------------------

    def _init_dataloader(self):
        super()._init_dataloader()
        steps, batch = self.total_training_steps, self.config.data.train_batch_size
        self.allocator = self.settings.make_allocator(
            epochs=max(1, math.ceil(steps / max(self.steps_per_epoch, 1))),
            total_budget=steps * batch * self.settings.rollouts_per_prompt,
        )
        self.allocator.table.reserve(len(self.train_dataset))
        log = Path(self.config.trainer.default_local_dir) / "cero" / FILE_NAME
        self.run_log = RunLog(log if self.settings.log_allocations else None)

    def _init_resource_pool_mgr(self):
        super()._init_resource_pool_mgr()
        if self.config.trainer.device == "cpu":
            from cero.verl.cpu.workers import use_cpu_workers

            use_cpu_workers(self)

    # ---- a step -----------------------------------------------------------------------------------------------

    def _submit_batch_to_rollout(self, batch):
        started = time.perf_counter()
        ids = batch_prompt_ids(batch)
        history_mean = self.allocator.success_mean(ids)
        rollouts = self.allocator.allocate(ids, budget=len(batch) * self.settings.rollouts_per_prompt)
        tu.assign_non_tensor_stack(batch, "__rollout_n__", [int(n) for n in rollouts])
        self._dispatches.append(Dispatch([str(uid) for uid in batch["uid"]], ids, rollouts, history_mean))
        self._scheduler_seconds["allocate"] = time.perf_counter() - started
        return super()._submit_batch_to_rollout(batch)

    def _compute_advantage(self, batch, metrics):
        started = time.perf_counter()
        dispatch = self._take_dispatches()
        uids, rewards, successes = self._outcomes(batch)
        number = {uid: i for i, uid in enumerate(dispatch.uids)}
        groups = np.array([number[uid] for uid in uids], dtype=np.int64)
        won, trials, low, high = group_outcomes(successes, groups, len(dispatch.uids))
        self._check_successes(successes, uids)
        self.allocator.observe(dispatch.ids, won, trials)
        metrics.update(self._group_metrics(won, trials, low, high))
        metrics["cero/padded_rows"] = sum(bool(tag.get("is_padding", False)) for tag in batch.tags)
        metrics.update({f"cero/{key}": value for key, value in self.allocator.metrics().items()})
        set_context(
            StepContext(
                history_mean=dict(zip(dispatch.uids, dispatch.history_mean, strict=True)),
                keys=list(batch.keys),
                to_success=self.settings.to_success,
                rollouts_per_prompt=self.settings.rollouts_per_prompt,
                options=self.settings.estimator,
            )
        )
        self._scheduler_seconds["observe"] = time.perf_counter() - started
        metrics.update({f"cero/time/{key}": value for key, value in self._scheduler_seconds.items()})
        self._record = (dispatch, won, trials)
        try:
            return super()._compute_advantage(batch, metrics)
        finally:
            set_context(None)

    def _take_dispatches(self):
        """All prompts dispatched since the last step, as one."""
        taken, self._dispatches = self._dispatches, []
        return Dispatch(
            uids=[uid for dispatch in taken for uid in dispatch.uids],
            ids=np.concatenate([dispatch.ids for dispatch in taken]),
            rollouts=np.concatenate([dispatch.rollouts for dispatch in taken]),
            history_mean=np.concatenate([dispatch.history_mean for dispatch in taken]),
        )

    def _outcomes(self, batch):
        """(uids, rewards, successes) of the finished sessions; list of str and two float arrays of one length."""
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        keys = [keys[row] for row in final_rows(keys)[0]]
        fields = ["uid", "rm_scores"] + (["extra_fields"] if self.settings.success_key else [])
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
        rewards = data["rm_scores"].sum(dim=1).double().numpy()
        successes = self.settings.to_success(rewards)
        if self.settings.success_key:
            successes = np.array([self._success_value(extra) for extra in _plain(data["extra_fields"])])
        return [str(uid) for uid in _plain(data["uid"])], rewards, successes

    def _success_value(self, extra_fields):
        info = extra_fields.get("reward_extra_info", {})
        if self.settings.success_key not in info:
            raise ValueError(
                f"cero.success.key={self.settings.success_key} is not among what the reward function returned "
                f"({', '.join(info) or 'only a number'}); name one of these, or null for the reward itself"
            )
        return float(info[self.settings.success_key])

    def _check_successes(self, successes, uids):
        bad = ~(np.isfinite(successes) & (successes >= 0) & (successes <= 1))
        if bad.any():
            low, high = self.settings.reward_range
            reward = low + successes[bad][0] * (high - low)
            raise ValueError(
                f"a reward of {reward} lies outside cero.success.range=[{low}, {high}]; set the range to the "
                "reward's own, or cero.success.key to a key of the reward function's dict that is 0 or 1"
            )

    @staticmethod
    def _group_metrics(won, trials, low, high):
        drawn = trials > 0
        share = lambda kind: float((kind & drawn).sum() / max(drawn.sum(), 1))  # noqa: E731
        return {
            "cero/group/signal": share(low < high),
            "cero/group/all_right": share((low == high) & (low == 1)),
            "cero/group/all_wrong": share((low == high) & (low == 0)),
            "cero/group/count": float(drawn.sum()),
            "cero/score/prompt_mean": float((won[drawn] / trials[drawn]).mean()) if drawn.any() else 0.0,
            "cero/rollouts/observed": float(trials.sum()),
        }

    # ---- records ----------------------------------------------------------------------------------------------

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        dispatch, won, trials = self._record
        kept = {key: float(value) for key, value in metrics.items() if key.startswith(("cero/", "timing_s/"))}
        self.run_log.step(
            step=global_steps,
            epoch=epoch,
            budget=int(dispatch.rollouts.sum()),
            spent=self.allocator.ledger.spent,
            prompts=[f"{prompt:016x}" for prompt in dispatch.ids],
            rollouts=dispatch.rollouts.tolist(),
            successes=[round(float(value), 6) for value in won],
            trials=trials.tolist(),
            metrics=kept,
        )

    def _validate(self):
        metrics = super()._validate()
        kept = {key: float(value) for key, value in metrics.items() if key.startswith("val-core/")}
        self.run_log.validation(step=self.global_steps, spent=self.allocator.ledger.spent, metrics=kept)
        return metrics

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def _save_checkpoint(self):
        # Before verl writes its commit marker: a checkpoint that counts has our state.
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        save_state(self.allocator.state_dict(), folder / STATE_FILE)
        super()._save_checkpoint()

    def _load_checkpoint(self):
        super()._load_checkpoint()
        self.run_log.rewind(self.global_steps if self.global_steps else -1)
        if self.global_steps == 0:
            return
        if not resume_state(self.config, self.settings, self.allocator):
            # cero.on_missing_state=fresh: the posterior starts anew, the steps already trained are spent.
            done = self.global_steps * self.config.data.train_batch_size * self.settings.rollouts_per_prompt
            self.allocator.ledger.spend(done)
