"""`cero simulate`: which allocator trains a simulated policy best?"""

import json

from cero.cli.arguments import at_least_one, at_least_zero, counts, share, words
from cero.cli.output import say
from cero.research.simulation.methods import DEFAULT_METHODS, METHODS
from cero.research.simulation.presets import PRESETS

HELP = "compare allocators on simulated policies, in seconds: a guide, not evidence"
# Options that --check does not use, and their defaults.
OF_COMPARE = {
    "methods": DEFAULT_METHODS,
    "presets": ["latent"],
    "budgets": [8],
    "target": None,
    "prompts": None,
    "epochs": None,
    "batch": None,
    "n_min": 2,
    "n_max": 32,
    "lag": 0,
    "staleness": 1.0,
}


def add_arguments(parser):
    parser.add_argument(
        "--methods",
        "--contenders",
        dest="methods",
        type=words,
        default=OF_COMPARE["methods"],
        help="comma list; the others are compared with the first. Each is a named method or any allocator. "
        f"The named methods are {', '.join(METHODS)}. A method may go on with /key=value, as in "
        "cero/value=signal_hard/estimator=grpo. Keys are estimator, weight, history, keep, ratio, count, "
        "pass_rates, strength and the options of the allocator",
    )
    parser.add_argument(
        "--presets",
        "--preset",
        type=words,
        default=OF_COMPARE["presets"],
        help=f"comma list of {', '.join(PRESETS)}; or all",
    )
    parser.add_argument(
        "--budgets", type=counts, default=[8], help="comma list: rollouts a prompt under uniform"
    )
    parser.add_argument(
        "--seeds", type=at_least_one, default=None, help="how many (default: 5; 20 with --check)"
    )
    parser.add_argument(
        "--target",
        type=share,
        default=None,
        help="accuracy to reach (default: what the first method ends at)",
    )
    parser.add_argument("--prompts", type=at_least_one, default=None, help="how many (default: the preset's)")
    parser.add_argument("--epochs", type=at_least_one, default=None, help="how many (default: the preset's)")
    parser.add_argument(
        "--batch", type=at_least_one, default=None, help="prompts a step (default: the preset's)"
    )
    parser.add_argument("--n-min", type=at_least_zero, default=2, help="least rollouts of a prompt in a step")
    parser.add_argument("--n-max", type=at_least_one, default=32, help="most rollouts of a prompt in a step")
    parser.add_argument(
        "--lag",
        type=at_least_zero,
        default=0,
        help="steps by which outcomes come late, as with asynchronous trainers",
    )
    parser.add_argument(
        "--staleness",
        type=share,
        default=1.0,
        help="what an outcome counts for in the posterior, for each step that it is late (default: 1)",
    )
    parser.add_argument("--workers", type=at_least_one, default=None, help="processes (default: all cores)")
    parser.add_argument(
        "--check", action="store_true", help="compare the order of rules with that of a small experiment"
    )
    parser.add_argument("--out", default="simulate.png", help="where the picture goes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print figures and curves as JSON")


def run(arguments):
    (check if arguments.check else compare)(arguments)


def bar(jobs, total):
    """Return the jobs with a progress bar on stderr, for `run_experiments`."""
    from rich.console import Console
    from rich.progress import track

    return track(jobs, total=total, description="simulate", console=Console(stderr=True), transient=True)


def compare(arguments):
    """Show methods side by side."""
    from cero.research.simulation import experiments, show, training

    seeds = arguments.seeds or 5
    curves = experiments.run_experiments(
        arguments.methods,
        list(PRESETS) if arguments.presets == ["all"] else arguments.presets,
        arguments.budgets,
        seeds,
        progress=bar,
        workers=arguments.workers,
        prompts=arguments.prompts,
        epochs=arguments.epochs,
        batch=arguments.batch,
        n_min=arguments.n_min,
        n_max=arguments.n_max,
        lag=arguments.lag,
        staleness=arguments.staleness,
    )
    summaries = {
        cell: experiments.summarise_methods(mine, arguments.target)
        for cell, mine in experiments.curves_by_setting(curves).items()
    }
    single = len(summaries) == 1
    where = (
        "{}, {} rollouts a prompt".format(*next(iter(summaries))) if single else f"{len(summaries)} settings"
    )
    title = f"Simulated policies, {where}, {seeds} seeds"
    picture = show.plot_curves(curves, arguments.out, title)
    if arguments.json:
        records = [
            {"preset": preset, "budget": budget, "summary": summary}
            for (preset, budget), summary in summaries.items()
        ]
        print(dumped({"cells": records, "curves": training.as_json(curves)}))
    elif single:
        tell(
            show.summary_table(next(iter(summaries.values())), title, arguments.target), f"Picture: {picture}"
        )
    else:
        tell(show.settings_table(summaries, title), f"Picture: {picture}")


def check(arguments):
    """Show the simulator's order of rules beside that of a small experiment with a network."""
    from cero.research.simulation import order_check

    ignored = [name for name, default in OF_COMPARE.items() if getattr(arguments, name) != default]
    if ignored:
        option = ignored[0].replace("_", "-")
        raise ValueError(f"--{option} has no effect with --check, whose experiment is fixed; leave it out")

    seeds = arguments.seeds or 20
    result = order_check.check_order(seeds, progress=bar, workers=arguments.workers)
    title = (
        f"Area under the accuracy curve: predicted (preset lab, {seeds} seeds) and measured with a network"
    )
    picture = order_check.plot_order(result, arguments.out, title)
    if arguments.json:
        print(dumped(result))
    else:
        ranks = order_check.describe_ranks(result)
        tell(order_check.order_table(result, title), *ranks, f"Picture: {picture}")


def tell(*parts):
    """Print tables and lines."""
    from rich.console import Console

    console = Console()
    for part in parts:
        say(console, part) if isinstance(part, str) else console.print(part)


def dumped(data):
    """Return `data` as JSON text; nan becomes null."""

    def clean(value):
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        return None if value != value else value

    return json.dumps(clean(data), indent=2, allow_nan=False)
