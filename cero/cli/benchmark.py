"""`cero benchmark`: run the study's trainings, one after the other."""

import shlex
import signal
import statistics
import time
from functools import partial
from pathlib import Path

from cero.cli.arguments import numbers, words, zero_or_more

TASKS, CONTENDERS = "scripts/benchmark/tasks.yaml", "scripts/benchmark/contenders.yaml"
HELP = "run the study's trainings through verl, resumably: tasks x contenders x seeds"


def add_arguments(parser):
    parser.add_argument("--tasks", type=words, help="comma list (default: those of the study)")
    parser.add_argument("--contenders", type=words, help="comma list (default: all of --groups)")
    parser.add_argument(
        "--groups",
        type=words,
        help="comma list of main, peer, ablation (or one: ablation:utility), all (default: main,peer, those "
        "that the file has)",
    )
    parser.add_argument("--seeds", type=numbers, help="comma list (default: all that a task declares)")
    parser.add_argument(
        "--splits", type=words, default=["tune", "confirm"], help="comma list of tune, confirm"
    )
    parser.add_argument(
        "--out",
        default="docs/results/study",
        help="folder of runs: finished ones are found there, new tables go there (default: %(default)s)",
    )
    parser.add_argument("--work", default="runs/benchmark", help="where prepared tasks, logs and failures go")
    parser.add_argument("--minutes", type=zero_or_more, help="start no run after this many minutes")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands, and say what is done already"
    )
    parser.add_argument("--redo", action="store_true", help="run again what was made with other settings")
    parser.add_argument("--task-file", default=TASKS, help="yaml of the tasks (default: %(default)s)")
    parser.add_argument(
        "--contender-file", default=CONTENDERS, help="yaml of the contenders (default: %(default)s)"
    )


def run(arguments):
    from cero.research.study.runner import Runner

    runs = plan(arguments)
    runner = Runner(arguments.out, arguments.work)
    missing = runner.missing(runs)
    if missing:
        raise ValueError(missing)
    if arguments.dry_run:
        dry_run(runner, runs)
        return
    # Asked to end, the command ends as on Ctrl-C: the run's processes first.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with runner.alone():
            failed = benchmark(runner, runs, arguments.minutes, arguments.redo)
    except KeyboardInterrupt as error:
        print("\ninterrupted: the same command starts the run that was under way anew")
        raise SystemExit(130) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    if failed:
        raise SystemExit(1)


def plan(arguments):
    """Return the runs that the arguments ask for.

    Raises ValueError for names that are not known, FileNotFoundError without the yaml files.
    """
    from cero.research.study.plan import SPLITS, chosen, make_runs, read_contenders, read_tasks
    from cero.research.study.runner import CHECKOUT

    for path, default in ((arguments.task_file, TASKS), (arguments.contender_file, CONTENDERS)):
        if not Path(path).is_file():
            why = f"{path} is not here; {CHECKOUT}" if path == default else f"there is no file {path}"
            raise FileNotFoundError(why)
    known = read_tasks(arguments.task_file)
    tasks = [task for task in chosen(arguments.tasks, known, "task") if arguments.tasks or task.in_study]
    known, groups = read_contenders(arguments.contender_file)
    contenders = chosen(arguments.contenders, known, "contender")
    if arguments.contenders is None:
        kinds = dict.fromkeys([*groups, "all", *(c.group for c in contenders)])
        wanted = arguments.groups or [group for group in ("main", "peer") if group in groups]
        chosen(wanted, kinds, "group")
        contenders = [c for c in contenders if {c.group, c.group.partition(":")[0], "all"} & set(wanted)]
    chosen(arguments.splits, dict.fromkeys(SPLITS), "split")
    return make_runs(tasks, contenders, groups, arguments.seeds, arguments.splits)


def dry_run(runner, runs):
    """Print every command, ready for a shell; what would not run is a comment."""
    for task in dict.fromkeys(run.task for run in runs):
        print(f"# {task.name}\n{shlex.join(runner.preparation(task))}")
    for run in runs:
        state = runner.state(run)
        print(f"# {run.name} ({run.split}): {state}")
        if state in ("new", "failed"):
            print(shlex.join(runner.words(run)))


def benchmark(runner, runs, minutes=None, redo=False):
    """Execute what is not finished and tell how far it is; return how many runs failed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cero.research.study.runner import RunFailed

    console = Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    states = {run: runner.state(run) for run in runs}
    for run, state in states.items():
        if state == "other" and not redo:
            say(f"left alone: {runner.place(run)} was made with other settings (--redo replaces it)")
    todo = [run for run in runs if states[run] in ("new", "failed") or (redo and states[run] == "other")]
    todo.sort(key=lambda run: states[run] == "failed")  # they may well fail again
    took = _seconds(runner, [run for run in runs if states[run] == "finished"])
    say(f"{len(runs)} runs, {len(runs) - len(todo)} done before, {len(todo)} to go{_eta(took, todo)}")

    started, failed, done = time.monotonic(), [], 0
    columns = (
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("", total=len(todo))
        for run in todo:
            if minutes is not None and time.monotonic() - started > 60 * minutes:
                say(f"{minutes:g} minutes are over: {len(todo) - done} runs left{_eta(took, todo[done:])}")
                break
            left = todo[done:]

            def progress(records, run=run, left=left):
                bar.update(shown, description=f"{run.name}: {_spent(records, run)}{_eta(took, left)}")

            progress([])
            try:
                about = runner.execute(run, progress)
                took.setdefault(run.task.name, []).append(about["seconds"])
                outcome = f"{about['seconds']:.0f} s"
            except RunFailed as error:
                failed.append(run)
                outcome = f"FAILED: {error}"
            done += 1
            bar.advance(shown)
            say(f"{done}/{len(todo)} {run.name}: {outcome}{_eta(took, todo[done:])}")
    if failed:
        say(f"{len(failed)} failed ({', '.join(run.name for run in failed)}); logs are in {runner.work}/runs")
    return len(failed)


def _spent(records, run):
    steps = [record["spent"] for record in records if record["kind"] == "step"]
    return f"{steps[-1]:,} of {run.task.budget:,} rollouts" if steps else "starting"


def _seconds(runner, finished):
    """Return the seconds of finished runs by task: dict of lists."""
    took = {}
    for run in finished:
        seconds = runner.record(run).get("seconds")
        if isinstance(seconds, int | float):
            took.setdefault(run.task.name, []).append(seconds)
    return took


def _eta(took, left):
    """Return words on the time that the runs `left` will take, from the task's other runs; "" if unknown."""
    known = [seconds for several in took.values() for seconds in several]
    if not known or not left:
        return ""
    minutes = sum(statistics.mean(took.get(run.task.name, known)) for run in left) / 60
    return f", about {minutes / 60:.1f} h left" if minutes > 90 else f", about {minutes:.0f} min left"
