"""What do ids cost that were made to share one slot of the prompt table?

    python scripts/reliability/ids.py

The mixing of ids is public and can be inverted, but for the key that each table draws for itself. Prints
seconds with a key of 0, which is no key, and with the table's own.
"""

import time

import numpy as np

from cero.core import prompts
from cero.core.prompts import PromptTable


def colliding(count):
    """Return ids, shape (count,), that the mixing without a key puts into slot 0, whatever the size."""
    inverse = np.uint64(pow(int(prompts._MULTIPLIER), -1, 2**64))
    ids = np.arange(count, dtype=np.uint64)
    for _ in range(2):
        ids = ids * inverse
        ids ^= ids >> prompts._FOLD
    return ids


def measure(ids, key=None):
    """Return seconds to add `ids` to a new table, and to look 512 of them up."""
    table = PromptTable({})
    if key is not None:
        table._key = np.uint64(key)
    started = time.process_time()
    table.add(ids)
    added = time.process_time()
    table.rows(ids[-512:])
    return added - started, time.process_time() - added


def main(count=20_000):
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 2**64, count, dtype=np.uint64)
    for words, ids, key in (
        ("drawn at random", drawn, None),
        ("made to collide, without a key", colliding(count), 0),
        ("made to collide, with the table's key", colliding(count), None),
    ):
        add, look = measure(ids, key)
        print(f"{count:,} ids {words}: {add:.3f} s to add, {1000 * look:.2f} ms to look 512 up")


if __name__ == "__main__":
    main()
