"""How are the settings read from verl's config?

Each value is checked here, and the combination of values by `cero.verl.compatibility`. Neither needs data,
workers or a GPU.
"""

from omegaconf import OmegaConf

from cero.core.checks import check_choice, check_number, shown
from cero.estimators.advantage import ADVANTAGES, AERO_FORMS, PROMPT_WEIGHTS
from cero.estimators.baseline import BASELINES
from cero.estimators.keep import KEEP
from cero.verl.compatibility import check_compatibility
from cero.verl.modes import verls_word
from cero.verl.settings import DEFAULTS, ESTIMATOR, OBJECTIVES, Settings
from cero.verl.success import Success

ON_MISSING_STATE = ("error", "fresh")
UNCHOSEN = ("drop", "return")
# What must be sections for anything to be read.
SECTIONS = (
    "allocator",
    "cero",
    "cero.success",
    "cero.pass_rates",
    "cero.keep",
    "algorithm.cero",
    "trainer.v1",
    "trainer.v1.sampler",
)
# What the sections of this project that have no allocator's options hold: the keys of recipe/cero.yaml.
KEYS = {
    "cero": (
        "success",
        "pass_rates",
        "candidates",
        "unchosen",
        "staleness",
        "keep",
        "drop_zero_advantage",
        "on_missing_state",
        "log_allocations",
        "poll_interval",
        "stall_timeout",
        "objective",
    ),
    "cero.success": ("key", "range"),
    "cero.pass_rates": ("column", "strength"),
    "cero.keep": ("rule", "ratio", "count"),
    "algorithm.cero": tuple(DEFAULTS["algorithm.cero"]),
}
# Keys of an allocator's yaml that are defaults of other sections, not options of the allocator.
OF_OTHERS = ("adv_estimator", "keep", "advantage", "baseline")


def read_settings(config):
    """Return the `Settings` in verl's config (DictConfig), checked.

    Raises
    ------
    ValueError
        If a value, or a combination of values, can't work. The message names the key, its value and the
        remedy.
    """
    check_sections(config)
    _check_verls_numbers(config)
    allocator = OmegaConf.to_container(config.allocator, resolve=True)
    name = allocator.pop("name", None)
    for key in OF_OTHERS:
        allocator.pop(key, None)
    for key in ("rollouts_per_prompt", "epochs", "total_budget"):
        if key in allocator:
            raise ValueError(
                f"allocator.{key}={allocator[key]!r} is set by the trainer from verl's own keys "
                "(actor_rollout_ref.rollout.n, trainer.total_epochs); remove it"
            )
    section = config.cero
    estimator = _estimator_options(config)
    baseline = _baseline(estimator.pop("baseline"), config, estimator["advantage"])
    bucket = estimator.pop("bucket")
    settings = Settings(
        allocator=name,
        options=allocator,
        rollouts_per_prompt=_verls_count(config, "actor_rollout_ref.rollout.n", 1, 2**20),
        epochs=_verls_count(config, "trainer.total_epochs", 1),
        budgeted=not OmegaConf.select(config, "algorithm.filter_groups.enable"),
        success=Success.from_config(section.success),
        pass_rates=_pass_rates(section.pass_rates),
        candidates=check_number("cero.candidates", section.candidates, 1, 2**20, integer=True),
        unchosen=check_choice("cero.unchosen", section.unchosen, UNCHOSEN),
        staleness=float(check_number("cero.staleness", section.staleness, 0, 1, open_low=True)),
        keep=_keep_options(section.keep),
        drop_zero_advantage=check_choice(
            "cero.drop_zero_advantage", section.drop_zero_advantage, (True, False)
        ),
        on_missing_state=check_choice("cero.on_missing_state", section.on_missing_state, ON_MISSING_STATE),
        log_allocations=logs_allocations(config),
        poll_interval=_poll_interval(section.poll_interval),
        stall_timeout=check_number("cero.stall_timeout", section.stall_timeout, 0, 1e5),
        estimates=config.algorithm.adv_estimator == ESTIMATOR,
        estimator=estimator,
        baseline=baseline,
        bucket=bucket if baseline == "optimal" else None,
    )
    check_choice("cero.objective", section.get("objective", "last"), OBJECTIVES)
    check_compatibility(config, settings)
    return settings


def check_sections(config):
    """Raise ValueError, naming it, if a section is missing, is none, or has a key that nothing reads."""
    for key in ("allocator", "cero"):
        if OmegaConf.select(config, key) is None:
            raise ValueError(f"the config has no {key!r} section; start with +recipe=cero (or cero_cpu)")
    for key in SECTIONS:
        value = OmegaConf.select(config, key)
        if not OmegaConf.is_dict(value):
            raise ValueError(
                f"{key}={value!r} must be a section; leave it as the recipe has it, and set single values"
            )
        for name in value:
            if name not in KEYS.get(key, value):
                raise ValueError(
                    f"{key}.{name}={shown(value[name])} is no setting; {key} has {', '.join(KEYS[key])}. "
                    "Correct the name, or remove it"
                )


def _check_verls_numbers(config):
    """Raise ValueError unless verl's own numbers that the scheduler counts with are such numbers."""
    mini_batch = "actor_rollout_ref.actor.ppo_mini_batch_size"
    for key in ("data.train_batch_size", mini_batch, "trainer.n_gpus_per_node", "trainer.nnodes"):
        _verls_count(config, key, 1)
    if config.trainer.total_training_steps is not None:
        _verls_count(config, "trainer.total_training_steps", 0 if config.trainer.get("val_only") else 1)
    if config.data.get("gen_batch_size") is not None:
        _verls_count(config, "data.gen_batch_size", 1)
    if "train_max_samples" in config.data:
        _verls_count(config, "data.train_max_samples", -(2**31))
    _verls_count(config, "trainer.critic_warmup", 0)
    _check_parts(config)
    folder = config.trainer.default_local_dir
    if not isinstance(folder, str) or not folder:
        raise ValueError(
            f"trainer.default_local_dir={folder!r} must be text, the folder of checkpoints and of the log"
        )


def _verls_count(config, key, low, high=2**31 - 1):
    """Return the value of verl's `key`, an int in [low, high]; raise ValueError for any other.

    verl counts with the very value that stands there, and a float fails in the middle of a step.
    """
    value = OmegaConf.select(config, key)
    count = check_number(key, value, low, high, integer=True)
    if type(value) is not int:
        raise ValueError(f"{key}={shown(value)} must be an integer: write {count}, without point or exponent")
    return count


def _check_parts(config):
    """Check how many parts a training step has, and where rollouts have devices of their own."""
    mode = verls_word(config.trainer.v1.trainer_mode)
    section, key = config.trainer.v1.get(mode), f"trainer.v1.{mode}.parameter_sync_step"
    if OmegaConf.is_dict(section) and "parameter_sync_step" in section:
        parts, batch = _verls_count(config, key, 1), config.data.train_batch_size
        if mode == "sync" and parts != 1:
            raise ValueError(f"{key}={parts}: a synchronous step is trained on as a whole; remove it")
        if batch % parts:
            raise ValueError(
                f"{key}={parts} does not divide data.train_batch_size={batch}: a step is trained on in so "
                "many equal parts; set it to a divisor"
            )
    if mode == "separate_async":
        for name in ("nnodes", "n_gpus_per_node"):
            _verls_count(config, f"actor_rollout_ref.rollout.{name}", 0)


def _keep_options(config):
    """Return the options of the keep rule: a dict of rule (str), ratio (float) and count (int)."""
    check_choice("cero.keep.rule", config.rule, KEEP)
    return {
        "rule": config.rule,
        "ratio": check_number("cero.keep.ratio", config.ratio, 0, 1e6, open_low=True),
        "count": check_number("cero.keep.count", config.count, 1, 2**20, integer=True),
    }


def _pass_rates(config):
    """Return (column of the data set or None, strength in rollouts)."""
    column = config.column
    if column is not None and (not isinstance(column, str) or not column):
        raise ValueError(
            f"cero.pass_rates.column={column!r} must be text, the name of a column of the data set, or null"
        )
    return config.column, check_number("cero.pass_rates.strength", config.strength, 0, 1e6, open_low=True)


def logs_allocations(config):
    """Say whether steps are logged: as asked for, but never by a run that only validates."""
    asked = check_choice("cero.log_allocations", config.cero.log_allocations, (True, False))
    # verl looks at val_only after the validation before training, and trains if there is none.
    return asked and not (config.trainer.get("val_only") and config.trainer.get("val_before_train", True))


def _poll_interval(value):
    """Return seconds between looks at the replay buffer, in (0, 60], or None for verl's own."""
    return None if value is None else check_number("cero.poll_interval", value, 0, 60, open_low=True)


def _estimator_options(config):
    """Return the options under algorithm.cero as a dict, the missing ones filled in."""
    options = OmegaConf.to_container(config.algorithm.get("cero") or OmegaConf.create({}), resolve=True)
    options = DEFAULTS["algorithm.cero"] | options
    check_number("algorithm.cero.history", options["history"], 0, 1e6, open_low=True)
    check_choice("algorithm.cero.scale", options["scale"], (True, False))
    check_choice("algorithm.cero.prompt_weight", options["prompt_weight"], PROMPT_WEIGHTS)
    check_choice("algorithm.cero.advantage", options["advantage"], ADVANTAGES)
    check_choice("algorithm.cero.baseline", options["baseline"], BASELINES)
    check_choice("algorithm.cero.aero_form", options["aero_form"], AERO_FORMS)
    if options["mapp_group"] is not None:
        check_number("algorithm.cero.mapp_group", options["mapp_group"], 2, 2**20, integer=True)
    bucket = options["bucket"]
    if bucket is not None and (not isinstance(bucket, str) or not bucket):
        raise ValueError(
            f"algorithm.cero.bucket={bucket!r} must be text, the name of a column of the data set, or null"
        )
    return options


def _baseline(asked, config, advantage):
    """Return what is subtracted from rewards, "mean" or "optimal".

    Only `posterior` advantages can use a learned baseline. All others have a baseline of their own: "mean".
    """
    return asked if config.algorithm.adv_estimator == ESTIMATOR and advantage == "posterior" else "mean"
