"""How long do other solvers take to allocate the rollouts of one step, beside a whole step of `cero`?

    python -m pytest scripts/speed/bench_peers.py

Same prompts, same process. For `cero`, the whole step is measured, in a table of one million prompts
(look-up, allocation, exact integers, posteriors, prices). For the others, the solver alone is measured, given
the probabilities or values that the table holds.
"""

import numpy as np
import pytest
from peers import ConvexProgram, knapsack_dp, vip_slsqp
from tables import OPTIONS, draw, filled, step

from cero.core.utility import UTILITIES
from cero.research.theory.offline import optimum, total_utility

PROMPTS = 1_000_000
SIZES = (128, 512, 1024)
NBAR, N_MIN, N_MAX = (OPTIONS[key] for key in ("rollouts_per_prompt", "n_min", "n_max"))
SCALE = float(OPTIONS["epochs"] * NBAR)  # the utility's saturation scale, as in `cero`
LIMITS = 0.0, float(OPTIONS["epochs"] * N_MAX)


class Steps:
    """Gives steps of `size` prompts of the filled table, one after the other: what all solvers get."""

    def __init__(self, size):
        self.allocator, self.ids = filled("cero", PROMPTS)
        self.size, self._rng = size, np.random.default_rng(2)

    def drawn(self):
        return draw(self.ids, self.size, self._rng)

    def probabilities(self):
        return self.allocator.success_mean(self.drawn()[0])

    def values(self):
        p = self.probabilities()
        return p * (1 - p)


@pytest.fixture(params=SIZES)
def steps(request, benchmark):
    benchmark.extra_info.update(step=request.param, table=PROMPTS)
    return Steps(request.param)


def test_cero(benchmark, steps):
    benchmark.extra_info["who"] = "cero: whole step"
    arguments = lambda: ((steps.allocator, *steps.drawn()), {})  # noqa: E731
    benchmark.pedantic(step, setup=arguments, rounds=400, warmup_rounds=3)


def test_cero_allocation(benchmark, steps):
    """Only n from what is known, as the others do. Rewards are observed in between, off the clock."""
    benchmark.extra_info["who"] = "cero: allocation"

    def prepared():
        ids, p = steps.drawn()
        prepared.last = ids, p
        return (ids, NBAR * steps.size), {}

    def allocate(ids, budget):
        return steps.allocator.allocate(ids, budget=budget)

    def finish(ids, budget):
        ids, p = prepared.last
        n = steps.allocator._last
        steps.allocator.observe(ids, np.minimum(n, np.rint(p * n)), n)

    benchmark.pedantic(allocate, setup=prepared, teardown=finish, rounds=400, warmup_rounds=3)


def test_cero_optimum(benchmark, steps):
    benchmark.extra_info["who"] = "cero.research.theory.offline.optimum"
    arguments = lambda: ((steps.values(), SCALE * steps.size, *LIMITS, UTILITIES["exp"], SCALE), {})  # noqa: E731
    benchmark.pedantic(optimum, setup=arguments, rounds=50, warmup_rounds=1)


def test_knapsack_dp(benchmark, steps):
    benchmark.extra_info["who"] = "knapsack DP"
    budget = NBAR * steps.size
    arguments = lambda: ((steps.probabilities(), budget, N_MIN, N_MAX), {})  # noqa: E731
    n = benchmark.pedantic(knapsack_dp, setup=arguments, rounds=7, warmup_rounds=1)
    assert n.sum() == budget and n.min() >= N_MIN and n.max() <= N_MAX


def check_convex(y, values):
    """Check that the solver found the optimum: as much utility as the exact one, to 1e-5."""
    utility = UTILITIES["exp"]
    best = optimum(values, SCALE * values.size, *LIMITS, utility, SCALE)[0]
    assert total_utility(values, y, utility, SCALE) == pytest.approx(
        total_utility(values, best, utility, SCALE), 1e-5
    )


def test_cvxpy_anew(benchmark, steps):
    benchmark.extra_info["who"] = "cvxpy, made anew"

    def solve(values):
        return ConvexProgram(values.size, SCALE * values.size, *LIMITS, SCALE).solve(values), values

    check_convex(
        *benchmark.pedantic(solve, setup=lambda: ((steps.values(),), {}), rounds=10, warmup_rounds=1)
    )


def test_cvxpy_again(benchmark, steps):
    benchmark.extra_info["who"] = "cvxpy, compiled once"
    program = ConvexProgram(steps.size, SCALE * steps.size, *LIMITS, SCALE)

    def solve(values):
        return program.solve(values), values

    check_convex(
        *benchmark.pedantic(solve, setup=lambda: ((steps.values(),), {}), rounds=15, warmup_rounds=2)
    )


SLSQP = {128: (20, 1000), 512: (5, 1000), 1024: (1, 1000)}  # (rounds, iterations allowed)


def test_vip_slsqp(benchmark, steps):
    benchmark.extra_info["who"] = "VIP by SLSQP"
    rounds, iterations = SLSQP[steps.size]
    arguments = lambda: ((steps.probabilities(), NBAR * steps.size, 4, N_MAX, iterations), {})  # noqa: E731
    n, result = benchmark.pedantic(vip_slsqp, setup=arguments, rounds=rounds)
    assert n.sum() == NBAR * steps.size and n.min() >= 4 and n.max() <= N_MAX
    benchmark.extra_info.update(converged=bool(result.success), iterations=int(result.nit))
