"""What does the scheduler need to know of a run's configuration?"""

from dataclasses import dataclass

from cero import make_allocator
from cero.estimators.baseline import OptimalBaseline
from cero.verl.success import Success

ESTIMATOR = "cero"
# Sections whose settings some choices leave unread (`cero.verl.effect`): their values in recipe/cero.yaml,
# which an allocator's yaml may change.
DEFAULTS = {
    "algorithm.cero": {
        "advantage": "posterior",
        "baseline": "mean",
        "history": 8.0,
        "scale": True,
        "prompt_weight": "trajectory",
        "aero_form": "standard",
        "mapp_group": None,
        "bucket": "text",
    },
    "cero.success": {"range": [0.0, 1.0]},
    "cero.keep": {"ratio": 1.0, "count": 4},
    "cero.pass_rates": {"strength": 4.0},
    "cero": {"unchosen": "drop", "staleness": 1.0},
}
OBJECTIVES = ("last", "best", "area")  # values of cero.objective
# What a run has that does not choose among candidates.
WITHOUT_CANDIDATES = {"candidates": 1, "unchosen": "drop"}
# Names of agent loop managers, which verl imports where they are needed: for allocators that decide before
# sampling, and for those that decide in rounds.
REWARDED_MANAGER = "cero.verl.agent_loop.RewardedManager"
SEQUENTIAL_MANAGER = "cero.verl.agent_loop.SequentialManager"


@dataclass(frozen=True)
class Settings:
    """Hold a run's settings, checked. `cero.verl.reading` makes them of verl's config.

    allocator, options : name and options as `make_allocator` takes them, without budget and horizon
    rollouts_per_prompt : verl's actor_rollout_ref.rollout.n
    epochs : verl's trainer.total_epochs
    budgeted : whether the run's budget is fixed, which it is not under verl's filter_groups
    success : what counts as a success
    pass_rates : (column of the data set or None, strength in rollouts), as the allocators' `set_pass_rates`
        has them
    candidates : prompts that a step chooses from, in units of data.train_batch_size; 1: it doesn't choose
    unchosen : "drop" or "return", what becomes of those that it doesn't choose
    staleness : in (0, 1], what an outcome counts for in the posteriors, to the power of the versions that the
        policy moved on meanwhile
    keep : options of `cero.estimators.keep.kept`
    drop_zero_advantage : whether rows of advantage zero are left out of training
    on_missing_state : "error" or "fresh", for a checkpoint without the scheduler's state
    log_allocations : whether each step is written to allocations.jsonl
    poll_interval : seconds between looks at the replay buffer, or None for verl's own
    stall_timeout : minutes without a rollout after which the run ends; 0 for never
    estimates : whether advantages come from the estimator `cero`
    estimator : options of that estimator
    baseline : "mean" or "optimal" (`cero.estimators.baseline`)
    bucket : what makes prompts alike for the optimal baseline (`cero.estimators.shared`), or None
    """

    allocator: str
    options: dict
    rollouts_per_prompt: int
    epochs: int
    budgeted: bool
    success: Success
    pass_rates: tuple
    candidates: int
    unchosen: str
    staleness: float
    keep: dict
    drop_zero_advantage: bool
    on_missing_state: str
    log_allocations: bool
    poll_interval: float | None
    stall_timeout: float
    estimates: bool
    estimator: dict
    baseline: str
    bucket: str | None

    @property
    def offers(self):
        """The two settings of candidates, a dict; those of `WITHOUT_CANDIDATES` where a step has none."""
        return {"candidates": self.candidates, "unchosen": self.unchosen}

    @property
    def returns(self):
        """Whether candidates that are not chosen are offered again in the same pass."""
        return self.candidates > 1 and self.unchosen == "return"

    @property
    def batches_per_step(self):
        """The batches of data.train_batch_size prompts that a step takes out of a pass for good."""
        return 1 if self.returns else self.candidates

    @property
    def selects(self):
        """Whether rollouts may be left out of training because of their rewards."""
        return self.keep["rule"] != "all" or self.drop_zero_advantage

    def make_allocator(self, epochs=None, total_budget=None):
        """Return a new allocator, for `epochs` visits to each prompt and `total_budget` rollouts in all.

        Raises ValueError if an option can't work; it names the config group, the option, its value and the
        remedy.
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
        """Return a new `OptimalBaseline` if the baseline is learned, else None."""
        return OptimalBaseline(bucket=self.bucket) if self.baseline == "optimal" else None

    def to_success(self, reward):
        """Return rewards (array) mapped linearly from cero.success.range to [0, 1]."""
        return self.success.of_reward(reward)
