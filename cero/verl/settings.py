"""Is this configuration one we can train with? Every check that needs no data, before Ray starts."""

import os
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from cero import make_allocator
from cero.core.checks import check_choice, check_number
from cero.core.state import BASELINE_FILE, COMMIT_MARKER, STATE_FILE, load_state
from cero.estimators.advantage import ADVANTAGES, AERO_FORMS, PROMPT_WEIGHTS
from cero.estimators.baseline import BASELINES, OptimalBaseline
from cero.estimators.keep import KEEP
from cero.verl.success import Success

TRAINER_MODE = "cero"
ESTIMATOR = "cero"
AGENT_LOOP_MANAGER = "cero.verl.agent_loop.SequentialManager"  # by name: verl imports it where it is wanted
ON_MISSING_STATE = ("error", "fresh")
# verl's estimators under which a group of equal rewards has advantage zero throughout, and nothing else
# changes when it is left out.
ZERO_IF_EQUAL = ("grpo", "rloo")
# verl's policy losses that are proportional to the advantage, and divided as actor.loss_agg_mode says.
PROPORTIONAL_LOSSES = ("vanilla", "gspo", "cispo", "gpg", "dppo_tv", "dppo_kl")


@dataclass(frozen=True)
class Settings:
    """What the trainer needs to know, checked.

    allocator, options : name and options as `make_allocator` takes them, without budget and horizon
    rollouts_per_prompt : verl's actor_rollout_ref.rollout.n
    budgeted : whether the run's budget is fixed, which it is not under verl's filter_groups
    success : what counts as a success
    pass_rates : (column of the data set or None, strength), see `set_pass_rates` of the allocators
    keep : options of `cero.estimators.keep.kept`; drop_zero_advantage : bool
    estimator : options of the estimator `cero`; baseline : "mean" or "optimal", see
    `cero.estimators.baseline`
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
    estimator: dict
    baseline: str

    @property
    def selects(self):
        """Whether rollouts may be left out of training, by what they earned."""
        return self.keep["rule"] != "all" or self.drop_zero_advantage

    def make_allocator(self, epochs=None, total_budget=None):
        """The allocator, for `epochs` visits to each prompt. Raises ValueError naming `allocator.<key>`."""
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
        """What is subtracted from rewards, if it is learned; else None."""
        return OptimalBaseline() if self.baseline == "optimal" else None

    def to_success(self, reward):
        """Map rewards (array) from cero.success.range to [0, 1], linearly."""
        return self.success.of_reward(reward)


def read_settings(config):
    """Check verl's config (DictConfig) and return `Settings`.

    Raises
    ------
    ValueError
        Naming the key, its value and the remedy.
    """
    for key in ("allocator", "cero"):
        if OmegaConf.select(config, key) is None:
            raise ValueError(f"the config has no {key!r} section; start with +recipe=cero (or cero_cpu)")
    allocator = OmegaConf.to_container(config.allocator, resolve=True)
    name, estimator = allocator.pop("name", None), config.algorithm.adv_estimator
    for key in ("adv_estimator", "keep", "advantage", "baseline"):  # what an allocator's yaml says of others
        allocator.pop(key, None)
    for key in ("rollouts_per_prompt", "epochs", "total_budget"):
        if key in allocator:
            raise ValueError(
                f"allocator.{key}={allocator[key]!r} is set by the trainer from verl's own keys "
                "(actor_rollout_ref.rollout.n, trainer.total_epochs); remove it"
            )
    filtered = bool(OmegaConf.select(config, "algorithm.filter_groups.enable"))
    options = _estimator_options(config)
    baseline = _baseline(options.pop("baseline"), config, options["advantage"])
    settings = Settings(
        allocator=name,
        options=allocator,
        rollouts_per_prompt=config.actor_rollout_ref.rollout.n,
        epochs=config.trainer.total_epochs,
        budgeted=not filtered,
        success=Success.from_config(config.cero.success),
        pass_rates=_pass_rates(config.cero.pass_rates),
        keep=_keep_options(config.cero.keep),
        drop_zero_advantage=check_choice(
            "cero.drop_zero_advantage", config.cero.drop_zero_advantage, (True, False)
        ),
        on_missing_state=check_choice(
            "cero.on_missing_state", config.cero.on_missing_state, ON_MISSING_STATE
        ),
        log_allocations=bool(config.cero.log_allocations),
        poll_interval=_poll_interval(config.cero.poll_interval),
        estimator=options,
        baseline=baseline,
    )
    instance = settings.make_allocator()
    _check_trainer(config)
    _check_combinations(config, settings, instance, estimator, filtered)
    return settings


def _keep_options(config):
    """Checked options of the keep rule: rule, ratio, count."""
    check_choice("cero.keep.rule", config.rule, KEEP)
    return {
        "rule": config.rule,
        "ratio": check_number("cero.keep.ratio", config.ratio, 0, 1e6, open_low=True),
        "count": check_number("cero.keep.count", config.count, 1, 2**20, integer=True),
    }


def _pass_rates(config):
    """(column or None, strength), checked."""
    return config.column, check_number("cero.pass_rates.strength", config.strength, 0, 1e6, open_low=True)


def _poll_interval(value):
    return None if value is None else check_number("cero.poll_interval", value, 0, 60, open_low=True)


def _estimator_options(config):
    options = OmegaConf.to_container(config.algorithm.get("cero") or OmegaConf.create({}), resolve=True)
    known = {
        "advantage": "posterior",
        "baseline": "mean",
        "history": 8.0,
        "scale": True,
        "prompt_weight": "trajectory",
        "aero_form": "standard",
    }
    for key in options:
        if key not in known:
            raise ValueError(
                f"algorithm.cero.{key}={options[key]!r} is no option of the estimator; it has {', '.join(known)}"
            )
    options = known | options
    check_number("algorithm.cero.history", options["history"], 0, 1e6, open_low=True)
    check_choice("algorithm.cero.scale", options["scale"], (True, False))
    check_choice("algorithm.cero.prompt_weight", options["prompt_weight"], PROMPT_WEIGHTS)
    check_choice("algorithm.cero.advantage", options["advantage"], ADVANTAGES)
    check_choice("algorithm.cero.baseline", options["baseline"], BASELINES)
    check_choice("algorithm.cero.aero_form", options["aero_form"], AERO_FORMS)
    return options


def _baseline(asked, config, advantage):
    """What is subtracted from rewards; estimators but `posterior` have their own, so none is learned for them."""
    estimator = config.algorithm.adv_estimator
    if estimator == ESTIMATOR and advantage == "posterior":
        return asked
    if asked not in ("mean", config.allocator.get("baseline")):  # asked for, not the allocator's own default
        raise ValueError(
            f"algorithm.cero.baseline={asked} with algorithm.adv_estimator={estimator} and "
            f"algorithm.cero.advantage={advantage}, which has a baseline of its own; set "
            f"algorithm.adv_estimator={ESTIMATOR} and algorithm.cero.advantage=posterior, or leave it out"
        )
    return "mean"


def _check_trainer(config):
    if not config.trainer.use_v1:
        raise ValueError(
            "trainer.use_v1=False: verl's legacy trainer knows no plugins; set trainer.use_v1=True"
        )
    mode = config.trainer.v1.trainer_mode
    if mode != TRAINER_MODE:
        raise ValueError(
            f"trainer.v1.trainer_mode={mode} would train without the allocator; leave it at {TRAINER_MODE!r} "
            "(the synchronous trainer; verl's asynchronous modes are not supported)"
        )


def _check_combinations(config, settings, instance, estimator, filtered):
    uniform = settings.allocator == "uniform"
    if estimator != ESTIMATOR:
        _check_groups_of_one(settings, instance, estimator)
    if estimator == ESTIMATOR and config.algorithm.use_kl_in_reward:
        raise ValueError(
            "algorithm.use_kl_in_reward=True with algorithm.adv_estimator=cero: the baseline is a success "
            "probability; use actor_rollout_ref.actor.use_kl_loss=True instead"
        )
    if estimator == ESTIMATOR and settings.success.key is not None:
        raise ValueError(
            f"cero.success.key={settings.success.key} with algorithm.adv_estimator=cero: its baseline must be in the "
            "units of the reward; set cero.success.key=null, or algorithm.adv_estimator=grpo"
        )
    if filtered and not uniform:
        raise ValueError(
            f"algorithm.filter_groups.enable=True with allocator={settings.allocator}: filtering refills one prompt at "
            "a time, so there is no step's budget to divide; use allocator=uniform, or switch filtering off"
        )
    if filtered and settings.selects:
        raise ValueError(
            f"algorithm.filter_groups.enable=True with cero.keep.rule={settings.keep['rule']} and "
            f"cero.drop_zero_advantage={settings.drop_zero_advantage}: filtering samples on until the batch is full of "
            "groups with a signal, and these take rows out of it again; set cero.keep.rule=all and "
            "cero.drop_zero_advantage=false, or switch filtering off"
        )
    if settings.pass_rates[0] is not None and instance.beliefs is None:
        raise ValueError(
            f"cero.pass_rates.column={settings.pass_rates[0]} with allocator={settings.allocator}: it keeps no "
            "posterior that could start at a pass rate; set it to null, or use e.g. allocator=cero"
        )
    if instance.sequential:
        _check_sequential(config, settings)
    if settings.drop_zero_advantage:
        _check_drop_zero(config, estimator)
    if (instance.sequential or settings.keep["rule"] != "all") and _has_critic(config, estimator):
        raise ValueError(
            f"a critic (critic.enable={config.critic.enable}, algorithm.adv_estimator={estimator}) with "
            f"allocator={settings.allocator}, cero.keep.rule={settings.keep['rule']}: the number of rows changes from "
            "step to step, and verl splits a critic's batch by a fixed one; set critic.enable=false, or use an "
            "allocator that is not sequential and cero.keep.rule=all"
        )
    if config.trainer.v1.sampler.get("sync_refill_failed_groups", False):
        raise ValueError(
            "trainer.v1.sampler.sync_refill_failed_groups=True spends rollouts that no budget foresaw; set it to False"
        )
    if OmegaConf.select(config, "skip.rollout_tq.enable"):
        raise ValueError(
            "skip.rollout_tq.enable=True replays rollouts that were never allocated; set it to False"
        )


def _check_groups_of_one(settings, instance, estimator):
    """verl's estimators give a group of one its raw reward as advantage."""
    remedy = f"a group of one rollout gets its raw reward as advantage there; set %s or algorithm.adv_estimator={ESTIMATOR}"
    if instance.sequential:
        if instance.least_rollouts() < 2:
            raise ValueError(
                f"allocator={settings.allocator} with algorithm.adv_estimator={estimator}: "
                + remedy % ("allocator=aero, allocator.n_explore=2 or more,")
            )
    elif instance.n_min < 2 and settings.allocator != "uniform":
        raise ValueError(
            f"allocator.n_min={instance.n_min} with algorithm.adv_estimator={estimator}: "
            + remedy % "allocator.n_min=2"
        )
    if settings.keep["rule"] != "all" and settings.keep["count"] < 2:
        raise ValueError(
            f"cero.keep.count={settings.keep['count']} with algorithm.adv_estimator={estimator}: "
            + remedy % "cero.keep.count=2"
        )


def _check_sequential(config, settings):
    """What sampling in rounds needs: our agent loop, and rewards while sampling."""
    manager = config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")
    if manager is not None:
        raise ValueError(
            f"actor_rollout_ref.rollout.agent.agent_loop_manager_class={manager} with allocator={settings.allocator}: "
            "sampling in rounds needs an agent loop manager of its own; set it to null, or use an allocator that "
            "decides before sampling"
        )
    reward_model = config.reward.reward_model
    if reward_model.enable and not reward_model.enable_resource_pool:
        raise ValueError(
            f"reward.reward_model.enable=True with allocator={settings.allocator}: a colocated reward model says "
            "nothing before all is sampled, and rounds go by rewards; set reward.reward_model.enable_resource_pool="
            "True, use a reward function, or an allocator that decides before sampling"
        )


def _check_drop_zero(config, estimator):
    """Refuse whatever gives rows of advantage zero a gradient, or lets their absence change that of others."""
    actor, correction = config.actor_rollout_ref.actor, config.algorithm.get("rollout_correction") or {}
    mode = actor.loss_agg_mode
    cases = (
        (
            estimator not in (ESTIMATOR, *ZERO_IF_EQUAL),
            f"algorithm.adv_estimator={estimator}: its advantages depend on what is left out, or are not known to be "
            f"zero; use {', '.join((ESTIMATOR, *ZERO_IF_EQUAL))}",
        ),
        (
            _has_critic(config, estimator),
            f"critic.enable={config.critic.enable}: every row teaches a critic; set critic.enable=false",
        ),
        (
            actor.use_kl_loss,
            "actor_rollout_ref.actor.use_kl_loss=True: the KL term has a gradient on every row; set it to False",
        ),
        (
            config.algorithm.use_kl_in_reward,
            "algorithm.use_kl_in_reward=True: rewards then differ within every group; set it to False",
        ),
        (
            actor.entropy_coeff != 0,
            f"actor_rollout_ref.actor.entropy_coeff={actor.entropy_coeff}: entropy has a gradient on every row; set it "
            "to 0",
        ),
        (
            (config.get("distillation") or {}).get("enabled", False),
            "distillation.enabled=True: a teacher teaches on every row; set it to False",
        ),
        (
            actor.policy_loss.loss_mode not in PROPORTIONAL_LOSSES,
            f"actor_rollout_ref.actor.policy_loss.loss_mode={actor.policy_loss.loss_mode} is not proportional to the "
            f"advantage, or has a divisor of its own; use {', '.join(PROPORTIONAL_LOSSES)}",
        ),
        (
            mode == "seq-mean-token-sum-norm" and actor.loss_scale_factor is None,
            f"actor_rollout_ref.actor.loss_agg_mode={mode} without loss_scale_factor divides by the width of a "
            "micro-batch, which depends on the rows in it; set actor_rollout_ref.actor.loss_scale_factor",
        ),
        (
            correction.get("bypass_mode") or correction.get("rollout_is_batch_normalize"),
            "algorithm.rollout_correction.bypass_mode or .rollout_is_batch_normalize: losses or weights go by the "
            "whole batch; set both to False",
        ),
    )
    for refused, reason in cases:
        if refused:
            raise ValueError(
                f"cero.drop_zero_advantage=True with {reason}, or cero.drop_zero_advantage=false"
            )


def _has_critic(config, estimator):
    enabled = config.critic.enable
    return bool(enabled) if enabled is not None else estimator == "gae"


def resume_folder(config):
    """Folder of the checkpoint that verl will resume from, or None; verl's own rules (trainer.resume_mode)."""
    mode = config.trainer.resume_mode
    if mode == "disable":
        return None
    if mode == "resume_path":
        return Path(os.path.abspath(config.trainer.resume_from_path))
    root = Path(os.path.abspath(config.trainer.default_local_dir))
    marker = root / COMMIT_MARKER
    if not marker.exists():
        return None
    folder = root / f"global_step_{int(marker.read_text())}"
    return folder if folder.exists() else None


def resume_state(config, settings, allocator, baseline=None):
    """Load the state of the checkpoint to be resumed, if there is one, into `allocator` and `baseline`.

    Returns True if a state was taken up; False for a new run, or where cero.on_missing_state=fresh allows
    one.

    Raises
    ------
    ValueError
        If the file is missing, damaged, of another allocator, or does not fit this run's budget.
    """
    folder = resume_folder(config)
    if folder is None:
        return False
    path = folder / STATE_FILE
    try:
        state = load_state(path)
    except FileNotFoundError:
        if settings.on_missing_state == "fresh":
            return False
        raise ValueError(
            f"{folder} holds no allocator state ({STATE_FILE}): the checkpoint is of a run without this recipe. "
            "Set cero.on_missing_state=fresh to start the allocator anew on it, or trainer.resume_mode=disable"
        ) from None
    try:
        allocator.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if baseline is not None:
        _resume_baseline(folder / BASELINE_FILE, settings, baseline)
    return True


def _resume_baseline(path, settings, baseline):
    try:
        baseline.load_state_dict(load_state(path))
    except FileNotFoundError:
        if settings.on_missing_state == "error":
            raise ValueError(
                f"there is no {path}: the checkpoint is of a run without algorithm.cero.baseline=optimal. Set "
                "algorithm.cero.baseline=mean, or cero.on_missing_state=fresh to learn the baseline anew"
            ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
