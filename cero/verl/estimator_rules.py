"""Which estimators can't work with the other settings, or not at all?

Rules for `cero.verl.compatibility`.
"""

from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

from cero.verl.combination import Rule
from cero.verl.settings import ESTIMATOR

# verl's estimators under which a group of equal rewards has advantage zero throughout, and nothing else
# changes when it is left out.
ZERO_IF_EQUAL = ("grpo", "rloo")
# verl's policy losses that are proportional to the advantage, and divided as actor.loss_agg_mode says.
PROPORTIONAL_LOSSES = ("vanilla", "gspo", "cispo", "gpg", "dppo_tv", "dppo_kl")
# verl's estimators that need what its trainer since 0.9 does not hand over.
NOT_SERVED = {
    "remax": "the rewards of greedy answers",
    "optimal_token_baseline": "sums of squared probabilities",
    "tir_optimal_token_baseline": "sums of squared probabilities",
    "gdpo": "prompts and single rewards",
}
# What names code of the user's own, which may register an estimator when verl loads it.
OF_THE_USER = (
    "actor_rollout_ref.model.external_lib",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class",
    "data.custom_cls.path",
    "trainer.v1.sampler.custom_sampler.path",
)
ESTIMATORS = (  # each of these would end the run after its first step is sampled
    Rule(
        lambda it: it.estimator in NOT_SERVED,
        lambda it: (
            f"algorithm.adv_estimator={it.estimator} needs {NOT_SERVED[it.estimator]}, which verl's trainer "
            f"does not hand over; use {ESTIMATOR}, grpo or another one"
        ),
    ),
    Rule(
        lambda it: (
            not isinstance(it.estimator, str)
            or it.estimator not in ADV_ESTIMATOR_REGISTRY
            and not any(OmegaConf.select(it.config, key) for key in OF_THE_USER)
        ),
        lambda it: (
            f"algorithm.adv_estimator={it.estimator} is not known; choose one of "
            f"{', '.join(sorted(name for name in ADV_ESTIMATOR_REGISTRY if name not in NOT_SERVED))}"
        ),
    ),
    Rule(
        lambda it: it.estimator == "gae" and not it.has_critic,
        lambda it: (
            f"algorithm.adv_estimator=gae with critic.enable={it.config.critic.enable}: it goes by a "
            "critic's values; set critic.enable=true"
        ),
    ),
)


def _group_of_one(remedy):
    """Return the end of a message on groups of one rollout; `remedy` is the setting that avoids them."""
    return (
        f"a group of one rollout gets its raw reward as advantage there; set {remedy} "
        f"or algorithm.adv_estimator={ESTIMATOR}"
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
        lambda it: (it.config.actor_rollout_ref.model.get("mtp") or {}).get("enable_train", False),
        lambda it: (
            "actor_rollout_ref.model.mtp.enable_train=True: the prediction of further tokens is trained on "
            "every row; set it to False"
        ),
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
