"""What did a run allocate? One JSON line a step, for reports and for any reader.

Lines are {"kind": "step", ...} and {"kind": "validation", ...}; see `RunLog.step` and `RunLog.validation`.
"""

import json
import os
import sys
from pathlib import Path

from cero.core.state import sync_folder

FILE_NAME = "allocations.jsonl"
MOST_WAITING = 1000  # lines that wait in memory for a disk that is full


class RunLog:
    """Appends records to the file `path`; with `path=None` it writes nothing.

    A log that can't be written (the disk is full, say) ends no run. That is said once. The lines wait in
    memory, at most `MOST_WAITING` of them, until they can be written, and `close` says how many could not.
    """

    def __init__(self, path):
        self.path = None if path is None else Path(path)
        self.missing = 0  # lines that were given up
        self._waiting = []
        self._rewind_to = None  # a step to rewind to first, where that failed
        self._validated = None  # the step at which the log's last validation was made
        self._said = False

    def rewind(self, step, line=None):
        """Drop what lies after `step` (a run resumed there writes it again), and a torn last line.

        line : the record of `step`, a dict of `step_record`, to be put back if the log lacks it; or None
        """
        self._rewind_to = step, line
        self._append()

    def step(self, *args, **kwargs):
        """Write one training step; see `step_record`."""
        self._append(self.step_record(*args, **kwargs))

    @staticmethod
    def step_record(step, epoch, budget, spent, prompts, rollouts, successes, trials, metrics, **counts):
        """Return one training step's record, a dict.

        prompts : ids as 16 hex digits; rollouts : what each was given
        successes, trials : successes[i] of trials[i] are what came back of rollouts[i]
        budget : rollouts that the step might have spent; spent : rollouts that the run has spent
        metrics : those of verl's metrics of the step that are kept
        counts : rollouts `sampled`, `kept` by the rule of selection and `trained` on
        """
        return {
            "kind": "step",
            "step": step,
            "epoch": epoch,
            "budget": budget,
            "spent": spent,
            "prompts": prompts,
            "rollouts": rollouts,
            "successes": successes,
            "trials": trials,
            **counts,
            "metrics": metrics,
        }

    def validation(self, step, spent, metrics):
        """Write one validation, after `step` steps and `spent` training rollouts.

        Not where the log ends with one of that step: a resumed run that validates first repeats it.
        """
        if self._validated != step:
            self._append({"kind": "validation", "step": step, "spent": spent, "metrics": metrics})
            self._validated = step

    def sync(self):
        """Have all that was written on disk."""
        if self.path is None:
            return
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            sync_folder(self.path.parent)
        except FileNotFoundError:  # nothing was written yet
            pass
        except OSError as error:
            self._say(error)

    def close(self):
        """Write what waits, have it on disk, and say how many lines are missing, if any are."""
        if self._waiting or self._rewind_to is not None:
            self._append()
        self.sync()
        missing = self.missing + len(self._waiting)
        if missing:
            _tell(f"{self.path}: {missing} line{'s' * (missing > 1)} of this run could not be written")

    def _append(self, *records):
        """Write lines that wait and the new `records`, all or none of them."""
        if self.path is None:
            return
        self._waiting += [json.dumps(record) + "\n" for record in records]
        try:
            if self._rewind_to is not None:
                self._cut(*self._rewind_to)
                self._rewind_to = None
            if self._waiting:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab", buffering=0) as file:
                    _write_all(file, "".join(self._waiting).encode())
                self._waiting.clear()
        except OSError as error:
            self._say(error)
            surplus = max(0, len(self._waiting) - MOST_WAITING)
            self.missing += surplus
            del self._waiting[:surplus]

    def _cut(self, step, line):
        """Truncate the file as `rewind` says. Needs no room on the disk, but for `line`."""
        found, end, read, whole = set(), 0, 0, True
        if self.path.exists():
            with self.path.open("rb") as file:
                for text in file:
                    kind, of = _head(text)
                    if of is not None and of > step:
                        break
                    read += len(text)
                    if of is not None:  # lines that are no records stay, if one that is follows them
                        end, whole = read, text.endswith(b"\n")
                        found.add((kind, of))
            os.truncate(self.path, end)
            if not whole:
                with self.path.open("ab", buffering=0) as file:
                    _write_all(file, b"\n")
        self._validated = step if ("validation", step) in found else None
        if line is not None and ("step", step) not in found:
            self._waiting.insert(0, json.dumps(line) + "\n")
        steps = {of for kind, of in found if kind == "step"} | ({step} if line is not None else set())
        if steps and (lost := step - len(steps - {0})) > 0:
            _tell(f"{self.path}: of the {step} steps before this one, {lost} are not in the log")

    def _say(self, error):
        if not self._said:
            self._said = True
            _tell(
                f"{self.path}: the log can't be written ({error.strerror or error}); training goes on, and "
                "the lines wait in memory. Free space, or set cero.log_allocations=false"
            )


def _write_all(file, data):
    """Append `data` (bytes) to an unbuffered file, or leave it as it was and raise OSError."""
    end = file.seek(0, os.SEEK_END)
    try:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
    except OSError:
        file.truncate(end)
        raise


def _head(text):
    """Return (kind, step) of a log's line (bytes); (None, None) if it is no record."""
    try:
        record = json.loads(text)
        return record["kind"], int(record["step"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None, None


def _tell(message):
    print(f"cero: {message}", file=sys.stderr, flush=True)


def iter_log(path):
    """Yield (line number, record) of a log, in order; leaves out and raises what `read_log` does."""
    torn = None
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if torn:
                raise torn
            try:
                record = json.loads(line)
                record["kind"], record["step"]
            except (ValueError, TypeError, KeyError) as error:
                torn = ValueError(f"{path}, line {number} is not a record of an allocation log: {error}")
                continue
            yield number, record


def read_log(path):
    """Return all records of a log, in order, without a torn last line (the run was killed while writing).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line before the last is not a record.
    """
    return [record for _, record in iter_log(path)]


def held_out_accuracy(metrics):
    """Return a validation's accuracy: verl's mean over samples, averaged over data sources; None without one.

    With several samples of a question verl also reports best@k and the spread, which are no accuracy.
    """
    values = [value for key, value in metrics.items() if key.startswith("val-core/") and "/mean@" in key]
    return sum(values) / len(values) if values else None
