"""What do similar prompts say of a prompt that was never seen? Evidence that is kept for all prompts alike.

A prompt is *like* another one if they share a bucket: a column of the data set says so, or their texts do. A
prompt's buckets are slots of a table of fixed size, found by hashing. So the state never grows, and a run may
meet any number of prompts once. Two values that share a slot are taken for one.

g is the number of prompts in a step. Everything in this module is this project's.
"""

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from cero.core.arrays import AnyArray, Floats, Ints

TEXT = "text"  # the bucket that is the prompt's text; any other is the name of a column
SLOTS = 2**14
WIDTH = 256  # slots of one text, at most
FADING = 0.95  # what is left of a step's evidence after another one: the policy changes
STRENGTH = 2.0  # rollouts that the mean over all prompts counts for, beside those of a bucket
RIDGE = 3.0  # the same for a slot of `ByText`, in units of its curvature
SWEEPS = 3  # Newton steps of `ByText` for each step of the run
LIMIT = 0.01  # what is expected lies in [LIMIT, 1 - LIMIT]
_TINY = 1e-20  # evidence that has faded to this is gone; denormal numbers would be slow
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_\u3040-\u30ff\u3400-\u9fff]+|\d+|[^\w\s]|_")
_FIRST, _SECOND = (
    np.uint32(0x9E3779B1),
    np.uint32(0x85EBCA6B),
)  # odd: a pair in the other order is another one

Evidence = tuple[Floats, Floats]  # what speaks for right and for wrong, two arrays of shape (g,), >= 0


def slots_of_values(values: Sequence[str | bytes]) -> AnyArray:
    """Return the slot of each value of a column, in [0, SLOTS): int16, shape (n, 1)."""
    data = (each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each for each in values)
    return np.array([[zlib.crc32(each) % SLOTS] for each in data], np.int16).reshape(-1, 1)


def slots_of_texts(texts: Sequence[str]) -> AnyArray:
    """Return the distinct slots of each text's words and pairs of neighbouring words: int16, shape (n, k).

    k <= WIDTH; -1 where a text has fewer. A word is a run of letters, a run of digits, or a single sign or
    Chinese or Japanese character. The ends of a text pair up, too. Where there are more slots than WIDTH,
    those of the least hashes stay: the same ones in every text that has them.

    >>> slots_of_texts(["3 + 4 ="]).shape  # four words, and five pairs with the two ends
    (1, 9)
    """
    if not len(texts):
        return np.zeros((0, 0), np.int16)
    hashes = [[_hash("^"), *map(_hash, _WORD.findall(text)), _hash("$")] for text in texts]
    lengths = np.array([*map(len, hashes)])
    words = np.fromiter(chain.from_iterable(hashes), np.uint32, lengths.sum())
    text_of_word = np.repeat(np.arange(lengths.size), lengths)
    inner = np.ones(words.size, bool)
    inner[np.cumsum(lengths) - 1] = inner[np.cumsum(lengths) - lengths] = False
    pairs = words[:-1] * _FIRST ^ words[1:] * _SECOND
    pairs ^= pairs >> np.uint32(15)
    within = text_of_word[:-1] == text_of_word[1:]
    owners = np.concatenate([text_of_word[inner], text_of_word[:-1][within]])
    terms = np.concatenate([words[inner], pairs[within]])
    # By text and then by hash, each once.
    keys = np.sort(owners.astype(np.uint64) << np.uint64(32) | terms)
    keys = keys[np.diff(keys, prepend=keys[:1] - np.uint64(1)) > 0]
    owners = (keys >> np.uint64(32)).astype(np.int64)
    few = _places(owners) < WIDTH
    owners, slots = owners[few], (keys[few] % np.uint64(SLOTS)).astype(np.int64)
    first = np.sort(np.unique(owners * SLOTS + slots, return_index=True)[1])
    owners, slots = owners[first], slots[first]
    places = _places(owners)
    result = np.full((lengths.size, places.max() + 1), -1, np.int16)
    result[owners, places] = slots
    return result


def _places(owners: Ints) -> Ints:
    """Return the place of each entry among those of its owner; `owners` is sorted."""
    new = np.ones(owners.size, bool)
    new[1:] = owners[1:] != owners[:-1]
    places: Ints = np.arange(owners.size) - np.flatnonzero(new)[np.cumsum(new) - 1]
    return places


@lru_cache(2**16)
def _hash(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def trimmed(slots: AnyArray) -> AnyArray:
    """Return slots, shape (n, k), without the columns in which no prompt has one; these are the last ones."""
    return slots[:, : int((slots >= 0).any(axis=0).sum())]


def stacked(parts: Sequence[AnyArray]) -> AnyArray:
    """Return arrays of buckets, shape (g_i, k_i), as one of shape (sum of g_i, greatest k_i)."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in parts]
    )


class Shared(ABC):
    """Learn from all prompts, step by step, what is to be expected of one that was never seen.

    Two things are learned, as two rows of each array: the baseline of least variance, E[w r] / E[w], from
    weighted rewards, and the success probability, E[r], from plain ones.
    """

    arrays: ClassVar[Mapping[str, int]]  # names of the arrays of the state, and their lengths

    def __init__(self) -> None:
        self._data = {name: np.zeros((2, size), np.float32) for name, size in self.arrays.items()}

    @abstractmethod
    def expected(self, buckets: AnyArray) -> Floats:
        """Return (baseline, success probability) of prompts: shape (2, g), in [LIMIT, 1 - LIMIT].

        Both are 1/2 before anything was learned.

        buckets : shape (g, k), slots of each prompt; -1 where there is none
        """

    @abstractmethod
    def learn(self, buckets: AnyArray, weighted: Evidence, plain: Evidence) -> None:
        """Take up a step, after older evidence has faded.

        buckets : as for `expected`
        weighted : sums over each prompt's rollouts of w r and of w (1 - r), in units of the mean weight
        plain : sums of r and of 1 - r
        """

    def columns(self) -> dict[str, AnyArray]:
        """Return copies of the arrays of the state by name, flattened."""
        return {name: array.ravel().copy() for name, array in self._data.items()}

    def check_columns(self, columns: Mapping[str, AnyArray]) -> None:
        """Raise ValueError unless `columns` could be loaded: names, lengths, dtype, finite numbers."""
        if set(columns) != set(self._data):
            raise ValueError(
                f"state of the buckets has {sorted(columns)}; this run needs {sorted(self._data)}"
            )
        for name, array in self._data.items():
            found = np.asarray(columns[name])
            if found.shape != (array.size,) or found.dtype != array.dtype or not np.isfinite(found).all():
                raise ValueError(f"state of the buckets: {name!r} is damaged; take an earlier checkpoint")

    def load(self, columns: Mapping[str, AnyArray]) -> None:
        """Replace everything by `columns` (as given by `columns()`, and checked)."""
        self._data = {
            name: np.array(columns[name]).reshape(array.shape) for name, array in self._data.items()
        }

    def forget(self) -> None:
        """Start anew."""
        for array in self._data.values():
            array[:] = 0

    @staticmethod
    def _fade(array: AnyArray) -> None:
        array *= np.float32(FADING)
        array[array < _TINY] = 0


class ByColumn(Shared):
    """Keep the two moments of each bucket: prompts with one value of a column are alike.

        expected = (M1 + s m) / (M1 + M0 + s),   m = (G1 + s/2) / (G1 + G0 + s)

    M1 and M0 are the bucket's sums of w r and w (1-r), and G1 and G0 those over all buckets; for the success
    probability w = 1. They fade by FADING a step, and s = STRENGTH. So a bucket never seen is expected to be
    like the mean of all, and so is a prompt without one. Each prompt has one slot at most: k <= 1.
    """

    arrays: ClassVar[Mapping[str, int]] = {"right": SLOTS, "wrong": SLOTS}

    def expected(self, buckets: AnyArray) -> Floats:
        right, wrong = self._data["right"], self._data["wrong"]
        totals = right.sum(1, dtype=np.float64), wrong.sum(1, dtype=np.float64)
        mean = (totals[0] + STRENGTH / 2) / (totals[0] + totals[1] + STRENGTH)
        has, slots = self._slots(buckets)
        mine = np.zeros((2, 2, len(buckets)))
        mine[:, :, has] = right[:, slots], wrong[:, slots]
        result: Floats = (mine[0] + STRENGTH * mean[:, None]) / (mine[0] + mine[1] + STRENGTH)
        return np.clip(result, LIMIT, 1 - LIMIT)

    def learn(self, buckets: AnyArray, weighted: Evidence, plain: Evidence) -> None:
        has, slots = self._slots(buckets)
        for name, sums in zip(("right", "wrong"), zip(weighted, plain, strict=True), strict=True):
            self._fade(self._data[name])
            for row, each in zip(self._data[name], sums, strict=True):
                row += np.bincount(slots, each[has], SLOTS).astype(np.float32)

    @staticmethod
    def _slots(buckets: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Return which prompts have a slot, bool array of shape (g,), and the slots of these."""
        first = buckets[:, 0] if buckets.shape[1] else np.full(len(buckets), -1)
        return first >= 0, first[first >= 0]


class ByText(Shared):
    """Learn what each word and pair of words says: prompts that share them are alike.

        logit(expected) = t_0 + sum_f t_f / sqrt(F)

    over the F slots f of the prompt's text (`slots_of_texts`). t minimises the weighted log-loss. Its optimum
    for weighted rewards is E[w r | text] / E[w | text]: what `ByColumn` keeps for each bucket, here for texts
    that are alike in part. Moments of single words can't just be summed over the words of a text: common ones
    would drown those that tell prompts apart.

    Online: SWEEPS Newton steps on the rewards of each step of the run and on a quadratic memory of the
    earlier ones, which fades by FADING a step. All slots move at once. That never overshoots, because the
    curvature is bounded twice: by tanh(x/2)/(2x) for the logistic function (Jaakkola and Jordan 2000), and by
    (t_0 + sum_f t_f / sqrt(F))^2 <= 2 t_0^2 + 2 sum_f t_f^2 for the sum.
    """

    # The last entry is t_0.
    arrays: ClassVar[Mapping[str, int]] = {"effect": SLOTS + 1, "curvature": SLOTS + 1}

    def expected(self, buckets: AnyArray) -> Floats:
        terms = _Terms(buckets)
        logits = np.array([terms.logit(effect) for effect in self._data["effect"].astype(np.float64)])
        return np.clip(_sigmoid(logits), LIMIT, 1 - LIMIT)

    def learn(self, buckets: AnyArray, weighted: Evidence, plain: Evidence) -> None:
        terms = _Terms(buckets)
        self._fade(self._data["curvature"])
        for k, (right, wrong) in enumerate((weighted, plain)):
            start = self._data["effect"][k].astype(np.float64)
            memory = self._data["curvature"][k].astype(np.float64)
            effect, number = start.copy(), right + wrong
            learned = terms.summed(number * _curvature(terms.logit(start)), scaled=False)
            for _ in range(SWEEPS):
                logit = terms.logit(effect)
                bend = 2.0 * terms.summed(number * _curvature(logit), scaled=False)
                pull = terms.summed(right - number * _sigmoid(logit), scaled=True)
                effect += (pull - memory * (effect - start)) / (memory + RIDGE + bend)
            self._data["effect"][k] = effect
            self._data["curvature"][k] += learned.astype(np.float32)


class _Terms:
    """The slots of a step's prompts, flat, with the place SLOTS for the term that all have."""

    def __init__(self, buckets: AnyArray) -> None:
        self.prompt, column = np.nonzero(buckets >= 0)
        self.slot = buckets[self.prompt, column].astype(np.int64)
        self.size = len(buckets)
        self.scale = 1.0 / np.sqrt(np.maximum(np.bincount(self.prompt, minlength=self.size), 1))

    def logit(self, effect: Floats) -> Floats:
        """Return t_0 + sum_f t_f / sqrt(F) of each prompt, shape (g,)."""
        own = np.bincount(self.prompt, effect[self.slot], self.size)
        result: Floats = effect[SLOTS] + self.scale * own
        return result

    def summed(self, of_prompts: Floats, scaled: bool) -> Floats:
        """Return the sum of `of_prompts`, over sqrt(F) if `scaled`, over the prompts of each slot."""
        each = of_prompts * self.scale if scaled else of_prompts
        result = np.bincount(self.slot, each[self.prompt], SLOTS + 1).astype(np.float64, copy=False)
        result[SLOTS] = of_prompts.sum()
        return result


def _sigmoid(logit: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0)))
    return result


def _curvature(logit: Floats) -> Floats:
    """Return tanh(x/2) / (2x), which is 1/4 at 0, and at least the logistic function's slope everywhere."""
    x = np.maximum(np.abs(logit), 1e-6)
    result: Floats = np.tanh(x / 2.0) / (2.0 * x)
    return result


def make_shared(bucket: str) -> Shared:
    """Return what learns over this kind of bucket: TEXT, or the name of a column."""
    return ByText() if bucket == TEXT else ByColumn()


def text_of(messages: Any) -> str:
    """Return the text of a chat's messages, one after the other; what is no text (images) is left out.

    messages : a text, or a sequence of dicts with a `content` that is a text or a list of parts
    """
    return "\n".join(_texts(messages))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(value["content"] if "content" in value else value.get("text"))
    elif isinstance(value, list | tuple | np.ndarray):
        for each in value:
            yield from _texts(each)
