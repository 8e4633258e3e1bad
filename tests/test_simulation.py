"""The simulated policies, and the studies on them."""

import json

import numpy as np
import pytest

from cero.advantage import posterior_advantage
from cero.cli import main
from cero.simulation.policy import PRESETS, Policy, World, group_gradient
from cero.simulation.run import Contender, Curve, area, reach, run
from cero.simulation.study import interval, study, summarise

SMALL = dict(prompts=240, epochs=4, batch=48)


def rollouts_of(seen, n):
    return np.concatenate([np.repeat([1.0, 0.0], [s, k - s]) for s, k in zip(seen, n, strict=True)])


def test_gradient_of_counts_is_the_estimators():
    """From counts alone, the same as the core estimator rollout by rollout."""
    seen, n, p = np.array([0, 1, 3, 5]), np.array([1, 4, 8, 5]), np.array([0.2, 0.4, 0.5, 0.9])
    history = np.array([0.3, 0.5, 0.6, 0.7])
    groups = np.repeat(np.arange(4), n)
    rewards = rollouts_of(seen, n)
    for weight in ("trajectory", "prompt"):
        advantages = posterior_advantage(
            rewards, groups, history, history=8.0, prompt_weight=weight, rollouts_per_prompt=8
        )
        expected = np.bincount(groups, advantages * (rewards - p[groups]), 4)
        won, lost = group_gradient(seen, n, p, "cero", history, 8, weight=weight)
        np.testing.assert_allclose(won + lost, expected)


def test_grpo_gradient_by_hand():
    """2 of 4: mean 1/2, std sqrt(1/3); homogeneous groups and groups of one give nothing."""
    won, lost = group_gradient(
        np.array([2, 0, 8, 1]), np.array([4, 4, 8, 1]), np.full(4, 0.5), "grpo", np.full(4, 0.5), 8
    )
    assert won[0] + lost[0] == pytest.approx(4 * 0.5 / np.sqrt(1 / 3) * 0.5)
    assert (won[1:] + lost[1:] == 0).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_policies_learn(preset):
    curve = run(Contender("uniform", "uniform", "grpo"), preset, seed=1, **SMALL | {"epochs": 8})
    assert curve.accuracy[-1] > curve.accuracy[0] + 0.05
    assert curve.rollouts[-1] == 8 * 240 * 8
    assert all(0 <= share <= 1 for share in curve.signal)


def test_same_seed_same_curve_and_same_world_for_all():
    one, again = (run(Contender("cero", "cero"), "latent", 3, **SMALL) for _ in range(2))
    other = run(Contender("uniform", "uniform", "grpo"), "latent", 3, **SMALL)
    assert one == again
    assert one.accuracy[0] == other.accuracy[0] and one.rollouts == other.rollouts


def test_each_part_of_the_model_can_be_switched_off():
    still = World(rate_own=0, rate_skill=0, interference=0, forgetting=0)
    policy = Policy(still, 100, 0)
    before = policy.p.copy()
    policy.learn(np.arange(100), np.ones(100), np.zeros(100))
    np.testing.assert_equal(policy.p, before)

    alone = Policy(World(rate_skill=0, interference=0, forgetting=0), 100, 0)
    before = alone.p.copy()
    alone.learn(np.array([7]), np.ones(1), np.zeros(1))
    assert np.flatnonzero(alone.p != before).tolist() == [7]

    family = Policy(World(rate_own=0, interference=0, forgetting=0), 100, 0)
    before = family.p.copy()
    family.learn(np.array([7]), np.ones(1), np.zeros(1))
    assert (family.family[family.p != before] == family.family[7]).all()
    assert (family.p >= before).all()


def test_noisy_verifier_flips_rewards():
    policy = Policy(World(noise=0.1), 50, 0)
    n = np.full(50, 4000)
    won, seen = policy.sample(np.arange(50), n)
    np.testing.assert_allclose(seen / n, won / n * 0.9 + (1 - won / n) * 0.1, atol=0.02)


def curve(points, label="a", seed=0):
    return Curve(label, "latent", seed, [10 * i for i in range(len(points))], list(points), [0.5])


def test_area_and_reach():
    rising = curve([0.0, 0.5, 1.0])
    assert area(rising) == pytest.approx(0.5)
    assert reach(rising, 0.75) == pytest.approx(15)
    assert np.isnan(reach(rising, 1.1)) and reach(rising, 0.0) == 0


def test_summary_pairs_seeds():
    curves = [curve([0, 0.5, 0.8], "base", s) for s in (0, 1)] + [curve([0, 0.8, 0.9], "other", s) for s in (0, 1)]
    summary = summarise(curves, "base")
    assert summary["base"]["gain"][0] == 0 and summary["base"]["reach"] == pytest.approx(1)
    assert summary["other"]["gain"][0] == pytest.approx(0.175)
    assert summary["other"]["reach"] == pytest.approx(0.5)


def test_interval_covers():
    """Of 200 samples of 20 normals, the 95 % interval misses the mean in 2 % to 12 %: bootstraps run narrow."""
    rng = np.random.default_rng(0)
    misses = 0
    for _ in range(200):
        _, low, high = interval(rng.normal(size=20))
        misses += not low <= 0 <= high
    assert 4 <= misses <= 24


def test_unknown_contender():
    with pytest.raises(ValueError, match="nobody"):
        study(["nobody"], "latent", 1)


def test_command_line(tmp_path, capsys):
    arguments = ["simulate", "--prompts", "96", "--batch", "48", "--epochs", "2", "--seeds", "2", "--workers", "1"]
    main([*arguments, "--contenders", "uniform,cero", "--out", str(tmp_path / "s.png"), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert set(result["summary"]) == {"uniform", "cero"} and len(result["curves"]) == 4
    assert (tmp_path / "s.png").stat().st_size > 10_000
    main([*arguments, "--contenders", "uniform,cero", "--out", str(tmp_path / "s.png")])
    assert "Picture" in capsys.readouterr().out
