"""How fast are the allocators? Runs every benchmark, and writes the figures, the tables and the picture.

    python scripts/speed/run.py            all benchmarks, about ten minutes
    python scripts/speed/run.py state      only bench_state.py; the figures of the others stay
    python scripts/speed/run.py none       no benchmark: tables and picture from the figures that are there

Figures go into docs/results/speed/speed.json, tables into docs/results/speed.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from show import picture, tables

from cero.research.pages import write_section

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
FIGURES = DOCS / "results" / "speed" / "speed.json"
# SciPy's SLSQP is up to 100 times slower if OpenBLAS's threads compete for a busy machine's cores.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
PARTS = ("allocators", "candidates", "state", "peers", "memory")
BEGIN, END = "<!-- figures: written by scripts/speed/run.py -->\n", "<!-- end of figures -->\n"


def bench(part):
    """Run one bench_*.py; return the machine, the load, and a row for each benchmark, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        command = [sys.executable, "-m", "pytest", "-q", HERE / f"bench_{part}.py", f"--benchmark-json={raw}"]
        load = [round(os.getloadavg()[0], 1)]
        subprocess.run(
            [*map(str, command), "-p", "no:cacheprovider"], check=True, env=os.environ | ONE_THREAD
        )
        load.append(round(os.getloadavg()[0], 1))
        result = json.loads(raw.read_text())
    keep = ("median", "min", "max", "iqr", "rounds")
    rows = [b["extra_info"] | {key: b["stats"][key] for key in keep} for b in result["benchmarks"]]
    return {"machine": machine(result["machine_info"]), "load": load, "rows": rows}


def machine(info):
    """Return a dict of what matters of the machine; nothing in it names the machine."""
    cpu = info["cpu"]
    packages = {name: version(name) for name in ("numpy", "scipy", "cvxpy", "pytest-benchmark")}
    return {
        "cores": os.cpu_count(),
        "cpu": f"{cpu.get('brand_raw', '?')}, family {cpu.get('family')} model {cpu.get('model')}",
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": info["python_version"],
    } | packages


def memory():
    """Run memory.py in a fresh process for each case, and return the figures."""
    cases = [(10_000_000, "cero"), (1_000_000, "cero"), (10_000_000, "cero_resolve"), (10_000_000, "uniform")]
    commands = [[sys.executable, str(HERE / "memory.py"), str(prompts), name] for prompts, name in cases]
    outputs = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout for command in commands
    ]
    return {"rows": [json.loads(output) for output in outputs]}


def main(parts):
    """Measure `parts` (list of str); write tables and the picture as soon as every part has figures."""
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for part in parts:
        figures[part] = memory() if part == "memory" else bench(part)
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    if set(figures) < set(PARTS):
        return
    picture(figures, DOCS / "images" / "speed.png")
    page = DOCS / "results" / "speed.md"
    write_section(page, BEGIN, tables(figures), END)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "none"], default=list(PARTS), metavar="PART")
    names = parser.parse_args().parts
    main([part for part in PARTS if part in names])
