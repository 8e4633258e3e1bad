"""What is known of a prompt's success probability, and what is one more rollout worth?

The Beta posterior and the expected Bernoulli variance as the value are the abstract's (arXiv 2606.05606); the
forgetting factor and every other value are ours (cf. the method's notes in docs).
"""

import numpy as np


def updated(excess, forgetting, count):
    """A pseudo-count above the prior after a visit: g * excess + count.

    excess = a - a0 (or b - b0), count = the visit's successes (or failures), g in (0, 1]; g = 1 is Bayes' rule
    for a success probability that stands still, g < 1 follows one that is being trained. Arrays of shape (n,).
    """
    return forgetting * excess + count


def mean(a, b):
    """E[p] for p ~ Beta(a, b), in (0, 1)."""
    return a / (a + b)


def moment(a, b, successes, failures):
    """E[p^i (1-p)^j] = B(a+i, b+j) / B(a, b) for p ~ Beta(a, b); i, j small non-negative integers. In (0, 1)."""
    result = np.ones(np.broadcast(a, b).shape)
    for k in range(successes):
        result *= (a + k) / (a + b + k)
    for k in range(failures):
        result *= (b + k) / (a + b + successes + k)
    return result


def variance_value(a, b, group):
    """E[p (1-p)] = a b / ((a+b) (a+b+1)), in (0, 1/4]: the abstract's value. `group` is not used."""
    return moment(a, b, 1, 1)


def signal_value(a, b, group):
    """E[1 - p^n - (1-p)^n], n = `group`: the chance that a group of n holds both outcomes. Ours."""
    return np.maximum(1.0 - moment(a, b, group, 0) - moment(a, b, 0, group), 0.0)


def signal_hard_value(a, b, group):
    """`signal_value` times E[1-p]: a group with signal is worth more where failures still prevail. Ours."""
    return signal_value(a, b, group) * moment(a, b, 0, 1)


def knapsack_value(a, b, group):
    """E[(1 - p^n - (1-p)^n) p (1-p)^2]: the value of Knapsack RL (arXiv 2509.25849) under the posterior."""
    return np.maximum(moment(a, b, 1, 2) - moment(a, b, group + 1, 2) - moment(a, b, 1, group + 2), 0.0)


def inverse_sqrt_value(a, b, group):
    """1 / sqrt(E[p]), the rule of Reinforce-Ada-Est (arXiv 2510.04996) at the posterior mean; `group` is not used."""
    return 1.0 / np.sqrt(mean(a, b))


VALUES = {
    "variance": variance_value,
    "signal": signal_value,
    "signal_hard": signal_hard_value,
    "knapsack": knapsack_value,
    "inverse_sqrt": inverse_sqrt_value,
}

# Upper bounds of the values: prices are projected onto [0, bound].
BOUNDS = {
    "variance": 0.25,
    "signal": 1.0,
    "signal_hard": 1.0,
    "knapsack": 4.0 / 27.0,  # max of p (1-p)^2
    "inverse_sqrt": 1e3,
}
