"""What an allocator holds that knows of prompts: by hand, and by itself."""

import numpy as np
import pytest

from cero import make_allocator
from cero.allocators.beliefs import Beliefs
from cero.core.prompts import PromptTable

IDS = np.arange(3, dtype=np.uint64)


def test_counts_are_kept_in_the_table_it_was_given():
    table = PromptTable({"allocated": (np.int32, 0)})
    beliefs = Beliefs(table, forgetting=0.5, prior_a=1.0, prior_b=3.0)
    rows = table.add(IDS)
    assert table.names == ["id", "allocated", "successes", "failures"]
    beliefs.observe(rows[:2], np.array([4.0, 1.5]), np.array([4, 2]))
    beliefs.observe(rows[:1], np.array([0.0]), np.array([2]))
    a, b = beliefs.parameters(rows)
    assert a.tolist() == [1 + 0.5 * 4, 1 + 1.5, 1] and b.tolist() == [3 + 2, 3 + 0.5, 3]
    means = beliefs.mean(np.array([0, 1, 2, -1]))
    np.testing.assert_allclose(means, [3 / 8, 2.5 / 6, 1 / 4, 1 / 4])


def test_pass_rates_add_prompts_and_count_as_rollouts():
    table = PromptTable({})
    beliefs = Beliefs(table)
    beliefs.set_pass_rates(IDS, [0.25, np.nan, 1.0], strength=4.0)
    assert table["id"].tolist() == [0, 2]
    np.testing.assert_allclose(beliefs.mean(table.rows(IDS)), [2 / 6, 1 / 2, 5 / 6])


def test_scalars_take_it_up_where_it_was():
    table = PromptTable({})
    one, other = Beliefs(table, forgetting="auto", prior="pooled"), Beliefs(PromptTable({}), prior="pooled")
    rows = table.add(IDS)
    for trials in (4, 8):
        one.observe(rows, np.array([0.0, 1.0, 2.0]), np.full(3, trials))
    other.load_scalars(one.scalars())
    assert other.scalars() == one.scalars() and other.prior_parameters() == one.prior_parameters()
    assert other.retention() == one.retention()


def test_a_table_has_each_column_once():
    table = PromptTable({"successes": (np.int32, 0)})
    with pytest.raises(ValueError, match="already has a column 'successes'"):
        Beliefs(table)


def test_columns_that_are_added_later_hold_their_value_for_prompts_that_are_there():
    table = PromptTable({})
    table.add(IDS)
    table.add_columns({"weight": (np.float32, 1.5)})
    table.add(np.arange(5, dtype=np.uint64))
    assert table["weight"].tolist() == [1.5] * 5 and table["weight"].dtype == np.float32
    copy = PromptTable({"weight": (np.float32, 0.0)})
    copy.load(table.columns())
    assert copy["weight"].tolist() == [1.5] * 5


@pytest.mark.parametrize("name", ["aero", "reinforce_ada_seq", "vigor", "pilot_commit"])
def test_rules_that_ignore_them_hold_them_at_their_defaults(name):
    """For the advantage `posterior`, which asks every allocator for `success_mean`."""
    beliefs = make_allocator(name, rollouts_per_prompt=8, epochs=3).beliefs
    assert (beliefs.forgetting, beliefs.forgetting_unit, beliefs.prior) == (0.7, "visit", "fixed")
    assert beliefs.prior_parameters() == (1.0, 1.0)
    with pytest.raises(ValueError, match="forgetting=0.9 is no option"):
        make_allocator(name, rollouts_per_prompt=8, epochs=3, forgetting=0.9)


def test_the_price_of_a_rollout_is_no_belief():
    """`value` prices rollouts; without it, the metric is E[p (1-p)]."""
    figures = {}
    for name, options in (("cero", {"value": "signal"}), ("gdro", {})):
        allocator = make_allocator(name, rollouts_per_prompt=8, epochs=3, forgetting=1.0, **options)
        allocator.begin(IDS, 24)
        figures[name] = allocator.metrics()["posterior/value"]
    assert figures["gdro"] == pytest.approx(1 / 6)  # under Beta(1, 1)
    assert figures["cero"] == pytest.approx(1 - 2 / 9)
