"""Is an option's value one that can be used? Each check returns the value, or says what would be."""

import math

import numpy as np


def check_number(key, value, low, high, *, integer=False, open_low=False):
    """Return `value` if it is a finite number in [low, high] ((low, high] with `open_low`), else raise ValueError."""
    kind = "an integer" if integer else "a number"
    interval = f"{'(' if open_low else '['}{low}, {high}]"
    fits = isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
    if fits and integer:
        fits = value == int(value)
    if not fits or value < low or value > high or (open_low and value == low):
        raise ValueError(f"{key}={value!r} must be {kind} in {interval}")
    return int(value) if integer else float(value)


def check_choice(key, value, choices):
    """Return `value` if it is one of `choices`, else raise ValueError naming them."""
    if value not in choices:
        raise ValueError(f"{key}={value!r} is not known; choose one of {', '.join(map(str, choices))}")
    return value
