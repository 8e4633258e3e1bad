"""`cero simulate`: which allocator trains a simulated policy best?"""

import json

from cero.commands import words
from cero.simulation.policy import PRESETS
from cero.simulation.study import CONTENDERS, DEFAULT

HELP = "allocators on policies that learn without a network: a laboratory"


def add_arguments(parser):
    parser.add_argument(
        "--contenders",
        type=words,
        default=DEFAULT,
        help=f"comma list; the first is the baseline. Of {', '.join(CONTENDERS)}, or any allocator",
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="latent")
    parser.add_argument("--prompts", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=256, help="prompts a step")
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts per prompt that uniform spends")
    parser.add_argument("--n-min", type=int, default=2)
    parser.add_argument("--n-max", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=None, help="processes (default: all cores)")
    parser.add_argument("--out", default="simulate.png", help="where the picture goes")
    parser.add_argument("--json", action="store_true", help="print summary and curves as JSON")


def run(arguments):
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
        return
    console = Console()
    console.print(study.table(summary, title))
    console.print(f"Picture: {picture}", soft_wrap=True)
