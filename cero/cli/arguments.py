"""How do words of the command line become values? Types for argparse, which refuse what is none.

The commands of this package use them, and so do scripts and examples.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable


def words(text: str) -> list[str]:
    """Return a comma list of words as a list of str; of a word that is given twice, the first."""
    return list(dict.fromkeys(text.split(",")))


def words_of(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return the type of a comma list of some of `names`."""
    names = list(names)

    def chosen(text: str) -> list[str]:
        for word in words(text):
            if word not in names:
                raise ArgumentTypeError(f"{word!r} is not known; there are {', '.join(names)}")
        return words(text)

    return chosen


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of a whole number that is `least` or more."""

    def whole(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or int(text) < least:
            raise ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
        return int(text)

    return whole


at_least_zero, at_least_one = at_least(0), at_least(1)


def numbers(text: str) -> list[int]:
    """Return a comma list of distinct whole numbers, each 0 or more. Raises ArgumentTypeError."""
    return list(dict.fromkeys(at_least_zero(word) for word in words(text)))


def counts(text: str) -> list[int]:
    """Return a comma list of distinct whole numbers, each 1 or more. Raises ArgumentTypeError."""
    return list(dict.fromkeys(at_least_one(word) for word in words(text)))


def above_zero(text: str) -> float:
    """Return a number above 0; `inf` is one. Raises ArgumentTypeError."""
    value = _number(text)
    if not value > 0:
        raise ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def zero_or_more(text: str) -> float:
    """Return a number that is 0 or more, such as a time to begin something in; `inf` is one.

    Raises ArgumentTypeError.
    """
    value = _number(text)
    if not value >= 0:
        raise ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return value


def share(text: str) -> float:
    """Return a number from 0 to 1. Raises ArgumentTypeError."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def inner_share(text: str) -> float:
    """Return a number between 0 and 1, the ends excluded. Raises ArgumentTypeError."""
    value = _number(text)
    if not 0 < value < 1:
        raise ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def _number(text: str) -> float:
    """Return the number that `text` says; nan, which lies in no range, if it says none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
