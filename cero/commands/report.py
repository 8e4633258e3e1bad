"""`cero report`: what did a run do?"""

import json
from pathlib import Path

from cero.report import Run, find_log, plot, summarise, table

HELP = "table and picture of a run, from its allocation log"


def add_arguments(parser):
    parser.add_argument("run", help="a run's folder (verl's trainer.default_local_dir) or an allocations.jsonl")
    parser.add_argument("--out", help="where the picture goes (default: report.png beside the log)")
    parser.add_argument("--title", help="a title for table and picture")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(arguments):
    run = Run.read(arguments.run)
    summary = summarise(run)
    picture = Path(arguments.out) if arguments.out else find_log(arguments.run).with_name("report.png")
    plot(run, picture, title=arguments.title)
    if arguments.json:
        print(json.dumps(summary | {"picture": str(picture)}, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(table(summary, title=arguments.title or str(arguments.run)))
    console.print(f"Picture: {picture}", soft_wrap=True)
