"""Many runs at once: contenders x seeds on one preset, and what they add up to."""

from concurrent.futures import ProcessPoolExecutor
from os import cpu_count

import numpy as np

from cero.simulation.run import Contender, area, reach, run

# The first of the list is what the others are measured against.
CONTENDERS = {
    contender.label: contender
    for contender in (
        Contender("uniform", "uniform", "grpo"),
        Contender("uniform+posterior", "uniform", "cero"),
        Contender("cero", "cero", "cero"),
        Contender("cero+grpo", "cero", "grpo"),
        Contender("cero_resolve", "cero_resolve", "cero"),
        Contender("cero_resolve+grpo", "cero_resolve", "grpo"),
        Contender("cero:signal+grpo", "cero", "grpo", options={"value": "signal"}),
        Contender("cero:signal_hard+grpo", "cero", "grpo", options={"value": "signal_hard"}),
        Contender("cero:signal_hard", "cero", "cero", options={"value": "signal_hard"}),
        Contender("cero:knapsack+grpo", "cero", "grpo", options={"value": "knapsack"}),
    )
}
DEFAULT = ["uniform", "uniform+posterior", "cero", "cero_resolve", "cero:signal_hard"]


def contender(label):
    """The contender called `label`: one of CONTENDERS, or any registered allocator's name (estimator "cero").

    Raises ValueError, naming what there is.
    """
    if label in CONTENDERS:
        return CONTENDERS[label]
    from cero import available_allocators

    if label in available_allocators():
        return Contender(label, label)
    raise ValueError(f"contender {label!r} is not known; choose of {', '.join([*CONTENDERS, *available_allocators()])}")


def _job(arguments):
    label, preset, seed, options = arguments
    return run(contender(label), preset, seed, **options)


def study(labels, preset, seeds, progress=lambda jobs: jobs, workers=None, **options):
    """Run every contender with every seed (0..seeds-1); returns curves, in order of label and seed.

    `options` go to `run`. `progress` wraps the iterator of finished jobs; `workers` processes (default: all cores).
    """
    for label in labels:
        contender(label)
    jobs = [(label, preset, seed, options) for label in labels for seed in range(seeds)]
    workers = workers or cpu_count() or 1
    if workers == 1:
        return [_job(job) for job in progress(jobs)]
    with ProcessPoolExecutor(workers) as pool:
        return list(progress(pool.map(_job, jobs)))


def interval(values, level=0.95, seed=0):
    """Mean and its bootstrap interval (percentile, 2,000 draws, SciPy): (mean, low, high); nan where values are few."""
    from scipy import stats

    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if values.size < 2:
        mean = float(values.mean()) if values.size else float("nan")
        return mean, float("nan"), float("nan")
    result = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=2000, method="percentile", rng=seed
    ).confidence_interval
    return float(values.mean()), float(result.low), float(result.high)


def summarise(curves, baseline):
    """A dict of figures for each label, seeds paired with the baseline's.

    auc, final : (mean, low, high); gain : the same of auc minus the baseline's on the same seed; reach : rollouts to
    the baseline's final accuracy over the baseline's rollouts (mean over seeds; nan where some seed never got there);
    signal : mean share of groups with signal.
    """
    by_seed = {curve.seed: curve for curve in curves if curve.label == baseline}
    summary = {}
    for label in dict.fromkeys(curve.label for curve in curves):
        mine = [curve for curve in curves if curve.label == label]
        ratios = [reach(c, by_seed[c.seed].accuracy[-1]) / by_seed[c.seed].rollouts[-1] for c in mine]
        summary[label] = {
            "auc": interval([area(curve) for curve in mine]),
            "final": interval([curve.accuracy[-1] for curve in mine]),
            "gain": interval([area(curve) - area(by_seed[curve.seed]) for curve in mine]),
            "reach": float(np.mean(ratios)),
            "reached": float(np.mean(np.isfinite(ratios))),
            "signal": float(np.mean([np.mean(curve.signal) for curve in mine])),
            "seeds": len(mine),
        }
    return summary


def table(summary, title):
    """The summary as a rich table."""
    from rich.table import Table

    out = Table(title=title, title_justify="left")
    for name in ("contender", "area under curve", "gain over first", "final", "rollouts to its final", "signal"):
        out.add_column(name, justify="left" if name == "contender" else "right")
    for label, row in summary.items():
        auc, low, high = row["auc"]
        gain, gain_low, gain_high = row["gain"]
        out.add_row(
            label,
            f"{auc:.4f} [{low:.4f}, {high:.4f}]",
            f"{gain:+.4f} [{gain_low:+.4f}, {gain_high:+.4f}]",
            f"{row['final'][0]:.4f}",
            f"{row['reach']:.2f}x" if row["reached"] == 1 else f"not by {1 - row['reached']:.0%} of seeds",
            f"{row['signal']:.0%}",
        )
    return out


def plot(curves, path, title):
    """Write the picture: accuracy and share of groups with signal over rollouts, mean and range over seeds. PNG."""
    from cero.figures import figure

    with figure(path, 1, 2, size=(12, 4.8)) as (fig, axes):
        for label in dict.fromkeys(curve.label for curve in curves):
            mine = [curve for curve in curves if curve.label == label]
            x = np.array(mine[0].rollouts) / 1000
            for axis, values, at in (
                (axes[0], np.array([curve.accuracy for curve in mine]), x),
                (axes[1], np.array([curve.signal for curve in mine]), x[1:]),
            ):
                (line,) = axis.plot(at, values.mean(axis=0), label=label, linewidth=1.5)
                axis.fill_between(
                    at, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.12, linewidth=0
                )
        axes[0].set(title="Mean success probability", xlabel="rollouts spent (thousands)", ylabel="accuracy")
        axes[1].set(title="Groups with signal", xlabel="rollouts spent (thousands)", ylabel="share")
        for axis in axes:
            axis.legend(fontsize=7)
            axis.grid(alpha=0.3)
        fig.suptitle(title)
    return path
