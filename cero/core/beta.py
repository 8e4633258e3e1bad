"""What is known of a prompt's success probability, and what is one more rollout worth?

The Beta posterior, and the expected Bernoulli variance as value, are in CERO's abstract (arXiv 2606.05606).
The forgetting factor and the other values are this project's, except where a function names its source.

a, b are the parameters of a Beta distribution, both above 0: float arrays of shape (n,), or plain numbers.
"""

from collections.abc import Mapping
from typing import Literal, Protocol, overload

import numpy as np

from cero.core.arrays import FloatOrFloats, Floats, Ints

Value = Literal["variance", "variance_hard", "signal", "signal_hard", "knapsack", "inverse_sqrt"]


def updated(excess: Floats, forgetting: FloatOrFloats, count: Floats | Ints) -> Floats:
    """Return a pseudo-count's excess over the prior after a visit: g * excess + count.

    Parameters
    ----------
    excess : a - a0 (or b - b0) before the visit, shape (n,), >= 0
    forgetting : g in (0, 1]. g = 1 is Bayes' rule for a success probability that stands still; g < 1 follows
        one that is being trained.
    count : the visit's successes (or failures), shape (n,), >= 0
    """
    return forgetting * excess + count


@overload
def mean(a: float, b: float) -> float: ...


@overload
def mean(a: Floats, b: FloatOrFloats) -> Floats: ...


def mean(a: FloatOrFloats, b: FloatOrFloats) -> FloatOrFloats:
    """Return E[p] for p ~ Beta(a, b), in (0, 1)."""
    return a / (a + b)


def moment(a: FloatOrFloats, b: FloatOrFloats, successes: int, failures: int) -> Floats:
    """Return E[p^i (1-p)^j] = B(a+i, b+j) / B(a, b) for p ~ Beta(a, b), in [0, 1).

    i = `successes` and j = `failures` are 0 or more. The result is a product of i + j ratios, each in (0, 1),
    so that nothing cancels, whatever a and b are.

    >>> moment(1.0, 1.0, 1, 1)  # p is uniform: E[p (1-p)] = 1/6
    array(0.16666667)
    """
    result = np.ones(np.broadcast(a, b).shape)
    for k in range(successes):
        result *= (a + k) / (a + b + k)
    for k in range(failures):
        result *= (b + k) / (a + b + successes + k)
    return result


def _mixed(a: FloatOrFloats, b: FloatOrFloats, group: int, successes: int, failures: int) -> Floats:
    """Return E[(1 - p^n - (1-p)^n) p^i (1-p)^j], n = `group`, as a sum of positive terms.

    1 - p^n - (1-p)^n = sum_{k=1}^{n-1} [p^k (1-p) + (1-p)^k p]: the differences that would cancel are never
    taken.
    """
    result = np.zeros(np.broadcast(a, b).shape)
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


def variance_value(a: FloatOrFloats, b: FloatOrFloats, group: int) -> Floats:
    """Return E[p (1-p)] = a b / ((a+b) (a+b+1)), in (0, 1/4]. `group` does not count.

    Source: CERO's abstract (arXiv 2606.05606).
    """
    return moment(a, b, 1, 1)


def variance_hard_value(a: FloatOrFloats, b: FloatOrFloats, group: int) -> Floats:
    """Return `variance_value` times E[1-p], in (0, 1/4). `group` does not count.

    A rollout is worth more where failures still prevail. Source: this project.
    """
    return moment(a, b, 1, 1) * moment(a, b, 0, 1)


def signal_value(a: FloatOrFloats, b: FloatOrFloats, group: int) -> Floats:
    """Return E[1 - p^n - (1-p)^n], n = `group`, in [0, 1): the chance that n rollouts show both outcomes.

    Source: this project.
    """
    return _mixed(a, b, group, 0, 0)


def signal_hard_value(a: FloatOrFloats, b: FloatOrFloats, group: int) -> Floats:
    """Return `signal_value` times E[1-p], in [0, 1).

    A group with both outcomes is worth more where failures still prevail. Source: this project.
    """
    return signal_value(a, b, group) * moment(a, b, 0, 1)


def knapsack_value(a: FloatOrFloats, b: FloatOrFloats, group: int) -> Floats:
    """Return E[(1 - p^n - (1-p)^n) p (1-p)^2], n = `group`, in [0, 4/27).

    Source: Knapsack RL's value (arXiv 2509.25849), here in expectation under the posterior.
    """
    return _mixed(a, b, group, 1, 2)


def inverse_sqrt_value(a: FloatOrFloats, b: FloatOrFloats, group: int) -> Floats:
    """Return 1 / sqrt(E[p]), in (1, 1e3]. `group` does not count.

    The expectation of 1 / sqrt(p) itself is infinite for a <= 1/2. Source: Reinforce-Ada-Est's rule
    (arXiv 2510.04996), here at the posterior's mean.
    """
    return 1.0 / np.sqrt(np.maximum(a / (a + b), 1e-6))


class ValueFunction(Protocol):
    """What a rollout is worth under Beta(a, b), in a group of `group` rollouts."""

    def __call__(self, a: FloatOrFloats, b: FloatOrFloats, group: int) -> Floats: ...


VALUES: Mapping[str, ValueFunction] = {
    "variance": variance_value,
    "variance_hard": variance_hard_value,
    "signal": signal_value,
    "signal_hard": signal_hard_value,
    "knapsack": knapsack_value,
    "inverse_sqrt": inverse_sqrt_value,
}

# The values' upper bounds. Prices are projected onto [0, bound].
BOUNDS: Mapping[str, float] = {
    "variance": 0.25,
    "variance_hard": 0.25,
    "signal": 1.0,
    "signal_hard": 1.0,
    "knapsack": 4.0 / 27.0,  # the maximum of p (1-p)^2
    "inverse_sqrt": 1e3,
}


def _log_rising(x: FloatOrFloats, count: Floats | Ints) -> Floats:
    """Return log Gamma(x + count) - log Gamma(x) for x > 0, count >= 0.

    Stirling's series after shifting the argument by 8. The error is below 1e-9 for arguments of up to 1e5,
    and grows with them as the rounding of x log x does.
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


def log_predictive(a: FloatOrFloats, b: FloatOrFloats, successes: Floats, trials: Floats | Ints) -> Floats:
    """Return the log-probability of `successes` of `trials` rollouts under p ~ Beta(a, b), shape (n,).

    It is log B(a+s, b+f) / B(a, b), without the binomial coefficient. Successes may be fractional.
    """
    failures = trials - successes
    return _log_rising(a, successes) + _log_rising(b, failures) - _log_rising(a + b, trials)
