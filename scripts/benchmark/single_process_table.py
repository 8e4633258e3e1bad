"""What do the laboratory's older runs say? JSON lines as a Markdown table, compared seed by seed with one.

    python scripts/benchmark/single_process_table.py docs/results/study/single_process.jsonl.bz2 \\
        --task letters --like @n=2,batch=32 --against cero:signal_hard@n=2,batch=32

Intervals are those of the study. `python -m cero.research.laboratory table` reads the same files: it has
standard errors, thirds of the budget and shares of the ceiling.
"""

import argparse
import bz2
import json
from pathlib import Path

import numpy as np

from cero.cli.output import errors_in_one_line
from cero.research.study.curves import LearningCurve
from cero.research.study.gains import summarise_contenders
from cero.research.study.study_report import DUEL_COLUMNS, duel_row, markdown_table


def read(path, task, like, against):
    """Return the curves of the task's runs of `against` and of contenders with `like` in their names.

    Of runs made twice the last one counts.
    """
    found, budgets = {}, {}
    text = path.read_bytes()
    text = bz2.decompress(text) if path.suffix == ".bz2" else text
    for record in map(json.loads, text.decode().splitlines()):
        label, accuracy = record["contender"], np.array(record["accuracy"])
        if record["task"] == task and (like in label or label == against):
            # Validations come with the first step at or beyond each tenth of the budget, so they are off the
            # grid by less than a step.
            if budgets.setdefault(record["task"], record.get("budget")) != record.get("budget"):
                raise ValueError(
                    f"{path}: runs of {task} have different budgets; keep them in different files"
                )
            budget = record["spent"][-1]
            unknown = np.full(accuracy.size, np.nan)
            found[label, record["seed"]] = LearningCurve(
                task, label, "main", "tune", record["seed"], budget, budget / (accuracy.size - 1), accuracy,
                unknown, unknown, budget, np.nan, np.nan,
            )  # fmt: skip
    return list(found.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lines", type=Path, help="JSON lines of the laboratory, or these in .bz2")
    parser.add_argument("--task", default="letters")
    parser.add_argument("--like", default="", help="only contenders with this in their names")
    parser.add_argument("--against", default="uniform", help="the contender that they are compared with")
    arguments = parser.parse_args()
    with errors_in_one_line("single_process_table.py"):
        curves = read(arguments.lines, arguments.task, arguments.like, arguments.against)
    summaries = sorted(summarise_contenders(curves, arguments.against), key=lambda s: -s.area_gain.mean)
    rows = (duel_row(f"`{summary.contender}`", summary) for summary in summaries if summary.paired)
    print(markdown_table(("contender", *DUEL_COLUMNS[1:]), rows), end="")


if __name__ == "__main__":
    main()
