"""Where are the tables of finished runs? In files of their own at first, packed into two files later.

A folder of runs holds either kind or both:

    <task>/<contender>/<seed>.csv, .json    one run each, as `cero benchmark` writes them (see `tables`)
    runs.csv.bz2                            the tables of many runs below each other: task, contender, seed,
                                            and then `tables.COLUMNS`; `tables.TRAIN` once a run has it
    runs.jsonl.bz2                          the records of these runs, one JSON object a line; phase_seconds
                                            has the seconds of verl's phases, summed over the run's steps

`pandas.read_csv("runs.csv.bz2")` and `pandas.read_json("runs.jsonl.bz2", lines=True)` read the packed files.
A run that has files of its own is read from them: they are newer than the packed ones.
"""

import bz2
import csv
import io
import json
import os
from pathlib import Path

import numpy as np

from cero.research.study.tables import COLUMNS, NAN, TRAIN, read_table

TABLES, RECORDS = "runs.csv.bz2", "runs.jsonl.bz2"
KEY = ("task", "contender", "seed")
PHASE = "seconds_"  # what the columns of verl's phases begin with


def single_tables(folder):
    """Return the runs under `folder` that have files of their own: dict of (task, contender, seed) -> Path.

    seed : int. Files whose name is no seed are left alone.
    """
    paths = sorted(Path(folder).glob("*/*/*.csv"))
    return {(*path.parts[-3:-1], int(path.stem)): path for path in paths if path.stem.isdecimal()}


def packed_records(folder):
    """Return the records of the runs packed in `folder`: dict of (task, contender, seed) -> dict."""
    path = Path(folder) / RECORDS
    if not path.is_file():
        return {}
    with bz2.open(path, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return {tuple(record[key] for key in KEY): record for record in records}


def _packed_rows(folder):
    """Return the packed tables as text: dict of (task, contender, seed) -> list of dict of column -> cell."""
    path = Path(folder) / TABLES
    rows = {}
    if path.is_file():
        with bz2.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                key = (row.pop("task"), row.pop("contender"), int(row.pop("seed")))
                rows.setdefault(key, []).append(row)
    return rows


def read_runs(folder):
    """Return all runs under `folder` as (where it was read, table, record), by task, contender and seed.

    table : dict of column -> float array, as of `tables.read_table`; record : the dict written beside it.

    Raises FileNotFoundError if there is no run, ValueError naming the file that can't be read.
    """
    folder = Path(folder)
    singles, records = single_tables(folder), packed_records(folder)
    found = {}
    for key, rows in _packed_rows(folder).items():
        if key in singles:
            continue
        where = f"{folder / TABLES}, {_name(key)}"
        if key not in records:
            raise ValueError(f"{where}: {RECORDS} has no record of this run; restore both files together")
        try:
            table = {name: np.array([float(row[name] or NAN) for row in rows]) for name in rows[0]}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error!r}") from error
        found[key] = where, table, records[key]
    for key, path in singles.items():
        try:
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            found[key] = str(path), read_table(path), record
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error!r}") from error
    if not found:
        raise FileNotFoundError(f"no tables of runs under {folder}; `cero benchmark` makes them")
    return [found[key] for key in sorted(found)]


def pack(folder):
    """Move the runs of `folder` that have files of their own into its packed files; return how many.

    The packed files are the same whatever the order in which runs were packed.

    Raises ValueError naming the file that can't be read; nothing has changed then.
    """
    folder = Path(folder)
    singles, records, tables = single_tables(folder), packed_records(folder), _packed_rows(folder)
    if not singles:
        return 0
    for key, path in singles.items():
        try:
            records[key] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            records[key]["phase_seconds"] = _phase_seconds(read_table(path))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error!r}") from error
        with path.open(encoding="utf-8", newline="") as file:
            tables[key] = list(csv.DictReader(file))
    text = io.StringIO(newline="")
    trained = [TRAIN] if any(TRAIN in rows[0] for rows in tables.values()) else []
    writer = csv.DictWriter(text, [*KEY, *COLUMNS, *trained], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for key in sorted(tables):
        writer.writerows(dict(zip(KEY, key, strict=True)) | row for row in tables[key])
    lines = "".join(json.dumps(records[key]) + "\n" for key in sorted(tables))
    _write(folder / RECORDS, lines)
    _write(folder / TABLES, text.getvalue())  # the table comes last: a run that is in it is finished
    for path in singles.values():
        path.unlink()
        path.with_suffix(".json").unlink()
        for parent in (path.parent, path.parent.parent):
            if not any(parent.iterdir()):
                parent.rmdir()
    return len(singles)


def _name(key):
    return "/".join(map(str, key))


def _phase_seconds(table):
    """Return the seconds of each phase in the whole run: dict of phase -> float."""
    phases = [name for name in table if name.startswith(PHASE)]
    return {name.removeprefix(PHASE): round(float(np.nansum(table[name])), 3) for name in phases}


def _write(path, text):
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(bz2.compress(text.encode(), 9))
    os.replace(temporary, path)
