"""Which odd values are given in place of good ones, and how are states and files damaged?"""

import datetime
import math
import types
from decimal import Decimal
from fractions import Fraction

import numpy as np

ODD = (
    None, True, False, 0, 1, -1, 2, 7, 0.0, -0.0, 0.5, 1.5, -2.5, 1e-320, 1e300, -1e300,
    math.nan, math.inf, -math.inf, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63), 10**400, -(10**400),
    "", "a", "1", "nan", "auto", "\0", "\ud800", b"", b"a", (), [], {}, [1], [1.5, "a"], [[1], [2]], {"a": 1},
    np.float32(1.1), np.float64(np.nan), np.int8(3), np.uint64(2**64 - 1), np.bool_(True), np.str_("x"),
    np.complex64(1),
    np.array(3), np.array(2.5), np.array([]), np.array([1, 2]), np.array([[1, 2]]), np.array(["a"]),
    np.array([None], object), np.array([np.nan, 1.0]), np.datetime64("NaT"), np.timedelta64(3, "D"),
    Decimal("2"), Decimal("1.5"), Decimal("NaN"), Decimal("sNaN"), Fraction(1, 3), Fraction(4, 2), 1 + 1j,
    range(3), set(), frozenset({1}), object(), object, len, Ellipsis, slice(1), datetime.date(2026, 1, 1),
    types.SimpleNamespace(a=1),
)  # fmt: skip


def odd(rng):
    """Return an odd value; now and then a short list or array of them."""
    value = ODD[rng.integers(len(ODD))]
    kind = rng.integers(12)
    if kind == 0:
        return [value, ODD[rng.integers(len(ODD))]]
    if kind == 1:
        return [value] * int(rng.integers(1, 6))
    return value


def damage_state(rng, state):
    """Return a state with one thing changed, or something else in its place."""
    state = {
        **state,
        "ledger": dict(state["ledger"]),
        "scalars": dict(state["scalars"]),
        "table": dict(state["table"]),
    }
    kind = rng.integers(8)
    if kind == 0:
        return odd(rng)
    if kind == 1:
        state.pop(list(state)[rng.integers(len(state))])
    elif kind == 2:
        state[list(state)[rng.integers(len(state))]] = odd(rng)
    elif kind == 3:
        part = state[("ledger", "scalars", "table", "rng")[rng.integers(4)]]
        if part is state["rng"]:
            part = state["rng"] = dict(part)
        if part:
            key = list(part)[rng.integers(len(part))]
            if rng.integers(3) == 0:
                part.pop(key)
            else:
                part[key] = odd(rng)
    elif kind == 4:
        state["rng"] = {**state["rng"], "state": {**state["rng"]["state"]}}
        state["rng"]["state"][("state", "inc")[rng.integers(2)]] = odd(rng)
    else:
        name = list(state["table"])[rng.integers(len(state["table"]))]
        column = state["table"][name].copy()
        if kind == 5 and column.size:
            numbers = np.array([-1, 2.0**31, 2.0**31 - 1, 2.0**30, np.nan, np.inf, -np.inf, 1e300, 0.5])
            with np.errstate(all="ignore"):
                column[rng.integers(column.size)] = numbers.astype(column.dtype)[rng.integers(numbers.size)]
        elif kind == 6:
            column = column.astype((np.float32, np.int8, np.int64, object, "U3")[rng.integers(5)])
        else:
            column = (column[:-1], column[None], np.tile(column, 2), column[::-1], np.zeros(0))[
                rng.integers(5)
            ]
        state["table"][name] = column
    return state


def damage_bytes(rng, whole):
    """Return bytes with some of them changed, gone, doubled or more."""
    data = bytearray(whole)
    at, size = int(rng.integers(len(data))), int(rng.integers(1, 65))
    kind = rng.integers(7)
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at : at + size] = bytes(len(data[at : at + size]))
    elif kind == 3:
        data[at : at + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
    elif kind == 4:
        del data[at : at + size]
    elif kind == 5:
        data += data[at:]
    else:
        data = bytearray(rng.integers(0, 256, size * 8, dtype=np.uint8).tobytes())
    return bytes(data)
