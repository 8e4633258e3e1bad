"""The simulated policies, and the studies on them."""

import json
from functools import partial

import numpy as np
import pytest

from cero.allocators import available_allocators
from cero.cli.main import main
from cero.estimators.advantage import Groups, advantages, posterior_advantage
from cero.research.simulation import calibrate, order_check, show
from cero.research.simulation.experiments import (
    curves_by_setting,
    run_experiments,
    summarise_methods,
    t_interval,
)
from cero.research.simulation.gradient import Rollouts, group_gradient
from cero.research.simulation.methods import DEFAULT_METHODS, METHODS, Method, parse_method
from cero.research.simulation.policy import Policy, World
from cero.research.simulation.presets import PRESETS
from cero.research.simulation.training import SimulatedCurve, area, draw, gain, reach, simulate

SMALL = dict(prompts=240, epochs=4, batch=48)
UNIFORM = parse_method("uniform")
QUICK = ["simulate", "--prompts", "96", "--batch", "48", "--epochs", "2", "--seeds", "2", "--workers", "1"]


def rollouts_of(n, right, missed=None, faked=None):
    n, right = np.array(n), np.array(right)
    missed, faked = (np.zeros_like(n) if some is None else np.array(some) for some in (missed, faked))
    return Rollouts.of_counts((np.arange(n.size), np.zeros_like(n), n, right, missed, faked), n.size)


def gradient(rollouts, p, past, method):
    return group_gradient(rollouts, np.array(p), np.array(past), method, 8, np.random.default_rng(0))[0]


def test_rollouts_of_counts():
    """Of five: one right and passed, one right and missed, two faked, one wrong and failed."""
    rollouts = rollouts_of([5, 0, 1], [2, 0, 1], [1, 0, 0], [2, 0, 0])
    seen = sorted(
        zip(rollouts.group.tolist(), rollouts.reward.tolist(), rollouts.right.tolist(), strict=True)
    )
    assert seen == [(0, 0, False), (0, 0, True), (0, 1, False), (0, 1, False), (0, 1, True), (2, 1, True)]
    assert rollouts.n.tolist() == [5, 0, 1] and rollouts.rewarded.tolist() == [3, 0, 1]
    assert rollouts.signal.tolist() == [True, False, False]


@pytest.mark.parametrize("weight", ["trajectory", "prompt"])
def test_gradient_is_the_estimators_along_the_score(weight):
    rollouts = rollouts_of([1, 4, 8, 5, 6, 0], [0, 1, 3, 5, 4, 0], [0, 1, 2, 0, 1, 0], [1, 0, 2, 0, 0, 0])
    p, past = np.array([0.2, 0.4, 0.5, 0.9, 0.6, 0.1]), np.array([0.3, 0.5, 0.6, 0.7, 0.2, 0.5])
    group = rollouts.group
    a = posterior_advantage(
        rollouts.reward, group, past, history=2.0, prompt_weight=weight, rollouts_per_prompt=8
    )
    expected = np.bincount(group, a * (rollouts.right - p[group]), 6) / group.size
    method = Method("", "uniform", "posterior", weight, 2.0)
    np.testing.assert_allclose(gradient(rollouts, p, past, method), expected)


def test_grpo_gradient_by_hand():
    """2 of 4: mean 1/2, std sqrt(1/3); homogeneous groups, groups of one and empty ones give nothing."""
    got = gradient(rollouts_of([4, 4, 8, 1, 0], [2, 0, 8, 1, 0]), [0.5] * 5, [0.5] * 5, UNIFORM)
    assert got[0] == pytest.approx(4 * 0.5 / np.sqrt(1 / 3) * 0.5 / 17, rel=1e-5)
    assert (got[1:] == 0).all()


def test_what_is_not_kept_does_not_teach():
    """AERO keeps one wrong rollout beside one right one of eight: GRPO's on the two."""
    got = gradient(rollouts_of([8], [1]), [0.5], [0.5], parse_method("aero"))
    assert got[0] == pytest.approx(2 * 0.5 / np.sqrt(0.5) * 0.5 / 2, rel=1e-5)


def test_flipped_rewards_teach_the_wrong_way():
    """One wrong rollout rewarded among three that are not: what it did is made likelier, and it was wrong."""
    assert gradient(rollouts_of([4], [1]), [0.3], [0.3], UNIFORM) > 0
    flipped = rollouts_of([4], [0], faked=[1])
    assert gradient(flipped, [0.3], [0.3], UNIFORM) == pytest.approx(
        0, abs=1e-12
    )  # all were wrong: nothing to tell
    assert gradient(rollouts_of([4], [1], missed=[1], faked=[1]), [0.3], [0.3], UNIFORM) < 0


@pytest.mark.parametrize("preset", PRESETS)
def test_policies_learn(preset):
    curve = simulate(UNIFORM, preset, seed=1, **SMALL | {"epochs": 8})
    assert curve.accuracy[-1] > curve.accuracy[0] + 0.03
    assert curve.rollouts[-1] == 8 * 240 * 8
    assert all(0 <= share <= 1 for share in curve.signal)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_neither_done_nor_stuck(preset):
    """Uniform GRPO at the preset's own size learns throughout, and leaves something to learn."""
    curve = simulate(UNIFORM, preset, seed=0)
    half = curve.accuracy[len(curve.accuracy) // 2]
    assert curve.accuracy[0] < 0.7 and 0.7 < curve.accuracy[-1] < 0.98
    assert curve.accuracy[0] + 0.1 < half < curve.accuracy[-1] - 0.01
    assert PRESETS[preset].about


def test_same_seed_same_curve_and_same_world_for_all():
    one, again = (simulate(parse_method("cero"), "latent", 3, **SMALL) for _ in range(2))
    other = simulate(UNIFORM, "latent", 3, **SMALL)
    assert one == again
    assert one.accuracy[0] == other.accuracy[0] and one.rollouts == other.rollouts


def test_late_outcomes_are_learned_from():
    """Rollouts are drawn ahead; each is learned from once, and weights matter only where there are some."""
    cero, size = parse_method("cero"), SMALL | {"epochs": 4}
    now, late = simulate(cero, "latent", 3, **size), simulate(cero, "latent", 3, lag=2, **size)
    assert now == simulate(cero, "latent", 3, staleness=0.5, **size)  # nothing is late
    assert late.rollouts == now.rollouts and late.accuracy != now.accuracy
    assert late.accuracy[-1] > late.accuracy[0] + 0.02
    assert simulate(cero, "latent", 3, lag=2, staleness=0.5, **size).accuracy != late.accuracy
    simulate(parse_method("cero_seq"), "latent", 0, lag=2, **size)
    with pytest.raises(ValueError, match=r"staleness=0.5 is not possible with 'cero_seq'"):
        simulate(parse_method("cero_seq"), "latent", 0, lag=2, staleness=0.5, **size)


@pytest.mark.parametrize("option", [{"lag": -1}, {"staleness": 0}, {"staleness": 1.5}])
def test_how_late_outcomes_are_is_checked(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        simulate(UNIFORM, "latent", 3, **SMALL | option)


def test_each_part_of_the_model_can_be_switched_off():
    off = dict(rate_own=0, rate_skill=0, interference=0, forgetting=0)
    policy = Policy(World(**off), 100, 0)
    before = policy.p.copy()
    policy.learn(np.arange(100), np.ones(100))
    np.testing.assert_equal(policy.p, before)

    alone = Policy(World(**off | {"rate_own": 0.5}), 100, 0)
    alone.learn(np.array([7]), np.ones(1))
    assert np.flatnonzero(alone.p != before).tolist() == [7]

    family = Policy(World(**off | {"rate_skill": 0.5}), 100, 0)
    family.learn(np.array([7]), np.ones(1))
    assert (family.family[family.p != before] == family.family[7]).all()
    assert (family.p >= before).all()

    others = Policy(World(**off | {"rate_skill": 0.5, "interference": 0.5}), 100, 0)
    others.learn(np.array([7]), np.ones(1))
    assert (others.p > before).any() and (others.p < before).any()

    fading = Policy(World(**off | {"rate_own": 0.5, "forgetting": 0.5}), 100, 0)
    fading.learn(np.array([7]), np.ones(1))
    top = fading.p[7]
    fading.learn(np.array([8]), np.zeros(1))
    assert before[7] < fading.p[7] < top

    drifting = Policy(World(**off | {"drift": 0.5}), 100, 0)
    drifting.learn(np.array([7]), np.zeros(1))
    assert (drifting.p != before).all()


def test_ladder_sets_where_families_start():
    policy = Policy(World(ladder=(0.1, 0.9, 2.0, 0.0), families=3), 300, 0)
    np.testing.assert_allclose([policy.p[policy.family == f].mean() for f in range(3)], [0.1, 0.3, 0.9])


def test_noisy_verifier_flips_rewards():
    policy = Policy(World(noise=0.1), 50, 0)
    n = np.full(50, 4000)
    right, missed, faked = policy.sample(np.arange(50), n)
    share = right / n
    np.testing.assert_allclose((right - missed + faked) / n, share * 0.9 + (1 - share) * 0.1, atol=0.02)
    np.testing.assert_allclose(share, policy.p, atol=0.04)


def test_a_step_in_rounds():
    """An allocator that decides within a step draws in rounds: within the budget, observed, and paid for."""
    policy = Policy(PRESETS["noisy_verifier"].world, 96, 0)
    allocator = parse_method("cero_seq").make(
        rollouts_per_prompt=8, epochs=4, seed=0, total_budget=96 * 8, n_min=2, n_max=32
    )
    step, groups = draw(allocator, policy, np.arange(48), 48 * 8)
    allocator.settle(step, groups.rewarded, groups.n)
    assert 0 < groups.n.sum() <= 48 * 8 and groups.n.sum() == allocator.ledger.spent
    assert np.ptp(groups.n) > 0 and groups.round.max() > 0
    curve = simulate(parse_method("cero_seq"), "lab", 0, epochs=3)
    assert curve.accuracy[-1] > curve.accuracy[0] and curve.rollouts[-1] <= 3 * 480 * 8


def test_pass_rates_are_known_in_the_first_epoch():
    blind, told = (
        simulate(parse_method(f"variance/estimator=grpo{more}"), "latent", 0, **SMALL | {"epochs": 1})
        for more in ("", "/pass_rates=16")
    )
    assert blind.accuracy[0] == told.accuracy[0] and blind.accuracy[1] != told.accuracy[1]
    assert blind.rollouts == told.rollouts
    with pytest.raises(ValueError, match="pass_rates"):
        parse_method("cero/pass_rates=-1")


def curve(points, label="a", seed=0, preset="latent"):
    return SimulatedCurve(label, preset, seed, 8, [10 * i for i in range(len(points))], list(points), [0.5])


def test_gain_compares_at_equal_rollouts():
    long, short = curve([0.0, 1.0, 1.0]), curve([0.0, 1.0])
    assert gain(short, long) == gain(long, short) == 0
    assert area(long, until=15) == pytest.approx((5 + 5) / 15)


def test_area_and_reach():
    rising = curve([0.0, 0.5, 1.0])
    assert area(rising) == pytest.approx(0.5)
    assert reach(rising, 0.75) == pytest.approx(15)
    assert np.isnan(reach(rising, 1.1)) and reach(rising, 0.0) == 0


def test_summary_pairs_seeds():
    curves = [curve([0, 0.5, 0.8], "base", s) for s in (0, 1)] + [
        curve([0, 0.8, 0.9], "other", s) for s in (0, 1)
    ]
    summary = summarise_methods(curves)
    assert summary["base"]["gain"][0] == 0 and summary["base"]["ratio"][0] == pytest.approx(1)
    assert summary["other"]["gain"][0] == pytest.approx(0.175)
    assert summary["other"]["reach"][0] == pytest.approx(10)
    assert summary["other"]["ratio"][0] == pytest.approx(0.5)
    near = summarise_methods(curves, target=0.4)
    assert near["base"]["reach"][0] == pytest.approx(8) and near["other"]["ratio"][0] == pytest.approx(5 / 8)
    far = summarise_methods(curves, target=0.85)
    assert far["base"]["reached"] == 0 and far["other"]["reached"] == 1
    assert np.isnan(far["other"]["ratio"][0]) and far["other"]["reach"][0] == pytest.approx(15)
    assert show.reached(far["base"]) == "by 0 of 2 seeds" and show.reached(near["other"]) == "0k (0.62x)"


def test_interval_covers():
    """Of 400 samples of 5 normals, the 95 % interval misses the mean in 2 % to 8 %."""
    rng = np.random.default_rng(0)
    misses = 0
    for _ in range(400):
        _, low, high = t_interval(rng.normal(size=5))
        misses += not low <= 0 <= high
    assert 8 <= misses <= 32
    assert (
        t_interval([0.5])[0] == 0.5
        and np.isnan(t_interval([0.5])[1])
        and np.isnan(t_interval([0.5, np.nan])[0])
    )


def test_the_even_control_learns_of_prompts():
    """It gives all prompts the same whatever it saw, and its baseline is of what it saw."""
    allocator = parse_method("even+posterior").make(
        rollouts_per_prompt=8, epochs=4, seed=0, n_min=2, n_max=32, total_budget=96
    )
    prompts = ["easy", "middle", "hard"]
    for _ in range(3):
        assert allocator.allocate(prompts, 24).tolist() == [8, 8, 8]
        allocator.observe(prompts, [8, 4, 0], [8, 8, 8])
    easy, middle, hard = allocator.success_mean(prompts)
    assert easy > middle + 0.2 > hard + 0.4
    size = {"prompts": 64, "epochs": 3, "batch": 32}
    learned, not_learned = (
        simulate(parse_method(label), "latent", 0, **size)
        for label in ("even+posterior", "uniform/estimator=posterior")
    )
    assert learned.rollouts == not_learned.rollouts
    assert learned.accuracy[-1] != not_learned.accuracy[-1]


def test_the_even_control_has_no_bounds():
    with pytest.raises(ValueError, match="'n_max' is no option of 'cero'"):
        parse_method("even+posterior/n_max=64")


def test_methods_are_written_as_one_word():
    found = parse_method(
        "cero/value=signal_hard/n_max=64/forgetting=0.5/estimator=grpo/weight=prompt/history=4"
    )
    assert (found.allocator, found.estimator, found.weight, found.history) == ("cero", "grpo", "prompt", 4.0)
    assert found.options == {"value": "signal_hard", "n_max": 64, "forgetting": 0.5}
    assert found.label.startswith("cero/value=")
    assert found.make(rollouts_per_prompt=8, epochs=2, seed=0, n_min=2, n_max=32).n_max == 64
    assert parse_method("cero:signal+grpo/forgetting=1").options == {"value": "signal", "forgetting": 1}
    assert (
        parse_method("uniform").estimator == "grpo" and parse_method("cero_resolve").estimator == "posterior"
    )
    there = [label for label in METHODS if METHODS[label].allocator in available_allocators()]
    assert all(parse_method(label) == METHODS[label] for label in there)
    assert set(DEFAULT_METHODS) <= set(there)


@pytest.mark.parametrize(
    ("label", "word"),
    [
        ("nobody", "nobody"),
        ("cero/nothing=1", "nothing"),
        ("cero/value", "key=value"),
        ("cero/estimator=ppo", "ppo"),
        ("cero/weight=all", "all"),
        ("cero/history=0", "history"),
        ("cero/seed=1", "seed"),
        ("cero/value=variety", "variety"),
        ("cero/n_max=4", "n_max"),
    ],
)
def test_methods_that_cannot_be(label, word):
    with pytest.raises(ValueError, match=word) as error:
        run_experiments([label], ["latent"], [8], 1)
    assert label.split("/")[0] in str(error.value)


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="desert"):
        run_experiments(["uniform"], ["desert"], [8], 1)
    with pytest.raises(ValueError, match="batch"):
        simulate(UNIFORM, "latent", 0, prompts=10, batch=20)


@pytest.mark.slow
def test_workers_make_no_difference():
    one, two = (run_experiments(["uniform", "cero"], ["lab"], [4, 8], 2, workers=w, **SMALL) for w in (1, 2))
    assert one == two
    assert list(curves_by_setting(one)) == [("lab", 4), ("lab", 8)]
    assert [c.label for c in curves_by_setting(one)["lab", 4]] == ["uniform"] * 2 + ["cero"] * 2


@pytest.mark.slow
def test_command_line(tmp_path, capsys):
    out = tmp_path / "s.png"
    main(
        [*QUICK, "--contenders", "uniform,cero/value=signal", "--out", str(out), "--json", "--target", "0.99"]
    )
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    (cell,) = result["cells"]
    assert (cell["preset"], cell["budget"], len(result["curves"])) == ("latent", 8, 4)
    assert set(cell["summary"]) == {"uniform", "cero/value=signal"}
    assert cell["summary"]["uniform"]["reach"] == [None] * 3
    assert out.stat().st_size > 10_000
    main([*QUICK, "--contenders", "uniform,cero", "--out", str(out)])
    first = capsys.readouterr().out
    assert "Picture" in first
    main([*QUICK, "--methods", "uniform,cero", "--out", str(out)])
    assert capsys.readouterr().out == first  # `--contenders` is its former name


@pytest.mark.slow
def test_command_line_side_by_side(tmp_path, capsys):
    out = tmp_path / "s.png"
    main([*QUICK, "--contenders", "uniform,cero", "--presets", "all", "--budgets", "4,8", "--out", str(out)])
    text = capsys.readouterr().out
    assert all(f"{preset}, {budget}" in text for preset in PRESETS for budget in (4, 8))
    assert out.stat().st_size > 50_000


@pytest.mark.parametrize("wrong", [["--seeds", "0"], ["--presets", "desert"], ["--contenders", "nobody"]])
def test_command_line_refuses(wrong, capsys):
    with pytest.raises(SystemExit) as error:
        main([*QUICK, *wrong])
    assert error.value.code == 2 and wrong[1] in capsys.readouterr().err


@pytest.mark.slow
def test_check_against_the_experiment(tmp_path, capsys, monkeypatch):
    """All rows run, are distinct, and a rule whose allocator is not there is named instead."""
    assert len({row.method for row in order_check.MEASURED_RULES}) == len(order_check.MEASURED_RULES)
    rows = [
        *order_check.MEASURED_RULES[:4],
        order_check.MeasuredRule("to come", (0.828,), "not_yet/history=4", "estimator"),
    ]
    result = order_check.check_order(2, rows, workers=1, epochs=2)
    assert result["missing"] == ["to come"]
    assert order_check.describe_ranks(result)[-1] == "no allocator for: to come"
    assert [row["name"] for row in result["rows"]] == [row.name for row in order_check.MEASURED_RULES[:4]]
    assert result["rows"][1]["gain_measured"] == pytest.approx(2.333 / 3 - 0.787)
    assert (
        result["ranks"]["and sequential"]["rows"] == 4
        and -1 <= result["ranks"]["rules under GRPO"]["tau"] <= 1
    )
    monkeypatch.setattr(order_check, "run_experiments", partial(run_experiments, epochs=2))
    words = ["simulate", "--check", "--seeds", "2", "--workers", "1", "--out", str(tmp_path / "c.png")]
    main(words)
    shown = capsys.readouterr().out.splitlines()
    found = [k for k, line in enumerate(shown) if line.startswith(("rules under GRPO: ", "and sequential: "))]
    assert len(found) == 2 and "\\n" not in shown[found[0]]  # a line each
    main([*words, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert len(result["rows"]) + len(result["missing"]) == len(order_check.MEASURED_RULES)
    assert (tmp_path / "c.png").stat().st_size > 20_000


@pytest.mark.slow
def test_the_lab_preset_fits_uniforms_curve():
    """What it was calibrated to, within the worlds' own spread over 12 seeds; see `calibrate`."""
    assert calibrate.misfit(calibrate.figures(PRESETS["lab"].world, 12)) < 2.5
    point = [1.3, 2.0, 0.1, 0.3, 0.7, 0.005]
    assert (
        calibrate.world(point).ladder == (0.015, 0.95, 1.3, 2.0) and calibrate.world(point).rate_skill == 0.3
    )


def test_mapp_goes_by_the_allocators_counts():
    """Beta(9, 1) and 7 of 8 right: as in training, and not as two rollouts of the same mean."""
    rollouts = Rollouts.of_counts([np.array([each]) for each in (0, 0, 8, 7, 0, 0)], 1)
    method = parse_method("mapp/estimator=mapp")
    prior = np.array([9.0]), np.array([1.0])
    arguments = rollouts, np.array([0.875]), np.array([0.9]), method, 8, np.random.default_rng(0)
    with_counts, without = (group_gradient(*arguments, counts)[0] for counts in (prior, None))
    rewards = rollouts.reward
    data = Groups(rewards, np.zeros(8, int), 1, None, None, None, prior)
    expected = (advantages("mapp", data, [0.9]) * (rewards - 0.875)).mean()
    assert with_counts == pytest.approx(expected) and abs(with_counts - without)[0] > 0.01
