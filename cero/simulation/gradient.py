"""What does a step's sample teach? The gradient of each group's logit, from counts of rollouts alone."""

from typing import NamedTuple

import numpy as np


class Groups(NamedTuple):
    """The rollouts of a step's prompts, counted; int arrays of shape (k,).

    n : rollouts; right : of these, truly right; missed : right ones that the verifier failed; faked : wrong ones that
    it passed. Counts add up over the rounds of a step, and a rule that keeps or drops rollouts makes Groups of Groups.
    """

    n: np.ndarray
    right: np.ndarray
    missed: np.ndarray
    faked: np.ndarray

    @property
    def rewarded(self):
        """Rollouts with reward 1: all that a trainer can see of `right`."""
        return self.right - self.missed + self.faked

    @property
    def signal(self):
        """Whether both rewards occur in the group; bool."""
        return (self.rewarded > 0) & (self.rewarded < self.n)


def group_gradient(groups, p, history_mean, contender, rollouts_per_prompt):
    """sum_j A_ij (c_ij - p_i) of each group; shape (k,).

    groups : Groups; p : success probabilities under which they were sampled; history_mean : the posterior's mean before
    the step, in (0, 1); contender : has `estimator` ("grpo": n = 1 and homogeneous groups give 0; "cero": the posterior
    baseline worth `history` rollouts) and `weight` ("trajectory", or "prompt": times rollouts_per_prompt / n).
    """
    up, down = ESTIMATORS[contender.estimator](groups.rewarded, groups.n, history_mean, contender.history)
    if contender.weight == "prompt":
        factor = rollouts_per_prompt / np.maximum(groups.n, 1)
        up, down = up * factor, down * factor
    won = (groups.right - groups.missed) * (1 - p) - groups.faked * p
    lost = groups.missed * (1 - p) - (groups.n - groups.right - groups.faked) * p
    return up * won + down * lost


def grpo(rewarded, n, history_mean, history):
    """Advantages (of a reward of 1, of a reward of 0) in each group: (r - mean) / std, as verl's GRPO has them."""
    mean = rewarded / np.maximum(n, 1)
    # With n - 1, as torch.std; a group of one or a homogeneous one teaches nothing.
    std = np.sqrt(mean * (1 - mean) * n / np.maximum(n - 1, 1))
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
    return (1 - mean) * scale, -mean * scale


def posterior_baseline(rewarded, n, history_mean, history):
    """The same pair under `cero.advantage.posterior_advantage`; 0 for a reward that the group does not hold."""
    return tuple(
        _over_others(reward, there, (history * history_mean + rewarded - reward) / np.maximum(history + n - 1, 1e-9))
        for reward, there in ((1.0, rewarded > 0), (0.0, rewarded < n))
    )


def _over_others(reward, there, baseline):
    baseline = np.where(there, baseline, 0.5)
    return np.where(there, (reward - baseline) / np.sqrt(baseline * (1 - baseline)), 0.0)


ESTIMATORS = {"grpo": grpo, "cero": posterior_baseline}
