"""Is a real run that is killed with -9 at any moment, and resumed, the run that was never killed?

    bash scripts/install.sh
    .venv/bin/python scripts/reliability/kills.py --kills 30 --out runs/kills
    .venv/bin/python scripts/reliability/kills.py --kills 3 --out runs/kills-candidates \
      cero.candidates=2 cero.unchosen=return allocator.n_min=0 allocator.n_max=16 trainer.total_epochs=8

The task is that of the tests (a random two-layer model, 8 steps of 16 prompts, saved and validated every
third step). One run is left alone. Each other is killed three times (`--chain`), each time at a drawn moment,
two of five within a second around a checkpoint, and resumed after each. What its log has after a kill must
stand in the log of the run that was left alone. After the last kill it runs to its end. Then both must have
the same steps, rollouts, outcomes, validations and allocator state, and the rollouts in the log must sum to
what the ledger has spent. One thing is lost by design: verl validates after it has saved, and a resumed run
does not validate the step that it resumes from. A line of DIR/kills.jsonl has what each kill did; those that
are there are not repeated. A start takes one to two minutes on two cores. Exits with 1 if one differed.

Each run gets a `/tmp` and process ids of its own where the system allows it (`unshare`), because verl's runs
share a socket there, and so that no process of a killed one is left.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from cero.cli.arguments import at_least_one, at_least_zero, zero_or_more

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from tiny import command, make_data, make_model  # noqa: E402

from cero import available_allocators  # noqa: E402
from cero.analysis.runlog import FILE_NAME, read_log  # noqa: E402
from cero.core.state import COMMIT_MARKER, STATE_FILE, load_state  # noqa: E402

STEPS, SAVED_EVERY = 8, 3
AROUND = 1.0  # seconds before or after a checkpoint begins
TIMEOUT = 1200.0  # seconds of a run
SAME = ("prompts", "rollouts", "successes", "trials", "budget", "spent", "epoch")
# The same reward for each rollout of a prompt, so that sampling can't make two runs differ.
REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return (extra_info["index"] * 37 % 11) / 10
"""
ALONE = (
    *("unshare", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
    *("sh", "-c", 'mount -t tmpfs tmpfs /tmp && exec "$@"', "sh"),
)


class Task:
    """Holds a folder with one run: starts it, kills it, reads what it left.

    further : list of str, Hydra overrides beside the task's own
    """

    def __init__(self, folder, allocator, alone, further=()):
        self.folder, self.allocator, self.alone, self.further = folder, allocator, alone, further
        self.checkpoints = folder / "checkpoints"

    def make(self):
        """Make the task's model, data and reward."""
        self.folder.mkdir(parents=True)
        make_model(self.folder / "model", tied=True)
        make_data(self.folder / "train.parquet")
        (self.folder / "reward.py").write_text(REWARD)

    def start(self, name):
        """Start or resume the run; what it says goes to NAME.log."""
        words = command(
            self.folder,
            f"allocator={self.allocator}",
            "trainer.val_before_train=false",
            f"trainer.total_epochs={STEPS // 4}",
            f"trainer.total_training_steps={STEPS}",
            f"trainer.save_freq={SAVED_EVERY}",
            f"trainer.test_freq={SAVED_EVERY}",
            *self.further,
        )
        with (self.folder / f"{name}.log").open("wb") as output:
            return subprocess.Popen(
                [*(ALONE if self.alone else ()), *words],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, name):
        """Run to the end and return its seconds. Raises RuntimeError if it fails."""
        started = time.monotonic()
        process = self.start(name)
        try:
            status = process.wait(TIMEOUT)
        finally:
            kill(process)
        if status != 0:
            raise RuntimeError(f"the run ended with {status}; see {self.folder / name}.log")
        return time.monotonic() - started

    def steps(self):
        """Return the numbers of the steps logged so far."""
        path = self.checkpoints / "cero" / FILE_NAME
        return [r["step"] for r in read_log(path) if r["kind"] == "step"] if path.exists() else []

    def marker(self):
        """Return the step of the last complete checkpoint, or None."""
        path = self.checkpoints / COMMIT_MARKER
        text = path.read_text() if path.exists() else ""
        return int(text) if text.strip().isdecimal() else None

    def begun(self, step, since=0.0):
        """Return whether the checkpoint of a step is being written, or is there.

        since : what was written before this time, in seconds since 1970, is an earlier start's, killed in it
        """
        folder = self.checkpoints / f"global_step_{step}"
        try:
            return any(path.stat().st_mtime > since for path in (folder, *folder.rglob("*")))
        except OSError:  # not there yet, or a file has just got its final name
            return False

    def not_validated(self):
        """Return the step of the last complete checkpoint unless its validation was logged; list of int."""
        path = self.checkpoints / "cero" / FILE_NAME
        records = read_log(path) if path.exists() else []
        validated = [r["step"] for r in records if r["kind"] == "validation"]
        return [step for step in [self.marker()] if step is not None and step not in validated]

    def left(self):
        """Return what a run left in the end: dict of steps, validations and the last state."""
        records = read_log(self.checkpoints / "cero" / FILE_NAME)
        return {
            "steps": {r["step"]: {key: r[key] for key in SAME} for r in records if r["kind"] == "step"},
            "order": [r["step"] for r in records if r["kind"] == "step"],
            "validations": [(r["step"], r["spent"]) for r in records if r["kind"] == "validation"],
            "state": load_state(self.checkpoints / f"global_step_{STEPS}" / STATE_FILE),
        }


def kill(process):
    """End a process, and everything that it started, with signal 9."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    for each in [*children, process]:
        try:
            each.send_signal(signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError):
            pass
    process.wait()


def differences(one, other, not_validated=()):
    """Return in what two runs differ, list of str.

    not_validated : steps whose validation the other run lost: it was killed between the checkpoint's marker
        and the end of the validation, which verl does not repeat
    """
    validations = [each for each in one["validations"] if each[0] not in not_validated]
    found = [] if one["order"] == other["order"] else ["order"]
    found += [] if validations == other["validations"] else ["validations"]
    for step, record in one["steps"].items():
        found += [
            f"step {step}: {key}" for key in SAME if other["steps"].get(step, {}).get(key) != record[key]
        ]
    try:
        np.testing.assert_equal(other["state"], one["state"])
    except AssertionError:
        found.append("state")
    logged = sum(sum(record["rollouts"]) for record in other["steps"].values())
    spent = other["state"]["ledger"]["spent"]
    if logged != spent:
        found.append(f"{logged} rollouts logged, {spent} spent")
    return found


def differences_so_far(whole, folder):
    """Return in what the log of a killed run differs from that of a whole one, list of str."""
    path = folder / "checkpoints" / "cero" / FILE_NAME
    if not path.exists():
        return []
    return [
        f"step {record['step']}: {key}"
        for record in read_log(path)
        if record["kind"] == "step"
        for key in SAME
        if record[key] != whole["steps"][record["step"]][key]
    ]


def wait_and_kill(task, name, kind, rng, seconds):
    """Start a run, or resume it, and kill it at a drawn moment.

    kind : "checkpoint" or "any"; seconds : that a whole run takes
    Returns what it had done, or None if it had ended before.
    """
    saved = task.marker() or 0
    steps = [step for step in range(SAVED_EVERY, STEPS, SAVED_EVERY) if step > saved]
    kind = kind if steps else "any"  # the last checkpoint ends the run
    now, started, process = time.time(), time.monotonic(), task.start(name)
    try:
        if kind == "checkpoint":
            step, delay = int(rng.choice(steps)), rng.uniform(-AROUND, AROUND)
            # What comes before a checkpoint is seen by the line of the step before it. A resumed run has
            # that line from the start if it was killed later: then the checkpoint is waited for.
            delay = abs(delay) if step - 1 in task.steps() else delay
            while not (step - 1 in task.steps() if delay < 0 else task.begun(step, now)):
                if process.poll() is not None or time.monotonic() - started > TIMEOUT:
                    return None
                time.sleep(0.01)
            time.sleep(abs(delay))
        else:
            end = started + rng.uniform(0.1, 1.0) * seconds
            while time.monotonic() < end and process.poll() is None:
                time.sleep(0.01)
        if process.poll() is not None:
            return None
    finally:
        kill(process)
    steps = task.steps()
    begun = [step for step in range(1, STEPS + 1) if task.begun(step)]
    return {
        "kind": kind,
        "seconds": round(time.monotonic() - started, 1),
        "resumed_from": saved or None,
        "last_step": steps[-1] if steps else 0,
        "begun": begun[-1] if begun else None,
        "complete": task.marker(),
    }


def kill_in_turn(numbers, task, seed, whole, seconds):
    """Make `task`, kill its run for each of `numbers`, let it end, and compare; return a line for each kill.

    A run that ends before its kills is made anew, since an ended one can't be killed.
    """
    rng = np.random.default_rng([seed, numbers[0]])
    for _ in range(5):
        shutil.rmtree(task.folder, ignore_errors=True)
        task.make()
        lines, found, lost = [], [], []
        for number in numbers:
            kind = "checkpoint" if number % 5 < 2 else "any"
            line = wait_and_kill(task, f"killed-{number}", kind, rng, seconds)
            if line is None:
                break
            found += differences_so_far(whole, task.folder)
            lost += task.not_validated()
            lines.append({"kill": number, "run": numbers[0]} | line)
            print(json.dumps(lines[-1]), flush=True)
        else:
            break
    else:
        raise RuntimeError(f"run {numbers[0]} always ended before its kills")
    resumed = task.finish("resumed")
    found += differences(whole, task.left(), lost)
    if not found:
        shutil.rmtree(task.folder)
    lines[-1]["seconds"] = round(lines[-1]["seconds"] + resumed, 1)
    return [line | {"differences": found} for line in lines]


def works(words):
    """Return whether a command that is wrapped so runs."""
    try:
        return subprocess.run([*words, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=at_least_one, default=30, help="how many (default: %(default)s)")
    parser.add_argument("--chain", type=at_least_one, default=3, help="kills of a run (default: %(default)s)")
    parser.add_argument("--seed", type=at_least_zero, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument(
        "--allocator",
        choices=available_allocators(),
        default="cero",
        help="of all runs (default: %(default)s)",
    )
    parser.add_argument("--minutes", type=zero_or_more, help="start no other after this many")
    parser.add_argument("--out", default="runs/kills", help="folder (default: %(default)s); not under /tmp")
    parser.add_argument("overrides", nargs="*", help="further Hydra overrides of all runs")
    arguments = parser.parse_intermixed_args(argv)
    out, started = Path(arguments.out).resolve(), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    alone = works(ALONE) and not str(out).startswith("/tmp/")
    if not alone:
        print("runs share /tmp with others: start nothing else of verl's meanwhile", flush=True)
    of_all = arguments.allocator, alone, arguments.overrides
    whole = Task(out / "whole", *of_all)
    if not (out / "whole.json").exists():
        shutil.rmtree(whole.folder, ignore_errors=True)
        whole.make()
        (out / "whole.json").write_text(json.dumps({"seconds": round(whole.finish("whole"), 1)}) + "\n")
    seconds = json.loads((out / "whole.json").read_text())["seconds"]
    left = whole.left()
    lines = out / "kills.jsonl"
    done = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    left_out = {line["kill"] for line in done}
    numbers = [number for number in range(arguments.kills) if number not in left_out]
    for first in range(0, len(numbers), arguments.chain):
        if arguments.minutes is not None and time.monotonic() - started > 60 * arguments.minutes:
            break
        turn = numbers[first : first + arguments.chain]
        new = kill_in_turn(turn, Task(out / f"run-{turn[0]}", *of_all), arguments.seed, left, seconds)
        done += new
        with lines.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in new)
        print(f"run {turn[0]}: {new[0]['differences'] or 'no difference'}", flush=True)
    around = sum(line["kind"] == "checkpoint" for line in done)
    differ = sum(bool(line["differences"]) for line in done)
    print(f"{len(done)} kills, {around} of them around a checkpoint; {differ} runs differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
