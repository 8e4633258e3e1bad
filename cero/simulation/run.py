"""Which allocator trains a simulated policy best? Any set of allocators, seeds and worlds, side by side."""

from dataclasses import asdict, dataclass, field

import numpy as np

from cero import make_allocator
from cero.simulation.policy import PRESETS, Policy, group_gradient


@dataclass(frozen=True)
class Contender:
    """An allocator with its options, and the estimator it trains with.

    label : name in tables; allocator, options : for `make_allocator`; estimator : "grpo" or "cero";
    weight : "trajectory" or "prompt"
    """

    label: str
    allocator: str
    estimator: str = "cero"
    weight: str = "trajectory"
    options: dict = field(default_factory=dict)


@dataclass
class Curve:
    """One run: `accuracy` (mean success probability of all prompts) after `rollouts` spent; groups with signal."""

    label: str
    preset: str
    seed: int
    rollouts: list
    accuracy: list
    signal: list


def run(contender, preset, seed, prompts=4096, epochs=30, batch=256, rollouts_per_prompt=8, n_min=2, n_max=32):
    """Train one simulated policy; returns its `Curve`, a point an epoch.

    The policy, its prompts and their order depend on `seed` and `preset` only, so that contenders differ in what they
    allocate and nothing else.
    """
    policy = Policy(PRESETS[preset], prompts, seed)
    order = np.random.default_rng([seed, 23])
    steps = prompts // batch
    allocator = make_allocator(
        contender.allocator,
        **{"n_min": n_min, "n_max": n_max}
        | {"rollouts_per_prompt": rollouts_per_prompt, "epochs": epochs, "seed": seed}
        | {"total_budget": epochs * steps * batch * rollouts_per_prompt}
        | contender.options,
    )
    allocator.table.reserve(prompts)
    curve = Curve(contender.label, preset, seed, [0], [float(policy.p.mean())], [])
    for _ in range(epochs):
        signal = 0
        for rows in np.split(order.permutation(prompts)[: steps * batch], steps):
            ids = rows.astype(np.uint64)
            history = allocator.success_mean(ids)
            n = allocator.allocate(ids, budget=batch * rollouts_per_prompt)
            p = policy.p[rows]
            _, seen = policy.sample(rows, n)
            allocator.observe(ids, seen, n)
            won, lost = group_gradient(
                seen, n, p, contender.estimator, history, rollouts_per_prompt, 8.0, contender.weight
            )
            policy.learn(rows, won / n.sum(), lost / n.sum())
            signal += int(((seen > 0) & (seen < n)).sum())
        curve.rollouts.append(int(allocator.ledger.spent))
        curve.accuracy.append(float(policy.p.mean()))
        curve.signal.append(signal / (steps * batch))
    return curve


def area(curve):
    """Mean accuracy over the run's rollouts (area under the curve, trapezoids), in [0, 1]."""
    x, y = np.array(curve.rollouts, float), np.array(curve.accuracy)
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def reach(curve, target):
    """Rollouts until `target` accuracy is first reached (linear in between); nan if it never is."""
    x, y = np.array(curve.rollouts, float), np.array(curve.accuracy)
    above = np.flatnonzero(y >= target)
    if not above.size:
        return float("nan")
    at = above[0]
    if at == 0:
        return 0.0
    return float(x[at - 1] + (target - y[at - 1]) / (y[at] - y[at - 1]) * (x[at] - x[at - 1]))


def as_json(curves):
    """JSON-ready records of curves."""
    return [asdict(curve) for curve in curves]
