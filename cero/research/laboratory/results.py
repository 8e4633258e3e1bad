"""What do the laboratory's runs say? One JSON line a run, and a table that compares them seed by seed."""

import bz2
import json
import math
import os
from pathlib import Path

import numpy as np

from cero.analysis.reading import parse_object
from cero.research.ceiling import NO_SHARE, MeanGain, Share, paired_share
from cero.research.study.curves import LearningCurve, common, read_curves

EVEN, ORACLE, REFERENCE = "even", "oracle", "grpo"
FILES = ("laboratory.jsonl", "laboratory.jsonl.bz2")  # where the study looks for ceilings
NEEDED = ("task", "contender", "seed", "spent", "accuracy")  # of each record
PLACES = 301  # of a curve, for its thirds
COLUMNS = (
    "contender", "pairs", "area", "end", "train, end", "area: points more", "end: points more",
    "points more in each third", "share of the ceiling", "rollouts to {reference}'s end",
)  # fmt: skip
FOUND = ("contender", "runs", "p (1-p) of all", "of those chosen", "of the best", "value found")


def read_records(path):
    """Return the runs of a file of JSON lines, plain or .bz2: list of dict; of a run made twice, the last.

    A torn last line is left out. Raises FileNotFoundError without the file, ValueError for other damage.
    """
    path = Path(path)
    data = path.read_bytes()
    lines = (bz2.decompress(data) if path.suffix == ".bz2" else data).decode().split("\n")
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            records.append(parse_object(line))
            _check_record(records[-1])
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return list({key(record): record for record in records}.values())


def _check_record(record):
    """Raise ValueError if what a record has of what is needed is of another kind."""
    words, seed = [record.get(name, "") for name in ("task", "contender")], record.get("seed", 0)
    if not all(isinstance(word, str) for word in words) or type(seed) is not int:
        raise ValueError(f"its task, contender and seed are {words[0]!r}, {words[1]!r} and {seed!r}")
    for name, least in (("spent", 1), ("accuracy", 2)):
        values = record.get(name, [1.0] * least)
        good = isinstance(values, list) and len(values) >= least
        if not good or not all(type(value) in (int, float) and math.isfinite(value) for value in values):
            raise ValueError(f"its {name!r} is no list of {least} numbers or more")
    written, budget = record.get("written"), record.get("budget")
    if not isinstance(written, str | None) or not isinstance(budget, int | float | None):
        raise ValueError(f"its written and budget are {written!r} and {budget!r}")
    if record.get("spent", [1])[-1] <= 0:
        raise ValueError("it has spent nothing")


def key(record):
    """Return what tells a run from others: task, contender with what it stands for, seed and budget."""
    return tuple(record.get(name) for name in ("task", "contender", "written", "seed", "budget"))


def append(path, record):
    """Add a run to a file of JSON lines; a torn last line is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)
        file.write(json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def make_curve(record):
    """Return the run's `LearningCurve`, with what was not measured as nan.

    Validations come with the first step at or beyond each tenth of the budget, so they are off the grid by
    less than a step. Older runs that stopped a few rollouts short of their budget lack the last one.
    """
    accuracy = np.array(record["accuracy"])
    budget = record["spent"][-1]
    of_train = record.get("train_accuracy")
    unknown = np.full(accuracy.size, np.nan)
    return LearningCurve(
        task=record["task"],
        contender=record["contender"],
        group="main",
        split="tune",
        seed=record["seed"],
        budget=budget,
        interval=budget / (accuracy.size - 1),
        accuracy=accuracy,
        tokens=unknown,
        seconds=unknown,
        rollouts=budget,
        tokens_trained=math.nan,
        step_seconds=math.nan,
        train_final=float(np.mean(of_train[-2:])) if isinstance(of_train, list) else math.nan,
    )


def read_results(path, task=None):
    """Return the curves of a file by task, contender and seed: dict of dict of dict of seed -> LearningCurve.

    path : of the laboratory's file, or of a folder of runs through verl (see `cero.research.study.archive`)
    task : the only one to read, or None. Contenders are in order of first appearance. Raises ValueError if a
    name stands for two contenders, or a task's runs have two budgets, besides what `read_records` raises.
    """
    if not Path(path).is_dir():
        return results_of(read_records(path), path, task)
    found = {}
    for curve in read_curves(path):
        if task is None or curve.task == task:
            found.setdefault(curve.task, {}).setdefault(curve.contender, {})[curve.seed] = curve
    return found


def results_of(records, path, task=None):
    """Return the curves of `records`, read from the laboratory's file `path`, as `read_results` does.

    Raises ValueError if a name stands for two contenders, or runs of a task have different budgets.
    """
    found, written, budgets = {}, {}, {}
    for number, record in enumerate(records, 1):
        missing = [name for name in NEEDED if name not in record]
        if missing:
            raise ValueError(f"{path}, run {number}: it has no {missing[0]!r}")
        if task is not None and record["task"] != task:
            continue
        label, stands_for = record["contender"], record.get("written")
        if written.setdefault((record["task"], label), stands_for) != stands_for:
            raise ValueError(
                f"{path}: {label!r} stands for {written[record['task'], label]!r} and for {stands_for!r}; "
                "keep runs made with different code in different files"
            )
        budget = record.get("budget")
        if budgets.setdefault(record["task"], budget) != budget:
            raise ValueError(
                f"{path}: runs of {record['task']} have budgets of {budgets[record['task']]} and of {budget} "
                "rollouts, which can't be compared; keep them in different files"
            )
        of_task = found.setdefault(record["task"], {})
        of_task.setdefault(label, {})[record["seed"]] = make_curve(record)
    return found


def ceilings(path, even=EVEN, oracle=ORACLE):
    """Return what the oracle gains in area over even, by task: dict of str -> `MeanGain`, in [-1, 1]."""
    return {
        task: MeanGain.of(_gains(of_task, oracle, even, _area))
        for task, of_task in read_results(path).items()
        if oracle in of_task and even in of_task
    }


def draw(results, path, like=""):
    """Draw mean held-out accuracy over rollouts, with standard errors, a panel for each task.

    results : what `read_results` returned; like : only contenders with this in their names
    """
    from cero.analysis.figures import colours, figure

    size = 7.5 * len(results), 4.5
    # More colours than usual, for lines that hide each other and are seen in the legend only.
    with figure(path, 1, len(results), size=size, palette=160, squeeze=False) as (_, axes):
        for axis, (task, contenders) in zip(axes[0], results.items(), strict=True):
            shown = {label: runs for label, runs in contenders.items() if like in label}
            ends = {label: np.mean([run.final for run in runs.values()]) for label, runs in shown.items()}
            by_end = sorted(shown, key=ends.get, reverse=True)
            for label, colour in zip(by_end, colours(len(by_end)), strict=True):
                size = min(run.accuracy.size for run in shown[label].values())
                curves = np.array([run.accuracy[:size] for run in shown[label].values()])
                grid, mean = next(iter(shown[label].values())).grid[:size] / 1000, curves.mean(axis=0)
                axis.plot(grid, 100 * mean, label=label, color=colour)
                if len(curves) > 1:
                    error = curves.std(axis=0, ddof=1) / math.sqrt(len(curves))
                    bounds = 100 * (mean - error), 100 * (mean + error)
                    axis.fill_between(grid, *bounds, color=colour, alpha=0.2, linewidth=0)
            axis.set(title=task, xlabel="rollouts (thousands)", ylabel="held-out accuracy, %")
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)


def thirds(curve):
    """Return the mean accuracy over each third of the budget, array of shape (3,)."""
    x = np.linspace(0, curve.budget, PLACES)
    y = np.interp(x, curve.grid, curve.accuracy)
    size = (PLACES - 1) // 3
    parts = [y[k * size : (k + 1) * size + 1] for k in range(3)]
    return np.array([(part[:-1] + part[1:]).mean() / 2 for part in parts])


def _area(curve):
    return curve.area


def _gains(of_task, label, against, figure):
    mine, others = of_task.get(label, {}), of_task.get(against, {})
    pairs = [common(mine[seed], others[seed]) for seed in sorted(set(mine) & set(others))]
    return np.array([figure(curve) - figure(other) for curve, other in pairs])


def points(gain):
    """Return a `MeanGain` in points as text, with its standard error if there is one."""
    if not gain.pairs:
        return "-"
    error = "" if math.isnan(gain.error) else f" ± {100 * gain.error:.1f}"
    return f"{100 * gain.mean:+.1f}{error}"


def _mean(values):
    return "-" if np.isnan(values).all() else f"{100 * np.mean(values):.1f}"


def _ratio(of_task, label, reference):
    """Return the mean of rollouts to the reference's end, its own 1; with ≥ where a run never got there."""
    mine, others = of_task[label], of_task.get(reference, {})
    pairs = [common(mine[seed], others[seed]) for seed in sorted(set(mine) & set(others))]
    own = [(curve, other, other.reach(other.final)) for curve, other in pairs]
    reached = [(curve.reach(other.final), curve.budget, first) for curve, other, first in own if first > 0]
    if not reached:
        return "-"
    ratios = [(budget if math.isnan(rollouts) else rollouts) / first for rollouts, budget, first in reached]
    bound = "≥ " if any(math.isnan(rollouts) for rollouts, *_ in reached) else ""
    return f"{bound}{np.mean(ratios):.2f}"


def table_rows(of_task, even=EVEN, oracle=ORACLE, reference=REFERENCE, like=""):
    """Return the cells of a task's table, a list of str for each contender, by gain in area.

    Gains are paired with `even` by seed: mean ± standard error, in points. The share of the ceiling is that
    of the area, over the seeds that contender, even and oracle share.

    of_task : dict of contender -> dict of seed -> LearningCurve
    like : only contenders with this in their names, and the three to compare with
    """
    lines = []
    for label, runs in of_task.items():
        if like not in label and label not in (even, oracle, reference):
            continue
        area = _gains(of_task, label, even, _area)
        end = _gains(of_task, label, even, lambda curve: curve.final)
        parts = [_gains(of_task, label, even, lambda curve, k=k: thirds(curve)[k]) for k in range(3)]
        share = NO_SHARE
        if label != even:
            # Over the seeds that all three share.
            shared = {name: of_task.get(name, {}) for name in (label, even, oracle)}
            common = set.intersection(*(set(by_seed) for by_seed in shared.values()))
            shared = {name: {seed: by_seed[seed] for seed in common} for name, by_seed in shared.items()}
            share = paired_share(*(_gains(shared, name, even, _area) for name in (label, oracle)))
        curves = list(runs.values())
        cells = [
            label,
            str(area.size),
            _mean([curve.area for curve in curves]),
            _mean([curve.final for curve in curves]),
            _mean([curve.train_final for curve in curves]),
            points(MeanGain.of(area)),
            points(MeanGain.of(end)),
            ", ".join(points(MeanGain.of(part)) for part in parts) if area.size else "-",
            str(share),
            _ratio(of_task, label, reference),
        ]
        lines.append((-area.mean() if area.size else math.inf, cells))
    return [cells for _, cells in sorted(lines, key=lambda line: line[0])]


def found_rows(records, like=""):
    """Return how valuable the prompts were that contenders chose: a list of str for each, cells under FOUND.

    Value found is (chosen - all) / (best - all), mean ± standard error over runs: 1 for the best that could
    be had, 0 for a choice at random. Contenders without a choice have no line.

    records : list of dict, of one task; like : only contenders with this in their names
    """
    by_label = {}
    for record in records:
        found = record.get("found")
        if found and found["best"] > found["offered"] and like in record["contender"]:
            by_label.setdefault(record["contender"], []).append(found)
    lines = []
    for label, runs in by_label.items():
        means = [np.mean([run[name] for run in runs]) for name in ("offered", "bought", "best")]
        share = MeanGain.of(
            [(run["bought"] - run["offered"]) / (run["best"] - run["offered"]) for run in runs]
        )
        cells = [
            label,
            str(len(runs)),
            *(f"{mean:.3f}" for mean in means),
            str(Share(share.mean, share.error)),
        ]
        lines.append((-share.mean, cells))
    return [cells for _, cells in sorted(lines, key=lambda line: line[0])]
