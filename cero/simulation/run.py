"""How does one simulated training run go? One contender, one preset, one seed: a curve."""

from dataclasses import asdict, dataclass

import numpy as np

from cero.sampling.step import play
from cero.simulation.gradient import Groups, group_gradient
from cero.simulation.policy import Policy
from cero.simulation.presets import PRESETS


@dataclass
class Curve:
    """One run: `accuracy` (mean success probability of all prompts) after `rollouts` spent, a point an epoch and one
    before the first; `signal`: share of each epoch's groups that hold both rewards.

    label, preset, seed, budget (rollouts per prompt and epoch) : which run it was
    """

    label: str
    preset: str
    seed: int
    budget: int
    rollouts: list
    accuracy: list
    signal: list


def draw(allocator, policy, rows, budget):
    """Decide, sample and observe a step's rollouts of the prompts `rows`, at most `budget` of them; returns Groups.

    The one place that knows how a step's rollouts come about. Within a step the policy stands still, so the counts of
    several rounds add up.
    """
    ids = rows.astype(np.uint64)
    if not allocator.sequential:
        n = allocator.allocate(ids, budget=budget)
        groups = Groups(n, *policy.sample(rows, n))
        allocator.observe(ids, groups.rewarded, n)
        return groups
    groups = Groups(*(np.zeros(rows.size, np.int64) for _ in Groups._fields))

    def sample(prompts, rollouts):
        new = Groups(rollouts, *policy.sample(rows[prompts], rollouts))
        for count, more in zip(groups, new, strict=True):
            count[prompts] += more
        return new.rewarded, rollouts

    step = play(allocator.begin(ids, budget), sample)
    allocator.settle(step, groups.rewarded, groups.n)
    return groups


def run(
    contender, preset, seed, prompts=None, epochs=None, batch=None, rollouts_per_prompt=8, n_min=2, n_max=32, world=None
):
    """Train one simulated policy; returns its `Curve`.

    The policy, its prompts and their order depend on `seed` and `preset` only, so that contenders differ in what they
    allocate and nothing else. prompts, epochs, batch (prompts a step; a rest smaller than that sits the epoch out):
    the preset's own where None. world : in place of the preset's. Raises ValueError for sizes that don't fit.
    """
    shape = PRESETS[preset]
    prompts, epochs, batch = prompts or shape.prompts, epochs or shape.epochs, batch or shape.batch
    if not 1 <= batch <= prompts:
        raise ValueError(f"batch={batch} must lie in [1, prompts={prompts}]")
    policy = Policy(world or shape.world, prompts, seed)
    order = np.random.default_rng([seed, 23])
    steps = prompts // batch
    budget = batch * rollouts_per_prompt
    allocator = contender.make(
        rollouts_per_prompt=rollouts_per_prompt,
        epochs=epochs,
        seed=seed,
        total_budget=epochs * steps * budget,
        n_min=n_min,
        n_max=n_max,
    )
    allocator.table.reserve(prompts)
    curve = Curve(contender.label, preset, seed, rollouts_per_prompt, [0], [float(policy.p.mean())], [])
    for _ in range(epochs):
        signal = 0
        for rows in np.split(order.permutation(prompts)[: steps * batch], steps):
            history = allocator.success_mean(rows.astype(np.uint64))
            p = policy.p[rows]
            groups = draw(allocator, policy, rows, budget)
            gradient = group_gradient(groups, p, history, contender, rollouts_per_prompt)
            policy.learn(rows, gradient / max(groups.n.sum(), 1))
            signal += int(groups.signal.sum())
        curve.rollouts.append(int(allocator.ledger.spent))
        curve.accuracy.append(float(policy.p.mean()))
        curve.signal.append(signal / (steps * batch))
    return curve


def area(curve):
    """Mean accuracy over the run's rollouts (area under the curve, trapezoids), in [0, 1]."""
    x, y = np.array(curve.rollouts, float), np.array(curve.accuracy)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


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
