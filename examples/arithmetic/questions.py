"""Which questions are asked, what is their right answer, and which slip competes with it?

A *family* is one operation with one fixed number in it, such as "(n+17) mod 100"; its questions run over the
two-digit n. Every family has two procedures that a pupil might follow consistently: the right one, which
writes down an intermediate result in parentheses and then the answer, and a *slip* of the kind teachers know
(the carry is forgotten, the smaller digit is always taken from the larger, ...), which answers off-hand. Only
questions on which the two differ are asked, so following the slip is always wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Operation = Callable[[int, int], int]


@dataclass(frozen=True)
class Kind:
    """An operation on (n, c), with the words around it and its slip. All results lie in 0..99."""

    name: str
    text: str  # format string with n and c, as the model reads it
    working: Operation  # the intermediate result that the right procedure writes down first
    right: Operation
    slip: Operation
    slip_name: str
    constants: tuple[int, ...]  # c of each family of this kind


def _no_carry_sum(n: int, c: int) -> int:
    return (n // 10 + c // 10) % 10 * 10 + (n % 10 + c % 10) % 10


def _smaller_from_larger(n: int, c: int) -> int:
    return abs(n // 10 - c // 10) * 10 + abs(n % 10 - c % 10)


def _no_carry_product(n: int, c: int) -> int:
    return (n // 10 * c) % 10 * 10 + (n % 10 * c) % 10


KINDS = (
    Kind("add", "({n}+{c}) mod 100", lambda n, c: n + c, lambda n, c: (n + c) % 100,
         _no_carry_sum, "forgets the carry", (17, 28, 46, 59)),
    Kind("subtract", "({n}-{c}) mod 100", lambda n, c: n - c, lambda n, c: (n - c) % 100,
         _smaller_from_larger, "takes the smaller digit from the larger", (18, 37, 45, 69)),
    Kind("multiply", "({n}*{c}) mod 100", lambda n, c: n * c, lambda n, c: (n * c) % 100,
         _no_carry_product, "forgets the carry", (3, 4, 7, 8)),
    Kind("from", "({c}-{n}) mod 100", lambda n, c: c - n, lambda n, c: (c - n) % 100,
         lambda n, c: (n - c) % 100, "swaps the two numbers", (4, 6, 7, 9)),
    Kind("remainder", "{n} mod {c}", lambda n, c: n // c * c, lambda n, c: n % c,
         lambda n, c: n // c, "gives the quotient", (6, 9, 11, 13)),
    Kind("square", "{n}^2 mod {c}", lambda n, c: n % c, lambda n, c: n * n % c,
         lambda n, c: 2 * n % c, "doubles instead", (19, 23, 29, 31)),
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One kind with its constant, and how often the warm start shows its right procedure."""

    name: str
    kind: Kind
    c: int
    share: float  # in (0, 1)
    shown: bool = True  # whether it is the right procedure that writes down its working, or the slip

    def question(self, n: int) -> str:
        return self.kind.text.format(n=n, c=self.c)

    def right(self, n: int) -> int:
        return self.kind.right(n, self.c)

    def slip(self, n: int) -> int:
        return self.kind.slip(n, self.c)

    def response(self, n: int, right: bool) -> str:
        """Return what the warm start shows: one procedure with its working, the other's bare answer."""
        answer = self.right(n) if right else self.slip(n)
        return f"({self.kind.working(n, self.c)}){answer}" if right == self.shown else str(answer)

    def operands(self) -> np.ndarray:
        """Return the two-digit n on which right and slip differ, ascending."""
        return np.array([n for n in range(10, 100) if self.right(n) != self.slip(n)])


def make_families(
    seed: int, lowest: float = 0.015, highest: float = 0.95, mixed: bool = False
) -> list[Family]:
    """Return 24 families. Their shares are evenly spaced in log-odds and dealt at random over all kinds.

    mixed : in half of the families the slip shows the working, so that no habit is right everywhere
    """
    pairs = [(kind, c) for kind in KINDS for c in kind.constants]
    odds = np.exp(np.linspace(np.log(lowest / (1 - lowest)), np.log(highest / (1 - highest)), len(pairs)))
    shares = np.random.default_rng([seed, 1]).permutation(odds / (1 + odds))
    shown = (
        np.random.default_rng([seed, 4]).permutation(len(pairs)) % 2 == 0
        if mixed
        else np.full(len(pairs), True)
    )
    return [
        Family(f"{kind.name}-{c}", kind, c, float(share), bool(works))
        for (kind, c), share, works in zip(pairs, shares, shown, strict=True)
    ]


@dataclass(frozen=True)
class Split:
    """The (family index, n) pairs of one split, in the order of the rows; arrays of equal length."""

    family: np.ndarray
    n: np.ndarray

    def __len__(self) -> int:
        return len(self.n)


def make_splits(families: list[Family], seed: int, train: int, test: int) -> tuple[Split, Split]:
    """Draw `train` and `test` questions without overlap, as evenly over the families as the counts allow."""
    rng = np.random.default_rng([seed, 2])
    rows: tuple[list, list] = ([], [])
    for f, family in enumerate(families):
        counts = [total // len(families) + (f < total % len(families)) for total in (train, test)]
        operands = rng.permutation(family.operands())
        if sum(counts) > len(operands):
            raise ValueError(f"{family.name} has {len(operands)} questions, but {sum(counts)} were asked for")
        rows[0].extend((f, n) for n in operands[: counts[0]])
        rows[1].extend((f, n) for n in operands[counts[0] : sum(counts)])
    # Mixed, so that reading the file in order (no shuffling) still meets every family in every batch.
    shuffled = [np.array(rng.permutation(part), dtype=np.int64).reshape(-1, 2) for part in rows]
    return Split(*shuffled[0].T), Split(*shuffled[1].T)
