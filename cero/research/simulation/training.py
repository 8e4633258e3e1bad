"""How does one simulated training run go? One method, one preset, one seed: a curve."""

from dataclasses import asdict, dataclass, field

import numpy as np

from cero.allocators.rounds import play
from cero.research.simulation.gradient import Rollouts, group_gradient
from cero.research.simulation.policy import Policy
from cero.research.simulation.presets import PRESETS


@dataclass
class SimulatedCurve:
    """One run: `accuracy` (mean success probability of all prompts) after `rollouts` spent, a point an epoch and one
    before the first; `signal`: share of each epoch's groups that hold both rewards; `trained`: rollouts of
    each epoch that moved the policy, their advantage not being 0.

    label, preset, seed, budget (rollouts per prompt and epoch) : which run it was
    """

    label: str
    preset: str
    seed: int
    budget: int
    rollouts: list
    accuracy: list
    signal: list
    trained: list = field(default_factory=list)


def draw(allocator, policy, rows, budget):
    """Decide, sample and observe a step's rollouts of the prompts `rows`, at most `budget` of them; returns Rollouts.

    The one place that knows how a step's rollouts come about. Within a step the policy stands still.
    """
    step = allocator.begin(rows.astype(np.uint64), budget)
    drawn = []

    def sample(prompts, rollouts):
        right, missed, faked = policy.sample(rows[prompts], rollouts)
        drawn.append((prompts, step.rounds[prompts] - 1, rollouts, right, missed, faked))
        return right - missed + faked, rollouts

    play(step, sample)
    columns = [np.concatenate(column) for column in zip(*drawn, strict=True)] or [np.zeros(0, np.int64)] * 6
    rollouts = Rollouts.of_counts(columns, rows.size)
    allocator.settle(step, rollouts.rewarded, rollouts.n)
    return rollouts


def simulate(
    method,
    preset,
    seed,
    prompts=None,
    epochs=None,
    batch=None,
    rollouts_per_prompt=8,
    n_min=2,
    n_max=32,
    world=None,
):
    """Train one simulated policy; returns its `SimulatedCurve`.

    The policy, its prompts and their order depend on `seed` and `preset` only, so that contenders differ in
    what they allocate and nothing else. prompts, epochs, batch (prompts a step; a rest smaller than that sits
    the epoch out): the preset's own where None. world : in place of the preset's. Raises ValueError for sizes
    that don't fit.
    """
    shape = PRESETS[preset]
    prompts, epochs, batch = prompts or shape.prompts, epochs or shape.epochs, batch or shape.batch
    if not 1 <= batch <= prompts:
        raise ValueError(f"batch={batch} must lie in [1, prompts={prompts}]")
    policy = Policy(world or shape.world, prompts, seed)
    order = np.random.default_rng([seed, 23])
    steps = prompts // batch
    budget = batch * rollouts_per_prompt
    allocator = method.make(
        rollouts_per_prompt=rollouts_per_prompt,
        epochs=epochs,
        seed=seed,
        total_budget=epochs * steps * budget,
        n_min=n_min,
        n_max=n_max,
    )
    allocator.table.reserve(prompts)
    if method.pass_rates:
        measured = np.random.default_rng([seed, 31]).binomial(method.pass_rates, policy.p) / method.pass_rates
        allocator.set_pass_rates(np.arange(prompts, dtype=np.uint64), measured, method.strength)
    chooser = np.random.default_rng([seed, 29])
    curve = SimulatedCurve(method.label, preset, seed, rollouts_per_prompt, [0], [float(policy.p.mean())], [])
    for _ in range(epochs):
        signal = trained = 0
        for rows in np.split(order.permutation(prompts)[: steps * batch], steps):
            history = allocator.success_mean(rows.astype(np.uint64))
            p = policy.p[rows]
            rollouts = draw(allocator, policy, rows, budget)
            gradient, moved = group_gradient(rollouts, p, history, method, rollouts_per_prompt, chooser)
            policy.learn(rows, gradient)
            signal += int(rollouts.signal.sum())
            trained += moved
        curve.rollouts.append(int(allocator.ledger.spent))
        curve.accuracy.append(float(policy.p.mean()))
        curve.signal.append(signal / (steps * batch))
        curve.trained.append(trained)
    return curve


def area(curve, until=None):
    """Mean accuracy over the run's rollouts (area under the curve, trapezoids), in [0, 1].

    until : rollouts at which to stop, at most the run's; None: all.
    """
    x, y = np.array(curve.rollouts, float), np.array(curve.accuracy)
    if until is not None and until < x[-1]:
        x, y = np.append(x[x < until], until), np.append(y[x < until], np.interp(until, x, y))
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def gain(curve, baseline):
    """`area` minus that of another run, both over the rollouts that both have spent."""
    until = min(curve.rollouts[-1], baseline.rollouts[-1])
    return area(curve, until) - area(baseline, until)


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
