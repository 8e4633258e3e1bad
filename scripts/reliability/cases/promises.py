"""What must hold, whatever the input? `Finding` is raised where a promise is broken.

- a call ends well, or is refused with ValueError or TypeError whose message names the key;
- what is refused has changed nothing;
- rollouts cost their budget exactly, within their bounds; nothing is nan; nothing is lost by saving.
"""

import math

import numpy as np


class Finding(AssertionError):
    """Raised where a promise is broken."""


def need(condition, message):
    """Raise Finding with `message` unless `condition` holds."""
    if not condition:
        raise Finding(message)


def attempt(call, names, state_of=None):
    """Return (result, None), or (None, error) where `call()` was refused as it should be.

    names : words of which the refusal's message must have one
    state_of : function without arguments; what it returns must be the same after a refusal
    """
    before = None if state_of is None else state_of()
    try:
        return call(), None
    except (ValueError, TypeError) as error:
        message = str(error)
        need(any(name in message for name in names), f"refused without naming a key: {error!r}")
        if state_of is not None:
            need(state_of() == before, f"refused after it had changed something: {error!r}")
        return None, error
    except RuntimeWarning as warning:
        raise Finding(f"warned: {warning}") from warning
    except Exception as error:
        raise Finding(f"failed with {error!r}") from error


def snapshot(allocator):
    """Return all that an allocator's state holds, for a comparison."""
    table = allocator.table
    rng = allocator._rng.bit_generator.state
    return (
        allocator.ledger.spent,
        allocator.ledger.total,
        tuple(allocator._all_scalars().items()),
        rng["state"]["state"],
        rng["has_uint32"],
        tuple(table[name].tobytes() for name in table.names),
    )


def check_whole(allocator, shown=True):
    """Raise Finding unless what an allocator knows is finite, and what it shows too if `shown`."""
    for name in allocator.table.names:
        column = allocator.table[name]
        if column.dtype.kind == "f":
            need(np.isfinite(column).all(), f"column {name} is not finite")
        elif column.dtype.kind == "i" and name in ("allocated", "pending"):
            need(column.min(initial=0) >= 0, f"column {name} is negative")
    for source in (allocator._all_scalars(), allocator.metrics() if shown else {}):
        for key, value in source.items():
            need(math.isfinite(value), f"{key}={value}")
