"""What did a run do in each step? A table with one row a step, made from its allocation log.

A row holds what its step did; `rollouts_spent` alone is a running total. Row 0 is the validation before
training. Empty cells are unknown, or not validated. The page on the study in docs explains each column.
"""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np

from cero.analysis.runlog import held_out_accuracy, train_accuracy

COLUMNS = (
    "step",
    "rollouts_spent",
    "rollouts",
    "rollouts_trained",
    "tokens",
    "tokens_trained",
    "groups",
    "signal",
    "accuracy",
    "seconds",
)
TRAIN = "train_accuracy"  # a column of tasks that validate on train questions, too; it comes after COLUMNS
NAN = float("nan")


def make_table(records):
    """Return the rows of a log's records (see `cero.analysis.runlog`): list of dict.

    The columns are COLUMNS, TRAIN if it was measured, and then seconds_<phase>.

    Raises ValueError if no step was logged.
    """
    validations = {record["step"]: record for record in records if record["kind"] == "validation"}
    scores = {step: _scores(record["metrics"]) for step, record in validations.items()}
    trained = any(TRAIN in score for score in scores.values())
    unknown = {"accuracy": NAN} | ({TRAIN: NAN} if trained else {})
    steps = [record for record in records if record["kind"] == "step"]
    if not steps:
        raise ValueError("the allocation log holds no training step")
    phases = sorted({phase for record in steps for phase in _phases(record["metrics"])})
    rows = [_row(record, unknown | scores.get(record["step"], {}), phases) for record in steps]
    if 0 in validations:
        first = {"step": 0, "rollouts_spent": validations[0]["spent"]} | unknown | scores[0]
        rows.insert(0, dict.fromkeys(rows[0], NAN) | first)
    return rows


def _scores(metrics):
    """Return the accuracies of a validation, those that were measured: dict of column -> float."""
    found = {"accuracy": held_out_accuracy(metrics), TRAIN: train_accuracy(metrics)}
    return {name: score for name, score in found.items() if score is not None}


def _row(record, scores, phases):
    metrics = record["metrics"]
    rollouts = record.get("sampled", sum(record["rollouts"]))
    trained = record.get("trained", metrics.get("cero/rollouts/observed", rollouts))
    tokens = metrics.get("cero/tokens/sampled", metrics.get("response_length/mean", NAN) * trained)
    # What verl's filter_groups throws away never comes back to be counted: its responses are taken to be as
    # long as the others.
    returned = sum(record["trials"])
    if returned and returned < rollouts:
        tokens *= rollouts / returned
    groups = sum(n > 0 for n in record["rollouts"])
    with_signal = metrics.get("cero/group/signal", NAN) * metrics.get("cero/group/count", groups)
    return {
        "step": record["step"],
        "rollouts_spent": record["spent"],
        "rollouts": rollouts,
        "rollouts_trained": trained,
        "tokens": tokens,
        "tokens_trained": metrics.get(
            "cero/tokens/trained", tokens * trained / rollouts if rollouts else NAN
        ),
        "groups": groups,
        "signal": with_signal / groups if groups else NAN,
        "accuracy": scores["accuracy"],
        "seconds": metrics.get("timing_s/step", NAN),
        **({TRAIN: scores[TRAIN]} if TRAIN in scores else {}),
        **{f"seconds_{phase}": metrics.get(f"timing_s/{phase}", NAN) for phase in phases},
    }


def _phases(metrics):
    """Return verl's phases, without the whole step and without their parts."""
    keys = (key.removeprefix("timing_s/") for key in metrics if key.startswith("timing_s/"))
    return [key for key in keys if key != "step" and "/" not in key]


def write_table(path, rows, about):
    """Write rows to `path` (.csv) and the dict `about` beside it (.json).

    The table comes last: where there is one, the run is finished.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    os.replace(temporary, path)


def _cell(value):
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}" if value != int(value) else str(int(value))
    return value


def read_table(path):
    """Return the columns of a table as float arrays of shape (rows,), nan where empty: dict.

    Raises ValueError if a column that every table has is missing, or a cell is no number.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeError) as error:
        raise ValueError(f"{path} is no table of a run: {error}") from error
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise ValueError(f"{path} lacks the column {missing[0]!r}: it is no table of a run")
    try:
        return columns_of(rows)
    except ValueError as error:
        raise ValueError(f"{path} has {error}") from error


def columns_of(rows):
    """Return rows of text, a list of dict, as a dict of float arrays; an empty cell is nan.

    Raises ValueError if a row has fewer or more cells than the first, or a cell is no number.
    """
    names = list(rows[0])
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise ValueError(f"fewer or more cells in row {number} than in its header")
    try:
        return {name: np.array([float(row[name] or NAN) for row in rows]) for name in names}
    except ValueError as error:
        raise ValueError(f"a cell that is no number: {error}") from error
