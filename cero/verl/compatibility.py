"""Which settings can't work together?

A table of rules says so. Each rule says when it refuses a run, and with which message: it names the keys,
their values and the remedy.
"""

import os

from omegaconf import OmegaConf

from cero.verl.combination import Combination, Rule
from cero.verl.effect import without_effect
from cero.verl.estimator_rules import DROP_ZERO, ESTIMATORS, GROUPS_OF_ONE, OWN_ESTIMATOR
from cero.verl.modes import MODES

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
            and it.config.data.train_batch_size % it.config.data.gen_batch_size != 0
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
COLOCATED_REWARDS = (
    Rule(
        lambda it: (
            it.settings.success.key is not None
            and it.config.reward.reward_model.enable
            and not it.config.reward.reward_model.enable_resource_pool
        ),
        lambda it: (
            f"cero.success.key={it.settings.success.key} with reward.reward_model.enable=True: a colocated "
            "reward model hands over its number alone; set reward.reward_model.enable_resource_pool=True, or "
            "cero.success.key=null"
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


NO_EFFECT = (Rule(lambda it: without_effect(it) is not None, without_effect),)
REST = (
    Rule(
        lambda it: it.config.trainer.critic_warmup > 1 and not it.has_critic,
        lambda it: (
            f"trainer.critic_warmup={it.config.trainer.critic_warmup} without a critic: the steps before it "
            "would be paid for and not trained on; set trainer.critic_warmup=0"
        ),
    ),
    Rule(
        lambda it: (
            it.actor.checkpoint.get("async_save", False)
            and it.config.actor_rollout_ref.actor.strategy != "megatron"
        ),
        lambda it: (
            f"actor_rollout_ref.actor.checkpoint.async_save=True with strategy={it.actor.strategy}: only "
            "Megatron's checkpoints are completed that way, so no run could resume here; set it to False"
        ),
    ),
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
    *ESTIMATORS,
    *GROUPS_OF_ONE,
    *OWN_ESTIMATOR,
    *COLOCATED_REWARDS,
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
