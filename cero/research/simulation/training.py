"""How does one simulated training run go? One method, one preset and one seed give a curve."""

from dataclasses import asdict, dataclass, field

import numpy as np

from cero.allocators.rounds import play
from cero.core.checks import check_number
from cero.research.oracle import Oracle
from cero.research.simulation.gradient import Rollouts, group_gradient
from cero.research.simulation.policy import Policy
from cero.research.simulation.presets import PRESETS


@dataclass
class SimulatedCurve:
    """Holds one run.

    label, preset, seed, budget (rollouts per prompt and epoch) : which run it was
    rollouts, accuracy : spent so far, and the mean success probability of all prompts then; a point before
    the first epoch and one after each, lists of length epochs + 1
    signal : share of each epoch's groups that hold both rewards, list of length epochs
    trained : rollouts of each epoch that moved the policy because their advantage was not 0
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
    """Decide on and sample a step's rollouts of the prompts `rows`, at most `budget` of them.

    Returns (step, `Rollouts`); the step is not settled yet. Within a step the policy stands still.
    """
    step = allocator.begin(rows.astype(np.uint64), budget)
    drawn = []

    def sample(prompts, rollouts):
        right, missed, faked = policy.sample(rows[prompts], rollouts)
        drawn.append((prompts, step.rounds[prompts] - 1, rollouts, right, missed, faked))
        return right - missed + faked, rollouts

    play(step, sample)
    columns = [np.concatenate(column) for column in zip(*drawn, strict=True)] or [np.zeros(0, np.int64)] * 6
    return step, Rollouts.of_counts(columns, rows.size)


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
    lag=0,
    staleness=1.0,
):
    """Train one simulated policy; return its `SimulatedCurve`.

    The policy, its prompts and their order depend on `seed` and `preset` only, so that methods differ in what
    they allocate and in nothing else.

    method : `methods.Method`; preset : key of PRESETS; seed : int, 0 or more
    prompts, epochs, batch : the preset's own where None; batch is the prompts of a step, and prompts that
    fill no whole step sit the epoch out
    rollouts_per_prompt : mean of an epoch; n_min, n_max : bounds on a prompt's rollouts in a step
    world : in place of the preset's
    lag : int >= 0, steps by which outcomes come late: rollouts are drawn so many steps before the policy and
        the allocator learn from them, as verl's asynchronous trainers do
    staleness : in (0, 1], what such an outcome counts for in the posterior, to the power of `lag`

    Raises ValueError if batch does not lie in [1, prompts], if lag or staleness is out of range, or if old
    outcomes are to count less for an allocator that decides in rounds.
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
    if isinstance(allocator, Oracle):
        allocator.truth = lambda ids: policy.p[ids.astype(np.int64)]
        allocator.labels = {"family": lambda ids: policy.family[ids.astype(np.int64)]}
        if allocator.strata not in ("none", *allocator.labels):
            raise ValueError(f"strata={allocator.strata!r} is not known here; there is family")
    allocator.table.reserve(prompts)
    if method.pass_rates:
        measured = np.random.default_rng([seed, 31]).binomial(method.pass_rates, policy.p) / method.pass_rates
        allocator.set_pass_rates(np.arange(prompts, dtype=np.uint64), measured, method.strength)
    check_number("lag", lag, 0, 2**31 - 1, integer=True)
    check_number("staleness", staleness, 0, 1, open_low=True)
    if staleness < 1.0 and allocator.sequential:
        raise ValueError(f"staleness={staleness} is not possible with {method.allocator!r}; set it to 1")
    chooser = np.random.default_rng([seed, 29])
    in_flight = []
    curve = SimulatedCurve(method.label, preset, seed, rollouts_per_prompt, [0], [float(policy.p.mean())], [])

    def learn(rows, history, prior, step, rollouts):
        """Have allocator and policy learn from a step; return its groups with signal, and what moved it."""
        if staleness < 1.0 and lag:
            weights = np.full(rows.size, staleness**lag)
            allocator.observe(step.ids, rollouts.rewarded, rollouts.n, weights)
        else:
            allocator.settle(step, rollouts.rewarded, rollouts.n)
        gradient, moved = group_gradient(
            rollouts, policy.p[rows], history, method, rollouts_per_prompt, chooser, prior
        )
        policy.learn(rows, gradient)
        return np.array([rollouts.signal.sum(), moved])

    for epoch in range(epochs):
        counts = np.zeros(2, np.int64)
        for rows in np.split(order.permutation(prompts)[: steps * batch], steps):
            ids, prior = rows.astype(np.uint64), None
            history = allocator.success_mean(ids)
            if method.estimator == "mapp" and allocator.beliefs is not None:
                prior = allocator.beliefs.faded_parameters(allocator.table.rows(ids))
            in_flight.append((rows, history, prior, *draw(allocator, policy, rows, budget)))
            if len(in_flight) > lag:
                counts += learn(*in_flight.pop(0))
        while in_flight and epoch == epochs - 1:
            counts += learn(*in_flight.pop(0))
        curve.rollouts.append(int(allocator.ledger.spent))
        curve.accuracy.append(float(policy.p.mean()))
        curve.signal.append(int(counts[0]) / (steps * batch))
        curve.trained.append(int(counts[1]))
    return curve


def area(curve, until=None):
    """Return the mean accuracy over the run's rollouts (area under the curve, trapezoids), in [0, 1].

    until : rollouts at which to stop, at most the run's; None: all.
    """
    x, y = np.array(curve.rollouts, float), np.array(curve.accuracy)
    if until is not None and until < x[-1]:
        x, y = np.append(x[x < until], until), np.append(y[x < until], np.interp(until, x, y))
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def gain(curve, reference):
    """Return `area` minus that of the curve `reference`, over the rollouts that both have spent."""
    until = min(curve.rollouts[-1], reference.rollouts[-1])
    return area(curve, until) - area(reference, until)


def reach(curve, target):
    """Return the rollouts at which accuracy first reaches `target`, linear in between; nan if never."""
    x, y = np.array(curve.rollouts, float), np.array(curve.accuracy)
    above = np.flatnonzero(y >= target)
    if not above.size:
        return float("nan")
    at = above[0]
    if at == 0:
        return 0.0
    return float(x[at - 1] + (target - y[at - 1]) / (y[at] - y[at - 1]) * (x[at] - x[at - 1]))


def as_json(curves):
    """Return the curves as a list of JSON-ready dicts."""
    return [asdict(curve) for curve in curves]
