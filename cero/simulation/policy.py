"""How does a policy's chance of success at each prompt move with the rollouts it is trained on?

A model of ours, with few parts, each of which can be switched off. Prompt i of family f succeeds with probability
p_i = sigmoid(base_i + skill_f + own_i). A step sees rollouts of some prompts and their advantages A_ij, and moves
logits along the policy gradient that a network would follow, projected on its two kinds of parameter:

    g_i   = sum_j A_ij (r_ij - p_i)                 score function of a Bernoulli logit, over the prompt's rollouts
    own   : moves by rate_own  x g_i                what is learned of this very prompt
    skill : moves by rate_skill x sum_{i in f} g_i  what carries over to the family (generalisation)
    skill : moves by interference x (random zero-mean mix of the other families' moves)
    own   : shrinks by forgetting at each step      what is not practised fades

All moves are divided by the running root mean square of the whole gradient, as Adam does: more noise means less
progress, a larger scale does not. Sampling noise enters through the rollouts themselves. Not modelled: length, format,
exploration of new answers, clipping, and anything that makes two prompts of one family interact differently.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class World:
    """What the prompts are like and how the policy learns.

    spread : (a, b) of the Beta that prompts' first success probabilities are drawn from, or a tuple of
        (weight, a, b) for a mixture
    families : number of families; a family's prompts share `skill`, and lie at similar difficulty when `correlated`
    rate_own, rate_skill : logits per unit of normalised gradient
    interference : share of the other families' moves that lands on a family, with random sign
    forgetting : share of `own` lost at each step
    drift : standard deviation, in logits per step, of a random walk of every family's skill
    noise : probability that the verifier flips a reward
    """

    spread: tuple = ((1.0, 0.4, 0.6),)
    families: int = 64
    correlated: bool = True
    rate_own: float = 0.6
    rate_skill: float = 0.12
    interference: float = 0.05
    forgetting: float = 0.002
    drift: float = 0.0
    noise: float = 0.0


PRESETS = {
    "latent": World(),
    "mostly_hard": World(spread=((1.0, 0.25, 1.6),)),
    "mostly_easy": World(spread=((1.0, 1.6, 0.4),)),
    "bimodal": World(spread=((0.5, 1.0, 12.0), (0.5, 12.0, 1.0))),
    "drifting": World(drift=0.05),
    "noisy_verifier": World(noise=0.05),
    "correlated": replace(World(), families=12, rate_skill=0.3, rate_own=0.2),
}


class Policy:
    """A policy of `prompts` prompts in a `World`; seeded.

    p : current success probabilities, shape (prompts,)
    """

    def __init__(self, world, prompts, seed):
        self.world = world
        self._rng = np.random.default_rng([seed, 17])
        self.family = self._rng.permutation(np.arange(prompts) % world.families)
        weights = np.array([part[0] for part in world.spread])
        part = self._rng.choice(weights.size, prompts, p=weights / weights.sum())
        a, b = (np.array([p[k] for p in world.spread])[part] for k in (1, 2))
        start = np.clip(self._rng.beta(a, b), 1e-3, 1 - 1e-3)
        if world.correlated:
            # Neighbouring families get neighbouring difficulties, with some of the prompt's own left.
            order = np.argsort(start + 0.15 * self._rng.normal(size=prompts))
            start = start[order][np.argsort(np.argsort(self.family, kind="stable"), kind="stable")]
        self._base = np.log(start / (1 - start))
        self._own = np.zeros(prompts)
        self._skill = np.zeros(world.families)
        mix = self._rng.normal(size=(world.families, world.families)) / np.sqrt(world.families)
        self._mix = mix - np.diag(np.diag(mix))
        self._square = 0.0
        self._steps = 0

    @property
    def p(self):
        return 1.0 / (1.0 + np.exp(-(self._base + self._skill[self.family] + self._own)))

    def sample(self, rows, rollouts):
        """True and seen successes of `rollouts[k]` rollouts of prompt `rows[k]`; two int arrays of that shape.

        They differ where the verifier is noisy; what is seen is what trains and what is observed.
        """
        won = self._rng.binomial(rollouts, self.p[rows])
        noise = self.world.noise
        if noise:
            seen = self._rng.binomial(won, 1 - noise) + self._rng.binomial(rollouts - won, noise)
        else:
            seen = won
        return won, seen

    def learn(self, rows, weight_won, weight_lost):
        """One update, with the two parts of g (see the module's text) for each prompt of `rows`.

        weight_won : sum over the prompt's seen successes of A (1 - p); weight_lost : over its failures of A (0 - p);
        both divided by the step's rollouts. Arrays of the shape of `rows`.
        """
        gradient = weight_won + weight_lost
        self._steps += 1
        self._square = 0.9 * self._square + 0.1 * float((gradient**2).sum())
        scale = np.sqrt(self._square / (1 - 0.9**self._steps)) + 1e-12
        move = gradient / scale
        world = self.world
        np.add.at(self._own, rows, world.rate_own * move)
        by_family = np.bincount(self.family[rows], move, world.families) * world.rate_skill
        self._skill += by_family + world.interference * (self._mix @ by_family)
        if world.forgetting:
            self._own *= 1 - world.forgetting
        if world.drift:
            self._skill += world.drift * self._rng.normal(size=world.families)


def group_gradient(seen, rollouts, p, estimator, history_mean, rollouts_per_prompt, history=8.0, weight="trajectory"):
    """g of each group under an estimator, from counts alone (rewards are 0 or 1).

    seen, rollouts, p, history_mean : arrays of shape (k,); estimator "grpo" (n = 1 and homogeneous groups give 0) or
    "cero" (the posterior baseline). Returns (won, lost) parts, each of shape (k,).
    """
    lost = rollouts - seen
    if estimator == "grpo":
        mean = np.divide(seen, rollouts, out=np.zeros_like(p), where=rollouts > 0)
        std = np.sqrt(np.where(rollouts > 1, mean * (1 - mean) * rollouts / np.maximum(rollouts - 1, 1), 0.0))
        up = np.divide(1 - mean, std, out=np.zeros_like(p), where=std > 0)
        down = np.divide(-mean, std, out=np.zeros_like(p), where=std > 0)
    else:
        up = _posterior(seen, rollouts, 1.0, history_mean, history)
        down = _posterior(seen, rollouts, 0.0, history_mean, history)
    if weight == "prompt":
        factor = rollouts_per_prompt / np.maximum(rollouts, 1)
        up, down = up * factor, down * factor
    return seen * up * (1 - p), lost * down * (0 - p)


def _posterior(seen, rollouts, reward, history_mean, history):
    """The estimator's advantage of a rollout with `reward` in each group (0 where there is no such rollout)."""
    baseline = (history * history_mean + seen - reward) / np.maximum(history + rollouts - 1, 1e-9)
    there = (seen > 0) if reward else (rollouts > seen)
    baseline = np.where(there, baseline, 0.5)
    return np.where(there, (reward - baseline) / np.sqrt(baseline * (1 - baseline)), 0.0)
