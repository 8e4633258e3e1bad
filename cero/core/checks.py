"""Is an option's value one that can be used? Each check returns the value, or says what would be."""

import math
import numbers
from collections.abc import Collection
from decimal import Decimal
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")
MOST_SAVED = 2**30  # of a count in a saved state: what follows still fits the columns' 32 bits
FLOAT32_ROUNDING = 2.0**-23  # of 1: trainers keep rewards in single precision


@overload
def check_number(
    key: str, value: Any, low: float, high: float, *, integer: Literal[True], open_low: bool = False
) -> int: ...


@overload
def check_number(
    key: str, value: Any, low: float, high: float, *, integer: Literal[False] = False, open_low: bool = False
) -> float: ...


def check_number(
    key: str, value: Any, low: float, high: float, *, integer: bool = False, open_low: bool = False
) -> float:
    """Return `value` as a float, or as an int with `integer`, if it is a number in the interval.

    >>> check_number("n_max", 32, 1, 64, integer=True)
    32
    >>> check_number("forgetting", 0, 0, 1, open_low=True)
    Traceback (most recent call last):
        ...
    ValueError: forgetting=0 must be a number in (0, 1]

    Parameters
    ----------
    key : the option's name, for the message
    low, high : the interval's ends, both inside; with `open_low`, `low` is outside
    integer : whether only whole numbers will do

    Raises
    ------
    ValueError
        If `value` is no number, not finite, not whole with `integer`, or outside the interval.
    """
    kind = "an integer" if integer else "a number"
    interval = f"{'(' if open_low else '['}{low}, {high}]"
    kinds = int | float | np.integer | np.floating
    fits = isinstance(value, kinds) and not isinstance(value, bool | np.timedelta64)
    try:
        fits = fits and math.isfinite(value)
    except OverflowError:  # an integer beyond floats
        fits = False
    if fits and integer:
        fits = value == int(value)
    if not fits or value < low or value > high or (open_low and value == low):
        raise ValueError(f"{key}={shown(value)} must be {kind} in {interval}")
    return int(value) if integer else float(value)


def is_whole(value: Any) -> bool:
    """Return whether `value` is a whole number of any real kind; truth values and spans of time are none.

    >>> [is_whole(value) for value in (3, 3.0, np.int8(3), 3.5, float("nan"), True, "3", [3])]
    [True, True, True, False, False, False, False, False]
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    kinds = (numbers.Real, Decimal)
    if not isinstance(value, kinds) or isinstance(value, (bool, np.timedelta64)):  # type: ignore[unreachable]
        return False
    try:
        return bool(value == int(value))  # type: ignore[arg-type]
    except (ValueError, OverflowError):  # nan, infinite
        return False


def shown(value: Any) -> str:
    """Return a value as Python writes it, for a message: its first 80 characters."""
    try:
        return repr(value)[:80]
    except ValueError:  # Python does not write integers of thousands of digits
        return "an integer of thousands of digits"


def as_numbers(key: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as a float64 array.

    Raises ValueError, naming `key`, if they are no numbers: words, truth values, dates, masked values, or
    nothing at all.
    """
    try:
        array = np.asarray(values)
        if array.dtype == object and array.size:
            kinds = {type(each) for each in array.ravel().tolist()}
            good = all(
                issubclass(kind, numbers.Real | Decimal) and not issubclass(kind, bool | np.timedelta64)
                for kind in kinds
            )
        else:
            good = array.dtype.kind in "iuf" or not array.size
        if isinstance(values, list | tuple):  # NumPy takes a truth value among numbers for 0 or 1
            good = good and not any(isinstance(each, bool | np.bool_) for each in values)
        good = good and not np.ma.is_masked(values)  # nor does the mask go into the array
        if good:
            return array.astype(np.float64)
        first = shown(array.ravel().tolist()[:3])
    except (ValueError, TypeError, OverflowError, RuntimeError):
        # Lists of several lengths, integers beyond a float, tensors that belong to a graph.
        first = shown(values)
    raise ValueError(f"{key}={first} must be numbers")


def at_ends(values: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """Return `values` as float64, those within single precision's rounding of an end being that end.

    A trainer that keeps rewards in single precision hands back 1.1 as 1.100000023841858 and 0.7 as
    0.699999988079071. The rounding is that of the greater end in size, 2**-23 of it.

    >>> at_ends([np.float32(1.1), 0.5, 1.2], 0.0, 1.1)
    array([1.1, 0.5, 1.2])
    """
    result = np.array(values, np.float64)
    rounding = FLOAT32_ROUNDING * max(abs(low), abs(high))
    for end in (low, high):
        result[np.abs(result - end) <= rounding] = end
    return result


def check_choice(key: str, value: T, choices: Collection[Any]) -> T:
    """Return `value` if it is one of `choices`, NumPy's own text or truth value as Python's.

    Raise ValueError, naming them, if it is not.
    """
    try:
        hash(value)  # an array of one word is no word
        known = value in choices and not isinstance(value, complex | np.complexfloating)  # 1 + 0j equals 1
    except (TypeError, ValueError, ArithmeticError):  # what can't be hashed or compared is no choice
        known = False
    if not known:
        raise ValueError(f"{key}={shown(value)} is not known; choose one of {', '.join(map(str, choices))}")
    # States are kept as JSON, which has no values of NumPy.
    return value.item() if isinstance(value, np.generic) else value
