"""`cero report`: what did a run do, or several?"""

import json
from functools import partial
from pathlib import Path

from cero.analysis import comparison
from cero.analysis.report import plot_run, run_table, summarise_run
from cero.analysis.run import TrainingRun, find_log
from cero.cli.output import complain, drawn, say

tell = partial(complain, "report")

HELP = "show a run, or several side by side, from their allocation logs: a table and a picture"


def add_arguments(parser):
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="DIR",
        help="a run's folder (verl's trainer.default_local_dir) or its allocations.jsonl. Several runs, or a "
        "folder of runs such as Hydra's multirun/DATE/TIME, give one table and one picture of all",
    )
    parser.add_argument(
        "--out",
        help="where the picture goes (default: report.png beside the log; of several: in DIR, or here)",
    )
    parser.add_argument("--title", help="a title for table and picture")
    parser.add_argument("--csv", help="of several: write the table to this file, too")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(arguments):
    runs = comparison.find_runs(arguments.runs)
    if len(runs) == 1 and not arguments.csv:
        report_one(runs[0], arguments)
    else:
        report_several(arguments)


def report_one(path, arguments):
    """Show a run's own table and picture."""
    run = TrainingRun.read(path, tell)
    summary = summarise_run(run)
    place = Path(arguments.out) if arguments.out else find_log(path).with_name("report.png")
    picture = drawn(partial(plot_run, run, title=arguments.title), place, arguments.out, tell)
    if arguments.json:
        print(json.dumps(summary | {"picture": picture and str(picture)}, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(run_table(summary, title=arguments.title or str(path)))
    if picture:
        say(console, f"Picture: {picture}")


def report_several(arguments):
    """Show one table and one picture of all runs."""
    members, left_out = comparison.gather(arguments.runs, tell)
    rows, span = comparison.compare_runs(members), comparison.common_range(members)
    place = Path(arguments.runs[0]) if len(arguments.runs) == 1 else Path()
    if not place.is_dir():
        place = Path()
    picture = drawn(
        partial(comparison.plot_comparison, members, title=arguments.title),
        Path(arguments.out) if arguments.out else place / "report.png",
        arguments.out,
        tell,
    )
    if arguments.csv:
        comparison.write_csv(rows, arguments.csv)
    if arguments.json:
        found = {"runs": rows, "area_over": span, "left_out": left_out, "picture": picture and str(picture)}
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)  # into a file or a pipe: nothing is cut off
    title = arguments.title or f"{len(rows)} run{'s' if len(rows) != 1 else ''}"
    console.print(comparison.comparison_table(rows, span, title))
    for path, why in left_out.items():
        say(console, f"Left out: {path}: {why}")
    if picture:
        say(console, f"Picture: {picture}")
    if arguments.csv:
        say(console, f"Table: {arguments.csv}")
