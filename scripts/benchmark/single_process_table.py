"""What do the laboratory's older runs say? JSON lines as a Markdown table, compared seed by seed with one.

    python scripts/benchmark/single_process_table.py docs/results/study/single_process.jsonl.bz2 \\
        --task letters --like @n=2,batch=32 --against cero:signal_hard@n=2,batch=32

Intervals are those of the study. `python -m cero.research.laboratory table` reads the same files: it has
standard errors, thirds of the budget and shares of the ceiling.
"""

import argparse
from pathlib import Path

from cero.cli.output import errors_in_one_line
from cero.research.laboratory.results import read_results
from cero.research.study.gains import summarise_contenders
from cero.research.study.study_report import DUEL_COLUMNS, duel_row, markdown_table


def read(path, task, like, against):
    """Return the curves of the task's runs of `against` and of contenders with `like` in their names.

    Of runs made twice the last one counts.
    """
    results = read_results(path, task).get(task, {})
    return [
        curve
        for label, runs in results.items()
        if like in label or label == against
        for curve in runs.values()
    ]


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
