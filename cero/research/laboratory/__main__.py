"""The laboratory's command line.

`run` trains what is not in the file yet, and `table` shows what is. `replay` holds a run through verl to it.
"""

import argparse
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from cero.cli.arguments import at_least_one, at_least_zero, numbers, words
from cero.cli.main import execute
from cero.research.laboratory.contenders import NAMED, parse_contender
from cero.research.laboratory.results import (
    COLUMNS,
    EVEN,
    FOUND,
    ORACLE,
    REFERENCE,
    append,
    draw,
    found_rows,
    key,
    read_records,
    read_results,
    results_of,
    table_rows,
)
from cero.research.study.plan import chosen, lookup, read_tasks
from cero.research.study.runner import CHECKOUT, RunFailed, Runner, digest
from cero.research.study.study_report import markdown_table

TASKS = "scripts/benchmark/tasks.yaml"


def parser():
    """Return the argument parser, with both subcommands."""
    top = argparse.ArgumentParser(
        prog="python -m cero.research.laboratory",
        description="Train the study's tasks in one process without verl, and hold verl's runs to it.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    train = commands.add_parser("run", help="train contenders and add a JSON line for each run")
    _add_task(train)
    train.add_argument(
        "contenders",
        nargs="+",
        metavar="CONTENDER",
        help=f"{', '.join(NAMED)}; or written out, see cero/research/laboratory/contenders.py",
    )
    train.add_argument("--seeds", type=numbers, default=[0], help="comma list (default: 0)")
    train.add_argument("--budget", type=at_least_one, help="rollouts of a run (default: the task's)")
    train.add_argument("--out", type=Path, default=Path("runs/laboratory.jsonl"), help="default: %(default)s")
    train.set_defaults(run_command=run)
    show = commands.add_parser("table", help="compare the runs of a file seed by seed, as Markdown")
    show.add_argument("file", type=Path, help="JSON lines, plain or .bz2; or a folder of `cero benchmark`")
    show.add_argument("--tasks", type=words, help="comma list (default: all)")
    show.add_argument("--like", default="", help="only contenders with this in their names")
    show.add_argument("--even", default=EVEN, help="what gains are measured against (default: %(default)s)")
    show.add_argument("--oracle", default=ORACLE, help="whose gain is the ceiling (default: %(default)s)")
    show.add_argument(
        "--reference", default=REFERENCE, help="whose end is to be reached (default: %(default)s)"
    )
    show.add_argument("--plot", type=Path, help="also draw the curves into this PNG")
    show.set_defaults(run_command=table)
    again = commands.add_parser("replay", help="go through a run through verl again, with its own samples")
    _add_task(again)
    again.add_argument("contender", metavar="CONTENDER", help="what stands for the run's settings")
    again.add_argument("folder", type=Path, metavar="RUN", help="the run's trainer.default_local_dir")
    again.add_argument("--seed", type=at_least_zero, default=0, help="the run's allocator.seed (default: 0)")
    again.add_argument("--budget", type=at_least_one, help="rollouts of the run (default: the task's)")
    again.set_defaults(run_command=compare)
    return top


def _add_task(command):
    """Add what says which task it is, and where its data are."""
    command.add_argument("task", help=f"one of {TASKS}")
    command.add_argument("--work", type=Path, default=Path("runs/benchmark"), help="where prepared tasks are")
    command.add_argument("--threads", type=at_least_one, default=1, help="of torch (default: 1)")
    command.add_argument("--task-file", default=TASKS, help="yaml of the tasks (default: %(default)s)")


def _read(arguments, labels):
    """Return the task, and the contenders that `labels` name."""
    if not Path(arguments.task_file).is_file():
        raise FileNotFoundError(f"{arguments.task_file} is not here; {CHECKOUT}")
    (task,) = chosen([arguments.task], read_tasks(arguments.task_file), "task")
    shape = {
        "n": task.number("actor_rollout_ref.rollout.n"),
        "batch": task.number("data.train_batch_size"),
        "lr": float(lookup(task.overrides, "actor_rollout_ref.actor.optim.lr")),
    }
    return task, [parse_contender(label, **shape) for label in labels]


def _prepared(arguments, task, budget):
    """Return the `Laboratory` of a task, which is prepared first if it is not yet."""
    import torch

    from cero.research.laboratory.training import Laboratory

    torch.set_num_threads(arguments.threads)
    runner = Runner(arguments.work, arguments.work)
    try:
        runner.prepare(task)
    except RunFailed as error:
        raise ValueError(str(error)) from error
    score = load_score(lookup(task.overrides, "reward.custom_reward_function.path"))
    return Laboratory(runner.data(task), score, task.number("data.max_response_length"), budget)


def run(arguments):
    """Train every contender with every seed, seed by seed; what the file has already is left out."""
    task, contenders = _read(arguments, arguments.contenders)
    budget = arguments.budget or task.budget
    done = {key(record) for record in read_records(arguments.out)} if arguments.out.exists() else set()
    runs = [(seed, each) for seed in arguments.seeds for each in contenders]
    left = [
        (seed, each) for seed, each in runs if (task.name, each.label, each.written, seed, budget) not in done
    ]
    print(f"{len(runs)} runs, {len(runs) - len(left)} done before, {len(left)} to go", flush=True)
    if not left:
        return
    laboratory = _prepared(arguments, task, budget)
    warm_start = digest(laboratory.folder / "model" / "model.safetensors")
    about = {"task": task.name, "warm_start": warm_start}
    for seed, contender in left:
        record = about | laboratory.run(contender, seed)
        append(arguments.out, record)
        accuracy = f"{100 * record['accuracy'][-1]:.1f} % held out, {100 * record['train_accuracy'][-1]:.1f}"
        print(f"{seed} {contender.label}: {accuracy} % train at last; {record['seconds']} s", flush=True)


def load_score(path):
    """Return the reward function `compute_score` of the file `path`."""
    spec = spec_from_file_location("laboratory_reward", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compute_score


def compare(arguments):
    """Go through a run through verl again, and say how far the laboratory is from it."""
    task, (contender,) = _read(arguments, [arguments.contender])
    laboratory = _prepared(arguments, task, arguments.budget or task.budget)
    from cero.research.laboratory.replay import replay

    found = replay(laboratory, contender, arguments.seed, arguments.folder)
    print(f"{found.steps} steps, {found.rollouts:,} rollouts: the allocator gives what it gave in the run.\n")
    rows = [[str(step), f"{moved:.3f}", f"{apart:.5f}"] for step, moved, apart in found.weights]
    print(markdown_table(["step", "verl's weights, from the start", "the laboratory's, from verl's"], rows))
    if found.ended:
        print(f"It ends there: {found.ended}.\n")
    print(f"Right rollouts beyond what the policy makes expected: {found.surprise:+.1f} standard deviations.")
    print(
        f"Pairs of a prompt's rollouts that are alike, beyond chance: {found.alike:+.1f} standard deviations "
        f"({found.pairs:,} pairs)."
    )


def table(arguments):
    """Print a table for each task."""
    records = [] if arguments.file.is_dir() else read_records(arguments.file)
    results = results_of(records, arguments.file) if records else read_results(arguments.file)
    tasks = chosen(arguments.tasks, {task: task for task in results}, "task")
    header = [name.format(reference=arguments.reference) for name in COLUMNS]
    for task in tasks:
        compared = arguments.even, arguments.oracle, arguments.reference
        rows = table_rows(results[task], *compared, like=arguments.like)
        print(f"## {task}\n\n{markdown_table(header, rows)}")
        mine = [record for record in records if record["task"] == task]
        if chosen_prompts := found_rows(mine, arguments.like):
            print(markdown_table(FOUND, chosen_prompts))
    if arguments.plot is not None:
        draw({task: results[task] for task in tasks}, arguments.plot, arguments.like)


def main(argv=None):
    """Run the command line; exit with 2 and one line on stderr for input that can't be used."""
    execute(parser().parse_args(argv), "laboratory")


if __name__ == "__main__":
    main()
