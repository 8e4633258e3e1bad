"""Which row of the tables belongs to a prompt?

A prompt is known by a 64-bit id. `PromptTable` maps ids to rows of a struct of arrays, by an open-addressing
hash index, all in NumPy: ten million prompts cost one int32 slot array beside the columns, and a look-up is a
few vectorised probes whatever the table's size.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cero.core.arrays import Ids, Ints
from cero.core.checks import shown

_BYTES = bytes | bytearray | memoryview

PromptIds: TypeAlias = Sequence[str] | Sequence[int] | NDArray[Any]
Columns: TypeAlias = Mapping[str, tuple[DTypeLike, float]]  # name: (dtype, value for a new prompt)

# 2**64 / golden ratio: Fibonacci hashing spreads ids that are not random.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FOLD = np.uint64(32)  # the upper half of an id is folded onto the lower one
_MIN_SLOTS_LOG2 = 11
_CHUNK = 2**18  # rows indexed at a time: the temporaries stay small beside the table
_GROWTH = 1.25  # columns grow by a quarter: the spare room stays small at ten million prompts


def prompt_id(*parts: str | bytes) -> int:
    """Return the content id of a prompt: the first 8 bytes of BLAKE2b over its parts.

    Parameters
    ----------
    *parts : str or bytes
        Whatever makes the prompt what it is (data source, messages, answer). Lengths are hashed too, so
        ("ab", "c") and ("a", "bc") differ.

    Raises
    ------
    ValueError
        If a part is neither: of a number, say, Python makes as many zero bytes.

    Returns
    -------
    int
        In [0, 2**64). Two different prompts collide with probability about N**2 / 2**65: 3e-6 at ten million.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if not isinstance(part, str | _BYTES):
            raise ValueError(f"{shown(part)} is neither str nor bytes; give a prompt's parts as one of these")
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else bytes(part)
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little")


def as_prompt_ids(prompt_ids: PromptIds) -> Ids:
    """Turn a sequence of str, or of integers in [0, 2**64), into a uint64 array of shape (n,).

    Raises
    ------
    ValueError
        If it is a single text, is not one-dimensional, mixes kinds, or holds anything but text or integers.
    """
    if isinstance(prompt_ids, str | _BYTES):
        raise ValueError(f"prompt_ids={shown(prompt_ids[:40])} is one text; give a sequence of them")
    if np.ma.is_masked(prompt_ids):
        raise ValueError(f"prompt_ids={shown(prompt_ids)} holds masked ids; leave these prompts out")
    if getattr(prompt_ids, "ndim", 1) != 1:  # of a data frame one would read the names of its columns
        raise ValueError(
            f"prompt_ids has shape {np.shape(prompt_ids)}; give a one-dimensional sequence of str or uint64"
        )
    array = prompt_ids if isinstance(prompt_ids, np.ndarray) else _objects(prompt_ids)
    if array.dtype == np.uint64 or array.size == 0:
        return array.astype(np.uint64)
    if array.dtype.kind in "iu":
        if array.min() < 0:
            raise ValueError(f"prompt_ids holds {array.min()}; integer ids must lie in [0, 2**64)")
        return array.astype(np.uint64)
    if array.dtype.kind in "mM":  # of nanoseconds, a list would hold plain integers
        raise ValueError(
            f"prompt_ids holds {array.dtype.type.__name__}; give only str, or only integers in [0, 2**64)"
        )
    values = array.tolist()
    kinds = {type(value) for value in values}
    if all(issubclass(kind, str) for kind in kinds):  # NumPy's own text among them
        return np.fromiter((prompt_id(value) for value in values), dtype=np.uint64, count=array.size)
    if all(issubclass(kind, int | np.integer) and kind not in (bool, np.timedelta64) for kind in kinds):
        outside = [value for value in values if not 0 <= value < 2**64]
        if outside:
            raise ValueError(f"prompt_ids holds {shown(outside[0])}; integer ids must lie in [0, 2**64)")
        return np.fromiter(map(int, values), dtype=np.uint64, count=array.size)
    raise ValueError(
        f"prompt_ids holds {sorted(kind.__name__ for kind in kinds)}; "
        "give only str, or only integers in [0, 2**64)"
    )


def _objects(values: Iterable[Any]) -> NDArray[Any]:
    """Return an object array of shape (n,) with what `values` hold, arrays without dimensions unpacked."""
    try:
        items = [each.item() if isinstance(each, np.ndarray) and each.ndim == 0 else each for each in values]
    except TypeError as error:
        raise ValueError(f"prompt_ids={shown(values)} is no sequence of str or integers") from error
    array = np.empty(len(items), dtype=object)
    for place, item in enumerate(items):  # one by one: NumPy would make sequences into further dimensions
        array[place] = item
    return array


def sort_ids(ids: Ids) -> tuple[Ints, Ids]:
    """Return the order of `ids`, and `ids` in that order, shape (n,) each; equal ids keep their order."""
    order = np.argsort(ids)  # a few times as fast as a stable sort, which only repeats need (below)
    ordered = ids[order]
    equal = ordered[1:] == ordered[:-1]
    if equal.any():
        repeated = np.append(equal, False) | np.append(False, equal)
        within = order[repeated]
        order[repeated] = within[np.lexsort((within, ordered[repeated]))]
    return order, ordered


def merge_repeats(keys: NDArray[Any], *arrays: NDArray[Any]) -> tuple[Any, ...]:
    """Return the distinct `keys`, how often each occurs, and the sums of `arrays` over a key's occurrences.

    keys : shape (n,), equal ones adjacent (sorted, or rows of sorted ids); arrays : shape (n,) each, integer
    or float. Returns (distinct keys, times, *sums), all of shape (m,), in the order of `keys`, each of its
    array's dtype.
    """
    first = np.ones(keys.size, bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    if first.all():
        return keys, np.ones(keys.size, np.int64), *arrays
    group = np.cumsum(first) - 1
    sums = (np.bincount(group, array).astype(array.dtype) for array in arrays)
    return keys[first], np.bincount(group), *sums


class PromptTable:
    """Columns of per-prompt numbers, addressed by prompt id.

    Parameters
    ----------
    columns : dict of str to (dtype, value for a new prompt)
        `table[name]` is a column: an array of shape (size,), in the order in which prompts were added.

    A prompt takes the columns' item sizes and 8 bytes of id, times at most 1.25 for growth, and at most 11.5
    bytes of index.
    """

    def __init__(self, columns: Columns) -> None:
        self._spec: dict[str, tuple[DTypeLike, float]] = {"id": (np.uint64, 0)}
        self._data: dict[str, NDArray[Any]] = {"id": np.empty(0, np.uint64)}
        self.size = 0
        # Only where an id is found depends on the key, not its row, so no allocation does. Each table has its
        # own, which goes with it into another process.
        self._key = np.uint64(int.from_bytes(os.urandom(8), "little"))
        self.add_columns(columns)
        self._rebuild(_MIN_SLOTS_LOG2)

    def add_columns(self, columns: Columns) -> None:
        """Add further columns; prompts that are in the table already get the value for a new prompt.

        Raises
        ------
        ValueError
            If there is a column of that name.
        """
        for name, (dtype, fill) in columns.items():
            if name in self._spec:
                raise ValueError(f"the prompt table already has a column {name!r}; choose another name")
            self._spec[name] = dtype, fill
            self._data[name] = np.empty(self._data["id"].size, dtype)
            self[name][:] = fill

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the column `name`: a writable view of shape (size,)."""
        return self._data[name][: self.size]

    @property
    def names(self) -> list[str]:
        """The names of the columns, "id" first."""
        return list(self._spec)

    @property
    def nbytes(self) -> int:
        """The bytes held, spare room and index included."""
        return self._slots.nbytes + sum(array.nbytes for array in self._data.values())

    def rows(self, ids: Ids) -> Ints:
        """Return the rows of `ids`; -1 where the prompt is unknown. Both have shape (n,)."""
        rows = np.full(ids.size, -1, np.int64)
        if not self.size:
            return rows
        pending, position = np.arange(ids.size), self._home(ids)
        known = self._data["id"]
        while pending.size:
            found = self._slots[position].astype(np.int64)
            # The prompt's row, or -1 at the end of its probes; another prompt's is overwritten further on.
            rows[pending] = found
            # An unknown id ends at the first empty slot; nothing is ever deleted, so that is exact.
            again = np.flatnonzero((found >= 0) & (known[found] != ids[pending]))
            pending, position = pending[again], (position[again] + 1) & self._mask
        return rows

    def add(self, ids: Ids) -> Ints:
        """Return the rows of `ids`, adding those that are unknown. Both have shape (n,)."""
        rows = self.rows(ids)
        missing = rows < 0
        if missing.any():
            new, inverse = np.unique(ids[missing], return_inverse=True)
            first = self.size
            self.reserve(first + new.size)
            self.size += new.size
            for name, (_, fill) in self._spec.items():
                self[name][first:] = new if name == "id" else fill
            self._insert(np.arange(first, self.size))
            rows[missing] = first + inverse
        return rows

    def reserve(self, size: int) -> None:
        """Make room for `size` prompts, so that adding them later moves nothing."""
        capacity = self._data["id"].size
        if size > capacity:
            capacity = max(size, int(capacity * _GROWTH), 1024)
            for name, (dtype, _) in self._spec.items():
                grown = np.empty(capacity, dtype)
                grown[: self.size] = self._data[name][: self.size]
                self._data[name] = grown
        log2 = max(_MIN_SLOTS_LOG2, int(np.ceil(np.log2(max(size, 1) / 0.7))))
        if log2 > self._log2:
            self._rebuild(log2)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return copies of all columns, "id" among them."""
        return {name: self[name].copy() for name in self._spec}

    def check_columns(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Raise ValueError unless `columns` could be loaded.

        They must have the table's names and dtypes, one length, finite numbers and distinct ids.
        """
        if not isinstance(columns, Mapping):
            raise ValueError(f"prompt table is {shown(columns)} instead of columns by their names")
        if set(columns) != set(self._spec):
            raise ValueError(
                f"prompt table has columns {sorted(columns)}; this allocator needs {sorted(self._spec)}"
            )
        try:
            arrays = {name: np.asarray(columns[name]) for name in self._spec}
        except ValueError as error:
            raise ValueError("prompt table has a column that is no array") from error
        size = arrays["id"].size
        for name, (dtype, _) in self._spec.items():
            array = arrays[name]
            if array.shape != (size,) or array.dtype != np.dtype(dtype):
                raise ValueError(
                    f"prompt table column {name!r} has shape {array.shape} and dtype {array.dtype}; "
                    f"needs ({size},) and {np.dtype(dtype)}"
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"prompt table column {name!r} holds a value that is not finite")
        ordered = np.sort(arrays["id"])  # far faster than np.unique, which hashes
        if (ordered[1:] == ordered[:-1]).any():
            raise ValueError("prompt table column 'id' holds a prompt twice")

    def load(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Replace everything by `columns` (as given by `columns()`, and checked)."""
        self.check_columns(columns)
        self._data = {name: np.array(columns[name], dtype) for name, (dtype, _) in self._spec.items()}
        self.size = self._data["id"].size
        self._log2 = 0
        self.reserve(self.size)

    def _home(self, ids: Ids) -> Ints:
        # Mixed before they are placed: ids in arithmetic progression of the multiplier's inverse, or of any
        # other step, would otherwise share slots. Keyed, since the mixing can be inverted: ids made to share
        # one slot would cost a time that is quadratic in their number.
        mixed = ids ^ (ids >> _FOLD)
        mixed ^= self._key
        mixed *= _MULTIPLIER
        mixed ^= mixed >> _FOLD
        mixed *= _MULTIPLIER
        return (mixed >> self._shift).view(np.int64)  # indexing by uint64 would copy

    def _rebuild(self, log2: int) -> None:
        self._log2, self._mask, self._shift = log2, (1 << log2) - 1, np.uint64(64 - log2)
        self._slots = np.full(1 << log2, -1, np.int32)
        for first in range(0, self.size, _CHUNK):
            self._insert(np.arange(first, min(first + _CHUNK, self.size)))

    def _insert(self, rows: Ints) -> None:
        position = self._home(self._data["id"][rows])
        while rows.size:
            free = self._slots[position] < 0
            self._slots[position[free]] = rows[free]  # of rows that want one slot, the last written stays
            placed = self._slots[position] == rows
            rows, position = rows[~placed], (position[~placed] + 1) & self._mask
