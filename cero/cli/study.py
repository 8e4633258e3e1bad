"""`cero study`: which contender trains better, and by how much?"""

import json
from functools import partial

from cero.cli.output import complain, say
from cero.research.study.plan import SHIPPED

HELP = "turn the runs of `cero benchmark` into a report: curves, rollouts to a target, intervals"


def add_arguments(parser):
    parser.add_argument(
        "runs",
        help="folder of runs: runs.csv.bz2 and runs.jsonl.bz2, or <task>/<contender>/<seed>.csv, or both",
    )
    parser.add_argument("--out", help="where report.md and results.json go (default: that folder)")
    parser.add_argument("--images", help="where pictures go (default: where the report goes)")
    parser.add_argument(
        "--champion", default=SHIPPED, help="compared with each other contender (default: %(default)s)"
    )
    parser.add_argument(
        "--pack",
        action="store_true",
        help="first move the runs that have files of their own into runs.csv.bz2 and runs.jsonl.bz2",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(arguments):
    from cero.research.study.archive import pack
    from cero.research.study.curves import read_curves
    from cero.research.study.gains import read_ceilings, run_results, summarise_contenders
    from cero.research.study.study_report import study_table, write_study

    if arguments.pack:
        pack(arguments.runs)
    tell = partial(complain, "study")
    curves = read_curves(arguments.runs, tell)
    contenders = dict.fromkeys(curve.contender for curve in curves)
    if arguments.champion not in contenders and arguments.champion != SHIPPED:
        raise ValueError(f"--champion={arguments.champion} has no runs; there are {', '.join(contenders)}")
    ceilings = read_ceilings(arguments.runs, tell)
    written = write_study(
        curves, arguments.out or arguments.runs, arguments.champion, arguments.images, ceilings
    )
    if arguments.json:
        print(json.dumps(run_results(curves), indent=1))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=250)  # into a file or a pipe: nothing is cut off
    summaries = summarise_contenders(curves, ceilings=ceilings)
    for task, split in dict.fromkeys((s.task, s.split) for s in summaries):
        mine = [s for s in summaries if (s.task, s.split) == (task, split)]
        console.print(study_table(mine, f"{task}, seeds to {split} (accuracy in %; ratio below 1 is better)"))
    say(console, "Written: " + ", ".join(map(str, written)))
