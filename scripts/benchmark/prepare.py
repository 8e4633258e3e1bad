"""Prepares a task of the study: its example's prepare.py, with the warm start that all of its runs share.

    python scripts/benchmark/prepare.py letters --out DIR ...     further options are those of the example
    python scripts/benchmark/prepare.py letters --pack model.safetensors

The weights are kept losslessly in docs/results/study/warm_starts/<task>.planes.xz: the file's bytes in four
planes (the first bytes of all groups of four, then the second ones, ...), compressed by xz. Signs and
exponents of float32 numbers come to lie in one plane, which compresses; xz alone would save half as much."""

import argparse
import lzma
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WARM_STARTS = ROOT / "docs" / "results" / "study" / "warm_starts"


def packed(task):
    """Return the path of a task's packed warm start."""
    return WARM_STARTS / f"{task}.planes.xz"


def pack(data):
    """Return `data` (bytes; their number a multiple of 4) in planes, compressed."""
    planes = np.frombuffer(data, np.uint8).reshape(-1, 4).T
    return lzma.compress(planes.tobytes(), preset=9 | lzma.PRESET_EXTREME)


def unpack(data):
    """Return the bytes of which `pack` made `data`."""
    planes = np.frombuffer(lzma.decompress(data), np.uint8).reshape(4, -1)
    return planes.T.tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", help="letters or arithmetic: a folder of examples with a packed warm start")
    parser.add_argument(
        "--pack", type=Path, metavar="FILE", help="take these weights as the task's warm start"
    )
    arguments, options = parser.parse_known_args()
    if arguments.pack:
        packed(arguments.task).write_bytes(pack(arguments.pack.read_bytes()))
        return
    if not packed(arguments.task).is_file():
        parser.error(f"task {arguments.task!r} has no packed warm start at {packed(arguments.task)}")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / f"{arguments.task}.safetensors"
        weights.write_bytes(unpack(packed(arguments.task).read_bytes()))
        script = ROOT / "examples" / arguments.task / "prepare.py"
        command = [sys.executable, script, *options, "--weights", weights]
        sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
