"""Skill and response=auto: by hand, under exact and empty knowledge, and what a run does with it."""

import numpy as np
import pytest

from cero import make_allocator
from cero.allocators.cero import FULL_RESPONSE, FULL_SKILL
from cero.allocators.skill import FADING, Skill


def test_by_hand():
    skill = Skill()
    assert skill.value == 0.0
    # Two prompts, one rollout each: 1/2 and 1/4 on either side of the means.
    skill.observe(np.array([0.25, 0.75]), np.array([0.0, 1.0]), np.array([1, 1]))
    assert skill.scalars() == {"skill_came": 1 / 2, "skill_expected": 1 / 8, "skill_both": 1 / 4}
    assert skill.value == pytest.approx(1.0)
    # The second step is as wrong as the first was right, and counts more.
    skill.observe(np.array([0.25, 0.75]), np.array([1.0, 0.0]), np.array([1, 1]))
    assert skill.scalars() == {
        "skill_came": pytest.approx(FADING / 2 + 1 / 2),
        "skill_expected": pytest.approx(FADING / 8 + 1 / 8),
        "skill_both": pytest.approx(FADING / 4 - 1 / 4),
    }
    assert skill.value == 0.0


def test_it_is_the_squared_correlation():
    rng = np.random.default_rng(2)
    trials, expected = rng.integers(1, 9, 50), rng.random(50)
    successes = rng.binomial(trials, 0.2 + 0.5 * expected).astype(float)
    covariance = np.cov(expected, successes / trials, fweights=trials)
    skill = Skill()
    skill.observe(expected, successes, trials)
    assert skill.value == pytest.approx(covariance[0, 1] ** 2 / covariance[0, 0] / covariance[1, 1])
    assert 0.1 < skill.value < 0.9


def test_neither_level_nor_scale_counts():
    """A policy that has learned lifts all prompts, and hard ones more, so that they differ less."""
    came = np.array([1.0, 3.0, 0.0]), np.array([4, 4, 1])
    expected = np.array([0.2, 0.6, 0.5])
    first, lifted = Skill(), Skill()
    first.observe(expected, *came)
    lifted.observe(0.7 + expected / 4, *came)
    assert lifted.value == pytest.approx(first.value) and 0 < first.value < 1


def test_exact_knowledge_has_the_share_of_the_variance_between_prompts():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 1, 20_000)
    came = (rng.random(p.size) < p).astype(float)
    for expected, skill in ((p, (1 / 12) / (1 / 4)), (np.full(p.size, 0.5), 0.0), (1 - p, 0.0)):
        judged = Skill()
        judged.observe(expected, came, np.ones(p.size, int))
        assert judged.value == pytest.approx(skill, abs=0.01)


def test_nothing_and_one_prompt():
    skill = Skill()
    skill.observe(np.zeros(0), np.zeros(0), np.zeros(0, int))
    skill.observe(np.array([0.5]), np.array([1.0]), np.array([1]))
    assert skill.value == 0.0


def run(visits, p, **options):
    """Play a run in which each step visits every prompt; returns (allocator, rollouts of each step)."""
    rng = np.random.default_rng(1)
    allocator = make_allocator("cero", rollouts_per_prompt=1, epochs=visits, **options)
    ids, given = np.arange(p.size), []
    for _ in range(visits):
        n = allocator.allocate(ids, p.size)
        given.append(n)
        allocator.observe(ids, rng.binomial(n, p), n)
    return allocator, given


def test_it_starts_even_and_acts_once_it_predicts():
    p = np.repeat([0.02, 0.98], 60)
    allocator, given = run(12, p, response="auto")
    assert (given[0] == 1).all() and (given[1] == 1).all()  # nothing to go by yet
    assert given[-1].std() > 0.3
    metrics = allocator.metrics()
    assert metrics["dual/response"] == FULL_RESPONSE and metrics["posterior/skill"] >= FULL_SKILL
    fixed = run(12, p, response=2.0)[0].metrics()  # the skill is always there to be seen
    assert fixed["posterior/skill"] > 0 and "dual/response" not in fixed


def test_it_stays_nearly_even_where_there_is_nothing_to_predict():
    p = np.full(400, 0.5)
    auto, always = (run(12, p, response=response)[1] for response in ("auto", 4.0))
    assert auto[-1].std() < 0.3 * always[-1].std()


def test_bang_bang_needs_no_skill():
    """It takes all it can whatever the response; the duals' steps are those of the full one."""
    p = np.linspace(0.01, 0.99, 50)
    both = [run(6, p, response=response, primal="bang_bang")[1] for response in ("auto", FULL_RESPONSE)]
    np.testing.assert_array_equal(*both)


def test_at_full_skill_it_is_the_number(monkeypatch):
    p = np.linspace(0.01, 0.99, 50)
    monkeypatch.setattr(Skill, "value", property(lambda self: 1.0))
    for one, other in zip(run(6, p, response="auto")[1], run(6, p, response=FULL_RESPONSE)[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_half_the_full_skill_is_a_quarter_of_the_response(monkeypatch):
    monkeypatch.setattr(Skill, "value", property(lambda self: FULL_SKILL / 2))
    allocator, _ = run(2, np.linspace(0.01, 0.99, 50), response="auto")
    assert allocator.metrics()["dual/response"] == pytest.approx(FULL_RESPONSE / 4)


def test_a_saved_run_goes_on_as_it_would_have():
    p = np.linspace(0.01, 0.99, 50)
    one, _ = run(5, p, response="auto")
    other = make_allocator("cero", rollouts_per_prompt=1, epochs=5, response="auto")
    other.load_state_dict(one.state_dict())
    for allocator in (one, other):
        allocator.more = allocator.allocate(np.arange(50), 50)
    np.testing.assert_array_equal(one.more, other.more)
    assert one.metrics() == other.metrics()


def test_a_run_goes_on_with_auto_that_began_without():
    """The skill is kept whatever the response is; only states of earlier versions lack it."""
    p = np.linspace(0.01, 0.99, 50)
    fixed, _ = run(5, p, response=4.0)
    state = fixed.state_dict()
    auto = make_allocator("cero", rollouts_per_prompt=1, epochs=5, response="auto")
    auto.load_state_dict(state)
    assert auto.metrics()["posterior/skill"] == fixed.metrics()["posterior/skill"] > 0
    older = state | {"scalars": {k: v for k, v in state["scalars"].items() if not k.startswith("skill")}}
    auto.load_state_dict(older)
    assert auto.metrics()["posterior/skill"] == 0
    with pytest.raises(ValueError, match="needs"):
        auto.load_state_dict(state | {"scalars": state["scalars"] | {"more": 1.0}})
    with pytest.raises(ValueError, match="skill_came"):
        auto.load_state_dict(state | {"scalars": state["scalars"] | {"skill_came": -1.0}})


@pytest.mark.parametrize("lost", sorted(Skill.ranges))
def test_a_state_that_lost_a_part_of_the_skill_is_refused(lost):
    allocator, _ = run(5, np.linspace(0.01, 0.99, 50))
    state = allocator.state_dict()
    state["scalars"] = {name: value for name, value in state["scalars"].items() if name != lost}
    before = allocator.metrics()
    with pytest.raises(ValueError, match=f"needs .*{lost}"):
        allocator.load_state_dict(state)
    assert allocator.metrics() == before


def test_refused():
    with pytest.raises(ValueError, match=r"response \(a number, or auto\)='often' must be a number"):
        make_allocator("cero", rollouts_per_prompt=1, epochs=1, response="often")
