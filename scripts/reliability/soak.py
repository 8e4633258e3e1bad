"""Does an allocator stay whole over a long run with faults? A million steps, all allocators, many resumes.

    python scripts/reliability/soak.py --steps 1000000 --out runs/soak.json

Prompts come and go, rollouts are lost, rewards come late, in another order or never. Now and then the run is
killed: a new allocator loads what was saved some steps ago, from memory or a file, and the steps since are
repeated. Each must get the same rollouts, and the state in the end must be that of the run that was never
killed. After every step the ledger must be the sum of what the steps cost. The other promises are in
`cases/promises.py`. Exits with 1 if one was broken.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from cero.cli.arguments import at_least_one, at_least_zero, words_of, zero_or_more

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cases.life import play_step  # noqa: E402
from cases.options import make  # noqa: E402
from cases.promises import Finding, check_whole, need, snapshot  # noqa: E402

from cero import available_allocators, make_allocator  # noqa: E402
from cero.core.state import load_state, save_state  # noqa: E402

RUN = 600  # steps of a run: then another one begins, with other options
WINDOW = 48  # prompts that may come at a time, of POOL
POOL = 160
SAVED_EVERY, KILLED = 10, 0.02  # steps between saved states; the chance of a kill in a step
LATE, MISSING, LOST = 0.15, 0.03, 0.25  # the chances that a step is settled later, or never; and to lose


class Run:
    """Holds a run of one allocator: what was begun and not settled, what was spent, what was saved."""

    def __init__(self, name, seed, folder):
        self.name, self.seed, self.counts = name, seed, Counter()
        self.path = folder / "allocator.npz"
        rng = np.random.default_rng(seed)
        self.allocator, self.options = make(rng, name)
        self.pool = rng.integers(0, 2**64, POOL, dtype=np.uint64)
        self.number, self.spent, self.waiting = 0, 0, []
        self.saved, self.since = None, []
        self.save()

    def save(self):
        """Keep what a checkpoint has, and what is under way."""
        state, on_disk = self.allocator.state_dict(), bool(self.number % (2 * SAVED_EVERY))
        if on_disk:
            save_state(state, self.path)
        self.saved = (self.number, self.spent, copy.deepcopy(self.waiting), None if on_disk else state)
        self.since = []

    def step(self):
        """Make one step, with its faults; return whether the run has budget for it."""
        rng = np.random.default_rng([*self.seed, self.number])
        faults = Counter()
        allocator, low = self.allocator, getattr(self.allocator, "n_min", 0)
        first = self.number // 4 % (POOL - WINDOW)  # prompts come and go: a window over the pool
        ids = self.pool[first + rng.integers(0, WINDOW, rng.integers(1, 6))]
        least, left = ids.size * low, allocator.ledger.left
        wanted = ids.size * allocator.rollouts_per_prompt
        if left is not None and left < max(least, wanted):
            need(self.refuses(ids, left + 1), "a step beyond the run's budget was begun")
            return False
        budget = wanted if rng.random() < 0.7 else int(rng.integers(least, wanted + 1))
        step = allocator.begin(ids, budget)
        need(step.cap == budget, "a step costs another budget")
        lost = 0.5 if rng.random() < LOST else 0.0
        play_step(step, rng, lost, rng.random() < 0.3, (low, allocator.n_max), together=6)
        faults["lost rollouts"] = int((step.launched - step.trials).sum())
        self.spent += budget
        fate = rng.random()
        if fate < MISSING:
            faults["steps never settled"] = 1
        elif fate < MISSING + LATE:
            faults["steps settled late"] = 1
            self.waiting.append(step)
        else:
            self.settle(step, faults)
        if self.waiting and rng.random() < 0.3:
            self.settle(self.waiting.pop(int(rng.integers(len(self.waiting)))), faults)
        need(allocator.ledger.spent == self.spent, "the ledger is not the sum of what the steps cost")
        check_whole(allocator, shown=self.number % 20 == 0)
        self.number += 1
        self.since.append(step.launched.tolist())
        self.faults = faults
        return True

    def refuses(self, ids, budget):
        """Say whether a step beyond the run's budget is refused and changes nothing."""
        before = snapshot(self.allocator)
        try:
            self.allocator.begin(ids, budget)
        except ValueError:
            return snapshot(self.allocator) == before
        return False

    def settle(self, step, faults):
        """Tell the allocator what came back."""
        self.allocator.settle(step, step.successes, step.trials)
        self.spent -= step.left
        faults["rollouts refunded"] += step.left

    def kill(self):
        """Go on with a new allocator from what was saved, and compare it with the one that was not killed."""
        whole, given, wanted = snapshot(self.allocator), self.since, self.number
        self.number, self.spent, waiting, state = self.saved
        if state is None:
            state = load_state(self.path)
            self.counts["resumes from a file"] += 1
        self.waiting, self.since = copy.deepcopy(waiting), []
        self.allocator = make_allocator(self.name, **(self.options | {"seed": self.options["seed"] + 1}))
        self.allocator.load_state_dict(state)
        while self.number < wanted:
            self.step()
        need(self.since == given, "a resumed run gives other rollouts")
        need(snapshot(self.allocator) == whole, "a resumed run has another state")
        self.counts["resumes"] += 1
        self.counts["steps repeated"] += len(given)


def soak(name, steps, seed, deadline=None):
    """Make `steps` steps of one allocator; return {"allocator", "steps", "seconds", counts..., "finding"}.

    deadline : of time.monotonic, or None. Seconds are of a core.
    """
    started, counts, done, runs, finding = time.process_time(), Counter(), 0, 0, None
    place = available_allocators().index(name)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            while done < steps and (deadline is None or time.monotonic() < deadline):
                run = Run(name, [seed, place, runs], Path(folder))
                runs += 1
                killed = np.random.default_rng([seed, place, runs, 1])
                while run.number < RUN and done < steps and run.step():
                    done += 1
                    counts.update(run.faults)
                    if killed.random() < KILLED:
                        run.kill()
                    if run.number % SAVED_EVERY == 0:
                        run.save()
                counts.update(run.counts)
        except Exception as error:  # a finding, or what the allocator should not have raised
            finding = f"run {runs - 1}, step {run.number}, {run.options}: {type(error).__name__}: {error}"
            if not isinstance(error, Finding):
                finding += f" ({error.__cause__!r})"
    seconds = round(time.process_time() - started, 1)
    return {"allocator": name, "steps": done, "runs": runs, "seconds": seconds, **counts, "finding": finding}


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=at_least_one, default=1_000_000, help="in all (default: %(default)s)")
    parser.add_argument(
        "--seed", type=at_least_zero, default=0, help="of all that is drawn (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=zero_or_more, help="end after this many")
    parser.add_argument(
        "--allocators", type=words_of(available_allocators()), help="comma list (default: all)"
    )
    parser.add_argument("--out", help="where counts go, as JSON")
    arguments = parser.parse_args(argv)
    deadline = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    names = arguments.allocators or available_allocators()
    rows = []
    for name in names:
        rows.append(soak(name, -(-arguments.steps // len(names)), arguments.seed, deadline))
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    broken = [row for row in rows if row["finding"]]
    seconds = sum(row["seconds"] for row in rows)
    print(f"in all: {sum(row['steps'] for row in rows):,} steps in {seconds:.0f} s, {len(broken)} findings")
    if arguments.out:
        Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"seed": arguments.seed, "allocators": rows}, indent=1)
        Path(arguments.out).write_text(text + "\n", encoding="utf-8")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
