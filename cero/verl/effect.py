"""Which settings would have no effect? A run that has one is refused, since someone wanted that effect.

What a setting has an effect on is read from signatures: each kind of advantage and each keep rule names the
options that it takes. Allocators say which of their options are idle beside which values of others. A setting
at its default is let through. So is the default that an allocator's yaml brings for a setting of another
section: nobody asked for it on this command line.
"""

from dataclasses import fields
from itertools import chain

from verl.trainer.config import AlgoConfig

from cero.allocators.base import option_defaults
from cero.allocators.options import WithBeliefs
from cero.core.signatures import options_of
from cero.estimators.advantage import ADVANTAGES
from cero.estimators.keep import KEEP
from cero.verl.settings import DEFAULTS, ESTIMATOR

# What verl's trainer itself reads of its section `algorithm`. All the rest is for its own estimators.
OF_VERLS_TRAINER = (
    "adv_estimator",
    "use_kl_in_reward",
    "kl_penalty",
    "kl_ctrl",
    "filter_groups",
    "rollout_correction",
    "pf_ppo",  # the options of use_pf_ppo
)
# Advantages that go by what was known of a prompt before the step.
OF_POSTERIORS = ("posterior", "mapp")
# What does with the estimator `cero` what such a setting does with verl's.
INSTEAD = {
    "norm_adv_by_std_in_grpo": "algorithm.cero.scale to false, or algorithm.cero.advantage to dr_grpo",
}


def _that_take(option, rules):
    """Return "to <name>" or "to one of <names>": those of `rules` (name -> function) that take `option`."""
    names = [name for name, rule in rules.items() if option in options_of(rule)]
    return f"to {'one of ' if len(names) > 1 else ''}{', '.join(names)}"


def _of_estimator(it):
    """Yield (key, value, reason, remedy) of options under algorithm.cero that nothing reads."""
    kind = it.settings.estimator["advantage"]
    asked = {"baseline": it.asked_baseline, "bucket": it.config.algorithm.get("cero", {}).get("bucket")}
    options = it.settings.estimator | asked
    taken = ("advantage", "prompt_weight", *options_of(ADVANTAGES[kind]))
    # What the allocator brings for its own estimator stays unread if another one is chosen.
    brought = it.config.allocator if it.config.allocator.get("adv_estimator") == ESTIMATOR else {}
    for key, value in options.items():
        # None asks for nothing.
        if value is None or value == DEFAULTS["algorithm.cero"][key] or value == brought.get(key):
            continue
        name = f"algorithm.cero.{key}"
        if not it.settings.estimates:
            reason = f"algorithm.adv_estimator={it.estimator}: only the estimator {ESTIMATOR} reads it"
            yield name, value, reason, f"algorithm.adv_estimator to {ESTIMATOR}"
        elif key in asked and kind != "posterior":
            reason = f"algorithm.cero.advantage={kind}, which has a baseline of its own"
            yield name, value, reason, "algorithm.cero.advantage to posterior"
        elif key == "bucket" and it.settings.baseline != "optimal":
            reason = f"algorithm.cero.baseline={it.settings.baseline}: only the optimal one is shared"
            yield name, value, reason, "algorithm.cero.baseline to optimal"
        elif key not in asked and key not in taken:
            reason = f"algorithm.cero.advantage={kind}, which has no such option"
            yield name, value, reason, f"algorithm.cero.advantage {_that_take(key, ADVANTAGES)}"
        elif key == "history" and it.settings.baseline != "mean" and not options["scale"]:
            reason = f"algorithm.cero.baseline={it.settings.baseline} and algorithm.cero.scale=False"
            yield (
                name,
                value,
                f"{reason}: nothing is left that it counts in",
                "algorithm.cero.baseline to mean",
            )


def _of_verls_estimators(it):
    """Yield likewise the settings that only verl's own estimators read."""
    if not it.settings.estimates:
        return
    for field in fields(AlgoConfig):
        value = it.config.algorithm.get(field.name, field.default)
        if field.name not in OF_VERLS_TRAINER and not field.name.startswith("_") and value != field.default:
            reason = f"algorithm.adv_estimator={ESTIMATOR}: only estimators of verl read it"
            remedy = INSTEAD.get(field.name, "algorithm.adv_estimator to one of verl's own")
            yield f"algorithm.{field.name}", value, reason, remedy


def _of_success(it):
    """Yield likewise the range of rewards where the key of a dict says what is a success."""
    success, default = it.settings.success, DEFAULTS["cero.success"]["range"]
    if success.key is not None and [success.low, success.high] != default:
        reason = f"cero.success.key={success.key}, whose values are successes from 0 to 1 as they are"
        remedy = "cero.success.key to null, or have the reward function return a key within [0, 1]"
        yield "cero.success.range", [success.low, success.high], reason, remedy


def _of_keep(it):
    """Yield likewise the options of cero.keep that its rule doesn't take."""
    rule = it.settings.keep["rule"]
    for key, default in DEFAULTS["cero.keep"].items():
        value = it.settings.keep[key]
        brought = key == "count" and value == it.config.allocator.get("count")  # for the allocator's own rule
        if value != default and not brought and key not in options_of(KEEP[rule]):
            reason = f"cero.keep.rule={rule}, which has no such option"
            yield f"cero.keep.{key}", value, reason, f"cero.keep.rule {_that_take(key, KEEP)}"


def _of_pass_rates(it):
    """Yield likewise pass rates that nobody goes by, and the strength of those that are not there."""
    column, strength = it.settings.pass_rates
    if column is None and strength != DEFAULTS["cero.pass_rates"]["strength"]:
        reason = "cero.pass_rates.column=null: there are no pass rates"
        yield "cero.pass_rates.strength", strength, reason, "cero.pass_rates.column to a column of the data"
    by_allocator = isinstance(it.allocator, WithBeliefs) or it.allocator.beliefs is None  # None is refused
    by_advantage = it.settings.estimates and it.settings.estimator["advantage"] in OF_POSTERIORS
    if column is not None and not (by_allocator or by_advantage):
        reason = (
            f"allocator={it.settings.allocator}, which decides by a step's own rewards, where the advantage "
            f"is none of {', '.join(OF_POSTERIORS)}"
        )
        yield "cero.pass_rates.column", column, reason, "allocator to one that starts at them, e.g. cero_seq"


def _of_drop_zero(it):
    """Yield likewise that rows without an advantage are to be left out where every row has one."""
    if it.settings.drop_zero_advantage and it.settings.baseline == "optimal":
        reason = "algorithm.cero.baseline=optimal, which is never 0 or 1: every row has an advantage"
        yield "cero.drop_zero_advantage", True, reason, "algorithm.cero.baseline to mean"


def _of_candidates(it):
    """Yield likewise what is to become of candidates where there are none."""
    default = DEFAULTS["cero"]["unchosen"]
    if it.settings.candidates == 1 and it.settings.unchosen != default:
        reason = "cero.candidates=1: no prompt of a step is left out"
        yield "cero.unchosen", it.settings.unchosen, reason, "cero.candidates to 2 or more"


def _of_staleness(it):
    """Yield likewise the weight of old outcomes where none is old, or where nothing is kept of outcomes."""
    if not it.overlaps and it.settings.staleness != DEFAULTS["cero"]["staleness"]:
        reason = f"trainer.v1.trainer_mode={it.mode}: every outcome is of the last version"
        remedy = "trainer.v1.trainer_mode to colocate_async or separate_async"
        yield "cero.staleness", it.settings.staleness, reason, remedy
    elif it.allocator.beliefs is None and it.settings.staleness != DEFAULTS["cero"]["staleness"]:
        reason = f"allocator={it.settings.allocator}, which keeps no posterior"
        yield "cero.staleness", it.settings.staleness, reason, "allocator to one that does, e.g. cero"


def _of_allocator(it):
    """Yield likewise options of the allocator that change nothing beside others.

    See `Allocator.idle_beside` and `Allocator.idle_in_runs`.
    """
    options, defaults = it.allocator.options(), option_defaults(type(it.allocator))
    for cls in type(it.allocator).__mro__:
        idle = [vars(cls).get(name, {}).items() for name in ("idle_beside", "idle_in_runs")]
        for key, (other, values) in chain(*idle):
            if options[other] in values and options[key] != defaults[key]:
                yield (
                    f"allocator.{key}",
                    options[key],
                    f"allocator.{other}={options[other]}",
                    (f"allocator.{other} to another value"),
                )


def without_effect(it):
    """Return the message on the first setting of a `Combination` `it` without effect, or None."""
    for rule in (
        _of_estimator,
        _of_verls_estimators,
        _of_success,
        _of_keep,
        _of_pass_rates,
        _of_drop_zero,
        _of_candidates,
        _of_staleness,
        _of_allocator,
    ):
        for key, value, reason, remedy in rule(it):
            return f"{key}={value} has no effect with {reason}; set {remedy}, or leave {key} at its default"
    return None
