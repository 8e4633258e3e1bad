"""`cero inspect`: what does an allocator know of its prompts?"""

import json
from functools import partial

from cero.cli.arguments import at_least_zero

HELP = "show what a saved allocator state, or a run's log, knows of the prompts"


def add_arguments(parser):
    parser.add_argument(
        "path",
        help="an allocator.npz, a checkpoint (global_step_N), a run's folder (verl's "
        "trainer.default_local_dir; its newest committed checkpoint is read, else its log), or an "
        "allocations.jsonl",
    )
    parser.add_argument(
        "--top", type=at_least_zero, default=10, help="how many prompts with most and least rollouts"
    )
    parser.add_argument("--out", help="where a picture goes (default: none)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments):
    from cero.analysis.inspection import as_json, inspect, inspection_tables, plot_inspection
    from cero.cli.output import complain, say

    inspection = inspect(arguments.path, partial(complain, "inspect"))
    figures = as_json(inspection, arguments.top)
    if arguments.out:
        figures["picture"] = str(plot_inspection(inspection, arguments.out))
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    from rich.console import Console

    console = Console()
    say(console, f"{figures['kind']} {figures['source']}")
    console.print(*inspection_tables(figures), sep="\n")
    if arguments.out:
        say(console, f"Picture: {figures['picture']}")
