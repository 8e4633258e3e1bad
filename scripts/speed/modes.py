"""What does the scheduler cost in verl's colocate_async, does it make stragglers, and what is learned there?

    python examples/arithmetic/prepare.py --out data/arithmetic
    python scripts/speed/modes.py steps --task data/arithmetic [--steps 40] [--rounds 3] [--out runs/modes]
    python scripts/speed/modes.py learning [--seeds 0,1] [--steps 40] [--out runs/modes]
    python scripts/speed/modes.py page

`steps` trains on arithmetic with 48 prompts x 8 rollouts a step, as scripts/step_cost.py does, and with a
learning rate close to zero, so that all sample from one policy. Groups are in flight from one step to the
next, so trainers can't take turns within a run. Each round has a run of each of three arms, in an order drawn
anew: verl's own trainer with GRPO, this plugin's with allocator=uniform, which is GRPO, too, and this
plugin's with allocator=cero. `cero.research.speed.groups` notes in all of them when groups begin and end, and
lets all look at the queue as often.

`learning` trains on the study's letters with CERO as shipped, at 40 prompts x 1 a step, in `sync` and in
`colocate_async`: --steps are those of the task, of which this shape makes 3.2 times as many (the study has
80). allocator.n_max is 32 in both.

Figures of each step are appended to steps.jsonl in the run's folder as they come. A run that is finished is
not repeated, and one that failed doesn't keep the others from running. `page` writes the figures of all
finished runs into docs/results/speed/modes.json, and the tables of docs/results/speed.md; the other two end
with it.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cero.cli.arguments import at_least_one, numbers, words_of, zero_or_more

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import step_cost  # noqa: E402

from cero.research.pages import write_section  # noqa: E402
from cero.research.speed.groups import EVENTS, PLAIN  # noqa: E402
from cero.research.speed.steps import FILE_NAME, PHASES, phases_of, watch  # noqa: E402
from cero.research.speed.tails import idleness, read_events, tails  # noqa: E402
from cero.research.study.plan import make_run, read_contenders, read_tasks  # noqa: E402
from cero.research.study.runner import MAIN, RunFailed, Runner  # noqa: E402
from cero.research.study.tables import read_table  # noqa: E402

RESULTS = ROOT / "docs" / "results"
FIGURES, PAGE = RESULTS / "speed" / "modes.json", RESULTS / "speed.md"
BEGIN = "<!-- asynchronous trainers: written by scripts/speed/modes.py -->\n"
END = "<!-- end of asynchronous trainers -->\n"
MODE = "colocate_async"
ARMS = {
    "verl": ["+recipe=cpu", f"trainer.v1.trainer_mode={PLAIN}", "algorithm.adv_estimator=grpo"],
    "uniform": ["+recipe=cero_cpu", f"trainer.v1.trainer_mode={MODE}", "allocator=uniform"],
    "cero": ["+recipe=cero_cpu", f"trainer.v1.trainer_mode={MODE}", "allocator=cero"],
}
NAMES = {
    "verl": "verl's own, GRPO",
    "uniform": "this plugin's, `allocator=uniform`, GRPO",
    "cero": "this plugin's, `allocator=cero`",
}
WARM_UP = 4  # steps at the start that don't count
# Steps at the end that don't count, either: this plugin sends no more than training takes, and verl does.
COOL_DOWN = 2
PARTS = (*step_cost.PARTS, "background")  # of the scheduler's time, as in cero/time/
# verl's own work on a step's rows, as many in all arms. Where it takes longer, the machine was busier.
UNTOUCHED = ("old_log_prob", "update_actor")
LIMIT = 1500  # seconds after which a run is ended
LEARNING, CONTENDER = ("sync", MODE), "cero-n1"
N_MAX = 32  # the shipped 64 is more than all 40 rollouts of a step, which the asynchronous modes refuse


# ---- runs ----------------------------------------------------------------------------------------


def overrides(arm, task, out, steps):
    """Return the overrides of verl's config for a run of `arm` (one of ARMS); list of str."""
    others = ("+recipe=", "allocator=", "trainer.v1.trainer_mode=", "~hydra.callbacks")
    shared = [each for each in step_cost.overrides(task, out, steps) if not each.startswith(others)]
    return [*ARMS[arm], *shared]


def figures_of(line):
    """Return the figures, a dict, of a line (dict) of verl's file logger."""
    data = line["data"]
    return phases_of(line) | {key: data[f"cero/time/{key}"] for key in PARTS if f"cero/time/{key}" in data}


def train(arm, task, folder, steps):
    """Train a run of `arm` into `folder`, which is made anew, and write its figures there.

    Raises RunFailed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    load, began = [os.getloadavg()[0]], time.monotonic()
    variables = {
        "VERL_USE_EXTERNAL_MODULES": "cero.research.speed.groups",
        EVENTS: str(folder / "events.jsonl"),
    }
    watch([*MAIN, *overrides(arm, task, folder, steps)], ROOT, folder, figures_of, steps, variables, LIMIT)
    load.append(os.getloadavg()[0])
    about = {"steps": steps, "load": [round(each, 1) for each in load], "took": time.monotonic() - began}
    (folder / "done.json").write_text(json.dumps(about) + "\n")


def order(number):
    """Return the arms in the order in which they run in round `number` (0, 1, ...): list of str.

    Rounds go by threes, in which each arm has each place once. The order of the first of them is drawn.
    """
    three, place = divmod(number, len(ARMS))
    return [list(ARMS)[i] for i in np.roll(np.random.default_rng(three).permutation(len(ARMS)), -place)]


def run_steps(task, out, steps, rounds, may_start, arms=tuple(ARMS)):
    """Run what is not finished of `rounds` rounds of `arms`.

    may_start : callable -> whether there is time for a further run
    """
    for number in range(rounds):
        for arm in order(number):
            folder = out / "steps" / f"{number}-{arm}"
            if arm in arms and not (folder / "done.json").exists() and may_start():
                attempt(lambda arm=arm, folder=folder: train(arm, task, folder, steps), folder.name)


def learning_runs(steps, seeds):
    """Return the runs of the second part: list of `PlannedRun`, seed by seed; seeds : list of int."""
    task = read_tasks(ROOT / "scripts" / "benchmark" / "tasks.yaml")["letters"]
    task = replace(task, overrides=(*task.overrides, f"trainer.total_training_steps={steps}"))
    shipped = read_contenders(ROOT / "scripts" / "benchmark" / "contenders.yaml")[0][CONTENDER]
    contenders = [
        replace(
            shipped,
            label=mode,
            overrides=(*shipped.overrides, f"allocator.n_max={N_MAX}", f"trainer.v1.trainer_mode={mode}"),
        )
        for mode in LEARNING
    ]
    return [make_run(task, contender, seed, "tune") for seed in seeds for contender in contenders]


def run_learning(out, steps, seeds, may_start):
    """Run what is not finished of the second part; arguments as above."""
    runner = Runner(out / "learning", out / "work", root=ROOT)
    with runner.alone():
        for run in learning_runs(steps, seeds):
            if runner.state(run) != "finished" and may_start():
                attempt(lambda run=run: runner.execute(run), run.name)


def attempt(run, name):
    """Call `run`, and tell on stderr how it went; a failed run is told of, too, and goes no further."""
    print(f"{time.strftime('%H:%M:%S')} {name} begins", file=sys.stderr, flush=True)
    try:
        run()
    except (RunFailed, OSError) as error:
        print(f"{time.strftime('%H:%M:%S')} {name} failed: {error}", file=sys.stderr, flush=True)
    else:
        print(f"{time.strftime('%H:%M:%S')} {name} is done", file=sys.stderr, flush=True)


# ---- figures -------------------------------------------------------------------------------------


def rounded(value):
    """Return a number, or a list or dict of numbers, with four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return value if isinstance(value, (int, str, bool)) or value is None else float(f"{value:.4g}")


def step_run(folder):
    """Return the figures of a finished run of the first part: a dict.

    Its `columns` are of the steps that count. Without a file of events it has no `idle` and no `tails`.
    """
    number, _, arm = folder.name.partition("-")
    lines = [json.loads(line) for line in (folder / FILE_NAME).read_text().splitlines()]
    about = json.loads((folder / "done.json").read_text())
    kept = lines[WARM_UP : len(lines) - COOL_DOWN]
    columns = [key for key in kept[0] if key not in ("t", "step")]
    found = {
        "arm": arm,
        "round": int(number),
        "load": about["load"],
        "columns": {key: [line[key] for line in kept] for key in columns},
    }
    if (folder / "events.jsonl").exists():
        events, window = read_events(folder / "events.jsonl"), (lines[WARM_UP - 1]["t"], kept[-1]["t"])
        found |= {"idle": idleness(events, window), "tails": tails(events, window)}
    return found


def learning_run(path):
    """Return the figures of a finished run of the second part, whose table is at `path`: a dict.

    `accuracy` is that on held-out questions, at the validations after `steps` steps. `trained` are the
    rollouts that were trained on by then.
    """
    table = read_table(path)
    validated = np.isfinite(table["accuracy"])
    trained = np.cumsum(np.nan_to_num(table["rollouts_trained"]))
    return {
        "mode": path.parent.name,
        "seed": int(path.stem),
        "steps": table["step"][validated].astype(int).tolist(),
        "trained": trained[validated].astype(int).tolist(),
        "accuracy": table["accuracy"][validated].tolist(),
        "seconds": float(np.nanmedian(table["seconds"])),
        "took": json.loads(path.with_suffix(".json").read_text())["seconds"],
    }


def collect(out):
    """Return the figures of all finished runs in the folder `out`: a dict."""
    steps = sorted(path.parent for path in (out / "steps").glob("*/done.json"))
    learned = sorted((out / "learning").glob("letters/*/*.csv"))
    found = {"machine": step_cost.machine()}
    if steps:
        found["steps"] = [step_run(folder) for folder in steps]
    if learned:
        found["learning"] = [learning_run(path) for path in learned]
    return rounded(found)


def of(runs, arm, key):
    """Return a column of an arm's runs, by round: dict of int -> float array."""
    return {run["round"]: np.array(run["columns"][key]) for run in runs if run["arm"] == arm}


def adjusted(runs, arm):
    """Return the seconds of an arm's steps, in units of those of the UNTOUCHED phases, as `of` does."""
    seconds, *phases = (of(runs, arm, key) for key in ("seconds", *UNTOUCHED))
    return {n: column / sum(phase[n].mean() for phase in phases) for n, column in seconds.items()}


def ratio(values, base, draws=9999, seed=0):
    """Return the ratio of two arms' means and its 95 % interval: (float, (float, float)).

    It is the geometric mean, over the rounds that both have, of the ratio of the means over steps. The
    interval is a percentile bootstrap: of rounds, and within each run of pairs of successive steps, because a
    long step and a short one take turns.

    values, base : dict of round -> float array
    """
    rounds = sorted(values.keys() & base.keys())

    def draw(rng, column):
        """Return means of `draws` samples of pairs."""
        pairs = column[: column.size // 2 * 2].reshape(-1, 2).mean(axis=1)
        return np.mean(pairs[rng.integers(0, pairs.size, (draws, pairs.size))], axis=1)

    rng = np.random.default_rng(seed)
    logs = np.array([np.log(draw(rng, values[n]) / draw(rng, base[n])) for n in rounds])
    chosen = rng.integers(0, len(rounds), (draws, len(rounds)))
    drawn = np.exp(logs[chosen, np.arange(draws)[:, None]].mean(axis=1))
    found = np.exp(np.mean([np.log(np.mean(values[n]) / np.mean(base[n])) for n in rounds]))
    return float(found), tuple(map(float, np.percentile(drawn, (2.5, 97.5))))


# ---- the page ------------------------------------------------------------------------------------


def whole(by_round):
    """Return the columns of all rounds as one float array."""
    return np.concatenate(list(by_round.values()))


def step_table(runs):
    """Return the table of steps, with one row for each arm."""
    rows = []
    for arm in (arm for arm in ARMS if of(runs, arm, "seconds")):
        row = [NAMES[arm]]
        for key in ("seconds", "cpu"):
            row.append(f"{np.mean(whole(of(runs, arm, key))):.2f} s")
            measured, base = of(runs, arm, key), of(runs, "verl", key)
            compared = arm != "verl" and measured.keys() & base.keys()
            row.append(step_cost.times(*ratio(measured, base)) if compared else "1" if arm == "verl" else "")
        if arm == "verl":
            row += [""] * 3
        else:
            spent = sum(whole(of(runs, arm, key)) for key in step_cost.PARTS)
            row.append(f"{np.mean(spent) * 1e3:.1f} ms")
            row.append(f"{np.sum(spent) / np.sum(whole(of(runs, arm, 'seconds'))):.3%}")
            row.append(f"{np.mean(whole(of(runs, arm, 'background'))) * 1e3:.1f} ms")
        counts = of(runs, arm, "seconds")
        mine, base = adjusted(runs, arm), adjusted(runs, "verl")
        compared = arm != "verl" and mine.keys() & base.keys()
        row[3:3] = [
            step_cost.times(*ratio(mine, base)) if compared else "1" if arm == "verl" else "",
            f"{np.median(whole(counts)):.2f} s",
        ]
        rows.append([*row, f"{len(counts)} x {counts[min(counts)].size}"])
    header = ("mean", "step", "times verl's", "adjusted", "median", "CPU time", "times verl's", "scheduler")
    return step_cost.table((*header, "of the step", "beside it", "rounds x steps"), rows)


def round_table(runs):
    """Return the table of the rounds' mean steps, and of the arms' order."""
    numbers = sorted({run["round"] for run in runs})
    rows = []
    for number in numbers:
        by_arm = {run["arm"]: run for run in runs if run["round"] == number}
        cells = [
            f"{np.mean(by_arm[arm]['columns']['seconds']):.2f} s" if arm in by_arm else "" for arm in ARMS
        ]
        loads = ", ".join(str(by_arm[arm]["load"][0]) for arm in order(number) if arm in by_arm)
        rows.append([number + 1, *cells, " → ".join(arm for arm in order(number) if arm in by_arm), loads])
    header = ("round", *(f"`{arm}`" for arm in ARMS), "order", "load average before each")
    return step_cost.table(header, rows)


def phase_table(runs):
    """Return the table of a step's phases."""
    rows = []
    for arm in (arm for arm in ARMS if of(runs, arm, "seconds")):
        cells = [f"{np.mean(whole(of(runs, arm, key))):.2f} s" for key in PHASES]
        tokens = f"{np.mean(whole(of(runs, arm, 'tokens'))):,.0f}"
        rows.append([NAMES[arm], *cells, tokens])
    return step_cost.table(("mean", *(f"`{key}`" for key in PHASES), "tokens a step"), rows)


def tail_table(runs):
    """Return the table of the engine's idle time and of the dispatches' tails."""
    rows = []
    for arm in ARMS:
        mine = [run for run in runs if run["arm"] == arm and "tails" in run]
        ends = [tail for run in mine for tail in run["tails"]]
        if not ends:
            continue
        step = np.mean(whole(of(runs, arm, "seconds")))
        seconds, awake = ([tail[key] for tail in ends] for key in ("seconds", "awake"))
        relative = [tail["rollouts"] / tail["mean"] for tail in ends]
        rows.append(
            [
                NAMES[arm],
                f"{statistics.mean(run['idle']['paused'] for run in mine):.1%}",
                f"{statistics.mean(run['idle']['empty'] for run in mine):.2%}",
                f"{np.median(seconds):.2f} s, {np.median(seconds) / step:.0%}",
                f"{np.median(awake):.2f} s, {np.median(awake) / step:.1%}",
                f"{max(awake):.2f} s, {max(awake) / step:.1%}",
                f"{np.mean(relative):.2f}",
                len(ends),
            ]
        )
    header = ("", "paused", "idle", "tail", "while sampling", "the longest", "size of the last", "dispatches")
    return step_cost.table(header, rows)


def learning_table(runs):
    """Return the table of accuracies, and what is to be said of it: Markdown."""
    steps = runs[0]["steps"]
    header = ("mode", "seed", *(f"after {step}" for step in steps), "mean", "rollouts", "a step", "the run")
    rows = []
    for run in sorted(runs, key=lambda run: (run["seed"], LEARNING.index(run["mode"]))):
        area = np.trapezoid(run["accuracy"], run["steps"]) / (run["steps"][-1] - run["steps"][0])
        rows.append(
            [f"`{run['mode']}`", run["seed"], *(f"{each:.1%}" for each in run["accuracy"]), f"{area:.1%}"]
            + [f"{run['trained'][-1]:,}", f"{run['seconds']:.2f} s", f"{run['took']:.0f} s"]
        )
    return step_cost.table(header, rows)


def page(figures):
    """Return all tables of the section, as Markdown."""
    m = figures["machine"]
    versions = f"Python {m['python']}, verl {m['verl']}, PyTorch {m['torch']}, NumPy {m['numpy']}"
    where = f"{m['cores']} cores, {m['memory_gib']} GiB, {versions}."
    text = f"\n{textwrap.fill(where, 110)}\n\n"
    if "steps" in figures:
        runs = figures["steps"]
        text += step_table(runs) + round_table(runs) + phase_table(runs) + tail_table(runs)
    if "learning" in figures:
        text += learning_table(figures["learning"])
    return text


def write_page(out):
    """Write the figures of what is finished in `out`, and the page's tables.

    Figures of a part of which `out` has nothing stay.
    """
    found = collect(out)
    before = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    figures = before | found if len(found) > 1 or not before else before  # the machine is not a part
    FIGURES.write_text(json.dumps(figures, separators=(",", ":")) + "\n")
    write_section(PAGE, BEGIN, page(figures), END)


def main():
    """Run one part and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("steps", "learning", "page"))
    parser.add_argument("--task", type=Path, default=ROOT / "data" / "arithmetic", help="folder of the task")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "modes", help="folder of all runs")
    parser.add_argument("--steps", type=at_least_one, default=40, help="of a run (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=at_least_one, default=3, help="steps: of all arms (default: %(default)s)"
    )
    parser.add_argument(
        "--arms", type=words_of(ARMS), default=list(ARMS), help="steps: comma list (default: all)"
    )
    parser.add_argument("--seeds", type=numbers, default=[0, 1], help="learning: comma list (default: 0,1)")
    parser.add_argument(
        "--minutes", type=zero_or_more, default=float("inf"), help="start no run after so many"
    )
    arguments = parser.parse_args()
    out, began = arguments.out.resolve(), time.monotonic()

    def may_start():
        return time.monotonic() - began < 60 * arguments.minutes

    if arguments.part == "steps":
        run_steps(arguments.task.resolve(), out, arguments.steps, arguments.rounds, may_start, arguments.arms)
    elif arguments.part == "learning":
        run_learning(out, arguments.steps, arguments.seeds, may_start)
    write_page(out)


if __name__ == "__main__":
    main()
