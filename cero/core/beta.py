"""What is known of a prompt's success probability, and what is one more rollout worth?

The Beta posterior and the expected Bernoulli variance as the value are the abstract's (arXiv 2606.05606); the
forgetting factor and every other value are this project's, unless a source is named. In all functions a, b >
0 are numbers or arrays, which broadcast, and p ~ Beta(a, b).
"""

from collections.abc import Mapping
from typing import Literal, Protocol, TypeVar

import numpy as np

from cero.core.arrays import Floats, Ints

Value = Literal["variance", "variance_hard", "signal", "signal_hard", "knapsack", "inverse_sqrt"]
Real = TypeVar("Real", float, Floats)


def updated(excess: Floats, forgetting: float | Floats, count: Floats | Ints) -> Floats:
    """Return a pseudo-count above the prior after a visit: g * excess + count; arrays of shape (n,).

    excess = a - a0 (or b - b0), count = the visit's successes (or failures), g in (0, 1]; g = 1 is Bayes'
    rule for a success probability that stands still, g < 1 follows one that is being trained.
    """
    return forgetting * excess + count


def mean(a: Real, b: Real) -> Real:
    """Return E[p], in (0, 1)."""
    return a / (a + b)


def moment(a: Floats, b: Floats, successes: int, failures: int) -> Floats:
    """Return E[p^i (1-p)^j] = B(a+i, b+j) / B(a, b), i = `successes`, j = `failures` >= 0; in [0, 1).

    It is a product of i + j ratios, each in (0, 1): no cancellation, whatever a and b.
    """
    result: Floats = np.ones(np.broadcast(a, b).shape)
    for k in range(successes):
        result *= (a + k) / (a + b + k)
    for k in range(failures):
        result *= (b + k) / (a + b + successes + k)
    return result


def _mixed(a: Floats, b: Floats, group: int, successes: int, failures: int) -> Floats:
    """Return E[(1 - p^n - (1-p)^n) p^i (1-p)^j], n = `group`, as a sum of positive terms.

    1 - p^n - (1-p)^n = sum_{k=1}^{n-1} [p^k (1-p) + (1-p)^k p]: the differences that would cancel are never
    taken.
    """
    result: Floats = np.zeros(np.broadcast(a, b).shape)
    if group < 2:
        return result
    total = a + b + successes + failures
    right = moment(a, b, successes + 1, failures + 1)
    wrong = right.copy()
    for k in range(1, group):
        result += right
        result += wrong
        after = total + k + 1
        right *= a + successes + k
        right /= after
        wrong *= b + failures + k
        wrong /= after
    return result


def variance_value(a: Floats, b: Floats, group: int) -> Floats:
    """Return E[p (1-p)] = a b / ((a+b) (a+b+1)), in (0, 1/4]: the abstract's value. `group` is not used."""
    return moment(a, b, 1, 1)


def variance_hard_value(a: Floats, b: Floats, group: int) -> Floats:
    """Return E[p (1-p)] E[1-p], in (0, 1/4): worth more where failures still prevail. `group` is not used."""
    return moment(a, b, 1, 1) * moment(a, b, 0, 1)


def signal_value(a: Floats, b: Floats, group: int) -> Floats:
    """Return E[1 - p^n - (1-p)^n], n = `group`: the chance that n rollouts hold both outcomes; in [0, 1)."""
    return _mixed(a, b, group, 0, 0)


def signal_hard_value(a: Floats, b: Floats, group: int) -> Floats:
    """Return `signal_value` times E[1-p], in [0, 1): a signal is worth more where failures prevail."""
    return signal_value(a, b, group) * moment(a, b, 0, 1)


def knapsack_value(a: Floats, b: Floats, group: int) -> Floats:
    """Return E[(1 - p^n - (1-p)^n) p (1-p)^2], n = `group`: the value of Knapsack RL (arXiv 2509.25849)."""
    return _mixed(a, b, group, 1, 2)


def inverse_sqrt_value(a: Floats, b: Floats, group: int) -> Floats:
    """Return 1 / sqrt(E[p]), at most 1e3: the rule of Reinforce-Ada-Est (arXiv 2510.04996) at E[p].

    The expectation of 1 / sqrt(p) itself is infinite for a <= 1/2. `group` is not used.
    """
    return 1.0 / np.sqrt(np.maximum(mean(a, b), 1e-6))


class ValueFunction(Protocol):
    """What a rollout is worth under Beta(a, b), in a group of `group` rollouts."""

    def __call__(self, a: Floats, b: Floats, group: int) -> Floats: ...


VALUES: Mapping[str, ValueFunction] = {
    "variance": variance_value,
    "variance_hard": variance_hard_value,
    "signal": signal_value,
    "signal_hard": signal_hard_value,
    "knapsack": knapsack_value,
    "inverse_sqrt": inverse_sqrt_value,
}

# Upper bounds of the values: prices are projected onto [0, bound].
BOUNDS: Mapping[str, float] = {
    "variance": 0.25,
    "variance_hard": 0.25,
    "signal": 1.0,
    "signal_hard": 1.0,
    "knapsack": 4.0 / 27.0,  # max of p (1-p)^2
    "inverse_sqrt": 1e3,
}


def _log_rising(x: float | Floats, count: Floats | Ints) -> Floats:
    """Return log Gamma(x + count) - log Gamma(x) for x > 0, count >= 0; float arrays.

    Stirling's series after shifting the argument by 8; absolute error below 1e-9 for x >= 1e-3.
    """

    def log_gamma(z: Floats) -> Floats:
        shift = np.zeros_like(z)
        for k in range(8):
            shift += np.log(z + k)
        z = z + 8.0
        series = 1 / (12 * z) - 1 / (360 * z**3) + 1 / (1260 * z**5) - 1 / (1680 * z**7)
        return (z - 0.5) * np.log(z) - z + series - shift

    x = np.asarray(x, np.float64)
    return log_gamma(x + count) - log_gamma(x)


def log_predictive(a: float | Floats, b: float | Floats, successes: Floats, trials: Floats | Ints) -> Floats:
    """Return the log-probability of `successes` of `trials` rollouts, up to the binomial coefficient.

    It is log B(a+s, b+f) / B(a, b). Fractional successes are fine. Arrays of shape (n,), or scalars a, b.
    """
    failures = trials - successes
    return _log_rising(a, successes) + _log_rising(b, failures) - _log_rising(a + b, trials)
