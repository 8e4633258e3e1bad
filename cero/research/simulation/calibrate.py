"""Which worlds behave as the small experiment did under uniform GRPO? Do all of them order the rules alike?

    python -m cero.research.simulation.calibrate

searches the worlds of preset `lab`'s shape for those whose uniform curve fits the four figures of MEASURED.
It prints them with the rank correlation between each one's order of rules and the measured one (see
`order_check`). Nothing but uniform's curve decides what fits. It takes minutes.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np

from cero.research.simulation.methods import parse_method
from cero.research.simulation.order_check import MEASURED_RULES, check_order
from cero.research.simulation.presets import PRESETS
from cero.research.simulation.training import area, simulate

# Uniform GRPO in the experiment: (figure, how near is near enough). The standard error of the worlds' own
# figures over the seeds used is about half of the latter.
MEASURED = {"start": (0.44, 0.01), "final": (0.93, 0.01), "area": (0.787, 0.008), "signal": (0.33, 0.015)}
# What is searched: (lowest, highest); rates on a logarithmic scale, the rest evenly.
SEARCHED = {
    "bend": (1.1, 1.5),
    "within": (0.5, 2.5),
    "rate_own": (0.02, 1.5),
    "rate_skill": (0.1, 0.6),
    "interference": (0.3, 1.0),
    "forgetting": (0.0005, 0.03),
}
RATES = ("rate_own", "rate_skill", "forgetting")


def world(point):
    """Return the world of preset `lab` at a point of SEARCHED."""
    of = dict(zip(SEARCHED, map(float, point), strict=True))
    lab = PRESETS["lab"].world
    return replace(lab, ladder=(*lab.ladder[:2], of.pop("bend"), of.pop("within")), **of)


def figures(of, seeds):
    """Return the figures of MEASURED that uniform GRPO has in the world `of`, means over `seeds` seeds."""
    curves = [simulate(parse_method("uniform"), "lab", seed, world=of) for seed in range(seeds)]
    return {
        "start": float(np.mean([curve.accuracy[0] for curve in curves])),
        "final": float(np.mean([curve.accuracy[-1] for curve in curves])),
        "area": float(np.mean([area(curve) for curve in curves])),
        "signal": float(np.mean([np.mean(curve.signal) for curve in curves])),
    }


def misfit(found):
    """Return the largest distance of `found` to MEASURED in units of what is near enough; at most 1 fits."""
    return max(abs(found[key] - at) / near for key, (at, near) in MEASURED.items())


def _misfit(arguments):
    point, seeds = arguments
    return misfit(figures(world(point), seeds))


def search(pool, size=150, rounds=5, seeds=12):
    """Return points and their misfits, best first.

    The first are random; then come `rounds` of differential steps between the best 30.
    """
    rng = np.random.default_rng(0)
    low, high = np.array(list(SEARCHED.values())).T
    logs = np.isin(list(SEARCHED), RATES)
    scaled = [np.where(logs, np.log(end), end) for end in (low, high)]
    points, misfits = np.empty((0, low.size)), np.empty(0)
    for turn in range(rounds + 1):
        if turn:
            a, b, c = (points[rng.integers(30, size=size)] for _ in range(3))
            new = a + 0.5 * (b - c) + 0.02 * (scaled[1] - scaled[0]) * rng.normal(size=a.shape)
            new = np.clip(new, *scaled)
        else:
            new = rng.uniform(*scaled, size=(2 * size, low.size))
        jobs = [(np.where(logs, np.exp(point), point), seeds) for point in new]
        points = np.concatenate([points, new])
        misfits = np.concatenate([misfits, list(pool.map(_misfit, jobs, chunksize=4))])
        order = np.argsort(misfits)
        points, misfits = points[order], misfits[order]
    return np.where(logs, np.exp(points), points), misfits


def main(worlds=20, seeds=12):
    """Print up to `worlds` of the worlds that fit, and how each one orders the lab's rules."""
    with ProcessPoolExecutor() as pool:
        points, misfits = search(pool, seeds=seeds)
    fits = points[misfits <= 1]
    print(f"{len(fits)} of {len(points)} worlds fit; columns: {', '.join(SEARCHED)},")
    print("Kendall's tau of the rules under GRPO, and with weights and estimators")
    # Rounds within a step take ten times as long. The worlds shown are spread over all that fit, which are
    # equally good.
    rows = [row for row in MEASURED_RULES if row.group != "sequential"]
    for point in fits[np.linspace(0, len(fits) - 1, min(worlds, len(fits))).astype(int)]:
        ranks = list(check_order(seeds, rows, world=world(point))["ranks"].values())[:2]
        print(*(f"{x:.4g}" for x in point), *(f"{rank['tau']:.2f}" for rank in ranks), flush=True)


if __name__ == "__main__":
    main()
