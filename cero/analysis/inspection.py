"""What does an allocator know of its prompts? A saved state or a run's log tells."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cero.allocators import allocator_class, make_allocator, option_names
from cero.analysis.figures import figure
from cero.analysis.reading import one_line
from cero.analysis.runlog import FILE_NAME, check_record, iter_log
from cero.core.prompts import PromptTable
from cero.core.state import COMMIT_MARKER, STATE_FILE, load_state

BINS = 10
SCATTER_MAX = 3000  # more prompts than these are drawn as density
# The columns of a state, in the order in which they are shown; others come after them.
COLUMNS = ("rollouts", "visits", "posterior_mean", "strength", "value", "slope", "price")
ID = re.compile("[0-9a-fA-F]{16}")  # a prompt's, in a log
QUANTILES = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}


@dataclass
class Inspection:
    """Holds what was found.

    source : Path of the file read
    summary : JSON-ready dict: kind ("state" or "log") and what is known of allocator, options, prompts, steps
    ledger : dict with spent, total and left, in rollouts; None where there is no global budget
    price : the budget's, in value per rollout, or None
    ids : uint64 array, shape (prompts,)
    columns : dict of str to array, shape (prompts,), nan where unknown: "rollouts" (cumulated) at least. A
    state has "visits", "posterior_mean", "strength" (a + b, pseudo-counts), "value", "slope" (in (0, 1]) and
    "price" (value per rollout) as far as the allocator has them; a log has "visits", "trials" and
    "success_rate" (successes / trials)
    mean : name of the column with what is known of the success probability, in [0, 1], or None
    """

    source: Path
    summary: dict
    ledger: dict
    price: float | None
    ids: np.ndarray
    columns: dict
    mean: str | None


# ---- reading -------------------------------------------------------------------------------------


def find_source(path):
    """Return the file of `path`: itself, a checkpoint's state, a run's newest committed state, or its log.

    Raises
    ------
    FileNotFoundError
        If there is none, naming where it looked.
    ValueError
        If verl's commit marker is damaged.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(
            f"nothing at {path}; give an allocator.npz, an {FILE_NAME}, or a checkpoint's or run's folder"
        )
    places = [path / STATE_FILE, path / STATE_FILE.name]
    marker = path / COMMIT_MARKER
    if marker.is_file():
        step = marker.read_bytes().decode(errors="replace").strip()
        if not step.isdecimal():
            raise ValueError(
                f"{marker} holds {step[:20]!r} instead of a step; "
                f"give a folder global_step_N of {path} itself"
            )
        places.append(path / f"global_step_{step}" / STATE_FILE)
    places += [path / "cero" / FILE_NAME, path / FILE_NAME]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{path} has neither a committed checkpoint with {STATE_FILE} nor an allocation log "
        f"cero/{FILE_NAME}; give the run's trainer.default_local_dir, or a file"
    )


def inspect(path, tell=None):
    """Read the state or log of `path` (see `find_source`); return an `Inspection`.

    tell : None, or a function of a message: a log's lines that are no records are told instead of refused,
    see `cero.analysis.runlog.read_log`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged, of an allocator that is not known here, or a log without a training step.
    """
    source = find_source(path)
    return inspect_log(source, tell) if source.suffix == ".jsonl" else inspect_state(source)


def inspect_state(path):
    """Inspect the state file `path`."""
    path = Path(path)
    state = load_state(path)
    allocator = _restore(state, path)
    found = allocator.describe()
    names = [name for name in COLUMNS if name in found.columns]
    names += [name for name in found.columns if name not in COLUMNS]
    columns = {name: found.columns[name] for name in names}
    summary = {
        "kind": "state",
        "allocator": allocator.name,
        "options": allocator.options(),
        "prompts": len(allocator.table),
        "pending": int(allocator.table["pending"].sum()),
    }
    if found.steps is not None:
        summary["steps"] = found.steps
    ledger = {"spent": allocator.ledger.spent, "total": allocator.ledger.total, "left": allocator.ledger.left}
    mean = "posterior_mean" if "posterior_mean" in columns else None
    return Inspection(path, summary, ledger, _finite(found.price), allocator.table["id"], columns, mean)


def _restore(state, path):
    """Return the allocator that wrote `state`; options that it has no more don't matter."""
    try:
        known = option_names(allocator_class(state["allocator"]))
        options = {key: value for key, value in state["options"].items() if key in known}
        options["total_budget"] = state["ledger"]["total"]
        allocator = make_allocator(state["allocator"], **options)
        allocator.load_state_dict(state)
    except KeyError as error:
        raise ValueError(
            f"{path}: state lacks {error}; the file is damaged, take an earlier checkpoint"
        ) from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path}: state is malformed ({error}); take an earlier checkpoint") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return allocator


def inspect_log(path, tell=None):
    """Inspect the allocation log `path`, line by line: memory grows with the prompts, not with the steps."""
    path = Path(path)
    table = PromptTable(
        {
            "rollouts": (np.int64, 0),
            "visits": (np.int32, 0),
            "trials": (np.int64, 0),
            "successes": (np.float64, 0.0),
        }
    )
    steps, budget = 0, 0
    for _, record in iter_log(path, tell, _check_ids):
        if record["kind"] != "step":
            continue
        _tally(table, record)
        steps, last_step = steps + 1, record["step"]
        budget, spent = budget + record["budget"], record["spent"]
        total, price = (
            _finite(record["metrics"].get(f"cero/{key}")) for key in ("budget/total", "dual/budget")
        )
    if not steps:
        raise ValueError(
            f"{path} holds no training step yet; wait for the run's first, or give a saved state"
        )
    trials = table["trials"]
    columns = {name: table[name] for name in ("rollouts", "visits", "trials")}
    columns["success_rate"] = np.divide(
        table["successes"], trials, out=np.full(len(table), np.nan), where=trials > 0
    )
    summary = {
        "kind": "log",
        "prompts": len(table),
        "pending": int((table["rollouts"] - trials).sum()),
        "steps": steps,
        "last_step": last_step,
        "budget": budget,
    }
    total = None if total is None else int(total)
    ledger = {"spent": spent, "total": total, "left": None if total is None else total - spent}
    return Inspection(path, summary, ledger, price, table["id"], columns, "success_rate")


def _check_ids(record):
    """Raise ValueError unless `record` is whole (see `check_record`) and a step's ids are 16 hex digits."""
    check_record(record)
    if record["kind"] == "step" and not all(map(ID.fullmatch, record["prompts"])):
        raise ValueError("no step of an allocation log: prompts must be 16 hex digits each")


def _tally(table, record):
    """Add a step's rollouts and outcomes to `table`."""
    rows = table.add(np.frombuffer(bytes.fromhex("".join(record["prompts"])), ">u8").astype(np.uint64))
    np.add.at(table["visits"], rows, 1)
    for name in ("rollouts", "trials", "successes"):
        np.add.at(table[name], rows, np.asarray(record[name], table[name].dtype))


def _finite(value):
    """Return `value` as a float, or None where it is None, nan or infinite (JSON has none of these)."""
    return None if value is None or not math.isfinite(value) else float(value)


# ---- figures -------------------------------------------------------------------------------------


def extremes(ids, rollouts, count):
    """Return the rows of the `count` prompts with most and with least rollouts, the extreme one first.

    Two int64 arrays of shape (min(count, prompts),); ties are in order of ids. Linear in the prompts: only
    what is shown gets sorted.
    """
    return _first(-rollouts.astype(np.int64), ids, count), _first(rollouts, ids, count)


def _first(keys, ids, count):
    count = min(count, keys.size)
    if not count:
        return np.zeros(0, np.int64)
    edge = np.partition(keys, count - 1)[count - 1]
    within, ties = np.flatnonzero(keys < edge), np.flatnonzero(keys == edge)
    room = count - within.size  # 1 or more: the edge itself is among the ties
    rows = np.concatenate([within, ties[np.argpartition(ids[ties], room - 1)[:room]]])
    return rows[np.lexsort((ids[rows], keys[rows]))]


def histogram(inspection):
    """Return prompts by success probability as known: (counts, edges), int (10,) and float (11,).

    None if nothing is known of any prompt; prompts of which nothing is known are left out.
    """
    if inspection.mean is None:
        return None
    means = inspection.columns[inspection.mean]
    return np.histogram(means[np.isfinite(means)], BINS, (0.0, 1.0))


def quantiles(values):
    """Return the mean and quantiles of an array as a dict of floats; None if no value is finite."""
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    points = np.quantile(values, list(QUANTILES.values()))
    return {"mean": float(values.mean())} | dict(zip(QUANTILES, points.tolist(), strict=True))


def as_json(inspection, top=10):
    """Return everything as one JSON-ready dict, with `top` prompts of most and of least rollouts.

    Raises ValueError if `top` is negative.
    """
    if top < 0:
        raise ValueError(f"--top={top} must be 0 or more prompts")
    columns = inspection.columns
    result = {"source": str(inspection.source), **inspection.summary, "ledger": inspection.ledger}
    for name in ("rollouts", "visits"):
        if name in columns:
            result[name] = quantiles(columns[name])
    duals = {} if inspection.price is None else {"budget_price": inspection.price}
    if "slope" in columns:
        duals["slopes"] = quantiles(columns["slope"])
    if duals:
        result["duals"] = duals
    bars = histogram(inspection)
    if bars is not None:
        counts, edges = bars
        unknown = int(inspection.ids.size - counts.sum())
        result["histogram"] = {
            "of": inspection.mean,
            "edges": [round(edge, 12) for edge in edges.tolist()],
            "counts": counts.tolist(),
            "unknown": unknown,
        }
    for key, rows in zip(("most", "least"), extremes(inspection.ids, columns["rollouts"], top), strict=True):
        result[key] = [_prompt(inspection, row) for row in rows]
    return result


def _prompt(inspection, row):
    figures = {"id": f"{inspection.ids[row]:016x}"}
    for name, column in inspection.columns.items():
        figures[name] = int(column[row]) if column.dtype.kind in "iu" else _finite(column[row])
    return figures


# ---- showing -------------------------------------------------------------------------------------


def inspection_tables(figures):
    """Return the dict of `as_json` as a list of rich tables: summary, most and least rollouts, histogram."""
    out = [_summary_table(figures)]
    for key, title in (("most", "Most rollouts"), ("least", "Least rollouts")):
        if figures[key]:
            out.append(_prompt_table(figures[key], title))
    if "histogram" in figures and figures["prompts"]:
        out.append(_histogram_table(figures["histogram"]))
    return out


def _number(value):
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _spread(figures):
    """Return the dict of `quantiles` in words."""
    if figures is None:
        return "-"
    shown = {name: _number(figures[name]) for name in figures}
    return f"mean {shown['mean']}, " + ", ".join(f"{name} {shown[name]}" for name in QUANTILES)


def _summary_table(figures):
    from rich.table import Table
    from rich.text import Text

    out = Table(show_header=False)
    out.add_column(style="bold", no_wrap=True)
    out.add_column(overflow="fold")

    def add(label, text):
        out.add_row(label, Text(one_line(text)))  # Text: an option may hold what rich takes for markup

    if "allocator" in figures:
        add("allocator", figures["allocator"])
        add("options", ", ".join(f"{key}={value}" for key, value in figures["options"].items()))
    if "steps" in figures:
        last = f", the last is {figures['last_step']:,}" if "last_step" in figures else ""
        add("steps", f"{figures['steps']:,}{last}")
    add("prompts", f"{figures['prompts']:,}")
    ledger = figures["ledger"]
    limit = "" if ledger["total"] is None else f" of {ledger['total']:,}, {ledger['left']:,} left"
    add("rollouts spent", f"{ledger['spent']:,}{limit}")
    if "budget" in figures:
        add("budgets of these steps", f"{figures['budget']:,}")
    add("not observed", f"{figures['pending']:,}")
    add("rollouts per prompt", _spread(figures["rollouts"]))
    if "visits" in figures:
        add("visits per prompt", _spread(figures["visits"]))
    duals = figures.get("duals", {})
    if "budget_price" in duals:
        add("budget price", _number(duals["budget_price"]))
    if "slopes" in duals:
        add("prompt slopes", _spread(duals["slopes"]))
    return out


def _prompt_table(prompts, title):
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    # Narrow: all columns have to fit 80 characters.
    out = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for name in prompts[0]:
        out.add_column(
            name.replace("_", " "), justify="left" if name == "id" else "right", no_wrap=name == "id"
        )
    for prompt in prompts:
        out.add_row(*(value if name == "id" else _number(value) for name, value in prompt.items()))
    return out


def _histogram_table(figures):
    from rich.bar import Bar
    from rich.table import Table

    edges, counts = figures["edges"], figures["counts"]
    unknown = f" ({figures['unknown']:,} unknown)" if figures["unknown"] else ""
    out = Table(title=f"Prompts by {figures['of'].replace('_', ' ')}{unknown}", title_justify="left")
    out.add_column("from, to", no_wrap=True)
    out.add_column("prompts", justify="right")
    out.add_column("share", justify="right")
    out.add_column("", width=40)
    known, longest = max(sum(counts), 1), max(max(counts), 1)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        out.add_row(f"{low:.1f}, {high:.1f}", f"{count:,}", f"{count / known:.1%}", Bar(longest, 0, count))
    return out


def plot_inspection(inspection, path):
    """Write the picture (PNG) to `path` and return it: prompts and their rollouts by success probability.

    If nothing is known of success, it shows the histogram of rollouts alone.
    """
    rollouts = inspection.columns["rollouts"]
    bars = histogram(inspection)
    if bars is None or not bars[0].sum():
        with figure(path, 1, 1, size=(6, 4)) as (_, axis):
            axis.hist(rollouts, 40, (0, rollouts.max(initial=0) + 1), color="tab:blue")
            axis.yaxis.set_major_formatter("{x:,.0f}")
            axis.set(title=f"{rollouts.size:,} prompts", xlabel="rollouts so far", ylabel="prompts")
        return path
    counts, edges = bars
    means = inspection.columns[inspection.mean]
    known = np.isfinite(means)
    means, rollouts = means[known], rollouts[known]
    label = inspection.mean.replace("_", " ")
    with figure(path, 1, 2, size=(12, 4.5)) as (fig, (left, right)):
        left.bar(edges[:-1], counts, np.diff(edges), align="edge", color="tab:blue", edgecolor="white")
        left.set(title=f"{means.size:,} prompts", xlabel=label, ylabel="prompts", xlim=(0, 1))
        top = int(rollouts.max())
        if means.size > SCATTER_MAX:
            cells = [[0, 1], [-0.5, top + 0.5]]
            shown = right.hist2d(
                means, rollouts, (25, min(top + 1, 40)), cells, norm="log", cmin=1, cmap="viridis_r"
            )
            fig.colorbar(shown[3], ax=right, label="prompts")
        else:
            right.scatter(means, rollouts, s=14, alpha=0.4, color="tab:blue", linewidths=0)
        at = np.minimum((means * BINS).astype(np.int64), BINS - 1)
        sums, sizes = np.bincount(at, rollouts, BINS), np.bincount(at, minlength=BINS)
        filled = sizes > 0
        centres = (edges[:-1] + edges[1:]) / 2
        right.plot(
            centres[filled],
            sums[filled] / sizes[filled],
            color="tab:red",
            marker="o",
            label="mean of each tenth",
        )
        right.set(title="Where the rollouts went", xlabel=label, ylabel="rollouts so far", xlim=(0, 1))
        right.set_ylim(0, 1.15 * top + 1)  # room for the legend
        left.yaxis.set_major_formatter("{x:,.0f}")
        right.legend(fontsize=8, loc="upper right")
    return path
