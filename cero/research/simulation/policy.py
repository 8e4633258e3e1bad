"""How does a policy's chance of success at each prompt move with the rollouts it is trained on?

A model of this project with few parts, each of which can be switched off (docs has a page on the simulator).
Prompt i of family f succeeds with probability p_i = sigmoid(base_i + skill_f + own_i). A step sees rollouts
of some prompts and their advantages A_ij, and moves logits along the policy gradient that a network would
follow, projected on its two kinds of parameter:

    g_i   = sum_j A_ij (c_ij - p_i) / rollouts      score function of a Bernoulli logit; c_ij = 1 if right
    own   : moves by rate_own  x g_i                what is learned of this very prompt
    skill : moves by rate_skill x sum_{i in f} g_i  what carries over to the family (generalisation)
    skill : moves by interference x (random zero-mean mix of the families' moves)
    own   : shrinks by forgetting at each step      what is not practised fades

All moves are divided by the running root mean square of the whole gradient, as Adam does: more noise means
less progress, a larger scale does not. Sampling noise enters through the rollouts themselves.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class World:
    """Describes what the prompts are like and how the policy learns.

    spread : tuple of (weight, a, b), the mixture of Betas from which first success probabilities are drawn
    ladder : None, or (low, high, bend, within) in place of `spread`: families start at success probabilities
    low + (high - low) u^bend with u in even steps from 0 to 1; their prompts scatter by `within` logits (std)
    families : number of families; a family's prompts share `skill`, and lie at similar difficulty when
    `correlated`
    rate_own, rate_skill : logits per unit of normalised gradient, >= 0
    interference : share of the families' moves that lands on other families, with random sign, >= 0
    forgetting : share of `own` lost at each step, in [0, 1)
    drift : standard deviation, in logits per step, of a random walk of every family's skill, >= 0
    noise : probability that the verifier flips a reward, in [0, 1]
    """

    spread: tuple = ((1.0, 0.4, 0.6),)
    ladder: tuple | None = None
    families: int = 64
    correlated: bool = True
    rate_own: float = 0.4
    rate_skill: float = 0.05
    interference: float = 0.6
    forgetting: float = 0.002
    drift: float = 0.0
    noise: float = 0.0


class Policy:
    """Simulates a policy of `prompts` prompts in a `World`, seeded.

    p : current success probabilities, shape (prompts,)
    family : the family of each prompt, shape (prompts,), in [0, families)
    """

    def __init__(self, world, prompts, seed):
        self.world = world
        self._rng = np.random.default_rng([seed, 17])
        self.family = self._rng.permutation(np.arange(prompts) % world.families)
        self._base = self._ladder(prompts) if world.ladder else self._spread(prompts)
        self._own = np.zeros(prompts)
        self._skill = np.zeros(world.families)
        mix = self._rng.normal(size=(world.families, world.families)) / np.sqrt(world.families)
        self._mix = mix - np.diag(np.diag(mix))
        self._square = 0.0
        self._steps = 0

    def _spread(self, prompts):
        weights = np.array([part[0] for part in self.world.spread])
        part = self._rng.choice(weights.size, prompts, p=weights / weights.sum())
        a, b = (np.array([p[k] for p in self.world.spread])[part] for k in (1, 2))
        start = np.clip(self._rng.beta(a, b), 1e-3, 1 - 1e-3)
        if self.world.correlated:
            # Neighbouring families get neighbouring difficulties, with some of the prompt's own left.
            order = np.argsort(start + 0.15 * self._rng.normal(size=prompts))
            start = start[order][np.argsort(np.argsort(self.family, kind="stable"), kind="stable")]
        return np.log(start / (1 - start))

    def _ladder(self, prompts):
        low, high, bend, within = self.world.ladder
        start = low + (high - low) * np.linspace(0, 1, self.world.families) ** bend
        return np.log(start / (1 - start))[self.family] + within * self._rng.normal(size=prompts)

    @property
    def p(self):
        return 1.0 / (1.0 + np.exp(-(self._base + self._skill[self.family] + self._own)))

    def sample(self, rows, rollouts):
        """Sample `rollouts[k]` rollouts of prompt `rows[k]`; return (right, missed, faked), int arrays.

        right : rollouts that are truly right; missed : of these, how many the verifier fails; faked : wrong
        ones that it passes. What is rewarded is right - missed + faked.
        """
        right = self._rng.binomial(rollouts, self.p[rows])
        if not self.world.noise:
            return right, np.zeros_like(right), np.zeros_like(right)
        return (
            right,
            self._rng.binomial(right, self.world.noise),
            self._rng.binomial(rollouts - right, self.world.noise),
        )

    def learn(self, rows, gradient):
        """Make one update. gradient : g_i of each prompt of `rows` (distinct), of that shape, any scale."""
        world = self.world
        self._steps += 1
        self._square = 0.9 * self._square + 0.1 * float((gradient**2).sum())
        move = gradient / (np.sqrt(self._square / (1 - 0.9**self._steps)) + 1e-12)
        self._own[rows] += world.rate_own * move
        by_family = np.bincount(self.family[rows], move, world.families) * world.rate_skill
        self._skill += by_family + world.interference * (self._mix @ by_family)
        if world.forgetting:
            self._own *= 1 - world.forgetting
        if world.drift:
            self._skill += world.drift * self._rng.normal(size=world.families)
