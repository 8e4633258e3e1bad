"""Which kinds of question are asked, and how a prompt looks: three worked lines, then a question.

    7 + 14 = 21
    3 + 9 = 12
    16 + 5 = 21
    8 + 11 =

A *family* is one kind of question. Its lines are drawn at random, the worked ones too, so prompts do not run
out. A sixth of a family's question lines is held out, by a hash of the line: these are neither asked nor
worked in a training prompt, whatever the seed and however many prompts are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from words import DAYS, KINDS, MONTHS, OPPOSITES, PAST, PLURALS, WORDS

WORKED = 3  # lines before the question
HELD_OUT_PART = 6  # one question line in so many is held out
ALPHABET = "abcdefghijklmnopqrstuvwxyz"

Line = tuple[str, str]  # the question, and what follows it: the answer, or working that ends with it


@dataclass(frozen=True)
class Family:
    """One kind of question.

    Attributes
    ----------
    name : str
    line : function of a NumPy generator that draws (question, what follows it); pure
    lines : int, how many different questions `line` draws
    working : bool, whether the answer follows some working, after the line's last "="
    part_of : str or None, the family whose lines this one's may be; both hold out the same
    """

    name: str
    line: Callable[[np.random.Generator], Line]
    lines: int
    working: bool = False
    part_of: str | None = None

    @property
    def prompts(self) -> int:
        """How many training prompts there are, about: ordered choices of four training lines."""
        count = self.lines - self.lines // HELD_OUT_PART
        return count * (count - 1) * (count - 2) * (count - 3)

    def is_held_out(self, question: str) -> bool:
        """Return whether this question line belongs to the held-out part."""
        digest = blake2b(f"{self.part_of or self.name}/{question}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % HELD_OUT_PART == 0

    def draw_line(self, rng: np.random.Generator, held_out: bool = False) -> Line:
        """Draw a line from the training part, or from the held-out part."""
        while True:
            question, rest = self.line(rng)
            if self.is_held_out(question) == held_out:
                return question, rest

    def draw(self, rng: np.random.Generator, held_out: bool = False) -> Line:
        """Draw (prompt, answer).

        The worked lines are training lines, different from each other and from the question. `held_out` says
        from which part the question is. The answer of a family with working is the number that the working
        ends with.
        """
        question, rest = self.draw_line(rng, held_out)
        worked: dict[str, str] = {}
        while len(worked) < WORKED:
            other, after = self.draw_line(rng)
            if other != question:
                worked[other] = after
        prompt = "".join(f"{q} {after}\n" for q, after in worked.items()) + question
        return prompt, answer_of(rest) if self.working else rest


def answer_of(working: str) -> str:
    """Return what stands after the last "=" of the working."""
    return working.rpartition("=")[2].strip()


# ------------------------------------------------------------------ help for drawing
def between(rng: np.random.Generator, low: int, high: int) -> int:
    """Draw an integer, both ends included."""
    return int(rng.integers(low, high + 1))


def up_to(rng: np.random.Generator, low: int, *tops: int) -> int:
    """Draw an integer from `low` to one of the tops: small numbers are frequent, large ones occur."""
    return between(rng, low, one_of(rng, tops))


def one_of(rng: np.random.Generator, options):
    """Draw one of a sequence."""
    return options[int(rng.integers(len(options)))]


def some_of(rng: np.random.Generator, options, count: int) -> list:
    """Draw `count` different ones of a sequence, in random order."""
    return [options[int(i)] for i in rng.choice(len(options), size=count, replace=False)]


# ------------------------------------------------------------------ numbers
def sum_of_two(rng):
    a, b = between(rng, 1, 19), between(rng, 1, 19)
    return f"{a} + {b} =", str(a + b)


def sum_two_digits(rng):
    a, b = between(rng, 11, 99), between(rng, 2, 60)
    return f"{a} + {b} =", str(a + b)


def sum_of_three(rng):
    a, b, c = (between(rng, 1, 9) for _ in range(3))
    return f"{a} + {b} + {c} =", str(a + b + c)


def difference(rng):
    a, b = between(rng, 0, 20), between(rng, 1, 15)
    return f"{a + b} - {b} =", str(a)


def product(rng):
    a, b = between(rng, 3, 12), between(rng, 3, 15)
    return f"{a} * {b} =", str(a * b)


def double(rng):
    a = between(rng, 2, 99)
    return f"{a} * 2 =", str(2 * a)


def times_ten(rng):
    a, ten = between(rng, 13, 300), one_of(rng, (10, 100))
    return f"{a} * {ten} =", str(a * ten)


def half(rng):
    a = between(rng, 1, 99)
    return f"{2 * a} / 2 =", str(a)


def remainder(rng):
    a, b = between(rng, 5, 40), between(rng, 2, 9)
    return f"{a} mod {b} =", str(a % b)


def missing(rng):
    a, b = between(rng, 1, 15), between(rng, 1, 15)
    return f"{a} + b = {a + b}, b =", str(b)


def sequence(rng):
    a, d = between(rng, 1, 40), between(rng, 1, 8)
    return f"{a}, {a + d}, {a + 2 * d}, {a + 3 * d},", str(a + 4 * d)


def countdown(rng):
    a, d = between(rng, 0, 30), between(rng, 1, 6)
    return f"{a + 4 * d}, {a + 3 * d}, {a + 2 * d}, {a + d},", str(a)


def larger(rng):
    a, b = some_of(rng, range(2, one_of(rng, (20, 99, 999)) + 1), 2)
    return f"The larger of {a} and {b} is", str(max(a, b))


def less(rng):
    a, b = some_of(rng, range(2, one_of(rng, (20, 99, 999)) + 1), 2)
    return f"{a} < {b} is", "true" if a < b else "false"


def largest(rng):
    numbers = some_of(rng, range(1, one_of(rng, (9, 30, 99)) + 1), 3)
    return "max({}, {}, {}) =".format(*numbers), str(max(numbers))


def parity(rng):
    a = up_to(rng, 2, 99, 999)
    return f"{a} is", "odd" if a % 2 else "even"


def equation(rng):
    a, b, error = between(rng, 1, 19), between(rng, 1, 19), one_of(rng, (0, 0, 0, 1, 2, 10))
    return f"{a} + {b} = {a + b + error} is", "false" if error else "true"


ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(n: int) -> str:
    """Return an integer from 0 to 9,999 in words: "three hundred forty-two"."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f"-{ONES[n % 10]}" if n % 10 else "")
    unit, name = (100, "hundred") if n < 1000 else (1000, "thousand")
    return f"{ONES[n // unit]} {name}" + (f" {in_words(n % unit)}" if n % unit else "")


def words_to_number(rng):
    n = between(rng, 11, 99) if rng.random() < 0.4 else between(rng, 100, 9999)
    return f"{in_words(n)}:", str(n)


def number_to_words(rng):
    n = between(rng, 11, 99) if rng.random() < 0.4 else between(rng, 100, 999)
    return f"{n}:", in_words(n)


# ------------------------------------------------------------------ counting, letters
def count_letter(rng):
    word = one_of(rng, WORDS)
    letter = one_of(rng, word) if rng.random() < 0.8 else one_of(rng, "aeiost")
    return f"How many {letter} in {word}?", str(word.count(letter))


def count_items(rng):
    asked, other = some_of(rng, ("x", "o", "a", "b", "1", "0"), 2)
    row = [asked if rng.random() < 0.5 else other for _ in range(between(rng, 3, 7))]
    return f"How many {asked} in {' '.join(row)}?", str(row.count(asked))


def length(rng):
    word = one_of(rng, WORDS)
    return f"Letters in {word}:", str(len(word))


def first_letter(rng):
    word = one_of(rng, WORDS)
    return f"{word} begins with", word[0]


def second_letter(rng):
    word = one_of(rng, WORDS)
    return f"The second letter of {word} is", word[1]


def last_letter(rng):
    word = one_of(rng, WORDS)
    return f"{' '.join(word)}: last", word[-1]


def next_letter(rng):
    count, step = between(rng, 3, 5), one_of(rng, (1, 1, 2))
    first = between(rng, 0, 25 - count * step)
    row = ALPHABET[first : first + count * step + 1 : step]
    return f"{' '.join(row[:-1])} ->", row[-1]


def reverse(rng):
    letters = some_of(rng, ALPHABET, between(rng, 2, 3))
    return f"reverse {' '.join(letters)} ->", " ".join(letters[::-1])


def upper_case(rng):
    word = one_of(rng, WORDS)
    return f"{word} ->", word.upper()


def sort_two(rng):
    a, b = some_of(rng, range(1, 100), 2)
    return f"sort {a}, {b} ->", f"{min(a, b)}, {max(a, b)}"


def sort_digits(rng):
    digits = some_of(rng, range(1, 10), 3)
    return f"sort {' '.join(map(str, digits))} ->", " ".join(map(str, sorted(digits)))


# ------------------------------------------------------------------ lists of words
def first_word(rng):
    words = some_of(rng, WORDS, 3)
    return f"First in the dictionary: {', '.join(words)}:", min(words)


def place(rng):
    words, k = some_of(rng, WORDS, 3), between(rng, 1, 3)
    return f"Word {k} of {' '.join(words)} is", words[k - 1]


def last_word(rng):
    words = some_of(rng, WORDS, between(rng, 3, 5))
    return f"Last of {', '.join(words)}:", words[-1]


def among(rng):
    *words, other = some_of(rng, WORDS, 4)
    asked = one_of(rng, words) if rng.random() < 0.5 else other
    return f"Is {asked} among {', '.join(words)}?", "yes" if asked in words else "no"


def alike(rng):
    a, b = some_of(rng, WORDS, 2)
    b = a if rng.random() < 0.5 else b
    return f"{a} and {b}:", "same" if a == b else "different"


# ------------------------------------------------------------------ days, months, hours
def _steps(rng, names, unit, most):
    i, k, sign = between(rng, 0, len(names) - 1), between(rng, 1, most), one_of(rng, (1, -1))
    word = "after" if sign > 0 else "before"
    return f"{k} {unit}{'s' * (k > 1)} {word} {names[i]} is", names[(i + sign * k) % len(names)]


def days(rng):
    return _steps(rng, DAYS, "day", 8)


def months(rng):
    return _steps(rng, MONTHS, "month", 8)


def clock(rng):
    hour, minute = between(rng, 1, 12), between(rng, 0, 10)
    more = between(rng, 1, 11 - minute)  # within the hour
    return f"{hour}:{5 * minute:02d} plus {5 * more} minutes is", f"{hour}:{5 * (minute + more):02d}"


# ------------------------------------------------------------------ words
def opposite(rng):
    a, b = one_of(rng, OPPOSITES)[:: one_of(rng, (1, -1))]
    return f"The opposite of {a} is", b


def plural(rng):
    one, many = one_of(rng, PLURALS)
    return f"one {one}, two", many


def past(rng):
    now, then = one_of(rng, PAST)
    return f"Today I {now}, yesterday I", then


def kind(rng):
    name = one_of(rng, tuple(KINDS))
    return f"{one_of(rng, KINDS[name].split())}:", name


def odd_one_out(rng):
    many, single = some_of(rng, tuple(KINDS), 2)
    words, odd = some_of(rng, KINDS[many].split(), 3), one_of(rng, KINDS[single].split())
    words.insert(between(rng, 0, 3), odd)
    return f"Odd one out of {', '.join(words)}:", odd


# ------------------------------------------------------------------ with working
PACKED = (
    "bags/apples boxes/pens crates/melons packs/cards shelves/books teams/players rows/seats jars/plums"
).split()


def two_steps(rng):
    a, b, c = between(rng, 2, 5), between(rng, 2, 9), between(rng, 1, 9)
    pack, thing = one_of(rng, PACKED).split("/")
    c = min(c, a * b - 1)
    sign, word, total = ("+", "more", a * b + c) if rng.random() < 0.5 else ("-", "fewer", a * b - c)
    return f"{a} {pack} of {b} {thing} and {c} {word}:", f"{a} * {b} = {a * b}, {a * b} {sign} {c} = {total}"


W = len(WORDS)
FAMILIES = (
    Family("sum", sum_of_two, 19 * 19),
    Family("sum-two-digits", sum_two_digits, 89 * 59, part_of="sum"),
    Family("sum-three", sum_of_three, 9**3),
    Family("difference", difference, 21 * 15),
    Family("product", product, 10 * 13),
    Family("double", double, 98),
    Family("times-ten", times_ten, 288 * 2),
    Family("half", half, 99),
    Family("remainder", remainder, 36 * 8),
    Family("missing", missing, 15 * 15),
    Family("sequence", sequence, 40 * 8),
    Family("countdown", countdown, 31 * 6),
    Family("larger", larger, 998 * 997),
    Family("less", less, 998 * 997),
    Family("largest", largest, 99 * 98 * 97),
    Family("parity", parity, 998),
    Family("equation", equation, 19 * 19 * 4),
    Family("words-to-number", words_to_number, 9989),
    Family("number-to-words", number_to_words, 989),
    Family("count-letter", count_letter, sum(len(set(word + "aeiost")) for word in WORDS)),
    Family("count-items", count_items, 6 * sum(5 * 2**n - 4 for n in range(3, 8))),
    Family("length", length, W),
    Family("first-letter", first_letter, W),
    Family("second-letter", second_letter, W),
    Family("last-letter", last_letter, W),
    Family("next-letter", next_letter, sum(26 - n * step for n in (3, 4, 5) for step in (1, 2))),
    Family("reverse", reverse, 26 * 25 * (1 + 24)),
    Family("upper-case", upper_case, W),
    Family("sort-two", sort_two, 99 * 98),
    Family("sort-digits", sort_digits, 9 * 8 * 7),
    Family("first-word", first_word, W * (W - 1) * (W - 2)),
    Family("place", place, 3 * W * (W - 1) * (W - 2)),
    Family("last-word", last_word, W * (W - 1) * (W - 2) * (1 + (W - 3) * (1 + (W - 4)))),
    Family("among", among, W * (W - 1) * (W - 2) * (3 + W - 3)),
    Family("alike", alike, W * W),
    Family("days", days, 7 * 8 * 2),
    Family("months", months, 12 * 8 * 2),
    Family("clock", clock, 12 * 66),
    Family("opposite", opposite, 2 * len(OPPOSITES)),
    Family("plural", plural, len(PLURALS)),
    Family("past", past, len(PAST)),
    Family("kind", kind, W),
    Family("odd-one-out", odd_one_out, 12 * 11 * 16 * 15 * 14 * 16 * 4),
    Family("two-steps", two_steps, 16 * (32 * 9 - 19), working=True),
)
# Kept from training in this order: of different kinds, each with a relative among the trained ones.
KEPT = ("half", "months", "second-letter", "past", "largest", "number-to-words", "countdown", "kind")


def deal(held_out_families: int) -> tuple[list[Family], list[Family]]:
    """Return (trained, kept) families: the first so many of KEPT are never trained on."""
    if not 0 <= held_out_families <= len(KEPT):
        raise ValueError(f"--held-out-families {held_out_families}: from 0 to {len(KEPT)}")
    kept = KEPT[:held_out_families]
    by_name = {family.name: family for family in FAMILIES}
    return [family for family in FAMILIES if family.name not in kept], [by_name[name] for name in kept]
