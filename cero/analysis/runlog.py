"""What did a run allocate? One JSON line a step, for reports and for any reader.

Lines are {"kind": "step", ...} and {"kind": "validation", ...}; see `RunLog.step` and `RunLog.validation`.
"""

import json
import os
from pathlib import Path

FILE_NAME = "allocations.jsonl"


class RunLog:
    """Appends records to the file `path`; with `path=None` it writes nothing."""

    def __init__(self, path):
        self.path = None if path is None else Path(path)

    def rewind(self, step):
        """Drop what lies after `step` (a run resumed there writes it again), and a torn last line."""
        if self.path is None or not self.path.exists():
            return
        kept = [record for record in read_log(self.path) if record["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        os.replace(temporary, self.path)

    def step(self, step, epoch, budget, spent, prompts, rollouts, successes, trials, metrics, **counts):
        """Write one training step.

        prompts : ids as 16 hex digits; rollouts : what each was given
        successes, trials : successes[i] of trials[i] are what came back of rollouts[i]
        budget : rollouts that the step might have spent; spent : rollouts that the run has spent
        metrics : those of verl's metrics of the step that are kept
        counts : rollouts `sampled`, `kept` by the rule of selection and `trained` on
        """
        self._write(
            kind="step",
            step=step,
            epoch=epoch,
            budget=budget,
            spent=spent,
            prompts=prompts,
            rollouts=rollouts,
            successes=successes,
            trials=trials,
            **counts,
            metrics=metrics,
        )

    def validation(self, step, spent, metrics):
        """Write one validation, after `step` steps and `spent` training rollouts."""
        self._write(kind="validation", step=step, spent=spent, metrics=metrics)

    def _write(self, **record):
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


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
