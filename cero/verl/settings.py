"""Is this configuration one we can train with? Every check that needs no data, before Ray starts."""

import os
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from cero import make_allocator
from cero.advantage import PROMPT_WEIGHTS
from cero.allocators.base import check_choice, check_number
from cero.state import load_state

TRAINER_MODE = "cero"
ESTIMATOR = "cero"
STATE_FILE = Path("cero") / "allocator.npz"  # under <default_local_dir>/global_step_N
COMMIT_MARKER = "latest_checkpointed_iteration.txt"
ON_MISSING_STATE = ("error", "fresh")


@dataclass(frozen=True)
class Settings:
    """What the trainer needs to know, checked.

    allocator, options : name and options as `make_allocator` takes them, without budget and horizon
    rollouts_per_prompt : verl's actor_rollout_ref.rollout.n
    success_key : None (the reward), or a key of the reward function's dict
    reward_range : (low, high), mapped to (0, 1)
    """

    allocator: str
    options: dict
    rollouts_per_prompt: int
    epochs: int
    budgeted: bool
    success_key: str | None
    reward_range: tuple
    on_missing_state: str
    log_allocations: bool
    poll_interval: float | None
    estimator: dict

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

    def to_success(self, reward):
        """Map rewards (array) from `reward_range` to [0, 1], linearly."""
        low, high = self.reward_range
        return (reward - low) / (high - low)


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
    allocator.pop("adv_estimator", None)
    for key in ("rollouts_per_prompt", "epochs", "total_budget"):
        if key in allocator:
            raise ValueError(
                f"allocator.{key}={allocator[key]!r} is set by the trainer from verl's own keys "
                "(actor_rollout_ref.rollout.n, trainer.total_epochs); remove it"
            )
    filtered = bool(OmegaConf.select(config, "algorithm.filter_groups.enable"))
    settings = Settings(
        allocator=name,
        options=allocator,
        rollouts_per_prompt=config.actor_rollout_ref.rollout.n,
        epochs=config.trainer.total_epochs,
        budgeted=not filtered,
        success_key=config.cero.success.key,
        reward_range=_reward_range(config.cero.success.range),
        on_missing_state=check_choice("cero.on_missing_state", config.cero.on_missing_state, ON_MISSING_STATE),
        log_allocations=bool(config.cero.log_allocations),
        poll_interval=_poll_interval(config.cero.poll_interval),
        estimator=_estimator_options(config),
    )
    instance = settings.make_allocator()
    _check_trainer(config)
    _check_combinations(config, settings, instance, estimator, filtered)
    return settings


def _reward_range(value):
    low, high = value if value is not None and len(value) == 2 else (None, None)
    if low is None or high is None or not float(low) < float(high):
        raise ValueError(f"cero.success.range={value} must be two numbers, [worst, best] reward, in ascending order")
    return float(low), float(high)


def _poll_interval(value):
    return None if value is None else check_number("cero.poll_interval", value, 0, 60, open_low=True)


def _estimator_options(config):
    options = OmegaConf.to_container(config.algorithm.get("cero") or OmegaConf.create({}), resolve=True)
    known = {"history": 8.0, "scale": True, "prompt_weight": "trajectory"}
    for key in options:
        if key not in known:
            raise ValueError(
                f"algorithm.cero.{key}={options[key]!r} is no option of the estimator; it has {', '.join(known)}"
            )
    options = known | options
    check_number("algorithm.cero.history", options["history"], 0, 1e6, open_low=True)
    check_choice("algorithm.cero.scale", options["scale"], (True, False))
    check_choice("algorithm.cero.prompt_weight", options["prompt_weight"], PROMPT_WEIGHTS)
    return options


def _check_trainer(config):
    if not config.trainer.use_v1:
        raise ValueError("trainer.use_v1=False: verl's legacy trainer knows no plugins; set trainer.use_v1=True")
    mode = config.trainer.v1.trainer_mode
    if mode != TRAINER_MODE:
        raise ValueError(
            f"trainer.v1.trainer_mode={mode} would train without the allocator; leave it at {TRAINER_MODE!r} "
            "(the synchronous trainer; verl's asynchronous modes are not supported)"
        )


def _check_combinations(config, settings, instance, estimator, filtered):
    uniform = settings.allocator == "uniform"
    if estimator != ESTIMATOR and instance.n_min < 2 and not uniform:
        raise ValueError(
            f"allocator.n_min={instance.n_min} with algorithm.adv_estimator={estimator}: a group of one rollout gets "
            f"its raw reward as advantage there; set allocator.n_min=2 or algorithm.adv_estimator={ESTIMATOR}"
        )
    if estimator == ESTIMATOR and config.algorithm.use_kl_in_reward:
        raise ValueError(
            "algorithm.use_kl_in_reward=True with algorithm.adv_estimator=cero: the baseline is a success "
            "probability; use actor_rollout_ref.actor.use_kl_loss=True instead"
        )
    if estimator == ESTIMATOR and settings.success_key is not None:
        raise ValueError(
            f"cero.success.key={settings.success_key} with algorithm.adv_estimator=cero: its baseline must be in the "
            "units of the reward; set cero.success.key=null, or algorithm.adv_estimator=grpo"
        )
    if filtered and not uniform:
        raise ValueError(
            f"algorithm.filter_groups.enable=True with allocator={settings.allocator}: filtering refills one prompt at "
            "a time, so there is no step's budget to divide; use allocator=uniform, or switch filtering off"
        )
    if config.trainer.v1.sampler.get("sync_refill_failed_groups", False):
        raise ValueError(
            "trainer.v1.sampler.sync_refill_failed_groups=True spends rollouts that no budget foresaw; set it to False"
        )
    if OmegaConf.select(config, "skip.rollout_tq.enable"):
        raise ValueError("skip.rollout_tq.enable=True replays rollouts that were never allocated; set it to False")


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


def resume_state(config, settings, allocator):
    """Load the state of the checkpoint to be resumed, if there is one, into `allocator`.

    Returns True if a state was taken up; False for a new run, or where cero.on_missing_state=fresh allows one.

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
    return True
