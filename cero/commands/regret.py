"""`cero regret`: how far from the offline optimum?"""

import json

from cero.commands import numbers, words

HELP = "distance to the offline optimum over the horizon, fixed utilities"
HORIZONS = [10, 30, 100, 300, 1000, 3000]


def add_arguments(parser):
    parser.add_argument("--allocators", type=words, default=["cero", "cero_resolve"], help="comma list")
    parser.add_argument("--utilities", type=words, default=["exp", "rational"], help="comma list of exp,rational,log")
    parser.add_argument("--epochs", type=numbers, default=HORIZONS, help="comma list of horizons")
    parser.add_argument("--seeds", type=int, default=3, help="how many sets of values")
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--anchor", choices=("last", "equal"), default="last", help="allocator.anchor of cero")
    parser.add_argument("--out", default="regret.png", help="where the picture goes")
    parser.add_argument("--json", action="store_true", help="print records and slopes as JSON")


def run(arguments):
    from rich.console import Console
    from rich.progress import track

    from cero import regret

    def options(name):
        # `cero` is bound to reach the optimum only with its own last allocation as anchor.
        return {"anchor": arguments.anchor} if name == "cero" else {}

    jobs = [
        (name, utility, epochs, seed)
        for name in arguments.allocators
        for utility in arguments.utilities
        for epochs in arguments.epochs
        for seed in range(arguments.seeds)
    ]
    bar = track(jobs, description="regret", console=Console(stderr=True), transient=True)
    records = [regret.run(*job, prompts=arguments.prompts, **options(job[0])) for job in bar]
    picture = regret.plot(records, arguments.out)
    if arguments.json:
        print(json.dumps(regret.as_json(records), indent=2))
        return
    console = Console()
    console.print(regret.table(records))
    console.print(f"Picture: {picture}", soft_wrap=True)
