"""Is a setting refused that the rest of the configuration leaves without effect?"""

from dataclasses import fields

import pytest
from omegaconf import OmegaConf
from verl.trainer.config import AlgoConfig

from cero.core.signatures import options_of
from cero.estimators.advantage import ADVANTAGES
from cero.estimators.keep import KEEP
from cero.verl.effect import OF_VERLS_TRAINER
from cero.verl.reading import read_settings
from cero.verl.settings import DEFAULTS

RUN = ["+recipe=cero", "actor_rollout_ref.rollout.n=8"]
UNIFORM = "allocator=uniform"
# Another value than the default of each option of the estimator.
OTHER = {
    "advantage": "dr_grpo",
    "baseline": "optimal",
    "history": 4.0,
    "scale": False,
    "prompt_weight": "prompt",
    "aero_form": "linear",
    "mapp_group": 4,
    "bucket": "topic",
}
# Of each of verl's settings that only its own estimators read.
OF_VERLS_ESTIMATORS = {
    "gamma": ("gamma", 0.9),
    "lam": ("lam", 0.95),
    "norm_adv_by_std_in_grpo": ("norm_adv_by_std_in_grpo", False),
    "use_pf_ppo": ("use_pf_ppo", True),
    "gdpo_reward_keys": ("+gdpo_reward_keys", "[acc]"),
    "gdpo_reward_weights": ("+gdpo_reward_weights", "[1.0]"),
}


def refused(composed, *overrides):
    """Return the message that these settings are refused with, or None."""
    try:
        read_settings(composed(*RUN, *overrides))
    except ValueError as error:
        return str(error)
    return None


def test_defaults_are_those_of_the_recipe(composed):
    config = composed(*RUN, UNIFORM)
    for section, values in DEFAULTS.items():
        shown = OmegaConf.to_container(OmegaConf.select(config, section), resolve=True)
        assert {key: shown[key] for key in values} == values
    assert set(OTHER) == set(DEFAULTS["algorithm.cero"])


def test_a_range_beside_a_key(composed):
    words = ("cero.success.key=acc", "algorithm.adv_estimator=grpo", "allocator.n_min=2")
    message = refused(composed, *words, "cero.success.range=[-1,1]")
    assert message.startswith("cero.success.range=[-1.0, 1.0] has no effect with cero.success.key=acc")
    assert refused(composed, *words) is None


def test_rows_without_an_advantage_where_there_are_none(composed):
    message = refused(composed, "cero.drop_zero_advantage=true")
    assert message.startswith(
        "cero.drop_zero_advantage=True has no effect with algorithm.cero.baseline=optimal"
    )
    assert refused(composed, "cero.drop_zero_advantage=true", "algorithm.cero.baseline=mean") is None


def test_what_must_be_alike_follows(composed):
    """One setting moves the other: what is kept of a group, and the estimator that an allocator serves."""
    config = composed(*RUN, "allocator=reinforce_ada_seq", "allocator.count=6")
    assert config.cero.keep.count == 6 and read_settings(config).keep["count"] == 6
    assert refused(composed, "allocator=reinforce_ada_seq", "allocator.count=6", "cero.keep.rule=all") is None
    assert (
        read_settings(composed(*RUN, "allocator=vip", "allocator.objective=rloo")).estimator["advantage"]
        == "rloo"
    )


@pytest.mark.parametrize("option", OTHER)
def test_estimators_options_need_the_estimator(composed, option):
    message = refused(composed, UNIFORM, f"algorithm.cero.{option}={OTHER[option]}")
    assert message.startswith(f"algorithm.cero.{option}={OTHER[option]} has no effect with algorithm.adv_")
    assert (
        "algorithm.adv_estimator=grpo: only the estimator cero reads it; set algorithm.adv_estimator to cero"
        in (message)
    )


@pytest.mark.parametrize("kind", ADVANTAGES)
@pytest.mark.parametrize("option", sorted(set(OTHER) - {"advantage"}))
def test_an_advantage_has_its_own_options_only(composed, kind, option):
    overrides = [UNIFORM, "algorithm.adv_estimator=cero", f"algorithm.cero.advantage={kind}"]
    assert refused(composed, *overrides) is None
    message = refused(composed, *overrides, f"algorithm.cero.{option}={OTHER[option]}")
    has = option in options_of(ADVANTAGES[kind]) or option == "prompt_weight"
    has = has or (option == "baseline" and kind == "posterior")
    assert (message is None) == has
    if not has:
        users = {"aero_form": "to aero", "mapp_group": "to mapp"}.get(option, "to posterior")
        assert f"algorithm.cero.{option}={OTHER[option]} has no effect" in message
        if option == "bucket" and kind == "posterior":  # the baseline is the mean
            return
        assert (
            f"algorithm.cero.advantage={kind}" in message and f"algorithm.cero.advantage {users}" in message
        )


@pytest.mark.slow
def test_an_allocators_own_defaults_are_let_through(composed):
    for overrides in (
        ["allocator=aero", "algorithm.adv_estimator=grpo"],  # brings advantage aero, which is left unread
        ["allocator=cero", "allocator.n_min=2", "algorithm.adv_estimator=grpo"],  # brings baseline optimal
        ["allocator=cero", "algorithm.cero.advantage=rloo"],
    ):
        assert refused(composed, *overrides) is None
    # uniform's yaml brings none, so this one was asked for
    assert "advantage=dr_grpo has no effect" in refused(composed, UNIFORM, "+allocator.advantage=dr_grpo")
    assert "baseline=optimal has no effect" in refused(composed, UNIFORM, "+allocator.baseline=optimal")


def test_buckets_are_those_of_the_optimal_baseline(composed):
    for bucket in ("text", "null", "extra_info.topic"):
        assert refused(composed, f"algorithm.cero.bucket={bucket}") is None  # cero brings baseline optimal
    for bucket in ("text", "null"):  # the default, and nothing that could have an effect
        assert refused(composed, f"algorithm.cero.bucket={bucket}", "algorithm.cero.baseline=mean") is None
    message = refused(composed, "algorithm.cero.bucket=topic", "algorithm.cero.baseline=mean")
    assert message.startswith("algorithm.cero.bucket=topic has no effect with algorithm.cero.baseline=mean")
    assert "set algorithm.cero.baseline to optimal" in message
    message = refused(composed, "algorithm.cero.bucket=topic", "algorithm.cero.advantage=rloo")
    assert "algorithm.cero.advantage=rloo, which has a baseline of its own" in message


def test_history_counts_in_nothing_beside_a_learned_baseline_without_scale(composed):
    unread = ["algorithm.cero.scale=false", "algorithm.cero.history=4"]
    assert "algorithm.cero.history=4 has no effect" in refused(composed, *unread)
    assert refused(composed, *unread, "algorithm.cero.baseline=mean") is None
    assert refused(composed, unread[0]) is None and refused(composed, unread[1]) is None


def test_settings_of_verls_estimators(composed):
    """Every field of verl's section is read by its trainer, or refused with our estimator."""
    known = set(OF_VERLS_TRAINER) | set(OF_VERLS_ESTIMATORS)
    assert {field.name for field in fields(AlgoConfig) if not field.name.startswith("_")} == known
    for key, (override, value) in OF_VERLS_ESTIMATORS.items():
        override = f"+algorithm.{override[1:]}" if override[0] == "+" else f"algorithm.{override}"
        message = refused(composed, f"{override}={value}")
        assert f"algorithm.{key}=" in message and "only estimators of verl read it" in message
        assert refused(composed, UNIFORM, f"{override}={value}") is None
    assert "algorithm.cero.scale to false" in refused(composed, "algorithm.norm_adv_by_std_in_grpo=False")


@pytest.mark.parametrize("rule", KEEP)
@pytest.mark.parametrize("option, value", [("ratio", 2.0), ("count", 3)])
def test_a_keep_rule_has_its_own_options_only(composed, rule, option, value):
    message = refused(composed, f"cero.keep.rule={rule}", f"cero.keep.{option}={value}")
    has = option in options_of(KEEP[rule])
    assert (message is None) == has
    if not has:
        assert message.startswith(f"cero.keep.{option}={value} has no effect with cero.keep.rule={rule}")


def test_options_of_an_allocator_that_are_idle(composed):
    bang_bang = ["allocator.primal=bang_bang", "allocator.anchor=last"]
    message = refused(composed, *bang_bang)
    assert message.startswith("allocator.anchor=last has no effect with allocator.primal=bang_bang; set")
    assert refused(composed, bang_bang[0]) is None and refused(composed, bang_bang[1]) is None
    assert "forgetting_unit=step has no effect" in refused(
        composed, "allocator=thompson", "allocator.forgetting=1", "allocator.forgetting_unit=step"
    )


def test_strength_of_no_pass_rates(composed):
    assert "cero.pass_rates.strength=2.0 has no effect" in refused(composed, "cero.pass_rates.strength=2.0")
    assert refused(composed, "cero.pass_rates.strength=2.0", "cero.pass_rates.column=rate") is None


def test_pass_rates_that_nobody_goes_by(composed):
    """These allocators decide by a step's own rewards, and their advantages have no prior."""
    for name in ("aero", "pilot_commit", "vigor", "reinforce_ada_seq"):
        rates = [f"allocator={name}", "cero.pass_rates.column=rate"]
        assert "cero.pass_rates.column=rate has no effect" in refused(composed, *rates)
        posterior = ["algorithm.adv_estimator=cero", "algorithm.cero.advantage=posterior"]
        assert refused(composed, *rates, *posterior) is None
    for name in ("cero", "cero_seq", "gdro"):
        assert refused(composed, f"allocator={name}", "cero.pass_rates.column=rate") is None


def test_staleness_where_nothing_is_kept_of_outcomes(composed):
    mode = ["trainer.v1.trainer_mode=cero_colocate_async", "cero.staleness=0.5"]
    message = refused(composed, UNIFORM, *mode)
    assert message.startswith("cero.staleness=0.5 has no effect with allocator=uniform, which keeps no post")
    assert refused(composed, *mode, "allocator.n_min=1") is None


def test_options_that_are_idle_where_steps_have_their_usual_budget(composed):
    message = refused(composed, "allocator=pilot_commit", "allocator.pilot=1.0", "allocator.low=0.2")
    assert message.startswith("allocator.low=0.2 has no effect with allocator.pilot=1.0")
    message = refused(composed, "allocator=gdro", "allocator.bins=1", "allocator.price_step=2.0")
    assert message.startswith("allocator.price_step=2.0 has no effect with allocator.bins=1")
    message = refused(composed, "allocator=greso", "allocator.p_step=0", "allocator.target_easy=0.2")
    assert message.startswith("allocator.target_easy=0.2 has no effect with allocator.p_step=0")
