"""Prompt ids and the table behind them."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cero.core import prompts
from cero.core.prompts import PromptTable, as_prompt_ids, prompt_id


def table():
    return PromptTable({"seen": (np.int32, -1), "score": (np.float64, 0.5)})


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 50), max_size=60), max_size=8))
def test_behaves_like_a_dict(batches):
    tested, oracle = table(), {}
    for batch in batches:
        ids = np.array(batch, dtype=np.uint64)
        assert tested.rows(ids).tolist() == [oracle.get(i, -1) for i in batch]
        rows = tested.add(ids)
        for value in sorted(set(batch) - set(oracle)):
            oracle[value] = len(oracle)
        assert rows.tolist() == [oracle[i] for i in batch]
        assert len(tested) == len(oracle)
    if oracle:
        assert tested["id"].tolist() == list(oracle)
        assert (tested["seen"] == -1).all() and (tested["score"] == 0.5).all()


def test_growth_keeps_columns():
    tested = table()
    for start in range(0, 200_000, 20_000):
        ids = np.arange(start, start + 20_000, dtype=np.uint64)
        rows = tested.add(ids)  # first: a column fetched before is the one before growth
        tested["seen"][rows] = ids.astype(np.int32)
    ids = np.random.default_rng(0).permutation(200_000).astype(np.uint64)
    np.testing.assert_equal(tested["seen"][tested.rows(ids)], ids.astype(np.int32))
    assert tested.rows(ids + np.uint64(10**9)).max() == -1


def test_load_round_trip():
    tested, other = table(), table()
    rows = tested.add(np.array([7, 2**63, 9], np.uint64))
    tested["score"][rows] = [0.1, 0.2, 0.3]
    other.load(tested.columns())
    assert other["score"][other.rows(np.array([9, 7, 2**63], np.uint64))].tolist() == [0.3, 0.1, 0.2]
    other.add(np.array([1], np.uint64))
    assert len(tested) == 3 and len(other) == 4


def test_ids_are_content_and_lengths_count():
    assert prompt_id("ab", "c") != prompt_id("a", "bc") != prompt_id("abc")
    assert prompt_id("2+2", "4") == prompt_id(b"2+2", "4") == prompt_id("2+2", "4")
    assert prompt_id("2+2", "4") != prompt_id("2+2", "5")
    assert prompt_id("\ud800") == prompt_id("\ud800")  # lone surrogates happen in scraped text


def test_strings_keep_their_ids_between_versions():
    """A saved state must find its prompts again: this value may never change."""
    assert prompt_id("1+1=") == 6158372511001574006


def test_mixed_integer_types():
    assert as_prompt_ids([1, np.uint64(2**64 - 1)]).tolist() == [1, 2**64 - 1]
    assert as_prompt_ids(np.array(["a", "b"])).tolist() == [prompt_id("a"), prompt_id("b")]
    with pytest.raises(ValueError, match="prompt_ids"):
        as_prompt_ids([2**64])


@pytest.mark.parametrize(
    "ids, expected",
    [
        (list(np.array(["a", "b"])), [prompt_id("a"), prompt_id("b")]),
        (np.array(["a", "b"]), [prompt_id("a"), prompt_id("b")]),
        ([np.str_("a"), "b"], [prompt_id("a"), prompt_id("b")]),
        ([np.int32(1), 2, np.uint64(3)], [1, 2, 3]),
        ([np.array(7), np.array(8)], [7, 8]),
        (np.array([1, 2], object), [1, 2]),
        ([2**64 - 1], [2**64 - 1]),
        ((each for each in "ab"), [prompt_id("a"), prompt_id("b")]),
    ],
)
def test_ids_as_numpy_hands_them_out(ids, expected):
    assert as_prompt_ids(ids).tolist() == expected


@pytest.mark.parametrize(
    "ids",
    [
        "abc",
        b"abc",
        [True],
        [1.0],
        [None],
        ["a", 1],
        [[1], [2]],
        [2**64],
        [-1],
        [b"a"],
        [np.datetime64(1, "D")],
    ],
)
def test_what_is_no_sequence_of_ids(ids):
    with pytest.raises(ValueError, match="prompt_ids"):
        as_prompt_ids(ids)


@pytest.mark.parametrize("step", [1, 2**32, 2**63, 0x9E3779B97F4A7C15, 0xF1DE83E19937733D, 1 << 44], ids=hex)
def test_ids_in_any_arithmetic_progression_spread(step):
    """The last but one is the multiplier's inverse: before ids were mixed, these shared one run of slots."""
    ids = np.arange(1, 20_001, dtype=np.uint64) * np.uint64(step)
    ids = np.unique(ids)
    table = PromptTable({})
    table.add(ids)
    home = table._home(ids)
    # Of n balls in m bins the fullest has a handful; clustered ones had thousands next to each other.
    _, load = np.unique(home, return_counts=True)
    assert load.max() <= 12
    assert (table.rows(ids) >= 0).all()


def test_ids_made_to_share_a_slot_spread():
    """The mixing can be inverted by whoever reads it, but for the table's own key.

    Without the key these ids had one slot, and the time was quadratic: see scripts/reliability/ids.py.
    """
    inverse = np.uint64(pow(int(prompts._MULTIPLIER), -1, 2**64))
    ids = np.arange(20_000, dtype=np.uint64)  # as the mixing has them, all in slot 0
    for _ in range(2):
        ids = ids * inverse
        ids ^= ids >> prompts._FOLD
    table, other = PromptTable({}), PromptTable({})
    rows = table.add(ids)
    assert np.bincount(table._home(ids)).max() <= 12
    np.testing.assert_array_equal(other.add(ids), rows)  # rows don't depend on the key
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(table)).rows(ids), rows)


class Frame:
    """Iterates over the names of its columns, as a data frame does."""

    ndim, shape = 2, (3, 1)

    def __iter__(self):
        return iter(["id"])


@pytest.mark.parametrize(
    "ids",
    [bytearray(b"ab"), memoryview(b"ab"), np.ma.array([1, 2], mask=[False, True]), Frame(), [10**5000]],
    ids=["bytearray", "memoryview", "masked", "a data frame", "too large to be written"],
)
def test_what_would_be_read_as_other_ids_is_refused(ids):
    with pytest.raises(ValueError, match="prompt_ids"):
        as_prompt_ids(ids)


@pytest.mark.parametrize("part", [5, True, None, 1.5, ["a"], np.array([1, 2])], ids=repr)
def test_a_part_of_a_prompt_is_text_or_bytes(part):
    """Of the number 5 Python makes five zero bytes."""
    with pytest.raises(ValueError, match="is neither str nor bytes"):
        prompt_id("q", part)
    assert prompt_id(bytearray(b"a")) == prompt_id(memoryview(b"a")) == prompt_id(np.str_("a"))


@pytest.mark.parametrize("unit", ["D", "s", "ns"])
@pytest.mark.parametrize("kind", ["M8", "m8"])
def test_dates_are_no_ids(unit, kind):
    """Of nanoseconds NumPy's lists hold plain integers."""
    with pytest.raises(ValueError, match="prompt_ids holds (datetime64|timedelta64)"):
        as_prompt_ids(np.array([5], f"{kind}[{unit}]"))
