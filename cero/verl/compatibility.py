"""Which settings can't work together?

A table of rules says so. Each rule says when it refuses a run, and with which message: it names the keys,
their values and the remedy.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from cero.allocators.base import Allocator
from cero.core.checks import is_whole
from cero.verl.effect import without_effect
from cero.verl.modes import MODES, is_asynchronous, verls_word
from cero.verl.settings import ESTIMATOR, Settings

# verl's estimators under which a group of equal rewards has advantage zero throughout, and nothing else
# changes when it is left out.
ZERO_IF_EQUAL = ("grpo", "rloo")
# verl's policy losses that are proportional to the advantage, and divided as actor.loss_agg_mode says.
PROPORTIONAL_LOSSES = ("vanilla", "gspo", "cispo", "gpg", "dppo_tv", "dppo_kl")


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


WITHOUT_GROUPS = ("gae", "reinforce_plus_plus")  # verl's estimators that compare nothing within groups


class Rule(NamedTuple):
    """Refuse a `Combination` `it` if `refuses(it)` is true, with the text of `message(it)`."""

    refuses: Callable[[Combination], bool]
    message: Callable[[Combination], str]


def _group_of_one(remedy):
    """Return the end of a message on groups of one rollout; `remedy` is the setting that avoids them."""
    return (
        f"a group of one rollout gets its raw reward as advantage there; set {remedy} "
        f"or algorithm.adv_estimator={ESTIMATOR}"
    )


TRAINER = (
    Rule(
        lambda it: not it.config.trainer.use_v1,
        lambda it: "trainer.use_v1=False: verl's legacy trainer knows no plugins; set trainer.use_v1=True",
    ),
    Rule(
        lambda it: (
            it.config.trainer.v1.trainer_mode in MODES
        ),  # in a run it is replaced, in a sweep it is not
        lambda it: (
            f"trainer.v1.trainer_mode={it.mode} would train without the allocator in a job of a sweep; set "
            f"trainer.v1.trainer_mode={MODES[it.mode]}, which is that trainer with it"
        ),
    ),
    Rule(
        lambda it: it.mode not in MODES.values(),
        lambda it: (
            f"trainer.v1.trainer_mode={it.mode} would train without the allocator; set it to one of "
            f"{', '.join(MODES)}"
        ),
    ),
)
ASYNCHRONOUS = (  # groups come back in any order, and the steps of the sampler overlap
    Rule(
        lambda it: it.overlaps and it.allocator.sequential,
        lambda it: (
            f"allocator={it.settings.allocator} with trainer.v1.trainer_mode={it.mode}: it decides while a "
            "step is sampled, and divides what that step has left, but in this mode the sampling of steps "
            "overlaps; set trainer.v1.trainer_mode=sync, or use an allocator that decides before sampling, "
            "e.g. allocator=cero"
        ),
    ),
    Rule(
        lambda it: it.overlaps and it.chooses,
        lambda it: (
            f"cero.candidates={it.settings.candidates} with trainer.v1.trainer_mode={it.mode}: prompts are "
            "read and sent in portions of any size, so there is no step to choose for; set "
            "cero.candidates=1, or trainer.v1.trainer_mode=sync"
        ),
    ),
    Rule(
        lambda it: (
            it.overlaps
            and it.allocator.chooses
            and it.allocator.n_min == 0
            and it.allocator.n_max > it.rollouts_of_part
        ),
        lambda it: (
            f"allocator.n_max={it.allocator.n_max} with trainer.v1.trainer_mode={it.mode}: a step is trained "
            f"on in parts of {it.rollouts_of_part} rollouts, and if a single prompt got more than that, a "
            "part might have none; set allocator.n_max to that or less, or allocator.n_min=1"
        ),
    ),
    Rule(
        lambda it: it.separate and it.engine.checkpoint_engine.backend == "naive",
        lambda it: (
            "actor_rollout_ref.rollout.checkpoint_engine.backend=naive with "
            f"trainer.v1.trainer_mode={it.mode}: it hands weights over within one process only; set it to "
            "nccl, nixl or mooncake, or on a CPU to shared_memory"
        ),
    ),
    Rule(
        lambda it: (
            it.separate
            and it.config.reward.reward_model.enable
            and not it.config.reward.reward_model.get("enable_resource_pool")
        ),
        lambda it: (
            "reward.reward_model.enable=True with reward.reward_model.enable_resource_pool=False and "
            f"trainer.v1.trainer_mode={it.mode}: the reward model would share the trainer's devices, which "
            "this mode of verl refuses; set reward.reward_model.enable_resource_pool=True"
        ),
    ),
    Rule(
        # Its message has an argument that Python's logging doesn't know.
        lambda it: (
            it.separate
            and not it.config.actor_rollout_ref.get("hybrid_engine", True)
            and os.environ.get("VERL_LOGGING_LEVEL", "INFO") in ("NOTSET", "DEBUG", "INFO")
        ),
        lambda it: (
            f"actor_rollout_ref.hybrid_engine=False with trainer.v1.trainer_mode={it.mode}: verl 0.9.1 fails "
            "where it says so at the level INFO; set VERL_LOGGING_LEVEL=WARN in the environment"
        ),
    ),
    Rule(
        lambda it: it.separate and not (it.engine.nnodes > 0 and it.engine.n_gpus_per_node > 0),
        lambda it: (
            f"actor_rollout_ref.rollout.nnodes={it.engine.nnodes} x "
            f"actor_rollout_ref.rollout.n_gpus_per_node={it.engine.n_gpus_per_node} with "
            f"trainer.v1.trainer_mode={it.mode}: the rollouts need devices of their own; set both to 1 or "
            "more"
        ),
    ),
    Rule(
        lambda it: (
            it.separate
            and it.config.data.train_batch_size
            != it.parts * it.config.actor_rollout_ref.actor.ppo_mini_batch_size
        ),
        lambda it: (
            f"data.train_batch_size={it.config.data.train_batch_size} with "
            f"trainer.v1.trainer_mode={it.mode}: it must be trainer.v1.separate_async.parameter_sync_step x "
            f"actor_rollout_ref.actor.ppo_mini_batch_size = {it.parts} x {it.actor.ppo_mini_batch_size}"
        ),
    ),
    Rule(
        lambda it: it.overlaps and it.has_critic and it.settings.allocator != "uniform",
        lambda it: (
            f"critic.enable={it.config.critic.enable} with allocator={it.settings.allocator} and "
            f"trainer.v1.trainer_mode={it.mode}: the number of rows changes from step to step, and verl "
            "splits a critic's batch by a fixed one; set critic.enable=false, or use allocator=uniform"
        ),
    ),
)
SIZES = (
    Rule(
        lambda it: it.actor.ppo_mini_batch_size > it.config.data.train_batch_size,
        lambda it: (
            f"actor_rollout_ref.actor.ppo_mini_batch_size={it.actor.ppo_mini_batch_size} is more than "
            f"data.train_batch_size={it.config.data.train_batch_size}: verl would fill each step up with "
            "padding; set it to the batch or to a part of it"
        ),
    ),
    Rule(  # with filtering, and where sampling overlaps, verl puts 1 in its place
        lambda it: (
            it.config.data.get("gen_batch_size") is not None
            and not (it.overlaps or it.filtered)
            and not (
                is_whole(it.config.data.gen_batch_size)
                and it.config.data.gen_batch_size > 0
                and it.config.data.train_batch_size % it.config.data.gen_batch_size == 0
            )
        ),
        lambda it: (
            f"data.gen_batch_size={it.config.data.gen_batch_size} does not divide "
            f"data.train_batch_size={it.config.data.train_batch_size}: a step is read in portions of that "
            "size; set it to a divisor, or to null"
        ),
    ),
    Rule(
        lambda it: it.config.trainer.device == "cpu" and it.has_lora,
        lambda it: (
            f"actor_rollout_ref.model.lora_rank={it.config.actor_rollout_ref.model.lora_rank} with "
            "trainer.device=cpu: the weights of an adapter can't be handed to vLLM's CPU engine; set it to "
            "0, and lora_adapter_path to null"
        ),
    ),
)
CANDIDATES = (  # a step chooses its prompts before it is sampled, and some get nothing
    Rule(
        lambda it: it.chooses and it.filtered,
        lambda it: (
            f"cero.candidates={it.settings.candidates} with algorithm.filter_groups.enable=True: filtering "
            "refills one prompt at a time, so there is no step to choose for; set cero.candidates=1, or "
            "switch filtering off"
        ),
    ),
    Rule(
        lambda it: it.chooses and it.allocator.sequential,
        lambda it: (
            f"cero.candidates={it.settings.candidates} with allocator={it.settings.allocator}: it decides "
            "while the step is sampled, and may come back to any prompt, so none can be left out beforehand; "
            "set cero.candidates=1, or use an allocator that decides before sampling, e.g. allocator=cero"
        ),
    ),
    Rule(
        lambda it: it.chooses and not it.allocator.chooses,
        lambda it: (
            f"cero.candidates={it.settings.candidates} with allocator={it.settings.allocator}: it gives "
            "every prompt the same, so it has nothing to choose by; set cero.candidates=1, or use e.g. "
            "allocator=greedy"
        ),
    ),
    Rule(
        lambda it: it.chooses and it.allocator.n_min > 0,
        lambda it: (
            f"allocator.n_min={it.allocator.n_min} with cero.candidates={it.settings.candidates}: every "
            "candidate would get rollouts, so there is no choice; set allocator.n_min=0"
        ),
    ),
    Rule(
        lambda it: it.chooses and it.config.data.get("gen_batch_size") is not None,
        lambda it: (
            f"data.gen_batch_size={it.config.data.gen_batch_size} with "
            f"cero.candidates={it.settings.candidates}: what is read for a step goes by "
            "data.train_batch_size and the candidates; set data.gen_batch_size=null"
        ),
    ),
)
GROUPS_OF_ONE = (  # verl's other estimators give a group of one its raw reward as advantage
    Rule(
        lambda it: it.compares_groups and it.allocator.sequential and it.allocator.least_rollouts() < 2,
        lambda it: (
            f"allocator={it.settings.allocator} with algorithm.adv_estimator={it.estimator}: "
            + _group_of_one("allocator=aero, allocator.n_explore=2 or more,")
        ),
    ),
    Rule(
        # Uniform spending leaves everything as verl has it, so it may have verl's groups of one, too.
        lambda it: (
            it.compares_groups and it.settings.allocator != "uniform" and it.allocator.least_rollouts() < 2
        ),
        lambda it: (
            f"allocator.n_min={it.allocator.n_min} with algorithm.adv_estimator={it.estimator}: "
            + _group_of_one("allocator.n_min=2")
        ),
    ),
    Rule(
        lambda it: it.compares_groups and it.keeps and it.settings.keep["count"] < 2,
        lambda it: (
            f"cero.keep.count={it.settings.keep['count']} with algorithm.adv_estimator={it.estimator}: "
            + _group_of_one("cero.keep.count=2")
        ),
    ),
)
OWN_ESTIMATOR = (
    Rule(
        lambda it: it.settings.estimates and it.config.algorithm.use_kl_in_reward,
        lambda it: (
            "algorithm.use_kl_in_reward=True with algorithm.adv_estimator=cero: the baseline is a success "
            "probability; use actor_rollout_ref.actor.use_kl_loss=True instead"
        ),
    ),
    Rule(
        lambda it: it.settings.estimates and it.settings.success.key is not None,
        lambda it: (
            f"cero.success.key={it.settings.success.key} with algorithm.adv_estimator=cero: its baseline "
            "must be in the units of the reward; set cero.success.key=null, or algorithm.adv_estimator=grpo"
        ),
    ),
)
DYNAMIC_SAMPLING = (
    Rule(
        lambda it: it.filtered and it.settings.allocator != "uniform",
        lambda it: (
            f"algorithm.filter_groups.enable=True with allocator={it.settings.allocator}: filtering refills "
            "one prompt at a time, so there is no step's budget to divide; use allocator=uniform, or switch "
            "filtering off"
        ),
    ),
    Rule(
        lambda it: it.filtered and it.settings.selects,
        lambda it: (
            f"algorithm.filter_groups.enable=True with cero.keep.rule={it.settings.keep['rule']} and "
            f"cero.drop_zero_advantage={it.settings.drop_zero_advantage}: filtering samples on until the "
            "batch is full of groups with a signal, and these take rows out of it again; set "
            "cero.keep.rule=all and cero.drop_zero_advantage=false, or switch filtering off"
        ),
    ),
)
PASS_RATES = (
    Rule(
        lambda it: it.settings.pass_rates[0] is not None and it.allocator.beliefs is None,
        lambda it: (
            f"cero.pass_rates.column={it.settings.pass_rates[0]} with allocator={it.settings.allocator}: it "
            "keeps no posterior that could start at a pass rate; set it to null, or use e.g. allocator=cero"
        ),
    ),
)
ROUNDS = (  # sampling in rounds needs an agent loop of its own, and rewards while it samples
    Rule(
        lambda it: it.allocator.sequential and it.manager is not None,
        lambda it: (
            f"actor_rollout_ref.rollout.agent.agent_loop_manager_class={it.manager} with "
            f"allocator={it.settings.allocator}: sampling in rounds needs an agent loop manager of its own; "
            "set it to null, or use an allocator that decides before sampling"
        ),
    ),
    Rule(
        lambda it: (
            it.allocator.sequential
            and it.config.reward.reward_model.enable
            and not it.config.reward.reward_model.enable_resource_pool
        ),
        lambda it: (
            f"reward.reward_model.enable=True with allocator={it.settings.allocator}: a colocated reward "
            "model says nothing before all is sampled, and rounds go by rewards; set "
            "reward.reward_model.enable_resource_pool=True, use a reward function, or an allocator that "
            "decides before sampling"
        ),
    ),
)


def _drop_zero(refuses, reason):
    """Return a rule against leaving out rows of advantage zero where that would change the gradient.

    It would if such rows have a gradient of their own, or if the gradient of other rows depends on them.
    refuses, reason : functions of a `Combination`, as `refuses` and `message` of a `Rule`
    """
    return Rule(
        lambda it: it.settings.drop_zero_advantage and bool(refuses(it)),
        lambda it: f"cero.drop_zero_advantage=True with {reason(it)}, or cero.drop_zero_advantage=false",
    )


DROP_ZERO = (
    _drop_zero(
        lambda it: it.estimator not in (ESTIMATOR, *ZERO_IF_EQUAL),
        lambda it: (
            f"algorithm.adv_estimator={it.estimator}: its advantages depend on what is left out, or are not "
            f"known to be zero; use {', '.join((ESTIMATOR, *ZERO_IF_EQUAL))}"
        ),
    ),
    _drop_zero(
        lambda it: it.has_critic,
        lambda it: (
            f"critic.enable={it.config.critic.enable}: every row teaches a critic; set critic.enable=false"
        ),
    ),
    _drop_zero(
        lambda it: it.actor.use_kl_loss,
        lambda it: (
            "actor_rollout_ref.actor.use_kl_loss=True: the KL term has a gradient on every row; "
            "set it to False"
        ),
    ),
    _drop_zero(
        lambda it: it.config.algorithm.use_kl_in_reward,
        lambda it: "algorithm.use_kl_in_reward=True: rewards then differ within every group; set it to False",
    ),
    _drop_zero(
        lambda it: it.actor.entropy_coeff != 0,
        lambda it: (
            f"actor_rollout_ref.actor.entropy_coeff={it.actor.entropy_coeff}: entropy has a gradient on "
            "every row; set it to 0"
        ),
    ),
    _drop_zero(
        lambda it: (it.config.get("distillation") or {}).get("enabled", False),
        lambda it: "distillation.enabled=True: a teacher teaches on every row; set it to False",
    ),
    _drop_zero(
        lambda it: it.actor.policy_loss.loss_mode not in PROPORTIONAL_LOSSES,
        lambda it: (
            f"actor_rollout_ref.actor.policy_loss.loss_mode={it.actor.policy_loss.loss_mode} is not "
            "proportional to the advantage, or has a divisor of its own; "
            f"use {', '.join(PROPORTIONAL_LOSSES)}"
        ),
    ),
    _drop_zero(
        lambda it: it.actor.loss_agg_mode == "seq-mean-token-sum-norm" and it.actor.loss_scale_factor is None,
        lambda it: (
            f"actor_rollout_ref.actor.loss_agg_mode={it.actor.loss_agg_mode} without loss_scale_factor "
            "divides by the width of a micro-batch, which depends on the rows in it; set "
            "actor_rollout_ref.actor.loss_scale_factor"
        ),
    ),
    _drop_zero(
        lambda it: it.correction.get("bypass_mode") or it.correction.get("rollout_is_batch_normalize"),
        lambda it: (
            "algorithm.rollout_correction.bypass_mode or .rollout_is_batch_normalize: losses or weights go "
            "by the whole batch; set both to False"
        ),
    ),
)
NO_EFFECT = (Rule(lambda it: without_effect(it) is not None, without_effect),)
REST = (
    Rule(
        lambda it: (it.allocator.sequential or it.keeps) and it.has_critic,
        lambda it: (
            f"a critic (critic.enable={it.config.critic.enable}, algorithm.adv_estimator={it.estimator}) "
            f"with allocator={it.settings.allocator}, cero.keep.rule={it.settings.keep['rule']}: the number "
            "of rows changes from step to step, and verl splits a critic's batch by a fixed one; set "
            "critic.enable=false, or use an allocator that is not sequential and cero.keep.rule=all"
        ),
    ),
    Rule(
        lambda it: it.config.trainer.v1.sampler.get("sync_refill_failed_groups", False),
        lambda it: (
            "trainer.v1.sampler.sync_refill_failed_groups=True spends rollouts that no budget foresaw; set "
            "it to False"
        ),
    ),
    Rule(
        lambda it: OmegaConf.select(it.config, "skip.rollout_tq.enable"),
        lambda it: "skip.rollout_tq.enable=True replays rollouts that were never allocated; set it to False",
    ),
)
# The first rule that refuses gives the message.
RULES = (
    *TRAINER,
    *ASYNCHRONOUS,
    *SIZES,
    *CANDIDATES,
    *GROUPS_OF_ONE,
    *OWN_ESTIMATOR,
    *DYNAMIC_SAMPLING,
    *PASS_RATES,
    *ROUNDS,
    *DROP_ZERO,
    *REST,
    *NO_EFFECT,
)


def check_compatibility(config, settings):
    """Raise ValueError, with the message of the first rule that refuses, if the settings can't work together.

    config : verl's config (DictConfig); settings : `Settings` read from it
    """
    combination = Combination(config, settings, settings.make_allocator())
    for rule in RULES:
        if rule.refuses(combination):
            raise ValueError(rule.message(combination))
