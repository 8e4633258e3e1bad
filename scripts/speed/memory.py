"""How many bytes does a prompt cost? Fills a table step by step, and prints the answer as JSON.

    python scripts/speed/memory.py [prompts] [allocator]

`held` : bytes of the table's arrays, spare room and index included, for each prompt in it at the end
`held_most` : the largest such number at any size from 100,000 prompts on
`process` : growth of the process's peak memory for each prompt, so that temporary arrays count, too
`slowest`, `median` : seconds of the slowest and of the middle step of 8,192 new prompts; the table grows in
some of them
"""

import argparse
import json
import resource
import time

import numpy as np
from tables import fresh, step

from cero import available_allocators
from cero.cli.arguments import at_least_one

SIZE = 8192


def peak():
    """Return the peak resident memory of this process so far, in bytes (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(prompts, name):
    """Fill a table of `prompts` prompts and print the figures."""
    allocator = fresh(name)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**64, SIZE, dtype=np.uint64)
    step(allocator, ids, 0.5)  # so that code and buffers are loaded before counting
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("prompts", nargs="?", type=at_least_one, default=10_000_000)
    parser.add_argument("allocator", nargs="?", choices=available_allocators(), default="cero")
    arguments = parser.parse_args()
    main(arguments.prompts, arguments.allocator)
