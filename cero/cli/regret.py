"""`cero regret`: how far from the offline optimum?"""

import json

from cero.allocators import allocator_class
from cero.cli.arguments import at_least_one, counts, words, words_of
from cero.cli.output import say
from cero.core.utility import UTILITIES

HELP = "measure the distance to the offline optimum over the horizon, for fixed utilities"
HORIZONS = [10, 30, 100, 300, 1000, 3000]
ABLATION_HORIZONS = [10, 40, 300]


def add_arguments(parser):
    parser.add_argument("--allocators", type=words, help="comma list (default: cero,cero_resolve)")
    parser.add_argument(
        "--utilities",
        type=words_of(UTILITIES),
        default=["exp", "rational"],
        help="comma list of exp,rational,log",
    )
    parser.add_argument(
        "--epochs", type=counts, help="comma list of horizons (default 10...3000; ablation 10,40,300)"
    )
    parser.add_argument("--seeds", type=at_least_one, default=3, help="how many sets of values")
    parser.add_argument("--prompts", type=at_least_one, default=512)
    parser.add_argument(
        "--anchor", choices=("last", "equal"), help="allocator.anchor of cero (default: last)"
    )
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="cero alone: what each change to the dual iteration does, and its anchors",
    )
    parser.add_argument(
        "--out", help="where the picture goes (default regret.png; ablation: regret-ablation.png)"
    )
    parser.add_argument("--json", action="store_true", help="print records (and slopes) as JSON")


def run(arguments):
    (_ablation if arguments.ablation else _regret)(arguments)


def _track(jobs):
    from rich.console import Console
    from rich.progress import track

    return track(jobs, description="regret", console=Console(stderr=True), transient=True)


def _regret(arguments):
    from rich.console import Console

    from cero.research.theory import regret

    allocators = arguments.allocators or ["cero", "cero_resolve"]
    for name in allocators:
        if allocator_class(name).sequential:
            raise ValueError(
                f"--allocators {name}: it decides within a step, by rewards, and here the values are known; "
                "use those that decide before sampling"
            )

    def options(name):
        # `cero` is sure to reach the optimum only with its own last allocation as anchor.
        return {"anchor": arguments.anchor or "last"} if name == "cero" else {}

    jobs = [
        (name, utility, epochs, seed)
        for name in allocators
        for utility in arguments.utilities
        for epochs in arguments.epochs or HORIZONS
        for seed in range(arguments.seeds)
    ]
    records = [regret.run_regret(*job, prompts=arguments.prompts, **options(job[0])) for job in _track(jobs)]
    picture = regret.plot_regret(records, arguments.out or "regret.png")
    if arguments.json:
        print(json.dumps(regret.as_json(records), indent=2))
        return
    console = Console()
    console.print(regret.regret_table(records))
    say(console, f"Picture: {picture}")


def _ablation(arguments):
    from rich.console import Console

    from cero.research.theory import ablation

    for name in ("allocators", "anchor"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} has no effect with --ablation, which is of cero and of each anchor")
    horizons = sorted(arguments.epochs or ABLATION_HORIZONS)
    jobs = [
        (row, mode, utility, epochs, seed)
        for utility in arguments.utilities
        for mode in ablation.MODES
        for epochs in horizons
        for seed in range(arguments.seeds)
        for row in ablation.ROWS
    ]
    # The picture's left panel: one run of the middle horizon each.
    traced = {
        (row, "own", arguments.utilities[0], horizons[len(horizons) // 2], 0): row for row in ablation.TRACED
    }
    records, demands = [], {}
    for job in _track(jobs):
        record, demand = ablation.run_ablation(*job, prompts=arguments.prompts)
        records.append(record)
        if job in traced:
            demands[traced[job]] = demand
    picture = ablation.plot_ablation(records, demands, arguments.out or "regret-ablation.png")
    if arguments.json:
        print(json.dumps(ablation.as_json(records), indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)  # into a file or a pipe: nothing is cut off
    for table in ablation.ablation_tables(records):
        console.print(table)
    for utility in arguments.utilities:
        tied, above, below = ablation.cliff(utility, prompts=arguments.prompts)
        console.print(
            f"{utility}: at the optimum {tied:.0%} of the prompts are priced exactly at the market; there "
            f"bang-bang demand falls from {below:.1f} to {above:.1f} rollouts per prompt.",
            soft_wrap=True,
            highlight=False,
        )
    say(console, f"Picture: {picture}")
