"""What do the rules on settings look at, and what is such a rule?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from cero.allocators.base import Allocator
from cero.verl.modes import is_asynchronous, verls_word
from cero.verl.settings import Settings

WITHOUT_GROUPS = ("gae", "reinforce_plus_plus")  # verl's estimators that compare nothing within groups


@dataclass(frozen=True)
class Combination:
    """Hold what the rules look at: verl's config, the settings read from it, and their allocator."""

    config: DictConfig
    settings: Settings
    allocator: Allocator

    @property
    def actor(self):
        """verl's section actor_rollout_ref.actor."""
        return self.config.actor_rollout_ref.actor

    @property
    def estimator(self):
        """Name of the estimator, verl's algorithm.adv_estimator."""
        return self.config.algorithm.adv_estimator

    @property
    def compares_groups(self):
        """Whether one of verl's estimators is used that compares rollouts of a group with each other."""
        return not self.settings.estimates and self.estimator not in WITHOUT_GROUPS

    @property
    def asked_baseline(self):
        """The baseline that algorithm.cero.baseline names, whether or not the advantage can use it."""
        return OmegaConf.select(self.config, "algorithm.cero.baseline") or "mean"

    @property
    def mode(self):
        """The trainer, verl's trainer.v1.trainer_mode."""
        return self.config.trainer.v1.trainer_mode

    @property
    def overlaps(self):
        """Whether verl samples ahead, so that the sampling of one step overlaps with that of others."""
        return is_asynchronous(self.config)

    @property
    def separate(self):
        """Whether rollouts are sampled on devices of their own."""
        return verls_word(self.mode) == "separate_async"

    @property
    def engine(self):
        """verl's section actor_rollout_ref.rollout."""
        return self.config.actor_rollout_ref.rollout

    @property
    def parts(self):
        """The number of parts of a training step, of which verl trains on one after the other."""
        return (self.config.trainer.v1.get(verls_word(self.mode)) or {}).get("parameter_sync_step", 1)

    @property
    def rollouts_of_part(self):
        """The rollouts of each part of a training step, on average."""
        return self.config.data.train_batch_size // self.parts * self.settings.rollouts_per_prompt

    @property
    def filtered(self):
        """Whether verl's dynamic sampling is on."""
        return not self.settings.budgeted

    @property
    def chooses(self):
        """Whether a step chooses its prompts among candidates."""
        return self.settings.candidates > 1

    @property
    def keeps(self):
        """Whether a rule leaves out rollouts."""
        return self.settings.keep["rule"] != "all"

    @property
    def has_critic(self):
        """Whether verl will train a critic."""
        enabled = self.config.critic.enable
        return bool(enabled) if enabled is not None else self.estimator == "gae"

    @property
    def has_lora(self):
        """Whether an adapter is trained in place of the model."""
        model = self.config.actor_rollout_ref.model
        return bool(model.get("lora_rank") or model.get("lora_adapter_path"))

    @property
    def manager(self):
        """The agent loop manager that the user names, or None."""
        return self.config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")

    @property
    def correction(self):
        """verl's section algorithm.rollout_correction."""
        return self.config.algorithm.get("rollout_correction") or {}


class Rule(NamedTuple):
    """Refuse a `Combination` `it` if `refuses(it)` is true, with the text of `message(it)`."""

    refuses: Callable[[Combination], bool]
    message: Callable[[Combination], str]
