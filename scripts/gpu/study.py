"""The study of a pretrained model on one GPU: each arm's learning rate first, then seeds, all at once.

    setsid nohup python3 scripts/gpu/study.py --seconds 800 --steps 100 >study.log 2>&1 &

Each arm trains with each learning rate and seed 0 until it has made --tune steps. The rate with the best
held-out accuracy, after the last validation that all have made, is the arm's own. By rollouts that were right
while training, a rate that is too high would win: it learns fastest before it forgets. Then the arms train
with it and further seeds, on fresh questions; and as many runs on the finite set as the memory has room for.
When the time is over, what runs is killed. $GPU/runs/rates.json says what was chosen, and from which figures.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]
import logs  # noqa: E402
import runs  # noqa: E402 (it finds the package, too)

from cero.cli.arguments import above_zero, at_least_one, share, words  # noqa: E402


def each(kind):
    """Return the type of a comma list, of which each part is of the type `kind`."""
    return lambda text: [kind(part) for part in words(text)]


def finite(text):
    """Return the arms of a comma list, which may be empty."""
    return each(runs.arm)(text) if text else []


def parse_arguments(argv=None):
    """Return the command line's arguments."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    top.add_argument("--seconds", type=above_zero, required=True, help="all runs end then")
    top.add_argument("--steps", type=at_least_one, required=True, help="of each run, if time is left")
    top.add_argument("--arms", type=each(runs.arm), default=["cero", "grpo", "grpo-2"], help="comma list")
    top.add_argument("--rates", type=each(runs.rate), default=["1e-5", "3e-5", "1e-4"], help="comma list")
    top.add_argument("--seeds", type=each(at_least_one), default=[1, 2, 3], help="comma list; 0 tunes")
    top.add_argument("--finite", type=finite, default=["even", "cero"], help="arms on the finite set, or ''")
    top.add_argument("--tune", type=at_least_one, default=24, help="steps that tune (default: %(default)s)")
    top.add_argument(
        "--tune-seconds", type=above_zero, default=380, help="tuning ends then (default: %(default)s)"
    )
    top.add_argument("--memory", type=share, default=0.8, help="share to be used (default: %(default)s)")
    top.add_argument("--host", type=above_zero, help="GB of the machine, where it shows less at first")
    return top.parse_args(argv)


def steps_of(run):
    """Return how many steps a run has made."""
    return sum("timing_s/step" in record for record in runs.metrics_of(run))


def memory(host=None):
    """Return the GB in use and in all, of the machine (`host` in all, if given) and of the card."""
    found = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(found[key].split()[0]) / 2**20 for key in ("MemTotal", "MemAvailable"))
    try:
        used, all_of_it = map(float, logs.ask_card("memory.used,memory.total", "nounits").split(","))
    except (OSError, ValueError):
        used, all_of_it = 0.0, float("inf")
    return (total - free, host or total), (used / 1024, all_of_it / 1024)


def room(before, with_runs, count, share):
    """Return how many runs have room, given `memory()` before and with so many."""
    rooms = []
    for (used, _), (in_use, total) in zip(before, with_runs, strict=True):
        each = (in_use - used) / count
        rooms.append((share * total - used) / each if each > 0 else float("inf"))
    return min(rooms)


def tune(arguments, began):
    """Train each arm with each rate; return each arm's best rate, and the room for runs."""
    before = memory(arguments.host)
    tuned = [f"fresh/{arm}/0/{rate}" for rate in arguments.rates for arm in arguments.arms]
    for run in tuned:
        runs.start(run, arguments.steps)
    while time.monotonic() - began < arguments.tune_seconds:
        time.sleep(1)
        alive = [run for run in tuned if runs.is_alive(run)]
        if not alive or all(steps_of(run) >= arguments.tune for run in alive):
            break
    alive = [run for run in tuned if runs.is_alive(run)]
    space = room(before, memory(arguments.host), max(1, len(alive)), arguments.memory)
    accuracy = {run: runs.held_out(run) for run in tuned}
    # All after as many steps: none has the advantage of having trained for longer. What died early has lost.
    made = min((max(accuracy[run]) for run in alive or tuned if accuracy[run]), default=0)
    scores = {run: values.get(made, -1.0) for run, values in accuracy.items()}
    runs.stop(tuned)
    best = {}
    for arm in arguments.arms:  # of equals, the first
        best[arm] = max(arguments.rates, key=lambda rate: scores[f"fresh/{arm}/0/{rate}"])
    (runs.RUNS / "rates.json").write_text(
        json.dumps({"step": made, "held_out": scores, "best": best}, indent=1)
    )
    print(
        f"{time.strftime('%T')} rates by the validation after step {made}: {best}; room for {space:.1f} runs"
    )
    print(json.dumps(scores), flush=True)
    return best, space


def main(argv=None):
    """Do what the command line says; return the exit code."""
    arguments = parse_arguments(argv)
    began = runs.wait_until_ready()
    runs.RUNS.mkdir(parents=True, exist_ok=True)
    best, space = tune(arguments, began)
    single = best.get("cero", arguments.rates[0])
    names = [f"fresh/{arm}/{seed}/{best[arm]}" for seed in arguments.seeds for arm in arguments.arms]
    names += [f"480/{arm}/{seed}/{single}" for seed in arguments.seeds for arm in arguments.finite]
    names = names[: int(min(max(1, space), len(names)))]
    print(f"{time.strftime('%T')} {len(names)} runs: {' '.join(names)}", flush=True)
    for run in names:
        runs.start(run, arguments.steps)
    runs.follow(names, arguments.seconds - (time.monotonic() - began))
    runs.stop(names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
