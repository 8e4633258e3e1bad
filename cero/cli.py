"""The `cero` command."""

import argparse
import json
import sys
from pathlib import Path

from cero.report import Run, find_log, plot, summarise, table

HORIZONS = [10, 30, 100, 300, 1000, 3000]


def _report(arguments):
    run = Run.read(arguments.run)
    summary = summarise(run)
    picture = Path(arguments.out) if arguments.out else find_log(arguments.run).with_name("report.png")
    plot(run, picture, title=arguments.title)
    if arguments.json:
        print(json.dumps(summary | {"picture": str(picture)}, indent=2))
    else:
        from rich.console import Console

        console = Console()
        console.print(table(summary, title=arguments.title or str(arguments.run)))
        console.print(f"Picture: {picture}", soft_wrap=True)


def _regret(arguments):
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
    else:
        console = Console()
        console.print(regret.table(records))
        console.print(f"Picture: {picture}", soft_wrap=True)


def _simulate(arguments):
    from rich.console import Console
    from rich.progress import track

    from cero.simulation import run, study

    count = len(arguments.contenders) * arguments.seeds
    curves = study.study(
        arguments.contenders,
        arguments.preset,
        arguments.seeds,
        progress=lambda jobs: track(
            jobs, total=count, description="simulate", console=Console(stderr=True), transient=True
        ),
        workers=arguments.workers,
        prompts=arguments.prompts,
        epochs=arguments.epochs,
        batch=arguments.batch,
        rollouts_per_prompt=arguments.rollouts,
        n_min=arguments.n_min,
        n_max=arguments.n_max,
    )
    summary = study.summarise(curves, arguments.contenders[0])
    title = f"Simulated policies, {arguments.preset}: {arguments.prompts} prompts, {arguments.seeds} seeds"
    picture = study.plot(curves, arguments.out, title)
    if arguments.json:
        print(json.dumps({"summary": summary, "curves": run.as_json(curves)}, indent=2))
    else:
        console = Console()
        console.print(study.table(summary, title))
        console.print(f"Picture: {picture}", soft_wrap=True)


def _words(text):
    return text.split(",")


def _numbers(text):
    return [int(word) for word in text.split(",")]


def _watch(arguments):
    from cero.watch import watch

    watch(arguments.run, arguments.pid)


def parser():
    """The argument parser of every subcommand."""
    top = argparse.ArgumentParser(prog="cero", description="Rollout budgets for RL post-training with verl.")
    commands = top.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="table and picture of a run, from its allocation log")
    report.add_argument("run", help="a run's folder (verl's trainer.default_local_dir) or an allocations.jsonl")
    report.add_argument("--out", help="where the picture goes (default: report.png beside the log)")
    report.add_argument("--title", help="a title for table and picture")
    report.add_argument("--json", action="store_true", help="print the figures as JSON")
    report.set_defaults(run_command=_report)
    follow = commands.add_parser("watch", help="progress of a run while it trains")
    follow.add_argument("run", help="the run's folder (verl's trainer.default_local_dir)")
    follow.add_argument("--pid", type=int, required=True, help="process to wait for: the one of main_ppo")
    follow.set_defaults(run_command=_watch)
    regret = commands.add_parser("regret", help="distance to the offline optimum over the horizon, fixed utilities")
    regret.add_argument("--allocators", type=_words, default=["cero", "cero_resolve"], help="comma list")
    regret.add_argument("--utilities", type=_words, default=["exp", "rational"], help="comma list of exp,rational,log")
    regret.add_argument("--epochs", type=_numbers, default=HORIZONS, help="comma list of horizons")
    regret.add_argument("--seeds", type=int, default=3, help="how many sets of values")
    regret.add_argument("--prompts", type=int, default=512)
    regret.add_argument("--anchor", choices=("last", "equal"), default="last", help="allocator.anchor of cero")
    regret.add_argument("--out", default="regret.png", help="where the picture goes")
    regret.add_argument("--json", action="store_true", help="print records and slopes as JSON")
    regret.set_defaults(run_command=_regret)
    from cero.simulation.policy import PRESETS
    from cero.simulation.study import CONTENDERS, DEFAULT

    simulate = commands.add_parser("simulate", help="allocators on policies that learn without a network: a laboratory")
    simulate.add_argument(
        "--contenders",
        type=_words,
        default=DEFAULT,
        help=f"comma list; the first is the baseline. Of {', '.join(CONTENDERS)}, or any allocator",
    )
    simulate.add_argument("--preset", choices=list(PRESETS), default="latent")
    simulate.add_argument("--prompts", type=int, default=4096)
    simulate.add_argument("--epochs", type=int, default=30)
    simulate.add_argument("--batch", type=int, default=256, help="prompts a step")
    simulate.add_argument("--rollouts", type=int, default=8, help="rollouts per prompt that uniform spends")
    simulate.add_argument("--n-min", type=int, default=2)
    simulate.add_argument("--n-max", type=int, default=32)
    simulate.add_argument("--seeds", type=int, default=5)
    simulate.add_argument("--workers", type=int, default=None, help="processes (default: all cores)")
    simulate.add_argument("--out", default="simulate.png", help="where the picture goes")
    simulate.add_argument("--json", action="store_true", help="print summary and curves as JSON")
    simulate.set_defaults(run_command=_simulate)
    return top


def main(argv=None):
    """Run the command line; exits with 2 and one line on stderr for input that can't be used."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run_command(arguments)
    except (FileNotFoundError, ValueError) as error:
        print(f"cero {arguments.command}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
