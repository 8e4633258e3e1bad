"""Which questions are asked, what is their right answer, and which slip competes with it?

A *family* is one operation on a short string with one fixed number or letter in it, such as "turn by 2"; its
questions run over random strings of the letters a to h. Every family has two procedures: the right one and a
plausible *slip* (the wrong direction, the wrong end, only the first occurrence, ...). Which of the two writes
down something in parentheses first differs from kind to kind, so there is no single habit to learn, such as
showing one's working, that helps everywhere. Only questions on which the two differ are asked, so following
the slip is always wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

import numpy as np

ALPHABET = "abcdefgh"
LENGTHS = (4, 5, 6)
HARDER = 0.6  # what each further letter costs the right procedure, in log-odds: long strings are harder
SPREAD = 6.0  # the largest family has this many times the questions of the smallest

Procedure = Callable[[str, int | str], tuple[str, str]]  # of a string and the constant: (working, answer)


@dataclass(frozen=True)
class Kind:
    """An operation on (string, constant). Working that is "" is not written."""

    name: str  # the word that the model reads, too
    right: Procedure
    slip: Procedure
    does: str
    slip_does: str
    constants: tuple[int | str, ...]  # one family each

    def fits(self, s: str, c: int | str) -> bool:
        """Return whether the operation has a meaning on `s`: positions exist, letters occur."""
        return c <= len(s) if isinstance(c, int) else c in s


def _further(s: str, k: int, by: int) -> str:
    return s[: k - 1] + ALPHABET[(ALPHABET.index(s[k - 1]) + by) % len(ALPHABET)] + s[k:]


def _swap(s: str, i: int, j: int) -> str:
    letters = list(s)
    letters[i], letters[j] = letters[j], letters[i]
    return "".join(letters)


def _all(s: str, c: str) -> str:
    return c * s.count(c)


POSITIONS, LETTERS = (1, 2, 3, 4), tuple("abcd")

KINDS = (
    Kind("next", lambda s, k: ("", _further(s, k, 1)), lambda s, k: ("", _further(s, k, -1)),
         "the k-th letter becomes the next one in a..h, round", "the one before", POSITIONS),
    Kind("turn", lambda s, k: (s[:k], s[k:] + s[:k]), lambda s, k: (s[-k:], s[-k:] + s[:-k]),
         "the first k letters go to the end", "the last k go to the front", POSITIONS),
    Kind("mirror", lambda s, k: (s[:k], s[:k][::-1] + s[k:]), lambda s, k: ("", s[:-k] + s[-k:][::-1]),
         "reverse the first k letters", "the last k", (2, 3, 4, 5)),
    Kind("rank", lambda s, k: ("".join(sorted(s)), sorted(s)[k - 1]), lambda s, k: ("", s[k - 1]),
         "the k-th letter in alphabetical order", "the k-th as written", POSITIONS),
    Kind("sort", lambda s, k: (s[:k], "".join(sorted(s[:k])) + s[k:]), lambda s, k: ("", "".join(sorted(s))),
         "sort the first k letters", "sorts all", (2, 3, 4, 5)),
    Kind("swap", lambda s, k: ("", _swap(s, k - 1, -1)), lambda s, k: (s[0], _swap(s, k - 1, 0)),
         "the k-th letter and the last change places", "the k-th and the first", POSITIONS),
    Kind("cut", lambda s, k: ("", s[: k - 1] + s[k:]), lambda s, k: ("", s[:-k] + s[len(s) - k + 1 :]),
         "without the k-th letter", "counts from the end", POSITIONS),
    Kind("drop", lambda s, c: (_all(s, c), s.replace(c, "")), lambda s, c: ("", s.replace(c, "", 1)),
         "without any c", "drops only the first", LETTERS),
    Kind("count", lambda s, c: (_all(s, c), str(s.count(c))),
         lambda s, c: (s[: s.index(c)], str(s.index(c) + 1)),
         "how many c there are", "where the first is", LETTERS),
    Kind("move", lambda s, c: (_all(s, c), s.replace(c, "") + _all(s, c)),
         lambda s, c: ("", _all(s, c) + s.replace(c, "")),
         "all c go to the end", "to the front", LETTERS),
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One kind with its constant, how often the warm start shows its right procedure, how common it is."""

    name: str
    kind: Kind
    c: int | str
    share: float  # in (0, 1), for strings of the middle length
    weight: float  # its part of the questions, up to a factor

    def question(self, s: str) -> str:
        return f"{s} {self.kind.name} {self.c}"

    def right(self, s: str) -> str:
        return self.kind.right(s, self.c)[1]

    def slip(self, s: str) -> str:
        return self.kind.slip(s, self.c)[1]

    def response(self, s: str, right: bool) -> str:
        working, answer = (self.kind.right if right else self.kind.slip)(s, self.c)
        return f"({working}){answer}" if working else answer

    def share_of(self, s: str) -> float:
        """Return the share of the right procedure on this string."""
        odds = self.share / (1 - self.share) * np.exp(HARDER * (LENGTHS[len(LENGTHS) // 2] - len(s)))
        return float(odds / (1 + odds))

    def draw(self, rng: np.random.Generator, count: int, taken: Set[str] = frozenset()) -> list[str]:
        """Return `count` different strings on which the two procedures differ, none of them in `taken`."""
        found: dict[str, None] = {}
        for _ in range(1000 * (count + 1)):
            if len(found) == count:
                return list(found)
            s = "".join(ALPHABET[i] for i in rng.integers(len(ALPHABET), size=rng.choice(LENGTHS)))
            if s in taken or not self.kind.fits(s, self.c):
                continue
            if self.right(s) and self.right(s) != self.slip(s):  # nothing left is no answer
                found[s] = None
        raise ValueError(f"{self.name}: {count} questions were asked for, {len(found)} found")


def make_families(seed: int, lowest: float = 0.01, highest: float = 0.95) -> list[Family]:
    """Return 40 families: shares evenly spaced in log-odds, weights in logarithm; both dealt at random."""
    pairs = [(kind, c) for kind in KINDS for c in kind.constants]
    odds = np.exp(np.linspace(np.log(lowest / (1 - lowest)), np.log(highest / (1 - highest)), len(pairs)))
    rng = np.random.default_rng([seed, 1])
    shares, weights = rng.permutation(odds / (1 + odds)), rng.permutation(np.geomspace(1, SPREAD, len(pairs)))
    return [
        Family(f"{kind.name}-{c}", kind, c, float(share), float(weight))
        for (kind, c), share, weight in zip(pairs, shares, weights, strict=True)
    ]


def apportion(weights: np.ndarray, total: int) -> np.ndarray:
    """Return integers in proportion to `weights` that sum to `total`, by largest remainders."""
    exact = weights / weights.sum() * total
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def make_splits(families: list[Family], seed: int, *counts: int) -> list[list[tuple[Family, str]]]:
    """Return splits of that many questions without overlap, with the same families in each, in row order."""
    rng = np.random.default_rng([seed, 2])
    weights = np.array([family.weight for family in families])
    splits: list[list] = [[] for _ in counts]
    for family, *parts in zip(families, *(apportion(weights, count) for count in counts), strict=True):
        drawn = iter(family.draw(rng, sum(parts)))
        for split, part in zip(splits, parts, strict=True):
            split += [(family, next(drawn)) for _ in range(part)]
    # Mixed, so that reading the file in order (no shuffling) still meets many families in every batch.
    return [[split[i] for i in rng.permutation(len(split))] for split in splits]


def make_more(
    families: list[Family], seed: int, count: int, splits: list[list[tuple[Family, str]]]
) -> list[tuple[Family, str]]:
    """Return `count` further questions, none of which is in `splits`; as frequent by family, in row order.

    They are drawn after the splits and by a generator of their own, so the splits do not depend on `count`.
    """
    rng = np.random.default_rng([seed, 5])
    taken: dict[str, set[str]] = {family.name: set() for family in families}
    for split in splits:
        for family, s in split:
            taken[family.name].add(s)
    parts = apportion(np.array([family.weight for family in families]), count)
    more = [
        (family, s)
        for family, part in zip(families, parts, strict=True)
        for s in family.draw(rng, int(part), taken[family.name])
    ]
    return [more[i] for i in rng.permutation(len(more))]
