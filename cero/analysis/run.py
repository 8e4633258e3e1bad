"""What did a run record? Its allocation log as arrays."""

from pathlib import Path

import numpy as np

from cero.analysis.runlog import FILE_NAME, held_out_accuracy, read_log


class NoStepsError(ValueError):
    """Raised for an allocation log without a training step."""


def find_log(path):
    """Return the allocation log at `path`: the file itself, or the one in a run's folder.

    A run's folder is verl's trainer.default_local_dir.

    Raises FileNotFoundError, naming where it looked.
    """
    path = Path(path)
    if path.is_file():
        return path
    places = [path / "cero" / FILE_NAME, path / FILE_NAME]
    if path.suffix == ".jsonl" and not path.is_dir():
        places = [path]
    for place in places:
        if place.is_file():
            return place
    for place in places:
        if place.is_dir():
            raise FileNotFoundError(f"{place} is a folder instead of an allocation log")
    raise FileNotFoundError(
        f"no allocation log at {' or '.join(map(str, places))}; is cero.log_allocations on?"
    )


class TrainingRun:
    """Holds a run's records as arrays.

    steps, epochs, spent, budget : int arrays, shape (steps,)
    prompts : list of arrays of prompt rows (int), one a step, indices into 0..prompt_count
    rollouts, successes, trials : lists of arrays, one a step, aligned with `prompts`
    validations : list of (step, spent, metrics)

    Raises NoStepsError if there is no training step among the records.
    """

    def __init__(self, records):
        steps = [record for record in records if record["kind"] == "step"]
        if not steps:
            raise NoStepsError("the allocation log holds no training step yet")
        row = {}
        self.prompts = [
            np.array([row.setdefault(p, len(row)) for p in s["prompts"]], dtype=np.int64) for s in steps
        ]
        self.prompt_count = len(row)
        self.rollouts, self.successes, self.trials = (
            [np.array(s[key], dtype=float) for s in steps] for key in ("rollouts", "successes", "trials")
        )
        self.steps, self.epochs, self.budget, self.spent = (
            np.array([s[key] for s in steps]) for key in ("step", "epoch", "budget", "spent")
        )
        self.metrics = [s["metrics"] for s in steps]
        self.validations = [
            (r["step"], r["spent"], r["metrics"]) for r in records if r["kind"] == "validation"
        ]

    @classmethod
    def read(cls, path, tell=None):
        """Read the run at `path`, its folder or log. `tell` is that of `read_log`.

        Raises FileNotFoundError without a log, NoStepsError without a training step, ValueError for a
        damaged log unless there is `tell`.
        """
        log = find_log(path)
        try:
            return cls(read_log(log, tell))
        except NoStepsError as error:
            raise NoStepsError(f"{log}: {error}") from None

    def metric(self, key):
        """Return a logged metric over steps, nan where it is missing: float array, shape (steps,)."""
        return np.array([metrics.get(key, np.nan) for metrics in self.metrics], dtype=float)

    def accuracy(self):
        """Return (spent, accuracy) of the validations, arrays; accuracy is the mean over data sources."""
        points = [(spent, held_out_accuracy(metrics)) for _, spent, metrics in self.validations]
        points = [(spent, acc) for spent, acc in points if acc is not None and np.isfinite(acc)]
        return (
            tuple(np.array(column) for column in zip(*points, strict=True)) if points else (np.zeros(0),) * 2
        )

    def prompt_epochs(self):
        """Return (rollouts, success rate): shapes (prompts, epochs) and (prompts,).

        Rollouts are nan where a prompt was not visited, the success rate where nothing came back.
        """
        epochs = np.unique(self.epochs)
        grid = np.full((self.prompt_count, epochs.size), np.nan)
        won, tried = np.zeros(self.prompt_count), np.zeros(self.prompt_count)
        for epoch, prompts, rollouts, successes, trials in zip(
            self.epochs, self.prompts, self.rollouts, self.successes, self.trials, strict=True
        ):
            column = np.searchsorted(epochs, epoch)
            np.add.at(won, prompts, successes)
            np.add.at(tried, prompts, trials)
            given = np.bincount(prompts, rollouts, self.prompt_count)
            seen = np.unique(prompts)
            grid[seen, column] = np.nan_to_num(grid[seen, column]) + given[seen]
        return grid, np.divide(won, tried, out=np.full(self.prompt_count, np.nan), where=tried > 0)
