"""Print, in Markdown, the row of the GPU page's table that a run has earned.

    python examples/math/table.py runs/math/qwen2.5-math-7b-*

Accuracies are verl's mean@k of the last validation, in percent. GPU hours are the seconds of all steps and
validations in the run's log, times its GPUs (--gpus). They do not include the start, the validation before
training, and what a crash cost.
"""

import argparse
import re
import sys
from functools import partial

from cero.analysis.run import find_log
from cero.analysis.runlog import read_log
from cero.cli.arguments import at_least_one
from cero.cli.output import errors_in_one_line

SETS = ("aime24", "aime25", "amc23", "math500", "minerva", "olympiad")
HEAD = ("run", *SETS, "mean", "rollouts", "GPU hours")


def row(path, gpus):
    """Return the cells of a run's row, list of str; "" stands for what its log does not say."""
    log = find_log(path)
    records = read_log(log, partial(print, file=sys.stderr))
    steps = [record for record in records if record["kind"] == "step"]
    validations = [record for record in records if record["kind"] == "validation" and record["step"] > 0]
    values = {}
    for key, value in (validations[-1]["metrics"] if validations else {}).items():
        found = re.fullmatch(r"val-core/(\w+)/acc/mean@\d+", key)
        if found:
            values[found[1]] = 100 * value
    cells = [f"{values[name]:.1f}" if name in values else "" for name in SETS]
    mean = f"{sum(values[name] for name in SETS) / len(SETS):.1f}" if set(SETS) <= set(values) else ""
    seconds = sum(
        record["metrics"].get(f"timing_s/{phase}", 0.0) for record in steps for phase in ("step", "testing")
    )
    name = log.parent.parent.name if log.parent.name == "cero" else log.stem
    return [name, *cells, mean, f"{steps[-1]['spent']:,}" if steps else "", f"{gpus * seconds / 3600:.1f}"]


def markdown(rows):
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of runs (verl's trainer.default_local_dir)")
    parser.add_argument("--gpus", type=at_least_one, default=8, help="GPUs that the runs used (default: 8)")
    args = parser.parse_args(argv)
    with errors_in_one_line("table.py"):
        rows = [row(path, args.gpus) for path in args.runs]
    print(markdown(rows))


if __name__ == "__main__":
    main()
