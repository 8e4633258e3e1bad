"""How do several runs compare? One table and one picture of what each spent and what it bought.

Runs are told apart by the overrides in which they differ, read from what was written beside each log at its
start.
"""

import csv
import math
import os
import re
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import numpy as np

from cero.analysis.figures import colours, figure
from cero.analysis.reading import describe, one_line, read_object
from cero.analysis.report import summarise_run
from cero.analysis.run import NoStepsError, TrainingRun, find_log

JOB_FILE = "job.json"  # beside the log: {"overrides": [...], "allocator": name}, written when a run starts
# Where a run writes and what it is called makes no difference between runs.
NO_SETTINGS = ("trainer.default_local_dir", "trainer.experiment_name")
COLUMNS = (
    "run",
    "settings",
    "allocator",
    "steps",
    "rollouts",
    "budget",
    "accuracy_before",
    "accuracy_after",
    "area",
    "signal",
    "step_seconds",
)


@dataclass
class Member:
    """Holds one run of a comparison.

    path : its folder, or its log
    overrides : dict of Hydra overrides, key -> value as text; empty where none were written down
    allocator : its name, or None
    run : `cero.analysis.run.TrainingRun`
    name, settings : what tells it from the others, set by `gather`: its folder, and the overrides that differ
    label : words that no other run has, likewise: its settings, and its name where they are not enough
    """

    path: Path
    overrides: dict
    allocator: str | None
    run: TrainingRun
    name: str = ""
    settings: dict = None
    label: str = ""


def _words(settings, allocator=None, keys=()):
    """Return settings as short words, `n_max=16`; the allocator comes first, by its bare name.

    keys : those of all runs that are compared: two that end alike are written in full
    """
    short = {key: key.rpartition(".")[2] for key in (*settings, *keys)}
    names = list(short.values())
    words = [
        f"{short[key] if names.count(short[key]) == 1 else key}={_rounded(value)}"
        for key, value in settings.items()
        if key != "allocator"
    ]
    if allocator and "allocator" in settings:
        words.insert(0, allocator)
    return " ".join(words)


def _rounded(value):
    """Return a value as text; one with many digits, as a sweeper draws it, with four."""
    return f"{float(value):.4g}" if re.fullmatch(r"-?\d+\.\d{5,}(e-?\d+)?", value) else value


def find_runs(paths):
    """Return the folders of runs at or below `paths`, in natural order, each once: list of Path.

    A run's folder holds an allocation log, or was made by Hydra for a job that may have failed before its
    first step. Nothing is looked for below a run. A path may be a log, or a pattern as for a shell.

    Raises FileNotFoundError, naming the path at which there is nothing.
    """
    found = {}
    for path in map(Path, paths):
        places = [path] if path.exists() else sorted(map(Path, glob(str(path))), key=_natural)
        runs = [run for place in places for run in _below(place)]
        if not runs:
            find_log(path)  # raises: it says where it looked
        for run in runs:
            found.setdefault((_log(run) or run).resolve(), run)
    return list(found.values())


def _below(path):
    """Return the run at `path`, or the runs below it; each folder is looked at once, whatever links say.

    A folder below that can't be listed holds no run for whoever may not list it.
    """
    runs, todo, seen = [], [path], set()
    while todo:
        place = todo.pop()
        try:
            if place.is_file() or _log(place) or (place / ".hydra").is_dir():
                runs.append(place)
            elif (real := os.path.realpath(place)) not in seen:
                seen.add(real)
                folders = (
                    child for child in place.iterdir() if child.is_dir() and not child.name.startswith(".")
                )
                todo += sorted(folders, key=_natural, reverse=True)
        except OSError:
            if place == path:
                raise
    return runs


def _natural(path):
    """Return a sort key that puts 2 before 10."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(path))
    ]


def read_job(path, tell=None):
    """Return (overrides as a dict of key -> text, allocator or None) of the run at `path`.

    They are read from what was written beside its log.

    tell : None, or a function of a message (str), to which it is told what can't be read. ({}, None) is
        returned then.

    Raises OSError or ValueError, naming the file, for what can't be read, unless there is `tell`.
    """
    try:
        return _job(path)
    except (OSError, ValueError) as error:
        if tell is None:
            raise
        tell(f"{describe(error)}; the run's settings are not shown")
        return {}, None


def _job(path):
    log = _log(path)
    job = log.with_name(JOB_FILE) if log else Path(path) / "cero" / JOB_FILE
    if job.is_file():
        about = read_object(job)
        return _checked_job(job, about.get("overrides"), about.get("allocator"))
    folder = Path(path).parent if Path(path).is_file() else Path(path)
    for hydra in (folder / ".hydra", folder / "hydra" / ".hydra"):
        if (hydra / "overrides.yaml").is_file():
            section = {}
            if (hydra / "config.yaml").is_file():
                config = _read_yaml(hydra / "config.yaml")
                section = config.get("allocator") if isinstance(config, dict) else {}
            name = section.get("name") if isinstance(section, dict) else None
            overrides = _read_yaml(hydra / "overrides.yaml")
            return _checked_job(hydra / "overrides.yaml", [] if overrides is None else overrides, name)
    return {}, None


def _checked_job(path, overrides, allocator):
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        raise ValueError(f"{path}: overrides is no list of texts")
    if not isinstance(allocator, str | None):
        raise ValueError(f"{path}: allocator is no text")
    return as_dict(overrides), allocator


def _read_yaml(path):
    """Return what a yaml holds. Raises ValueError, naming the file, for anything else."""
    import yaml

    try:
        return yaml.safe_load(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path}: it is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is no yaml: {one_line(error)}") from error


def _log(path):
    try:
        return find_log(path)
    except FileNotFoundError:
        return None


def as_dict(overrides):
    """Return Hydra overrides (`key=value`) as a dict, without `+` before a key; its last value counts."""
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+"): value for key, _, value in pairs}


def gather(paths, tell=None):
    """Read the runs at `paths` (see `find_runs`).

    tell : None, or a function of a message (str). With it, a damaged file is told: what could be read of it
        counts, and a run of which nothing could be read is left out.

    Returns (list of Member, dict of path -> why it is left out).

    Raises ValueError if nothing is left, or for a damaged file unless there is `tell`.
    """
    members, left_out = [], {}
    for path in find_runs(paths):
        overrides, allocator = read_job(path, tell)
        try:
            run = TrainingRun.read(path, tell)
        except FileNotFoundError:
            left_out[str(path)] = "no allocation log: it failed before its first step, or writes elsewhere"
        except NoStepsError:
            left_out[str(path)] = "no training step logged: it failed, or has only begun"
        except OSError as error:
            if tell is None:
                raise
            left_out[str(path)] = describe(error)
        else:
            members.append(Member(path, overrides, allocator, run))
    if not members:
        raise ValueError("; ".join(f"{path}: {why}" for path, why in left_out.items()))
    _tell_apart(members)
    return members, left_out


def _tell_apart(members):
    """Set each member's `name`, `settings` and `label`."""
    folders = [os.path.abspath(member.path) for member in members]
    parent = os.path.commonpath(folders) if len(folders) > 1 else os.path.dirname(folders[0])
    keys = dict.fromkeys(key for member in members for key in member.overrides)
    differing = [
        key
        for key in keys
        if key not in NO_SETTINGS
        and not key.startswith("hydra.")
        and len({member.overrides.get(key) for member in members}) > 1
    ]
    for member, folder in zip(members, folders, strict=True):
        member.name = os.path.relpath(folder, parent)
        member.settings = {key: member.overrides[key] for key in differing if key in member.overrides}
        if member.settings.get("allocator") and not member.allocator:
            member.allocator = member.settings["allocator"]
        member.label = _words(member.settings, member.allocator, differing) or member.name
    labels = [member.label for member in members]
    for member in members:
        if labels.count(member.label) > 1 and member.label != member.name:
            member.label += f" ({member.name})"


def common_range(members):
    """Return (from, to) in rollouts spent, where every run that was validated twice has a curve; or None."""
    spans = [spent for spent, _ in (member.run.accuracy() for member in members) if spent.size > 1]
    if not spans:
        return None
    low, high = max(spent[0] for spent in spans), min(spent[-1] for spent in spans)
    return (int(low), int(high)) if low < high else None


def area(run, span):
    """Return the mean held-out accuracy over `span` (from, to) of rollouts spent; None without a curve there.

    It is the area under the curve over its width, in [0, 1]; straight lines join the validations.
    """
    spent, accuracy = run.accuracy()
    if span is None or spent.size < 2:
        return None
    low, high = span
    at = np.unique(np.concatenate([[low, high], spent[(low < spent) & (spent < high)]]))
    height = np.interp(at, spent, accuracy)
    return float((np.diff(at) * (height[1:] + height[:-1]) / 2).sum() / (high - low))


def compare_runs(members):
    """Return the figures of each run: list of JSON-ready dicts with the keys COLUMNS, path and label.

    `signal` is the share of groups with both outcomes, mean over steps; `area` is over `common_range`.
    """
    span = common_range(members)
    rows = []
    for member in members:
        summary = summarise_run(member.run)
        signal = member.run.metric("cero/group/signal")
        known = np.isfinite(signal)
        rows.append(
            {
                "run": member.name,
                "path": str(member.path),
                "label": member.label,
                "settings": member.settings,
                "allocator": member.allocator,
                **{key: summary[key] for key in COLUMNS if key in summary},
                "area": area(member.run, span),
                "signal": float(signal[known].mean()) if known.any() else None,
            }
        )
    return rows


def comparison_table(rows, span=None, title="Runs"):
    """Return the rows as a rich table; `span` as of `common_range`, for its caption."""
    from rich.table import Table
    from rich.text import Text

    def share(value):
        return "-" if value is None else f"{100 * value:.1f} %"

    out = Table(title=Text(one_line(title)), title_justify="left", caption_justify="left")
    if span is not None:
        out.caption = f"area: mean held-out accuracy over {span[0]:,} to {span[1]:,} rollouts spent"
    keys = dict.fromkeys(key for row in rows for key in row["settings"])
    settings = [
        _words({key: value for key, value in row["settings"].items() if key != "allocator"}, keys=keys)
        for row in rows
    ]
    columns = {
        "run": [row["run"] for row in rows],
        "settings": settings,
        "allocator": [row["allocator"] or "-" for row in rows],
        "rollouts": [
            f"{row['rollouts']:,}" + ("" if row["budget"] is None else f" of {row['budget']:,}")
            for row in rows
        ],
        "held-out accuracy": [
            "-"
            if row["accuracy_after"] is None
            else f"{share(row['accuracy_before'])} -> {share(row['accuracy_after'])}"
            for row in rows
        ],
        "area": [share(row["area"]) for row in rows],
        "signal": [share(row["signal"]) for row in rows],
        "s/step": ["-" if row["step_seconds"] is None else f"{row['step_seconds']:.2f}" for row in rows],
    }
    if not any(settings):
        del columns["settings"]
    for name in columns:
        left = name in ("run", "settings", "allocator")
        out.add_column(name, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    for cells in zip(*columns.values(), strict=True):
        out.add_row(*(Text(one_line(cell)) for cell in cells))  # a name may hold what rich takes for markup
    return out


def write_csv(rows, path):
    """Write the rows to `path` and return it: columns as COLUMNS; unknown cells are empty."""

    def cell(value):
        if isinstance(value, dict):
            return " ".join(f"{key}={text}" for key, text in value.items())
        return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([cell(row[key]) for key in COLUMNS] for row in rows)
    return path


def plot_comparison(members, path, title=None):
    """Write the picture (PNG) to `path` and return it: each run's held-out accuracy over rollouts spent.

    If no run was validated, the success rate of the training prompts is drawn, and the axis says so.
    """
    validated = any(member.run.accuracy()[0].size for member in members)
    with figure(path, 1, 1, size=(9, 5)) as (_, axis):
        palette = colours(len(members))
        for member, colour in zip(members, palette, strict=True):
            if validated:
                spent, height = member.run.accuracy()
                style = {"marker": "o", "markersize": 4}
            else:
                spent, height = member.run.spent, member.run.metric("cero/score/prompt_mean")
                style = {}
            axis.plot(spent / 1000, height, color=colour, label=_legend(member.label), **style)
        what = "held-out accuracy" if validated else "success on training prompts (no run was validated)"
        axis.set(xlabel="rollouts spent (thousands)", ylabel=what)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
        axis.set_title(one_line(title or "What the rollouts bought"))
    return Path(path)


def _legend(label):
    """Return a label that matplotlib shows: it leaves out those that begin with an underscore."""
    label = one_line(label)
    return f" {label}" if label.startswith("_") else label
