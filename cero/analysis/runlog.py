"""What did a run allocate? One JSON line a step, for reports and for any reader.

Lines are {"kind": "step", ...} and {"kind": "validation", ...}; see `RunLog.step` and `RunLog.validation`.
"""

import errno
import json
import operator
import os
import sys
from contextlib import suppress
from pathlib import Path

from cero.analysis.reading import one_line, parse_object
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
        if self.path is None or not self.path.is_file():  # nothing was written yet, or it is a device
            return
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            sync_folder(self.path.parent)
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
                if self.path.is_fifo():  # to open it would wait for a reader, for ever
                    raise OSError(errno.ESPIPE, "it is a pipe")
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
        if self.path.is_file():  # a device may have no end
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
        with suppress(OSError):  # a device can't be cut; what counts is why it was not written
            file.truncate(end)
        raise


def _head(text):
    """Return (kind, step) of a log's line (bytes); (None, None) if it is no record."""
    try:
        record = json.loads(text)
        kind, step = record["kind"], int(record["step"])
        return (kind, step) if isinstance(kind, str) else (None, None)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None, None


def _tell(message):
    print(f"cero: {message}", file=sys.stderr, flush=True)


def iter_log(path, tell=None, check=None):
    """Yield (line number, record) of a log, in order; leaves out, raises and tells what `read_log` does.

    check : function of a record that raises ValueError, or None. None: with `tell` it is `check_record`, and
        without it a record may hold anything beside its kind and step.

    It holds one record at a time. With `tell` it reads the log twice.
    """
    if tell is None:
        yield from _strict(path, check)
        return
    check = check or check_record
    heads, wrong = [], {}
    for number, record, error in _scan(path, check):
        if error is not None:
            wrong[number] = error
        elif record is not None:
            heads.append((number, record["kind"], record["step"]))
    void, back = _superseded(heads)
    kept = {number for number, *_ in heads} - void
    for number, record, _ in _scan(path, check):
        if number in kept and record is not None:
            yield number, record
    for message in (_told(path, wrong), back and f"{path}, {back}"):
        if message:
            tell(message)


def read_log(path, tell=None):
    """Return all records of a log, in order, without a torn last line (the run was killed while writing).

    tell : None, or a function of a message (str). With it, lines that are no records are left out, and lines
    that a later one makes void: a log that goes back to a step was written by a run that resumed there. It is
    called once for either kind, with the file, the first such line, why, and how many there are.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line before the last is not a record, unless there is `tell`. The message names file and line.
    """
    return [record for _, record in iter_log(path, tell)]


class _NoRecord(ValueError):
    """Raised for a line that is not a record of any kind."""


def _strict(path, check):
    wrong = None
    for number, record, error in _scan(path, check):
        if wrong is not None:
            raise wrong
        if error is not None:
            wrong = ValueError(f"{path}, line {number} is {error}")
            if not isinstance(error, _NoRecord):
                raise wrong
        elif record is not None:
            yield number, record


def _scan(path, check):
    """Yield (line number, record or None, ValueError or None).

    Both are None for a blank line, and for a torn last line.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            record = wrong = None
            try:
                record = _parse_record(line) if line.strip() else None
                if record is not None and check is not None:
                    check(record)
            except ValueError as error:
                torn = line.startswith(b"{") and not line.endswith(b"\n")
                torn &= isinstance(error, _NoRecord)
                record, wrong = None, None if torn else error
            yield number, record, wrong


def _told(path, damaged):
    """Return one sentence on the lines left out, a dict of number -> what is wrong; "" if there are none."""
    if not damaged:
        return ""
    number, why = next(iter(damaged.items()))
    more = len(damaged) - 1
    others = f", as {'is' if more == 1 else 'are'} {more:,} more" if more else ""
    # Names of metrics are the file's own, and may hold anything.
    return one_line(f"{path}, line {number} is {why}; it is left out{others}")


def _superseded(heads):
    """Return what a log that goes back makes void: (set of line numbers, words on the first such line or "").

    heads : list of (line number, kind, step). A step's line voids those of its step and later ones, a
    validation's those of later steps, and an earlier one of its own step.
    """
    kept, void, words = [], set(), ""  # steps never fall in `kept`
    for number, kind, step in heads:
        gone, same = [], []
        while kept and kept[-1][2] >= step:
            old = kept.pop()
            # A step is validated before its own line is written.
            (same if old[2] == step and old[1] != kind else gone).append(old)
        kept += [*reversed(same), (number, kind, step)]
        void |= {old[0] for old in gone}
        if gone and not words:
            words = (
                f"line {number} goes back to step {step} after step {max(old[2] for old in gone)}: of steps "
                "that are there twice the later lines count"
            )
    return void, words


# ---- what a record is ----------------------------------------------------------------------------

MOST = 2**31 - 1  # rollouts of one prompt in a step, steps, and passes over the data
COUNTS = {"epoch": MOST, "budget": 2**53, "spent": 2**53}  # of a step, beside its number


def _parse_record(line):
    """Return the record in a line (bytes), a dict with a kind and a step. Raises _NoRecord."""
    try:
        record = parse_object(line)
        for key in ("kind", "step"):
            if key not in record:
                raise ValueError(f"it has no {key!r}")
        if not isinstance(record["kind"], str):
            raise ValueError(f"kind={_short(record['kind'])} is no text")
        _whole(record, "step", MOST)
    except ValueError as error:
        raise _NoRecord(f"not a record of an allocation log: {error}") from error
    return record


def check_record(record):
    """Raise ValueError unless `record` has what `RunLog.step` or `RunLog.validation` writes.

    The message goes on "the line is ...". Records of another kind pass.
    """
    check = {"step": _check_step, "validation": _check_validation}.get(record["kind"])
    if check is not None:
        try:
            check(record)
        except ValueError as error:
            raise ValueError(f"no {record['kind']} of an allocation log: {error}") from error


def _check_step(record):
    for key, most in COUNTS.items():
        _whole(record, key, most)
    prompts = _list(record, "prompts")
    if not prompts or set(map(type, prompts)) != {str}:
        raise ValueError("prompts must be a list of ids, one at least")
    for key in ("rollouts", "trials", "successes"):
        values = _list(record, key)
        kinds = {int, float} if key == "successes" else {int}
        if len(values) != len(prompts):
            raise ValueError(f"{key} has {len(values)} entries for {len(prompts)} prompts")
        if not set(map(type, values)) <= kinds or not 0 <= min(values) <= max(values) <= MOST:
            raise ValueError(f"{key} must be numbers of rollouts")
        if any(value != value for value in values):
            raise ValueError(f"{key} holds nan")
    if any(map(operator.gt, record["successes"], record["trials"])):
        raise ValueError("successes are more than trials")
    _check_metrics(record)


def _check_validation(record):
    _whole(record, "spent", COUNTS["spent"])
    _check_metrics(record)


def _check_metrics(record):
    metrics = record.get("metrics")
    if not isinstance(metrics, dict):
        raise ValueError(f"metrics={_short(metrics)} is no object of numbers")
    for key, value in metrics.items():
        if type(value) is not float and (type(value) is not int or abs(value) > 2**62):
            raise ValueError(f"metrics: {key}={_short(value)} is no number")


def _whole(record, key, most):
    value = record.get(key)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{key}={_short(value)} must be an integer in [0, {most}]")


def _list(record, key):
    if not isinstance(record.get(key), list):
        raise ValueError(f"{key}={_short(record.get(key))} is no list")
    return record[key]


def _short(value):
    """Return a value in a few characters."""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "a huge number"
    return repr(value)[:40] if isinstance(value, str | float | None) else type(value).__name__


def held_out_accuracy(metrics):
    """Return a validation's accuracy: verl's mean over samples, averaged over data sources; None without one.

    With several samples of a question verl also reports best@k and the spread, which are no accuracy. A data
    source whose name ends in "/train" has questions that are trained on: see `train_accuracy`.
    """
    return _accuracy(metrics, of_train=False)


def train_accuracy(metrics):
    """Return a validation's accuracy on data sources whose name ends in "/train"; None without one."""
    return _accuracy(metrics, of_train=True)


def _accuracy(metrics, of_train):
    # Keys are val-core/<data source>/<variable>/mean@<samples>.
    values = [
        value
        for key, value in metrics.items()
        if key.startswith("val-core/")
        and "/mean@" in key
        and key.rsplit("/", 2)[0].endswith("/train") == of_train
    ]
    return sum(values) / len(values) if values else None
