"""What does the scheduler need to know of a run's configuration? The names of the settings, and their values."""

from dataclasses import dataclass

from cero import make_allocator
from cero.estimators.baseline import OptimalBaseline
from cero.verl.success import Success

TRAINER_MODE = "cero"
ESTIMATOR = "cero"
AGENT_LOOP_MANAGER = "cero.verl.agent_loop.SequentialManager"  # by name: verl imports it where it is wanted


@dataclass(frozen=True)
class Settings:
    """A run's settings, checked. `cero.verl.reading` makes them of verl's config.

    allocator, options : name and options as `make_allocator` takes them, without budget and horizon
    rollouts_per_prompt : verl's actor_rollout_ref.rollout.n
    epochs : verl's trainer.total_epochs
    budgeted : whether the run's budget is fixed, which it is not under verl's filter_groups
    success : what counts as a success
    pass_rates : (column of the data set or None, strength), see `set_pass_rates` of the allocators
    keep : options of `cero.estimators.keep.kept`; drop_zero_advantage : bool
    on_missing_state : "error" or "fresh"; log_allocations : bool; poll_interval : seconds, or None
    estimates : whether advantages come of the estimator `cero`; estimator : its options
    baseline : "mean" or "optimal", see `cero.estimators.baseline`
    """

    allocator: str
    options: dict
    rollouts_per_prompt: int
    epochs: int
    budgeted: bool
    success: Success
    pass_rates: tuple
    keep: dict
    drop_zero_advantage: bool
    on_missing_state: str
    log_allocations: bool
    poll_interval: float | None
    estimates: bool
    estimator: dict
    baseline: str

    @property
    def selects(self):
        """Whether rollouts may be left out of training, by what they earned."""
        return self.keep["rule"] != "all" or self.drop_zero_advantage

    def make_allocator(self, epochs=None, total_budget=None):
        """Make the allocator, for `epochs` visits to each prompt.

        Raises ValueError naming the config group, the option, its value and the remedy.
        """
        try:
            return make_allocator(
                self.allocator,
                rollouts_per_prompt=self.rollouts_per_prompt,
                epochs=epochs or self.epochs,
                total_budget=total_budget if self.budgeted else None,
                **self.options,
            )
        except ValueError as error:
            raise ValueError(f"in the config group allocator ({self.allocator}): {error}") from error

    def make_baseline(self):
        """Make what is subtracted from rewards, if it is learned; else None."""
        return OptimalBaseline() if self.baseline == "optimal" else None

    def to_success(self, reward):
        """Map rewards (array) from cero.success.range to [0, 1], linearly."""
        return self.success.of_reward(reward)
