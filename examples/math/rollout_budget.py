"""End a run where its budget of rollouts is used up, whatever a step costs.

    trainer.checkpoint_callback_class=rollout_budget.EndAtBudget  +trainer.total_rollouts=409600

verl counts steps. An allocator that leaves rollouts of a step unspent (aero) needs more steps than GRPO for
as many rollouts, and nobody knows beforehand how many more. So give it plenty of steps
(trainer.total_training_steps), and this callback ends the run. At each checkpoint it looks at what was spent,
and at what the steps since the last checkpoint cost. From that it sets the last step: the one before the
budget would be passed. It is then verl's last step, with a checkpoint and a validation. How far off the
budget the run ends depends on how much a step's cost drifts between two checkpoints (trainer.save_freq). The
number to report is the one in the log.
"""

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback


class EndAtBudget(CheckpointCallback):
    """A callback that verl calls after each checkpoint. It needs cero's trainer, whose ledger counts."""

    def __init__(self, config):
        super().__init__(config)
        self.budget, steps = config.trainer.total_rollouts, config.trainer.total_training_steps
        prompts, rollouts = config.data.train_batch_size, config.actor_rollout_ref.rollout.n
        most = (steps or 0) * prompts * rollouts
        if most < self.budget:
            raise ValueError(
                f"trainer.total_rollouts={self.budget} can't be spent: "
                f"trainer.total_training_steps={steps} x data.train_batch_size={prompts} x "
                f"actor_rollout_ref.rollout.n={rollouts} = {most}; "
                "raise trainer.total_training_steps, or lower trainer.total_rollouts"
            )
        self._planned = None  # verl's last step
        self._seen = (0, 0)  # step and rollouts at the last checkpoint

    def on_save(self, trainer, global_step, **kwargs):
        if self._planned is None:
            self._planned = trainer.total_training_steps
        spent, (step_before, spent_before) = trainer.allocator.ledger.spent, self._seen
        cost = (spent - spent_before) / max(global_step - step_before, 1)
        self._seen = (global_step, spent)
        more = max(0, int((self.budget - spent) // cost)) if cost > 0 else self._planned
        trainer.total_training_steps = min(self._planned, global_step + more)
