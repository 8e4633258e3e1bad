"""How are many runs executed? One at a time; each leaves its table, or a note of what went wrong."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from cero.analysis.reading import read_object
from cero.analysis.runlog import FILE_NAME, read_log
from cero.research.study import tables
from cero.research.study.archive import TABLES, packed_records
from cero.research.study.plan import settings
from cero.research.study.processes import Tree, environment

MAIN = (sys.executable, "-m", "verl.trainer.main_ppo")
PACKAGES = ("cero-verl", "verl", "vllm", "torch", "transformers", "ray", "numpy")
SOURCES = ("cero", "recipe", "examples", "scripts")  # what a result depends on
CHECKOUT = "`cero benchmark` needs a checkout of the repository and runs in its root"
ERROR = re.compile(r"^(cero: |[A-Za-z_.]*(Error|Exception|Exit)\b)")


class RunFailed(Exception):
    """Raised for a run that left no table; the message says why, with the last lines of its log."""


class Runner:
    """Executes planned runs.

    Parameters
    ----------
    out : folder of runs, see `archive`; a run that is executed gets files of its own there
    work : folder for everything else (prepared tasks, logs); may be deleted between calls
    command : list of str, what starts verl (default: MAIN); overrides are appended
    root : folder in which commands run, a checkout of the repository
    stall : seconds without a word from a run after which it is taken to hang
    poll : seconds between looks at a run
    grace : seconds that a run has to end when asked to
    """

    def __init__(self, out, work, command=None, root=".", stall=1200.0, poll=1.0, grace=15.0):
        self.out, self.work, self.root = Path(out), Path(work), Path(root)
        self.command = list(command or MAIN)
        self.stall, self.poll, self.grace = stall, poll, grace
        self._prepared, self._packed = {}, packed_records(out)

    # ---- what there is ---------------------------------------------------------------------------

    def missing(self, runs):
        """Return what these runs need and is not here, as one sentence, or None."""
        for script in dict.fromkeys(
            run.task.prepare[1] for run in runs if run.task.prepare[:1] == ("python",)
        ):
            if script.endswith(".py") and not (self.root / script).is_file():
                return f"{script} is not here; {CHECKOUT}"
        if self.command[1:2] == ["-m"] and find_spec(self.command[2].partition(".")[0]) is None:
            return "verl is not installed; scripts/install.sh installs what `cero benchmark` trains with"
        return None

    def table(self, run):
        """Return where the table of a run is written."""
        return self.out / run.task.name / run.contender.label / f"{run.seed}.csv"

    def record(self, run):
        """Return the record of a finished run, a dict; None if there is no table of it.

        It is empty where it can't be read.
        """
        table = self.table(run)
        if not table.exists():
            return self._packed.get((run.task.name, run.contender.label, run.seed))
        try:
            return read_object(table.with_suffix(".json"))
        except (OSError, ValueError):
            return {}

    def place(self, run):
        """Return where a finished run was found, in words."""
        return self.table(run) if self.table(run).exists() else f"{self.out / TABLES}, {run.name},"

    def state(self, run):
        """Return "finished", "other" (made with other settings), "failed" (at the last attempt) or "new"."""
        about = self.record(run)
        if about is not None:
            recorded = about.get("overrides")  # whatever a damaged file has there
            same = isinstance(recorded, list) and settings(map(str, recorded)) == settings(run.overrides)
            same = same and about.get("budget") == run.task.budget
            return "finished" if same else "other"
        return "failed" if (self.folder(run) / "failure.json").exists() else "new"

    def folder(self, run):
        """Return where a run's own files go."""
        return self.work / "runs" / run.name

    def data(self, task):
        """Return the task's prepared folder."""
        return self.work / "data" / task.name

    def words(self, run):
        """Return the whole command of a run, list of str."""
        folder = self.folder(run)
        return [
            *self.command,
            *(override.replace("{data}", str(self.data(run.task))) for override in run.overrides),
            f"trainer.default_local_dir={folder}",
            f"hydra.run.dir={folder / 'hydra'}",
        ]

    def preparation(self, task):
        """Return the command that makes the task's folder, list of str; `python` is this one."""
        words = [word.replace("{data}", str(self.data(task))) for word in task.prepare]
        return [sys.executable, *words[1:]] if words[:1] == ["python"] else words

    # ---- execution -------------------------------------------------------------------------------

    @contextmanager
    def alone(self):
        """Hold the work folder, since two runs at a time would share cores and verl's sockets.

        Raises ValueError if it is held.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(f"another benchmark runs in {self.work}; wait for its end") from error
            yield

    def prepare(self, task):
        """Make the task's data and warm start, once. Raises RunFailed, again at each call, if that fails."""
        if task.name not in self._prepared:
            self.data(task).parent.mkdir(parents=True, exist_ok=True)
            log = self.data(task).with_name(f"{task.name}.log")
            with log.open("wb") as output:
                status = subprocess.run(
                    self.preparation(task), cwd=self.root, stdout=output, stderr=subprocess.STDOUT
                ).returncode
            self._prepared[task.name] = (
                None if status == 0 else f"preparing it ended with {status}: {tail(log)}"
            )
        if self._prepared[task.name]:
            raise RunFailed(f"task {task.name}: {self._prepared[task.name]}")

    def execute(self, run, progress=lambda records: None):
        """Train and write the table; return its record. `progress` gets the log's records now and then.

        Raises RunFailed after writing failure.json into the run's folder. No process is left in any case.
        """
        folder = self.folder(run)
        shutil.rmtree(folder, ignore_errors=True)  # an unfinished run starts anew
        folder.mkdir(parents=True)
        try:
            self.prepare(run.task)
            about = self._train(run, folder, progress)
        except RunFailed as error:
            note = {"run": run.name, "overrides": list(run.overrides), "error": str(error)}
            (folder / "failure.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
            raise
        return about

    def _train(self, run, folder, progress):
        log, started, load = folder / "train.log", time.monotonic(), os.getloadavg()[0]
        # Short, because Ray's sockets are under it and their paths are limited to 107 characters.
        with tempfile.TemporaryDirectory(prefix="cero-", ignore_cleanup_errors=True) as scratch:
            tree = Tree(self.words(run), self.root, environment(scratch), log)
            try:
                ended = self._follow(run, folder, tree, log, progress)
            finally:
                tree.end(self.grace)
        records = _log_records(folder)
        try:
            rows = tables.make_table(records)
        except ValueError as error:
            raise RunFailed(f"it ended without an error, but {error}") from error
        if ended == "complete":
            last, planned = rows[-1]["step"], round(run.task.steps * run.contender.steps)
            if last != planned:
                raise RunFailed(f"it ended without an error, but at step {last} of {planned}: {tail(log)}")
        about = {
            "task": run.task.name,
            "contender": run.contender.label,
            "group": run.contender.group,
            "seed": run.seed,
            "split": run.split,
            "budget": run.task.budget,
            "interval": run.task.interval,
            "ended": ended,
            "warm_start": digest(self.data(run.task) / "model" / "model.safetensors"),
            "seconds": round(time.monotonic() - started, 1),
            "cores": os.cpu_count(),
            "load": [round(load, 1), round(os.getloadavg()[0], 1)],
            "versions": versions(),
            **commit(self.root),
            "overrides": list(run.overrides),
        }
        tables.write_table(self.table(run), rows, about)
        return about

    def _follow(self, run, folder, tree, log, progress):
        """Wait for the end: return "complete", or "budget" where the run would have gone on beyond it.

        Raises RunFailed.
        """
        heard = time.monotonic(), None
        while True:
            status = tree.poll()
            records = _log_records(folder)
            progress(records)
            if status is not None:
                if status != 0:
                    raise RunFailed(f"it ended with {status}: {tail(log)}")
                return "complete"
            # A validation at the budget or beyond it: nothing that follows would be read.
            if any(r["kind"] == "validation" and r["spent"] >= run.task.budget for r in records):
                planned = round(run.task.steps * run.contender.steps)
                steps = [r["step"] for r in records if r["kind"] == "step"]
                if steps and steps[-1] < planned and records[-1]["kind"] == "step":
                    return "budget"
            mark = log.stat().st_size, len(records)
            if mark != heard[1]:
                heard = time.monotonic(), mark
            elif time.monotonic() - heard[0] > self.stall:
                raise RunFailed(f"nothing was heard of it for {self.stall:.0f} s: {tail(log)}")
            time.sleep(self.poll)


def _log_records(folder):
    log = folder / "cero" / FILE_NAME
    return read_log(log) if log.exists() else []


def tail(log):
    """Return the last lines of a log that name an error, or just the last ones; one str."""
    lines = [line.strip() for line in Path(log).read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    return (
        " | ".join([line for line in lines if ERROR.match(line)][-3:] or lines[-3:])[-2000:]
        or "(it said nothing)"
    )


def versions():
    """Return the versions of what a result depends on: dict of package -> str."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return found


def digest(file):
    """Return the first 16 digits of a file's SHA-256, which tell warm starts apart; None without the file."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if Path(file).is_file() else None


def commit(root):
    """Return {"commit": hash, "modified": whether the sources differ from it}; {} outside a git checkout."""
    try:
        asked = [["rev-parse", "HEAD"], ["status", "--porcelain", "--", *SOURCES]]
        head, changes = (
            subprocess.run(
                ["git", *words], cwd=root, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": head, "modified": bool(changes)}
