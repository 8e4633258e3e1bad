"""Where are the tables of finished runs? In files of their own at first, packed into two files later.

A folder of runs holds either kind or both:

    <task>/<contender>/<seed>.csv, .json    one run each, as `cero benchmark` writes them (see `tables`)
    runs.csv.bz2                            the tables of many runs below each other: `tables.COLUMNS` with
                                            task, contender and seed; `tables.TRAIN` once a run has it. The
                                            seconds have three digits: more are noise, and do not compress
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

from cero.analysis.reading import describe, parse_object, read_object
from cero.research.study.tables import COLUMNS, TRAIN, columns_of, read_table

TABLES, RECORDS = "runs.csv.bz2", "runs.jsonl.bz2"
KEY = ("task", "contender", "seed")
# The columns in the order in which bzip2 packs them smallest, by a tenth.
PACKED = (
    *("step", "rollouts_spent", "accuracy", "tokens", "tokens_trained", "task", "seconds", "signal"),
    *("groups", "rollouts_trained", "rollouts", "seed", "contender"),
)
PHASE = "seconds_"  # what the columns of verl's phases begin with


def single_tables(folder):
    """Return the runs under `folder` that have files of their own: dict of (task, contender, seed) -> Path.

    seed : int. Files whose name is no seed are left alone.
    """
    paths = sorted(Path(folder).glob("*/*/*.csv"))
    return {(*path.parts[-3:-1], int(path.stem)): path for path in paths if path.stem.isdecimal()}


def packed_records(folder, tell=None):
    """Return the records of the runs packed in `folder`: dict of (task, contender, seed) -> dict.

    tell : None, or a function of a message (str), to which it is told which lines are left out.

    Raises OSError or ValueError, naming file and line, for what is no record, unless there is `tell`.
    """
    path = Path(folder) / RECORDS
    records = {}
    for number, line in _packed_lines(path, tell):
        try:
            record = parse_object(line)
            records[_key(record)] = record
        except ValueError as error:
            _refuse(f"{path}, line {number}: {error}", error, tell)
    return records


def _packed_lines(path, tell):
    """Yield (number, line) of a packed file, if there is one, until its end or where it is damaged."""
    if not path.is_file():
        return
    number = 0
    try:
        with bz2.open(path, "rt", encoding="utf-8", newline="") as file:
            for number, line in enumerate(file, 1):  # noqa: B007
                yield number, line
    except (OSError, EOFError, UnicodeError) as error:
        _refuse(f"{path}, after line {number}: {error}", error, tell)


def _key(row):
    """Return (task, contender, seed) of a record, or of a row of text. Raises ValueError without them."""
    try:
        task, contender, seed = (row[key] for key in KEY)
        if not (isinstance(task, str) and isinstance(contender, str)):
            raise ValueError("task and contender must be texts")
        return task, contender, int(seed)
    except KeyError as error:
        raise ValueError(f"it has no {error}") from error
    except (TypeError, OverflowError) as error:
        raise ValueError(f"seed={row['seed']!r} is no whole number") from error


def _refuse(message, error, tell):
    """Raise ValueError with `message`, or tell it and go on."""
    if tell is None:
        raise ValueError(message) from error
    tell(f"{message}; it is left out")


def _packed_rows(folder, tell=None):
    """Return the packed tables as text: dict of (task, contender, seed) -> list of dict of column -> cell."""
    path = Path(folder) / TABLES
    rows, last, cut = {}, None, []
    reader = csv.DictReader(line for _, line in _packed_lines(path, tell and cut.append))
    while True:
        try:
            row = next(reader, None)
            if row is None:
                for message in cut:  # the run in which the file ends has lost some of its rows
                    tell(message if rows.pop(last, None) is None else f"{message}, and {_name(last)} with it")
                return rows
            ordered = {column: row[column] for column in COLUMNS if column in row} | row
            last = _key(row)
            rows.setdefault(last, []).append({k: cell for k, cell in ordered.items() if k not in KEY})
        except (csv.Error, ValueError) as error:
            _refuse(f"{path}, line {reader.line_num}: {error}", error, tell)


def read_runs(folder, tell=None):
    """Return all runs under `folder` as (where it was read, table, record), by task, contender and seed.

    table : dict of column -> float array, as of `tables.read_table`; record : the dict written beside it.

    tell : None, or a function of a message (str). With it, runs that can't be read are told and left out.

    Raises FileNotFoundError if there is no run, ValueError naming the file that can't be read.
    """
    folder = Path(folder)
    singles, records = single_tables(folder), packed_records(folder, tell)
    found = {}
    for key, rows in _packed_rows(folder, tell).items():
        if key in singles:
            continue
        where = f"{folder / TABLES}, {_name(key)}"
        try:
            if key not in records:
                raise ValueError(f"{RECORDS} has no record of this run; restore both files together")
            found[key] = where, columns_of(rows), records[key]
        except ValueError as error:
            _refuse(f"{where}: {error}", error, tell)
    for key, path in singles.items():
        try:
            found[key] = str(path), read_table(path), _record_of(key, path)
        except (OSError, ValueError) as error:
            _refuse(f"{path}: {describe(error)}", error, tell)
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
    for key in tables:
        if key not in records and key not in singles:
            raise ValueError(f"{folder / RECORDS} has no record of {_name(key)}; restore both files together")
    for key, path in singles.items():
        try:
            records[key] = _record_of(key, path)
            records[key]["phase_seconds"] = _phase_seconds(read_table(path))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {describe(error)}") from error
        with path.open(encoding="utf-8", newline="") as file:
            tables[key] = list(csv.DictReader(file))
    for row in (row for rows in tables.values() for row in rows):
        row["seconds"] = f"{float(row['seconds']):.3g}" if row.get("seconds") else ""
    text = io.StringIO(newline="")
    trained = [TRAIN] if any(TRAIN in rows[0] for rows in tables.values()) else []
    writer = csv.DictWriter(text, [*PACKED, *trained], extrasaction="ignore", lineterminator="\n")
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


def _record_of(key, path):
    """Return the record beside the table `path`. Raises ValueError if it is of another run than `key`."""
    record = read_object(path.with_suffix(".json"))
    if (named := _key(record)) != key:
        raise ValueError(f"its record is of {_name(named)}; put it where it belongs")
    return record


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
