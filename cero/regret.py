"""How far does an online allocator stay behind the best it could have done? Regret over the horizon.

Values are fixed and known (the setting of the abstract's O(sqrt(K)) claim): what is measured is the price mechanism,
not the learning of posteriors. Each epoch visits every prompt once and spends N x nbar.
"""

from dataclasses import asdict, dataclass

import numpy as np

from cero import make_allocator
from cero.offline import optimum, total_utility
from cero.utility import UTILITIES

PRIOR = 1.0  # Beta(1, 1)


@dataclass(frozen=True)
class Record:
    """One run: cumulative utility reached (`value`) against the offline `optimum`; `spent` of `budget` rollouts."""

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
    """Make the variance values of prompts `ids` exactly `values` (shape (n,), in (0, 1/4)), for good.

    Beta(c, c) has E[p(1-p)] = c / (2 (2c + 1)); without observations a posterior stays where it is.
    """
    rows = allocator.table.add(ids)
    pseudo = 2.0 * values / (1.0 - 4.0 * values)
    allocator.table["successes"][rows] = pseudo - PRIOR
    allocator.table["failures"][rows] = pseudo - PRIOR


def draw_values(prompts, seed):
    """Fixed values of `prompts` prompts: p (1 - p) with p uniform on (0, 1), many near 1/4 and some near 0."""
    p = np.random.default_rng(seed).uniform(0.01, 0.99, prompts)
    return np.minimum(p * (1.0 - p), 0.2499)


def run(allocator_name, utility_name, epochs, seed, prompts=512, rollouts_per_prompt=8, n_min=2, n_max=32, **options):
    """Run one allocator over one horizon; returns a `Record`."""
    budget = prompts * epochs * rollouts_per_prompt
    allocator = make_allocator(
        allocator_name,
        rollouts_per_prompt=rollouts_per_prompt,
        epochs=epochs,
        n_min=n_min,
        n_max=n_max,
        seed=seed,
        total_budget=budget,
        **({} if allocator_name == "uniform" else {"utility": utility_name, "prior_a": PRIOR, "prior_b": PRIOR}),
        **options,
    )
    ids, values = np.arange(prompts, dtype=np.uint64), draw_values(prompts, seed)
    if allocator_name != "uniform":
        fix_values(allocator, ids, values)
    for _ in range(epochs):
        allocator.allocate(ids, budget=prompts * rollouts_per_prompt)
    utility, scale = UTILITIES[utility_name], epochs * rollouts_per_prompt * getattr(allocator, "saturation", 1.0)
    best, _ = optimum(values, budget, epochs * n_min, epochs * n_max, utility, scale)
    reached = total_utility(values, allocator.table["allocated"][allocator.table.rows(ids)], utility, scale)
    top = total_utility(values, best, utility, scale)
    return Record(
        allocator=allocator_name,
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


def slope(records):
    """Least-squares slope of log(regret) over log(epochs): dict with slope, low, high (95 % interval) and floor.

    A regret below 1e-9 of the optimum is rounding error and counts as that (`floor` says how many did).
    """
    from scipy import stats

    epochs = np.array([r.epochs for r in records], float)
    floors = np.array([1e-9 * r.optimum for r in records])
    regrets = np.array([r.regret for r in records])
    if np.unique(epochs).size < 3:
        return {"slope": None, "low": None, "high": None, "floor": int((regrets < floors).sum())}
    fit = stats.linregress(np.log(epochs), np.log(np.maximum(regrets, floors)))
    half = stats.t.ppf(0.975, epochs.size - 2) * fit.stderr
    return {
        "slope": float(fit.slope),
        "low": float(fit.slope - half),
        "high": float(fit.slope + half),
        "floor": int((regrets < floors).sum()),
    }


def slopes(records):
    """`slope` for each (allocator, utility), keyed "allocator/utility"."""
    keys = sorted({(r.allocator, r.utility) for r in records})
    return {
        f"{allocator}/{utility}": slope([r for r in records if (r.allocator, r.utility) == (allocator, utility)])
        for allocator, utility in keys
    }


def as_json(records):
    """JSON-ready: {"records": [...], "slopes": {...}}."""
    return {"records": [asdict(record) for record in records], "slopes": slopes(records)}


def table(records):
    """A rich table: a row for each allocator, utility and horizon (means over seeds)."""
    from rich.table import Table

    out = Table(title="Regret against the offline optimum (means over seeds)", title_justify="left")
    for name in ("allocator/utility", "epochs", "optimum", "regret", "ratio", "budget used"):
        out.add_column(name, justify="left" if name == "allocator/utility" else "right", no_wrap=True)
    for key, fit in slopes(records).items():
        mine = [r for r in records if f"{r.allocator}/{r.utility}" == key]
        label = key
        for epochs in sorted({r.epochs for r in mine}):
            group = [r for r in mine if r.epochs == epochs]
            mean = {f: np.mean([getattr(r, f) for r in group]) for f in ("optimum", "regret", "ratio")}
            used = np.mean([r.spent / r.budget for r in group])
            cells = (f"{mean['optimum']:,.0f}", f"{mean['regret']:.3g}", f"{mean['ratio']:.6f}", f"{used:.2%}")
            out.add_row(label, str(epochs), *cells)
            label = ""
        if fit["slope"] is not None:
            text = f"slope {fit['slope']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"
            out.add_row(text, style="bold", end_section=True)
    return out


def plot(records, path):
    """Write the picture: regret over epochs, log-log, with sqrt(K) to compare. PNG at `path`."""
    from cero.figures import figure

    with figure(path, 1, 2, size=(12, 4.8)) as (fig, axes):
        for key, fit in slopes(records).items():
            allocator, utility = key.split("/")
            mine = [r for r in records if (r.allocator, r.utility) == (allocator, utility)]
            epochs = np.array(sorted({r.epochs for r in mine}))
            columns = [[r for r in mine if r.epochs == e] for e in epochs]
            style = {"linestyle": {"exp": "-", "rational": "--", "log": ":"}[utility], "marker": "o", "markersize": 4}
            name = key if fit["slope"] is None else f"{key}: slope {fit['slope']:.2f}"
            regret = [np.mean([max(r.regret, 1e-9 * r.optimum) for r in c]) for c in columns]
            (line,) = axes[0].loglog(epochs, regret, label=name, **style)
            gap = [np.mean([max(1 - r.ratio, 1e-9) for r in c]) for c in columns]
            axes[1].loglog(epochs, gap, label=key, color=line.get_color(), **style)
        grid = np.array([min(r.epochs for r in records), max(r.epochs for r in records)], float)
        middle = np.exp(np.mean([np.log(max(r.regret, 1e-9 * r.optimum)) for r in records]))
        axes[0].loglog(
            grid, middle * np.sqrt(grid / np.sqrt(grid[0] * grid[1])), color="gray", linestyle="-.", label="sqrt(K)"
        )
        axes[0].set(title="Regret", xlabel="epochs K", ylabel="optimum - value (rollouts x value)")
        axes[1].axhline(0.01, color="gray", linewidth=0.8, linestyle=":")
        axes[1].set(title="Share of the optimum missed (dotted: 1 %)", xlabel="epochs K", ylabel="1 - value / optimum")
        for axis in axes:
            axis.legend(fontsize=7)
            axis.grid(alpha=0.3, which="both")
    return path
