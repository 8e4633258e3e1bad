"""Redraws the pictures of docs/images whose data are in this repository, and says how the others are made.

    python scripts/redraw.py            redraws
    python scripts/redraw.py --shrink   also gives pictures of true colours a small palette

The report and the results of the study, which are made of the same data, are written anew with its pictures.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from cero.analysis.figures import write_small

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
COMMANDS = (  # seconds each
    [sys.executable, "-m", "cero", "study", "docs/results/study", "--images", "docs/images"],
    [sys.executable, "scripts/speed/run.py", "none"],
    [sys.executable, "-m", "cero.research.laboratory", "table", "docs/results/study/laboratory.jsonl.bz2"]
    + ["--tasks", "letters-fresh", "--plot", "docs/images/laboratory-fresh.png"],
    [sys.executable, "scripts/gpu/figures.py", "page", "docs/results/pretrained.md"],
)
# Pictures of what has to be computed or trained first, and the command that does it.
OTHERS = {
    "quickstart.png": "bash scripts/quickstart.sh (its report.png)",
    "sweep.png": "the sweep of docs/how-to/sweeps.md, then cero report on its folder",
    "simulator*.png": "bash scripts/simulator_tables.sh",
    "regret.png": "cero regret --out docs/images/regret.png",
    "regret-ablation.png": "cero regret --ablation --out docs/images/regret-ablation.png",
}


def shrink(path):
    """Write a picture of true colours with a small palette if that is smaller; return whether it did."""
    with Image.open(path) as picture:
        if picture.mode == "P":
            return False
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / path.name
        write_small(path, small)
        if small.stat().st_size >= path.stat().st_size:
            return False
        path.write_bytes(small.read_bytes())
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shrink", action="store_true", help="give pictures of true colours a small palette")
    arguments = parser.parse_args()
    for command in COMMANDS:
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    if arguments.shrink:
        for path in sorted(IMAGES.glob("*.png")):
            if shrink(path):
                print(f"{path.relative_to(ROOT)} is smaller now")
    print("Redrawn: study-*.png, speed.png, laboratory-fresh.png. The others are made by:")
    for name, command in OTHERS.items():
        print(f"  {name}: {command}")


if __name__ == "__main__":
    main()
