"""Does the simulator order rules as a small experiment with a network did?

The experiment: a 0.35M-parameter transformer trained outside verl on 480 questions of 24 families, 15 epochs,
GRPO advantages averaged over rollouts (the simulator's page in docs describes it). Preset `lab` has its
shape; its rates were set by the curve of uniform GRPO alone, so the order of all other rules is a prediction.
"""

from dataclasses import dataclass

import numpy as np

from cero.allocators import available_allocators
from cero.research.simulation.experiments import run_experiments, t_interval
from cero.research.simulation.methods import METHODS
from cero.research.simulation.training import area


@dataclass(frozen=True)
class MeasuredRule:
    """Holds a rule of the experiment.

    name : its name there; areas : area under the curve of each seed, in [0, 1]
    method : the same rule here, as `methods.parse_method` reads it
    group : "rule" (GRPO, each rollout counts once), "weight" (each prompt counts once), "estimator"
    (posterior baseline) or "sequential" (rounds within a step)
    near : what differs, where the method only resembles the rule
    """

    name: str
    areas: tuple
    method: str
    group: str = "rule"
    near: str = ""


# Options of cero when the predictions were made. They were its defaults then.
_THEN = "forgetting=0.7/response=2"

# Uniform comes first. Rules whose allocator is not registered are left out and named.
MEASURED_RULES = [
    MeasuredRule("uniform", (0.789, 0.787, 0.785), "uniform"),
    MeasuredRule("duals, variance", (0.777, 0.779, 0.777), f"cero+grpo/{_THEN}"),
    MeasuredRule("proportional to variance", (0.765, 0.776, 0.767), "variance/estimator=grpo"),
    MeasuredRule("re-solving, variance", (0.762, 0.773, 0.752), "cero_resolve+grpo"),
    MeasuredRule("signal", (0.785, 0.781), f"cero:signal+grpo/{_THEN}", near="greedy there"),
    MeasuredRule("signal x (1-p)", (0.804, 0.805), f"cero:signal_hard+grpo/{_THEN}", near="greedy there"),
    MeasuredRule("Knapsack's value", (0.801, 0.796), "knapsack/estimator=grpo", near="posterior there"),
    MeasuredRule("1/sqrt(p)", (0.806, 0.812), "reinforce_ada_est/estimator=grpo"),
    MeasuredRule("duals, equal prompts", (0.785,), f"cero+grpo/{_THEN}/weight=prompt", "weight"),
    MeasuredRule(
        "1/sqrt(p), equal prompts", (0.795,), "reinforce_ada_est/estimator=grpo/weight=prompt", "weight"
    ),
    MeasuredRule(
        "Knapsack's, equal prompts",
        (0.800,),
        "knapsack/estimator=grpo/weight=prompt",
        "weight",
        "posterior there",
    ),
    MeasuredRule(
        "signal x (1-p), equal prompts",
        (0.798,),
        f"cero:signal_hard+grpo/{_THEN}/weight=prompt",
        "weight",
        "greedy there",
    ),
    MeasuredRule("uniform, posterior", (0.797,), "even+posterior/history=4", "estimator"),
    MeasuredRule(
        "1/sqrt(p), posterior", (0.815,), "reinforce_ada_est/estimator=posterior/history=4", "estimator"
    ),
    MeasuredRule(
        "signal x (1-p) in [0, 64], posterior",
        (0.820,),
        f"cero:signal_hard/{_THEN}/n_min=0/n_max=64/history=4",
        "estimator",
        "greedy there",
    ),
    MeasuredRule(
        "sequential in [2, 64], GRPO", (0.809,), "cero_seq/skip=0/n_max=64/estimator=grpo", "sequential"
    ),
    MeasuredRule(
        "sequential in [2, 64], posterior", (0.828,), "cero_seq/skip=0/n_max=64/history=4", "sequential"
    ),
    MeasuredRule("sequential in [0, 64], posterior", (0.830,), "cero_seq/n_max=64/history=4", "sequential"),
    MeasuredRule(
        "sequential in [0, 64], history 8", (0.835, 0.822, 0.828), "cero_seq/n_max=64/history=8", "sequential"
    ),
]


def check_order(seeds, rows=None, **options):
    """Run the rules `rows` (default: MEASURED_RULES) in preset `lab` with `seeds` seeds.

    `options` go to `run_experiments`.

    Returns
    -------
    A dict. `rows`, a list of {name, contender (the method), group, near, measured, gain_measured (over
    uniform on the same seeds), predicted (mean, low, high), gain (likewise; over uniform, seeds paired)};
    `missing`, names of rules without an allocator; `ranks`, of the group "rule", of all but "sequential",
    and of all: {tau, tau_low, tau_high, rho, rows} of gains, where the ends of tau are its 2.5 % and 97.5 %
    points when seeds are drawn anew.
    """
    from scipy import stats

    rows = MEASURED_RULES if rows is None else rows
    there = [row for row in rows if row.method.split("/")[0] in (*METHODS, *available_allocators())]
    # Labels are unique, or two rows would be one.
    curves = run_experiments([row.method for row in there], ["lab"], [8], seeds, **options)
    areas = np.array([area(curve) for curve in curves]).reshape(len(there), seeds)
    # Fewer seeds were run of some rules: each is measured against uniform on its own seeds.
    measured = np.array([np.mean(row.areas) - np.mean(rows[0].areas[: len(row.areas)]) for row in there])
    of_group = np.array([row.group for row in there])
    groups = {
        "rules under GRPO": of_group == "rule",
        "and weights, estimators": of_group != "sequential",
        "and sequential": np.ones(len(there), bool),
    }
    rng = np.random.default_rng(0)
    again = rng.integers(seeds, size=(1000, seeds))
    distinct, which = np.unique(again, axis=0, return_inverse=True)  # of few seeds there are few
    ranks = {}
    for name, of in groups.items():
        taus = np.array(
            [stats.kendalltau(measured[of], areas[of][:, pick].mean(axis=1)).statistic for pick in distinct]
        )
        mean = areas[of].mean(axis=1)
        low, high = np.percentile(taus[which.ravel()], [2.5, 97.5])
        ranks[name] = {
            "tau": float(stats.kendalltau(measured[of], mean).statistic),
            "tau_low": float(low),
            "tau_high": float(high),
            "rho": float(stats.spearmanr(measured[of], mean).statistic),
            "rows": int(of.sum()),
        }
    records = [
        {
            "name": row.name,
            "contender": row.method,
            "group": row.group,
            "near": row.near,
            "measured": float(np.mean(row.areas)),
            "gain_measured": float(gain),
            "predicted": t_interval(mine),
            "gain": t_interval(mine - areas[0]),
        }
        for row, mine, gain in zip(there, areas, measured, strict=True)
    ]
    return {"rows": records, "missing": [row.name for row in rows if row not in there], "ranks": ranks}


def describe_ranks(result):
    """Return the rank correlations, and what was left out, in words: list of str, a line each."""
    lines = [
        f"{name}: Kendall's tau {rank['tau']:.2f} [{rank['tau_low']:.2f}, {rank['tau_high']:.2f}], "
        f"Spearman's rho {rank['rho']:.2f} ({rank['rows']} rows)"
        for name, rank in result["ranks"].items()
    ]
    if result["missing"]:
        lines.append(f"no allocator for: {', '.join(result['missing'])}")
    return lines


def order_table(result, title):
    """Return predicted beside measured areas, best measured first, as a rich table."""
    from rich.table import Table

    from cero.research.simulation.show import spread

    out = Table(title=title, title_justify="left")
    for name in (
        "rule measured",
        "method simulated",
        "measured",
        "predicted",
        "gain measured",
        "gain predicted",
    ):
        out.add_column(
            name,
            justify="left" if name in ("rule measured", "method simulated") else "right",
            overflow="fold",
        )
    for row in sorted(result["rows"], key=lambda row: -row["gain_measured"]):
        out.add_row(
            row["name"],
            row["contender"] + (f" ({row['near']})" if row["near"] else ""),
            f"{row['measured']:.3f}",
            f"{row['predicted'][0]:.3f}",
            f"{row['gain_measured']:+.3f}",
            spread(row["gain"], "+"),
        )
    return out


def plot_order(result, path, title):
    """Write the picture (PNG) to `path`: predicted gains over uniform with intervals, and measured ones."""
    from cero.analysis.figures import figure

    rows = sorted(result["rows"], key=lambda row: row["gain_measured"])
    groups = {
        "rule": "GRPO, each rollout counts once",
        "weight": "GRPO, each prompt counts once",
        "estimator": "posterior baseline",
        "sequential": "rounds within a step",
    }
    with figure(path, 1, 1, size=(9.5, 0.42 * len(rows) + 1.8)) as (fig, axis):
        at = np.arange(len(rows))
        axis.plot(
            [row["gain_measured"] for row in rows],
            at,
            "k|",
            markersize=14,
            markeredgewidth=2,
            label="measured",
        )
        for group, text in groups.items():
            picks = [k for k in at if rows[k]["group"] == group]
            if not picks:
                continue
            mean, low, high = np.array([rows[k]["gain"] for k in picks]).T
            axis.errorbar(
                mean, picks, xerr=[mean - low, high - mean], fmt="o", capsize=3, label=f"predicted: {text}"
            )
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_yticks(at, [row["name"] for row in rows])
        axis.set_xlabel("area under the accuracy curve, minus that of uniform GRPO")
        fig.suptitle(title, fontsize=11)  # of the whole picture: the names beside the axis are long
        axis.grid(alpha=0.3, axis="x")
        axis.legend(fontsize=9, loc="lower right")
    return path
