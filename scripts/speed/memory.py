"""How many bytes does a prompt take? A fresh process fills a table step by step and prints JSON.

    python scripts/speed/memory.py [prompts] [allocator]

`held` is the bytes of the table's arrays, spare room and index included, per prompt in it, at the end.
`held_most` is the largest value of this at any size from 100,000 on. `process` is how much the process's peak
memory grew per prompt, so the temporaries of growing count. `slowest` and `median` are the seconds of the
slowest and of the middle step of 8,192 prompts. All of these are new, so the table grows in some steps.
"""

import json
import resource
import sys
import time

import numpy as np
from tables import fresh, step

SIZE = 8192


def peak():
    """Return the peak resident memory of this process so far, in bytes (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(prompts=10_000_000, name="cero"):
    allocator = fresh(name)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**64, SIZE, dtype=np.uint64)
    step(allocator, ids, 0.5)  # code and buffers are there before counting
    before, most, seconds = peak(), 0.0, []
    while len(allocator.table) < prompts:
        ids = rng.integers(0, 2**64, SIZE, dtype=np.uint64)
        start = time.perf_counter()
        step(allocator, ids, 0.5)
        seconds.append(time.perf_counter() - start)
        if len(allocator.table) >= 100_000:
            most = max(most, allocator.table.nbytes / len(allocator.table))
    size = len(allocator.table)
    held = allocator.table.nbytes / size
    figures = {"held": held, "held_most": most, "process": (peak() - before) / size}
    figures = {key: round(value, 1) for key, value in figures.items()}
    figures |= {"slowest": round(max(seconds), 4), "median": round(float(np.median(seconds)), 5)}
    print(json.dumps({"allocator": name, "prompts": size} | figures))


if __name__ == "__main__":
    main(*([int(sys.argv[1])] + sys.argv[2:3] if len(sys.argv) > 1 else []))
