"""What is a number, and what is one in single precision."""

import math
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from cero.core.checks import as_numbers, at_ends, check_choice, check_number, is_whole


@pytest.mark.parametrize(
    "values",
    [[1, 2], [1.5], np.array([3], np.int8), np.array([1, Decimal("2.5")], object), [], [np.float32(1)]],
)
def test_numbers(values):
    assert as_numbers("trials", values).dtype == np.float64


@pytest.mark.parametrize(
    "values",
    [
        ["1"],
        [True],
        np.array([True]),
        [None],
        ["a"],
        [b"1"],
        np.array(["2020"], "M8[Y]"),
        [[1], [1, 2]],
        [1j],
    ],
    ids=repr,
)
def test_no_numbers(values):
    with pytest.raises(ValueError, match="trials|inhomogeneous"):
        as_numbers("trials", values)


def test_single_precision_at_the_ends():
    low, high = -0.3, 1.1
    values = [np.float32(low), np.float32(high), 1.1 + 1e-7, 1.1 + 1e-6, 0.5]
    assert at_ends(values, low, high).tolist() == [low, high, high, 1.1 + 1e-6, 0.5]


HUGE = 10**400  # beyond floats; 10**5000 is beyond what Python writes
ODD = [
    HUGE,
    -HUGE,
    10**5000,
    1j,
    np.complex64(1),
    np.timedelta64(1, "D"),
    np.datetime64("NaT"),
    None,
    "1",
    b"1",
]
ODD += [True, np.bool_(True), [1], np.array([1, 2]), np.array([]), Decimal("2"), math.nan, -math.inf, object]


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_refused_with_its_key(value):
    for integer in (True, False):
        with pytest.raises(ValueError, match="key=.* must be a") as refusal:
            check_number("key", value, -math.inf, math.inf, integer=integer)
        assert len(str(refusal.value)) < 140


@pytest.mark.parametrize("value", [np.float32(1.1), np.int8(3), np.uint64(2**64 - 1), 1e308], ids=repr)
def test_numbers_of_any_size_are_taken_without_a_warning(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_number("key", value, -math.inf, math.inf) == float(value)


def test_whole_numbers():
    for value in (0, -3, 3.0, np.int8(3), np.float32(4), np.array(3), Decimal("2"), Fraction(4, 2), HUGE):
        assert is_whole(value)
    for value in (2.5, math.nan, math.inf, Decimal("1.5"), Decimal("NaN"), Decimal("sNaN"), Fraction(1, 3)):
        assert not is_whole(value)
    for value in (
        True,
        np.bool_(True),
        None,
        "3",
        [3],
        np.array([3]),
        np.timedelta64(3, "D"),
        3 + 0j,
        object,
    ):
        assert not is_whole(value)


@pytest.mark.parametrize(
    "value",
    [[HUGE], [1, [2]], [np.timedelta64(1, "D")], {"a": 1}, object(), np.timedelta64(1), range],
    ids=lambda value: type(value).__name__,
)
def test_no_numbers_are_refused_with_their_key(value):
    with pytest.raises(ValueError, match="trials=.* must be numbers"):
        as_numbers("trials", value)


@pytest.mark.parametrize(
    "value",
    [np.array(["exp"]), np.array([]), ["exp"], Decimal("sNaN"), {}, HUGE, 1 + 0j, np.complex64(1)],
    ids=repr,
)
def test_what_is_no_choice(value):
    for choices in (("exp", "log", 1.0), {"exp": 1}):
        with pytest.raises(ValueError, match="utility=.* is not known"):
            check_choice("utility", value, choices)


class Graph:
    """Refuses to become an array, as PyTorch's tensors that require a gradient do."""

    def __array__(self, *_, **__):
        raise RuntimeError("call detach() first")


@pytest.mark.parametrize(
    "values",
    [[True, 2], (1, np.bool_(False)), np.ma.array([1, 2], mask=[False, True]), Graph()],
    ids=["truth among numbers", "NumPy's truth", "masked", "of a graph"],
)
def test_numbers_that_numpy_would_make_of_something_else_are_refused(values):
    with pytest.raises(ValueError, match="trials=.* must be numbers"):
        as_numbers("trials", values)
    assert as_numbers("trials", np.ma.array([1, 2], mask=False)).tolist() == [1.0, 2.0]


def test_choices_of_numpy_become_pythons_own():
    """States are JSON, which has no others."""
    assert check_choice("warm_start", np.bool_(True), (True, False)) is True
    assert type(check_choice("utility", np.str_("exp"), ("exp", "log"))) is str
