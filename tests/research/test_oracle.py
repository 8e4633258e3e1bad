"""The oracle: it goes by true success probabilities, within the budget, and nothing of the product has it."""

import numpy as np
import pytest

from cero.allocators import available_allocators
from cero.research.oracle import VALUES, Oracle
from cero.research.simulation.experiments import run_experiments, summarise_methods
from cero.research.simulation.methods import parse_method
from cero.research.simulation.training import simulate

P = np.array([0.0, 0.1, 0.5, 0.5, 0.9, 1.0])


def oracle(p=P, families=None, rollouts_per_prompt=1, seed=0, **options):
    made = Oracle(rollouts_per_prompt=rollouts_per_prompt, epochs=1, seed=seed, **options)
    made.truth = lambda ids: np.asarray(p)[ids.astype(np.int64)]
    if families is not None:
        made.labels = {"family": lambda ids: np.asarray(families)[ids.astype(np.int64)]}
    return made


def given(allocator, prompts, budget, times=1):
    """The mean rollouts of each prompt over `times` steps."""
    return np.mean([allocator.allocate(range(prompts), budget) for _ in range(times)], axis=0)


def test_it_is_no_allocator_of_the_product():
    assert Oracle.name == "oracle" and "oracle" not in available_allocators()


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES)
def test_rollouts_are_in_proportion_to_the_value(value):
    """Systematic rounding is unbiased: means over many steps are the real-valued shares."""
    worth = VALUES[value](P)
    found = given(oracle(value=value), 6, 6, times=1000)
    np.testing.assert_allclose(found, 6 * worth / worth.sum(), atol=0.06)


def test_values_by_hand():
    assert [float(VALUES[value](np.array(0.2))) for value in VALUES] == pytest.approx([0.16, 0.4, 0.128, 0.2])


def test_the_order_of_prompts_does_not_matter():
    one = oracle(pick="top", n_max=1).allocate([2, 0, 5, 3], 2)
    assert one.tolist() == [1, 0, 0, 1]


@pytest.mark.slow
def test_top_takes_the_most_valuable():
    assert given(oracle(pick="top"), 6, 2).tolist() == [0, 0, 1, 1, 0, 0]
    assert given(oracle(pick="top", each=2), 6, 4).tolist() == [0, 0, 2, 2, 0, 0]
    # All at random: each prompt with the same chance.
    np.testing.assert_allclose(given(oracle(pick="top", at_random=1.0), 6, 2, times=1000), 1 / 3, atol=0.06)
    # Half at random: of two picks one is a prompt of 0.5, or both are.
    half = given(oracle(pick="top", at_random=0.5), 6, 2, times=500)
    assert half.sum() == pytest.approx(2) and half[2] > 0.5 > half[1] > 0.1


@pytest.mark.slow
def test_within_strata_every_stratum_keeps_its_share():
    """12 prompts of three families, 6, 4 and 2 of them; 6 picks are 3, 2 and 1, the best of each."""
    families = np.repeat([0, 1, 2], [6, 4, 2])
    p = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.01, 0.02])
    picked = oracle(p, families, pick="top", strata="family").allocate(range(12), 6)
    assert np.flatnonzero(picked).tolist() == [0, 1, 2, 8, 9, 11]
    shared = given(oracle(p, families, strata="family"), 12, 6, times=600)
    assert np.bincount(families, shared) == pytest.approx([3, 2, 1], abs=1e-9)
    assert shared[11] / shared[10] == pytest.approx(0.0196 / 0.0099, rel=0.3)
    # Shares that are no whole numbers are rounded at random, without bias.
    quarter = given(oracle(p, families, pick="top", strata="family"), 12, 3, times=800)
    assert np.bincount(families, quarter) == pytest.approx([1.5, 1, 0.5], abs=0.1)


def test_noise_costs_value_and_no_noise_none():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.5, 400)
    worth = p * (1 - p)
    found = []
    for noise in (0, 1, 3, 30):
        counts = given(oracle(p, pick="top", noise=noise), 400, 100, times=20)
        found.append(float((worth * counts).sum() / counts.sum() / worth.mean()))
    assert found[0] == pytest.approx(np.sort(worth)[-100:].mean() / worth.mean())
    assert found == sorted(found, reverse=True) and found[-1] < 1.4 < found[1]


def test_what_it_refuses():
    with pytest.raises(ValueError, match="each prompt once"):
        oracle().allocate([1, 1], 2)
    with pytest.raises(ValueError, match="can't be 2 rollouts each"):
        oracle(pick="top", each=2).allocate([1, 2], 3)
    with pytest.raises(ValueError, match="must be 0 with pick=top"):
        oracle(pick="top", n_min=1)
    for option in ({"value": "luck"}, {"pick": "best"}, {"strata": "length"}, {"noise": -1}):
        with pytest.raises(ValueError, match=next(iter(option))):
            oracle(**option)


@pytest.mark.slow
def test_in_the_simulator():
    """It spends the same budget, knows what is true there, and its share of itself is 1."""
    method = parse_method("oracle/value=deviation/strata=family")
    assert method.allocator == "oracle" and method.options == {
        "n_min": 0, "value": "deviation", "strata": "family"
    }  # fmt: skip
    size = {"prompts": 240, "epochs": 4, "batch": 48}
    curve = simulate(method, "latent", 1, **size)
    assert curve.rollouts == simulate(parse_method("uniform"), "latent", 1, **size).rollouts
    with pytest.raises(ValueError, match="'luck' is no option of 'oracle'"):
        parse_method("oracle/luck=1")
    curves = run_experiments(["even+posterior", "oracle", "cero"], ["latent"], [8], 3, workers=1, **size)
    # The oracle's runs are shifted up, so that there is a ceiling.
    for each in curves:
        if each.label == "oracle":
            each.accuracy = [accuracy + 0.1 for accuracy in each.accuracy]
    summary = summarise_methods(curves)
    assert str(summary["even+posterior"]["share"]) == "-"
    assert summary["oracle"]["share"] == pytest.approx((1.0, 0.0), abs=1e-12)
    assert abs(summary["cero"]["share"].value) < 0.5
    assert str(summarise_methods(curves[:3])["even+posterior"]["share"]) == "-"
    # A run that ends early is compared over what both have spent, as its gain is.
    for each in curves:
        if each.label == "cero":
            each.accuracy = [accuracy + 0.05 for accuracy in each.accuracy[:-3]]
            each.rollouts = each.rollouts[:-3]
    summary = summarise_methods(curves)
    assert summary["cero"]["gain"][0] > 0 and summary["cero"]["share"].value > 0
