"""What is a number, and what is one in single precision."""

from decimal import Decimal

import numpy as np
import pytest

from cero.core.checks import as_numbers, at_ends


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
