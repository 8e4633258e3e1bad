"""Are settings that can't work refused before Ray starts, with key, value and remedy?"""

import numpy as np
import pytest
from omegaconf import OmegaConf

from cero.core.state import STATE_FILE, save_state
from cero.verl.preflight import Preflight
from cero.verl.reading import KEYS, read_settings
from cero.verl.resume import resume_state
from cero.verl.success import Success

RUN = ["+recipe=cero", "actor_rollout_ref.rollout.n=8"]

DROP, ACTOR = "cero.drop_zero_advantage=true", "actor_rollout_ref.actor"
TWO = "allocator.n_min=2"  # verl's own estimators need groups of two
DAPO = ["allocator=uniform", "algorithm.filter_groups.enable=True"]

REFUSED = {
    "n below n_min": (["allocator.n_min=9"], r"rollouts_per_prompt=8 lies outside n_min=9"),
    "n above n_max": (["allocator.n_max=4"], r"n_max=4"),
    "option out of range": (["allocator.forgetting=1.5"], r"allocator \(cero\): forgetting.*=1.5"),
    "option not known": (["+allocator.luck=7"], r"luck=7 is no option"),
    "key not known": (["+cero.candidate=4"], r"cero.candidate=4 is no setting; cero has success, .*Correct"),
    "key of a part": (["+cero.keep.cuont=2"], r"cero.keep.cuont=2 is no setting; cero.keep has rule, ratio"),
    "key of success": (["+cero.success.rnage=[0,2]"], r"cero.success.rnage=\[0, 2\] is no setting"),
    "key of pass rates": (["+cero.pass_rates.columns=x"], r"cero.pass_rates.columns='x' is no setting"),
    "estimator's key": (["+algorithm.cero.histroy=2"], r"algorithm.cero.histroy=2 is no setting"),
    "trainer's option": (["+allocator.epochs=7"], r"allocator.epochs=7 is set by the trainer"),
    "groups of one": (
        ["allocator.n_min=1", "algorithm.adv_estimator=grpo"],
        r"allocator.n_min=1.*grpo.*n_min=2",
    ),
    "groups of one by default": (
        ["algorithm.adv_estimator=grpo"],
        r"allocator.n_min=0.*grpo.*n_min=2.*estimator=cero",
    ),
    "another trainer": (
        ["trainer.v1.trainer_mode=colocate_async"],
        r"trainer_mode=colocate_async.*=cero_coloc",
    ),
    "no trainer": (["trainer.v1.trainer_mode=turbo"], r"trainer_mode=turbo.*sync, colocate_async, separate"),
    "legacy trainer": (["trainer.use_v1=False"], r"trainer.use_v1=False"),
    "dapo": (
        ["algorithm.filter_groups.enable=True"],
        r"filter_groups.enable=True with allocator=cero.*uniform",
    ),
    "refills": (["trainer.v1.sampler.sync_refill_failed_groups=True"], r"sync_refill_failed_groups=True"),
    "replay": (["skip.rollout_tq.enable=True"], r"skip.rollout_tq.enable=True"),
    "kl in reward": (["algorithm.use_kl_in_reward=True"], r"use_kl_in_reward=True.*use_kl_loss"),
    "key and estimator": (["cero.success.key=acc"], r"cero.success.key=acc.*adv_estimator=grpo"),
    "reward range": (["cero.success.range=[1,0]"], r"cero.success.range=\[1, 0\]"),
    "reward range of one": (["cero.success.range=[1]"], r"cero.success.range=\[1\]"),
    "poll interval": (["cero.poll_interval=0"], r"cero.poll_interval=0"),
    "baseline": (
        ["algorithm.cero.baseline=best"],
        r"algorithm.cero.baseline='best' is not known.*mean, optimal",
    ),
    "missing state": (["cero.on_missing_state=ignore"], r"cero.on_missing_state='ignore'"),
    "baseline of aero": (
        ["allocator=aero", "algorithm.cero.baseline=optimal"],
        r"baseline=optimal .*=aero, which has",
    ),
    "baseline of grpo": (
        ["allocator=uniform", "algorithm.cero.baseline=optimal"],
        r"baseline=optimal has no effect with algorithm.adv_estimator=grpo.*adv_estimator to cero",
    ),
    "bucket": (["algorithm.cero.bucket=7"], r"algorithm.cero.bucket=7 must be text, the name of a column"),
    "empty bucket": (["algorithm.cero.bucket=''"], r"algorithm.cero.bucket='' must be text"),
    "group of mapp": (
        ["algorithm.cero.advantage=mapp", "algorithm.cero.mapp_group=1"],
        r"algorithm.cero.mapp_group=1 must be an integer in \[2,",
    ),
    "history": (["algorithm.cero.history=0"], r"algorithm.cero.history=0"),
    "weight": (["algorithm.cero.prompt_weight=token"], r"algorithm.cero.prompt_weight='token'"),
    "advantage": (["algorithm.cero.advantage=best"], r"algorithm.cero.advantage='best'"),
    "pass rates' strength": (["cero.pass_rates.strength=0"], r"cero.pass_rates.strength=0"),
    "pass rates and uniform": (
        ["cero.pass_rates.column=rate", "allocator=uniform"],
        r"cero.pass_rates.column=rate with allocator=uniform.*null",
    ),
    "keep rule": (["cero.keep.rule=best"], r"cero.keep.rule='best'.*balanced"),
    "keep ratio": (["cero.keep.ratio=0"], r"cero.keep.ratio=0"),
    "keep count": (["cero.keep.count=1.5"], r"cero.keep.count=1.5"),
    "keep one": (
        [TWO, "algorithm.adv_estimator=grpo", "cero.keep.rule=gfpo_length", "cero.keep.count=1"],
        r"cero.keep.count=1 with algorithm.adv_estimator=grpo.*cero.keep.count=2",
    ),
    "dapo and keep": (
        [*DAPO, "cero.keep.rule=balanced"],
        r"filter_groups.enable=True with cero.keep.rule=balanced.*cero.keep.rule=all",
    ),
    "dapo and drop": ([*DAPO, DROP], r"filter_groups.enable=True with .*drop_zero_advantage=True.*=false"),
    "drop, something else": (["cero.drop_zero_advantage=some"], r"cero.drop_zero_advantage='some'"),
    "drop and estimator": (
        [TWO, DROP, "algorithm.adv_estimator=opo"],
        r"=True with algorithm.adv_estimator=opo.*rloo",
    ),
    "drop and kl": ([DROP, f"{ACTOR}.use_kl_loss=True"], r"drop_zero.*use_kl_loss=True: the KL term"),
    "drop and kl in reward": (
        [TWO, DROP, "algorithm.adv_estimator=grpo", "algorithm.use_kl_in_reward=True"],
        r"drop_zero.*use_kl_in_reward=True",
    ),
    "drop and entropy": ([DROP, f"{ACTOR}.entropy_coeff=0.01"], r"drop_zero.*entropy_coeff=0.01"),
    "drop and critic": ([DROP, "critic.enable=True"], r"drop_zero.*critic.enable=True"),
    "drop and teacher": ([DROP, "distillation.enabled=True"], r"drop_zero.*distillation.enabled=True"),
    "drop and loss": (
        [DROP, f"{ACTOR}.policy_loss.loss_mode=clip_cov"],
        r"drop_zero.*loss_mode=clip_cov.*vanilla",
    ),
    "drop and norm": (
        [DROP, f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm"],
        r"drop_zero.*seq-mean-token-sum-norm without loss_scale_factor",
    ),
    "drop and further tokens": (
        [DROP, "actor_rollout_ref.model.mtp.enable=True", "actor_rollout_ref.model.mtp.enable_train=True"],
        r"drop_zero.*mtp.enable_train=True",
    ),
    "gae and no critic": (
        ["allocator=uniform", "algorithm.adv_estimator=gae"],
        r"gae with critic.enable=False",
    ),
    "estimator not known": (
        ["algorithm.adv_estimator=Cero"],
        r"adv_estimator=Cero is not known; .*cero, .*grpo",
    ),
    "no estimator": (["algorithm.adv_estimator=null"], r"adv_estimator=None is not known"),
    "estimator's needs": (
        ["allocator=uniform", "algorithm.adv_estimator=remax"],
        r"remax needs the rewards of",
    ),
    "gdpo": (["allocator=uniform", "algorithm.adv_estimator=gdpo"], r"gdpo needs prompts and single rewards"),
    "warm-up of no critic": (
        ["trainer.critic_warmup=10"],
        r"critic_warmup=10 without a critic.*critic_warmup=0",
    ),
    "objective": (["cero.objective=most"], r"cero.objective='most' is not known; choose one of last"),
    "saved in the background": (
        [f"{ACTOR}.checkpoint.async_save=True"],
        r"async_save=True with strategy=fsdp.*set it to False",
    ),
    "a key and a colocated model": (
        ["reward.reward_model.enable=True", "cero.success.key=acc", "algorithm.adv_estimator=grpo", TWO],
        r"cero.success.key=acc with reward.reward_model.enable=True.*enable_resource_pool=True",
    ),
    "drop and bypass": ([DROP, "algorithm.rollout_correction.bypass_mode=True"], r"drop_zero.*bypass_mode"),
    "rounds and dapo": (
        ["allocator=aero", "algorithm.filter_groups.enable=True"],
        r"filter_groups.enable=True.*aero",
    ),
    "rounds and another manager": (
        ["allocator=aero", "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=my.Manager"],
        r"agent_loop_manager_class=my.Manager with allocator=aero.*null",
    ),
    "rounds and colocated rewards": (
        ["allocator=cero_seq", "reward.reward_model.enable=True"],
        r"reward_model.enable=True with allocator=cero_seq.*enable_resource_pool",
    ),
    "rounds and critic": (
        ["allocator=cero_seq", "critic.enable=True"],
        r"critic.enable=True.*allocator=cero_seq",
    ),
    "keep and critic": (
        ["cero.keep.rule=pods", "critic.enable=True"],
        r"critic.enable=True.*cero.keep.rule=pods",
    ),
    "rounds and groups of one": (
        ["allocator=cero_seq", "algorithm.adv_estimator=grpo"],
        r"allocator=cero_seq with algorithm.adv_estimator=grpo.*adv_estimator=cero",
    ),
    "aero and groups of one": (
        ["allocator=aero", "algorithm.adv_estimator=rloo", "allocator.n_explore=1"],
        r"allocator=aero with algorithm.adv_estimator=rloo.*n_explore=2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(composed, case):
    overrides, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        read_settings(composed(*RUN, *overrides))


def test_accepted_combinations(composed):
    for overrides in (
        ["allocator.n_min=0"],
        ["allocator=uniform", "algorithm.filter_groups.enable=True"],
        [TWO, "algorithm.adv_estimator=rloo"],
        [TWO, "algorithm.adv_estimator=grpo", "cero.success.key=acc"],
        ["allocator=aero"],
        ["allocator=aero", "algorithm.adv_estimator=grpo"],
        ["allocator=cero_seq", "cero.keep.rule=balanced", DROP, "algorithm.cero.baseline=mean"],
        [
            "allocator=cero_seq",
            "reward.reward_model.enable=True",
            "reward.reward_model.enable_resource_pool=True",
        ],
        ["allocator=uniform", DROP, f"{ACTOR}.loss_agg_mode=seq-mean-token-mean"],
        [
            DROP,
            "algorithm.cero.baseline=mean",
            f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm",
            f"{ACTOR}.loss_scale_factor=8",
        ],
    ):
        read_settings(composed(*RUN, *overrides))


def test_vanilla_config_is_refused(composed):
    with pytest.raises(ValueError, match=r"no 'allocator' section; start with \+recipe=cero"):
        read_settings(composed())


def test_preflight_exits(composed):
    """A callback's Exception would only be a warning to Hydra."""
    with pytest.raises(SystemExit, match="cero: in the config group allocator"):
        Preflight().on_job_start(config=composed(*RUN, "allocator.n_max=4"))


def test_reward_range_maps_to_success(composed):
    settings = read_settings(composed(*RUN, "cero.success.range=[-1,1]"))
    np.testing.assert_allclose(settings.to_success(np.array([-1.0, 0.0, 1.0])), [0, 0.5, 1])


def test_aeros_recipe_is_aeros_method(composed):
    config = composed("+recipe=aero", "actor_rollout_ref.rollout.n=16")
    settings = read_settings(config)
    assert settings.make_allocator().sequential and config.algorithm.adv_estimator == "cero"
    assert (
        settings.keep == {"rule": "aero", "ratio": 1.0, "count": 4}
        and settings.estimator["advantage"] == "aero"
    )
    other = read_settings(composed("+recipe=aero", RUN[1], "allocator=cero", "cero.keep.rule=pods"))
    assert (other.keep["rule"], other.estimator["advantage"]) == ("pods", "posterior")


@pytest.mark.parametrize(
    "key, reward, extra, success",
    [
        (None, 0.5, None, 0.75),
        ("acc", -1.0, {"reward_extra_info": {"acc": True}}, 1.0),
        (None, 1.5, None, r"a reward of 1.5 lies outside cero.success.range=\[-1.0, 1.0\]"),
        (None, float("nan"), None, "a reward of nan lies outside"),
        ("acc", 1.0, {"reward_extra_info": {"acc": 2}}, "cero.success.key=acc was 2.0"),
        ("acc", 1.0, {"reward_extra_info": {"score": 1}}, r"cero.success.key=acc is not among .*\(score\)"),
        ("acc", 1.0, {}, "only a number"),
    ],
)
def test_what_is_a_success(key, reward, extra, success):
    mapping = Success(key, -1.0, 1.0)
    if isinstance(success, str):
        with pytest.raises(ValueError, match=success):
            mapping.of(reward, extra)
    else:
        assert mapping.of(reward, extra) == success


@pytest.fixture
def resumable(composed, tmp_path):
    """(config, settings, path of the allocator's state) of a run with a committed checkpoint at step 3."""
    (tmp_path / "global_step_3").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("3")
    config = composed(*RUN, f"trainer.default_local_dir={tmp_path}")
    return config, read_settings(config), tmp_path / "global_step_3" / STATE_FILE


def trained(settings, rollouts=64, **kwargs):
    allocator = settings.make_allocator(**kwargs)
    n = allocator.allocate(["a", "b"], budget=rollouts // 2)
    allocator.observe(["a", "b"], n * 0.5, n)
    return allocator


def test_resume_takes_up_the_state(resumable):
    config, settings, path = resumable
    allocator = trained(settings)
    save_state(allocator.state_dict(), path)
    fresh = settings.make_allocator()
    assert resume_state(config, settings, fresh)
    np.testing.assert_equal(fresh.allocate(["a", "b", "c"], 30), allocator.allocate(["a", "b", "c"], 30))


def test_resume_without_state_is_an_error_unless_allowed(resumable, composed):
    config, settings, path = resumable
    with pytest.raises(ValueError, match="holds no allocator state.*cero.on_missing_state=fresh"):
        resume_state(config, settings, settings.make_allocator())
    config = composed(
        *RUN, f"trainer.default_local_dir={config.trainer.default_local_dir}", "cero.on_missing_state=fresh"
    )
    assert not resume_state(config, read_settings(config), settings.make_allocator())


def test_resume_takes_up_the_baseline(resumable, composed):
    config, settings, path = resumable
    save_state(trained(settings).state_dict(), path)
    baseline, fresh = settings.make_baseline(), settings.make_baseline()
    with pytest.raises(
        ValueError, match="no .*baseline.npz.*algorithm.cero.baseline=mean.*on_missing_state=fresh"
    ):
        resume_state(config, settings, settings.make_allocator(), fresh)
    allowed = composed(
        *RUN, f"trainer.default_local_dir={config.trainer.default_local_dir}", "cero.on_missing_state=fresh"
    )
    assert resume_state(allowed, read_settings(allowed), settings.make_allocator(), fresh)
    slots = np.array([[3], [4]], np.int16)
    baseline.of_step(["a", "b"], np.array([0, 1]), np.array([1.0, 0.0]), np.ones(2), buckets=slots)
    file = path.with_name("baseline.npz")
    save_state(baseline.state_dict(), file)
    assert resume_state(config, settings, settings.make_allocator(), fresh)
    np.testing.assert_equal(fresh.state_dict(), baseline.state_dict())
    save_state(trained(settings).state_dict(), file)
    with pytest.raises(SystemExit, match="baseline.npz.*no state of an optimal baseline"):
        Preflight().on_job_start(config=config)


@pytest.mark.slow
def test_the_baseline_is_learned_only_for_the_estimator_that_uses_it(composed):
    kinds = {
        "allocator=cero": "optimal",
        "algorithm.cero.baseline=mean": "mean",
        "algorithm.cero.advantage=rloo": "mean",
        "allocator=aero": "mean",
        "allocator=uniform": "mean",
    }
    for override, kind in kinds.items():
        settings = read_settings(composed(*RUN, override))
        assert settings.baseline == kind and (settings.make_baseline() is None) == (kind == "mean")


def test_resume_takes_up_the_buckets(resumable, composed):
    config, settings, path = resumable
    save_state(trained(settings).state_dict(), path)
    folder = f"trainer.default_local_dir={config.trainer.default_local_dir}"
    shared = read_settings(composed(*RUN, folder, "algorithm.cero.bucket=data_source"))
    assert (settings.bucket, shared.bucket) == ("text", "data_source")
    without = read_settings(composed(*RUN, folder, "algorithm.cero.bucket=null"))
    plain, saved = without.make_baseline(), shared.make_baseline()
    step = ["a", "b"], np.array([0, 1]), np.array([1.0, 0.0]), np.ones(2)
    plain.of_step(*step)
    saved.of_step(*step, buckets=np.array([[3], [4]], np.int16))
    for state in (saved.state_dict(), plain.state_dict()):  # the second is of a run without buckets
        save_state(state, path.with_name("baseline.npz"))
        resumed = shared.make_baseline()
        assert resume_state(config, shared, shared.make_allocator(), resumed)
        expected = resumed.expected_success(np.array([[3], [4]], np.int16))
        assert (expected[0] > 0.5 > expected[1]) == ("bucket" in state)
        assert len(resumed.table) == 2


def test_resume_from_a_damaged_state_is_an_error(resumable):
    config, settings, path = resumable
    save_state(trained(settings).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    for check in (
        lambda: resume_state(config, settings, settings.make_allocator()),
        lambda: Preflight().on_job_start(config=config),
    ):
        with pytest.raises((ValueError, SystemExit), match="damaged"):
            check()


def test_resume_from_another_allocators_state_is_an_error(resumable, composed):
    config, settings, path = resumable
    save_state(trained(settings).state_dict(), path)
    other = composed(
        *RUN, "allocator=uniform", f"trainer.default_local_dir={config.trainer.default_local_dir}"
    )
    with pytest.raises(ValueError, match="of allocator 'cero', the run uses 'uniform'"):
        resume_state(other, read_settings(other), read_settings(other).make_allocator())


def test_new_runs_have_nothing_to_resume(composed, tmp_path):
    config = composed(*RUN, f"trainer.default_local_dir={tmp_path}")
    settings = read_settings(config)
    assert not resume_state(config, settings, settings.make_allocator())
    config = composed(*RUN, f"trainer.default_local_dir={tmp_path}", "trainer.resume_mode=disable")
    assert not resume_state(config, settings, settings.make_allocator())


@pytest.mark.parametrize("estimator", ["gae", "reinforce_plus_plus"])
def test_estimators_that_compare_nothing_within_groups_may_have_groups_of_one(composed, estimator):
    words = [f"algorithm.adv_estimator={estimator}", f"critic.enable={estimator == 'gae'}"]
    assert read_settings(composed(*RUN, *words)).make_allocator().n_min == 0


def test_known_keys_are_those_of_the_recipe(composed):
    config = composed("+recipe=cero")
    for section, keys in KEYS.items():
        assert set(OmegaConf.select(config, section)) == set(keys), section
