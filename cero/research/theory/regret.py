"""How far does an online allocator stay behind the best it could have done? Regret over the horizon.

Values are fixed and known (the setting of the abstract's O(sqrt(K)) claim): what is measured is the price
mechanism, not the learning of posteriors. Each epoch visits every prompt once and spends N x nbar.
"""

from dataclasses import asdict, dataclass

import numpy as np

from cero import make_allocator
from cero.core.utility import UTILITIES
from cero.research.theory.offline import optimum, total_utility

PRIOR = 1.0  # Beta(1, 1)
FLOOR = 1e-9  # of the optimum: regrets below are not told from 0


@dataclass(frozen=True)
class RegretRecord:
    """Holds one run: the cumulative utility reached (`value`) beside the offline `optimum`.

    regret : optimum - value; ratio : value / optimum; spent, budget : rollouts
    """

    allocator: str
    utility: str
    epochs: int
    seed: int
    optimum: float
    value: float
    regret: float
    ratio: float
    spent: int
    budget: int


def fix_values(allocator, ids, values):
    """Make the variance values of prompts `ids` exactly `values` (shape (n,), in (0, 1/4)) for the whole run.

    Beta(c, c) has E[p(1-p)] = c / (2 (2c + 1)); without observations a posterior stays where it is.
    """
    rows = allocator.table.add(ids)
    pseudo = 2.0 * values / (1.0 - 4.0 * values)
    allocator.table["successes"][rows] = pseudo - PRIOR
    allocator.table["failures"][rows] = pseudo - PRIOR


def draw_values(prompts, seed):
    """Return fixed values p (1 - p) with p uniform on (0.01, 0.99), shape (prompts,)."""
    p = np.random.default_rng(seed).uniform(0.01, 0.99, prompts)
    return np.minimum(p * (1.0 - p), 0.2499)


def prepare(name, utility, epochs, seed, prompts=512, rollouts_per_prompt=8, n_min=2, n_max=32, **options):
    """Return (allocator, values): prompts 0, 1, ... have these fixed values, shape (prompts,)."""
    # The value that `fix_values` fixes.
    fixed = {"utility": utility, "value": "variance", "prior_a": PRIOR, "prior_b": PRIOR}
    posterior_options = {} if name == "uniform" else fixed
    if name == "cero":
        # What the published figures were made with; the slope over the horizon depends on it.
        options = {"response": 2.0} | options
    allocator = make_allocator(
        name,
        rollouts_per_prompt=rollouts_per_prompt,
        epochs=epochs,
        n_min=n_min,
        n_max=n_max,
        seed=seed,
        total_budget=prompts * epochs * rollouts_per_prompt,
        **posterior_options,
        **options,
    )
    values = draw_values(prompts, seed)
    if name != "uniform":
        fix_values(allocator, np.arange(prompts, dtype=np.uint64), values)
    return allocator, values


def spend(allocator, epochs, prompts, exact=True):
    """Allocate to all prompts in each epoch.

    exact : whether every epoch costs N x nbar; otherwise the allocator decides, until the ledger can't pay
    n_min to every prompt

    Returns
    -------
    (demand, rollouts): float array of shape (epochs held,), what each epoch asked for in rollouts per prompt
    before it was made to cost its budget; int64 array of shape (epochs held, prompts), what it gave.
    """
    ids, demand, rollouts = np.arange(prompts, dtype=np.uint64), [], []
    for _ in range(epochs):
        if not exact and allocator.ledger.left < prompts * allocator.n_min:
            break
        rollouts.append(
            allocator.allocate(ids, budget=prompts * allocator.rollouts_per_prompt if exact else None)
        )
        demand.append(getattr(allocator, "demand", allocator.rollouts_per_prompt))
    return np.array(demand), np.array(rollouts)


def measure(allocator, values, utility_name, epochs, seed, held=None):
    """Return the `RegretRecord` of an allocator after its horizon.

    values : as `prepare` returned them
    held : how many epochs took place, if not all `epochs`; the optimum is bound by n_min in these only
    """
    budget, utility = allocator.ledger.total, UTILITIES[utility_name]
    scale = epochs * allocator.rollouts_per_prompt * getattr(allocator, "saturation", 1.0)
    low = (epochs if held is None else held) * allocator.n_min
    best, _ = optimum(values, budget, low, epochs * allocator.n_max, utility, scale)
    rows = allocator.table.rows(np.arange(values.size, dtype=np.uint64))
    reached = total_utility(values, allocator.table["allocated"][rows], utility, scale)
    top = total_utility(values, best, utility, scale)
    return RegretRecord(
        allocator=allocator.name,
        utility=utility_name,
        epochs=epochs,
        seed=seed,
        optimum=top,
        value=reached,
        regret=top - reached,
        ratio=reached / top,
        spent=allocator.ledger.spent,
        budget=budget,
    )


def run_regret(allocator_name, utility_name, epochs, seed, prompts=512, **options):
    """Run one allocator over one horizon, every epoch at its exact budget; return a `RegretRecord`."""
    allocator, values = prepare(allocator_name, utility_name, epochs, seed, prompts, **options)
    spend(allocator, epochs, prompts)
    return measure(allocator, values, utility_name, epochs, seed)


def floored(record):
    """Return whether the regret is below `FLOOR` of the optimum: that is rounding, not a measurement."""
    return record.regret < FLOOR * record.optimum


def slope(records):
    """Return the least-squares slope of log(regret) over log(epochs): dict of slope, low, high and floor.

    low, high : 95 % interval; floor : number of floored records, which are left out. Without three horizons
    above the floor slope, low and high are None.
    """
    from scipy import stats

    above = [r for r in records if not floored(r)]
    epochs = np.array([r.epochs for r in above], float)
    found = {"slope": None, "low": None, "high": None, "floor": len(records) - len(above)}
    if np.unique(epochs).size < 3:
        return found
    fit = stats.linregress(np.log(epochs), np.log([r.regret for r in above]))
    half = stats.t.ppf(0.975, epochs.size - 2) * fit.stderr
    return found | {
        "slope": float(fit.slope),
        "low": float(fit.slope - half),
        "high": float(fit.slope + half),
    }


def slopes(records):
    """Return `slope` of each allocator and utility: dict of "allocator/utility" -> dict."""
    keys = sorted({(r.allocator, r.utility) for r in records})
    return {
        f"{allocator}/{utility}": slope(
            [r for r in records if (r.allocator, r.utility) == (allocator, utility)]
        )
        for allocator, utility in keys
    }


def as_json(records):
    """Return the records and slopes as JSON-ready {"records": [...], "slopes": {...}}."""
    return {"records": [asdict(record) for record in records], "slopes": slopes(records)}


def regret_table(records):
    """Return a rich table with a row for each allocator, utility and horizon (means over seeds)."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    out = Table(
        title="Regret against the offline optimum (means over seeds)", title_justify="left", box=SIMPLE_HEAD
    )
    for name in ("allocator/utility", "K", "optimum", "regret", "ratio", "used"):
        out.add_column(name, justify="left" if name == "allocator/utility" else "right", no_wrap=True)
    for key, fit in slopes(records).items():
        mine = [r for r in records if f"{r.allocator}/{r.utility}" == key]
        label = key
        for epochs in sorted({r.epochs for r in mine}):
            group = [r for r in mine if r.epochs == epochs]
            mean = {f: np.mean([getattr(r, f) for r in group]) for f in ("optimum", "regret", "ratio")}
            used = np.mean([r.spent / r.budget for r in group])
            mark = "*" if any(map(floored, group)) else ""
            cells = (
                f"{mean['optimum']:,.0f}",
                f"{mean['regret']:.2g}{mark}",
                f"{mean['ratio']:.6f}",
                f"{used:.1%}",
            )
            out.add_row(label, str(epochs), *cells)
            label = ""
        if fit["slope"] is not None:
            text = f"slope {fit['slope']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"
            out.add_row(text, style="bold", end_section=True)
    if any(map(floored, records)):
        out.caption = f"* below {FLOOR:g} of the optimum: counts as 0, not in the slope"
        out.caption_justify = "left"
    return out


def plot_regret(records, path):
    """Write the picture (PNG) to `path`: regret over epochs, log-log, with sqrt(K) to compare.

    Points below the floor are drawn on it, hollow.
    """
    from matplotlib.lines import Line2D

    from cero.analysis.figures import figure

    with figure(path, 1, 2, size=(11, 5)) as (fig, axes):
        for key, fit in slopes(records).items():
            allocator, utility = key.split("/")
            mine = [r for r in records if (r.allocator, r.utility) == (allocator, utility)]
            epochs = np.array(sorted({r.epochs for r in mine}))
            columns = [[r for r in mine if r.epochs == e] for e in epochs]
            low = np.array([any(map(floored, c)) for c in columns])
            style = {
                "linestyle": {"exp": "-", "rational": "--", "log": ":"}[utility],
                "marker": "o",
                "markersize": 4,
            }
            name = key
            if fit["slope"] is not None:
                name = f"{key}: slope {fit['slope']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"
            lost = [np.mean([max(r.regret, FLOOR * r.optimum) for r in c]) for c in columns]
            gap = [np.mean([max(1 - r.ratio, FLOOR) for r in c]) for c in columns]
            for axis, line in zip(axes, (np.array(lost), np.array(gap)), strict=True):
                # Both panels go through the same colours.
                (drawn,) = axis.loglog(epochs, np.where(low, np.nan, line), label=name, **style)
                axis.loglog(
                    epochs[low],
                    line[low],
                    "o",
                    color=drawn.get_color(),
                    markerfacecolor="white",
                    markersize=8,
                )
        grid = np.array([min(r.epochs for r in records), max(r.epochs for r in records)], float)
        start = max(max(r.regret, FLOOR * r.optimum) for r in records if r.epochs == grid[0])
        axes[0].loglog(grid, start * np.sqrt(grid / grid[0]), color="gray", linestyle="-.", label="sqrt(K)")
        axes[0].set(title="Regret", xlabel="epochs K", ylabel="optimum - value (rollouts x value)")
        axes[1].axhline(0.01, color="gray", linewidth=0.8, linestyle=":")
        axes[1].set(
            title="Share of the optimum missed (dotted: 1 %)", xlabel="epochs K", ylabel="1 - value / optimum"
        )
        for axis in axes:
            axis.grid(alpha=0.3, which="both")
        handles = axes[0].get_legend_handles_labels()[0]
        if any(map(floored, records)):
            text = f"below {FLOOR:g} of the optimum: counts as 0"
            hollow = {"marker": "o", "markersize": 8, "markerfacecolor": "white", "linestyle": ""}
            handles.append(Line2D([], [], color="gray", label=text, **hollow))
        fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return path
