"""What do many simulated runs add up to? Methods x presets x budgets x seeds, and their figures."""

from concurrent.futures import ProcessPoolExecutor
from os import cpu_count

import numpy as np

from cero.research.ceiling import NO_SHARE, paired_share
from cero.research.simulation.methods import parse_method
from cero.research.simulation.presets import PRESETS
from cero.research.simulation.training import area, gain, reach, simulate

# A share of the ceiling is of what the second gains over the first; both have the same estimator.
EVEN, ORACLE = LINE = ("even+posterior", "oracle")


def _job(arguments):
    method, preset, seed, options = arguments
    return simulate(method, preset, seed, **options)


def run_experiments(
    labels, presets, budgets, seeds, progress=lambda jobs, total: jobs, workers=None, **options
):
    """Run every method in every preset at every budget with the seeds 0 .. seeds-1; return the curves.

    labels : see `methods.parse_method`; presets : keys of PRESETS; budgets : rollouts per prompt and epoch;
    `options` go to `training.simulate`. `progress(jobs, total)` wraps the iterator of finished jobs;
    `workers` : processes (default: all cores).

    Raises ValueError before anything runs if a method, preset or option is not possible.
    """
    methods = [parse_method(label) for label in labels]
    unknown = [preset for preset in presets if preset not in PRESETS]
    if unknown:
        raise ValueError(f"preset {unknown[0]!r} is not known; choose of {', '.join(PRESETS)}, or all")
    bounds = {key: options[key] for key in ("n_min", "n_max") if key in options}
    for method in methods:
        for budget in budgets:
            try:
                method.make(rollouts_per_prompt=budget, epochs=2, seed=0, **bounds)
            except ValueError as error:
                raise ValueError(f"method {method.label!r}: {error}") from error
    jobs = [
        (method, preset, seed, options | {"rollouts_per_prompt": budget})
        for preset in presets
        for budget in budgets
        for method in methods
        for seed in range(seeds)
    ]
    workers = workers or cpu_count() or 1
    if workers == 1:
        return list(progress(map(_job, jobs), len(jobs)))
    with ProcessPoolExecutor(workers) as pool:
        return list(progress(pool.map(_job, jobs), len(jobs)))


def curves_by_setting(curves):
    """Return the curves by (preset, budget), in order of first appearance: a dict of lists."""
    found = {}
    for curve in curves:
        found.setdefault((curve.preset, curve.budget), []).append(curve)
    return found


def t_interval(values, level=0.95):
    """Return the mean of `values` and its Student t interval: (mean, low, high).

    The ends are nan for a single value; all three are nan for no value, or if one is not finite.
    """
    from scipy import stats

    values = np.asarray(values, float)
    if not values.size or not np.isfinite(values).all():
        return (float("nan"),) * 3
    mean = float(values.mean())
    if values.size < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.5 + level / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size))
    return mean, mean - half, mean + half


def summarise_methods(curves, target=None):
    """Return the figures of each label of one setting: dict of label -> dict.

    Each label is compared with the first one, seed by seed. target : accuracy to reach; None: what the first
    label ends at with this seed. The figures are (mean, low, high) unless another type is given:

    auc : area under the curve; final : accuracy at the end
    gain : auc minus the first label's, over the rollouts that both spent
    reach : rollouts to the target, nan where some seed never got there; ratio : reach over the first label's
    share : `ceiling.Share` of the ceiling in area, where EVEN and ORACLE were run, too
    reached : share of seeds that got there, float; signal : mean share of groups with signal, float
    seeds : their number, int
    """
    reference = {curve.seed: curve for curve in curves if curve.label == curves[0].label}
    targets = {seed: curve.accuracy[-1] if target is None else target for seed, curve in reference.items()}
    first = {seed: reach(curve, targets[seed]) for seed, curve in reference.items()}
    summary = {}
    by_seed = {label: {curve.seed: curve for curve in curves if curve.label == label} for label in LINE}
    for label in dict.fromkeys(curve.label for curve in curves):
        mine = [curve for curve in curves if curve.label == label]
        reached = np.array([reach(curve, targets[curve.seed]) for curve in mine])
        to_beat = np.array([first[curve.seed] for curve in mine])
        summary[label] = {
            "auc": t_interval([area(curve) for curve in mine]),
            "final": t_interval([curve.accuracy[-1] for curve in mine]),
            "gain": t_interval([gain(curve, reference[curve.seed]) for curve in mine]),
            "reach": t_interval(reached),
            "ratio": t_interval(np.divide(reached, to_beat, out=np.ones_like(reached), where=to_beat != 0)),
            "share": NO_SHARE if label == EVEN else _share(mine, *by_seed.values()),
            "reached": float(np.isfinite(reached).mean()),
            "signal": float(np.mean([np.mean(curve.signal) for curve in mine])),
            "seeds": len(mine),
        }
    return summary


def _share(curves, even, oracle):
    """Return the `Share` of the ceiling; gains are those over the rollouts that both spent, as elsewhere."""
    pairs = [
        (gain(curve, even[s]), gain(oracle[s], even[s]))
        for curve in curves
        if (s := curve.seed) in even and s in oracle
    ]
    return paired_share(*zip(*pairs, strict=True)) if pairs else NO_SHARE
