"""Does any input break a promise? A million drawn calls of allocators, tables, ledgers and files.

    python scripts/reliability/fuzz.py --cases 1000000 --out runs/fuzz.json

Prints a line for each area and for each finding, with what makes it again. The promises are in
`cases/promises.py`. Exits with 1 if one was broken.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

from cero.cli.arguments import at_least_one, at_least_zero, words_of, zero_or_more

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cases import files, life, options, parts  # noqa: E402

BLOCK = 500  # cases with a generator of their own
MOST_FINDINGS = 20  # of an area: then the next one begins
# Each area's share of the cases, and what makes them.
AREAS = {
    "options": (0.2, options.option_cases),
    "allocators": (0.2, life.life_cases),
    "prompt ids": (0.2, parts.id_cases),
    "budgets": (0.17, parts.budget_cases),
    "ledger": (0.17, parts.ledger_cases),
    "state files": (0.04, files.file_cases),
    "log lines": (0.02, files.line_cases),
}


def fuzz_area(name, count, seed, deadline=None, first=0):
    """Run `count` cases of an area; return a dict of area, cases, seconds of a core, and a list of findings.

    first : the number of the first block; deadline : of time.monotonic, or None
    """
    started, done, findings = time.process_time(), 0, []
    number = first
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        while done < count and len(findings) < MOST_FINDINGS:
            if deadline is not None and time.monotonic() > deadline:
                break
            rng = np.random.default_rng([seed, list(AREAS).index(name), number])
            drawn, found = fuzz_block(name, rng, min(BLOCK, count - done), Path(folder))
            done += drawn
            if found is not None:
                findings.append({"block": number, "case": drawn} | found)
            number += 1
    return {
        "area": name,
        "cases": done,
        "seconds": round(time.process_time() - started, 1),
        "findings": findings,
    }


def fuzz_block(name, rng, count, folder):
    """Run a block's cases; return (how many, None or {"what", "where"} of the one that broke a promise)."""
    make = AREAS[name][1]
    made = make(rng, folder) if name in ("state files", "log lines") else make(rng)
    done = 0
    try:
        for done in range(1, count + 1):  # noqa: B007
            next(made)
    except Exception as error:  # a finding, or whatever the case itself did not expect
        cause = error
        while cause.__cause__ or cause.__context__:
            cause = cause.__cause__ or cause.__context__
        frames = traceback.extract_tb(cause.__traceback__) or traceback.extract_tb(error.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        return done, {"what": f"{type(error).__name__}: {error}"[:400], "where": where}
    return done, None


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=at_least_one, default=1_000_000, help="in all (default: %(default)s)")
    parser.add_argument(
        "--seed", type=at_least_zero, default=0, help="of all that is drawn (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=zero_or_more, help="end after this many")
    parser.add_argument(
        "--areas", type=words_of(AREAS), default=list(AREAS), help="comma list (default: all)"
    )
    parser.add_argument(
        "--first", type=at_least_zero, default=0, help="begin with this block, to see a finding again"
    )
    parser.add_argument("--out", help="where counts go, as JSON")
    arguments = parser.parse_args(argv)
    deadline = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    areas = arguments.areas
    whole = sum(AREAS[name][0] for name in areas)
    rows = []
    for name in areas:
        count = round(arguments.cases * AREAS[name][0] / whole)
        row = fuzz_area(name, count, arguments.seed, deadline, arguments.first)
        rows.append(row)
        print(f"{name}: {row['cases']:,} cases in {row['seconds']:.0f} s, {len(row['findings'])} findings")
        for finding in row["findings"]:
            print(f"  block {finding['block']}, {finding['where']}: {finding['what']}")
        sys.stdout.flush()
    found = sum(len(row["findings"]) for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    print(f"in all: {sum(row['cases'] for row in rows):,} cases in {seconds:.0f} s, {found} findings")
    if arguments.out:
        result = {"seed": arguments.seed, "areas": rows}
        Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
