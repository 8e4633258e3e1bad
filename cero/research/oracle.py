"""What could an allocator gain that knew every prompt's success probability? A ceiling, for research only.

No run on real data can use it: who has the probabilities needs no rollouts to estimate them.
"""

from typing import Any

import numpy as np

from cero.allocators.options import WithBeliefs
from cero.allocators.proportional import scaled_to_sum
from cero.allocators.upfront import UpfrontAllocator
from cero.core.budget import round_to_sum
from cero.core.checks import check_choice, check_number

VALUES = {
    "variance": lambda p: p * (1 - p),
    "deviation": lambda p: np.sqrt(p * (1 - p)),
    "variance_hard": lambda p: p * (1 - p) ** 2,
    "given": lambda worth: worth,
}
PICKS = ("share", "top")
STRATA = ("none", "family", "kind")
SMALLEST = 1e-4  # success probability at which the logit is cut off before noise is added


class Oracle(WithBeliefs, UpfrontAllocator):
    """Give rollouts by the true success probability p of each prompt: the ceiling of what allocation can do.

    Whoever makes one sets `truth`, and `labels` if strata are asked for. Its beliefs serve the estimator
    only.

    Parameters
    ----------
    value : "variance", "deviation", "variance_hard" or "given"
        What a rollout is worth: p (1-p), its square root, or p (1-p)^2. With "given", `truth` is no success
        probability, but the worth itself, in [0, 1].
    pick : "share" or "top"
        Rollouts in proportion to the value; or `each` rollouts to each of the budget / each prompts of
        greatest value.
    each : int >= 1, rollouts of a prompt that is picked; at_random : in [0, 1], the share of picks that are
        drawn at random instead. Both only with pick="top".
    noise : float >= 0
        Standard deviation of normal noise on the logit of p, drawn anew in each step: an oracle that errs.
    strata : "none", "family" or "kind"
        Within which strata prompts compete. Every stratum gets the share of the budget that it has of the
        step's prompts, so the spread of strata stays as it was drawn.
    n_min, n_max, forgetting, **options : see `WithBeliefs` and `UpfrontAllocator`

    Attributes
    ----------
    truth : function of prompt ids, uint64 of shape (n,), that returns their p now, shape (n,)
    labels : dict of "family", "kind" to such a function that returns the prompts' strata, int, shape (n,)
    """

    name = "oracle"

    def __init__(
        self,
        *,
        value: str = "variance",
        pick: str = "share",
        each: int = 1,
        at_random: float = 0.0,
        noise: float = 0.0,
        strata: str = "none",
        n_min: int = 0,
        n_max: int = 64,
        forgetting: Any = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(n_min=n_min, n_max=n_max, forgetting=forgetting, **options)
        self.value = check_choice("value", value, tuple(VALUES))
        self.pick = check_choice("pick", pick, PICKS)
        self.each = int(check_number("each", each, 1, self.n_max, integer=True))
        self.at_random = check_number("at_random", at_random, 0, 1)
        self.noise = check_number("noise", noise, 0, 100)
        self.strata = check_choice("strata", strata, STRATA)
        if pick == "top" and self.n_min:
            raise ValueError(f"n_min={n_min} must be 0 with pick=top: who is not picked gets no rollouts")
        self.truth = None
        self.labels = {}

    def allocate(self, prompt_ids, budget=None):
        """Return the rollouts of each prompt of a step, see `UpfrontAllocator.allocate`.

        Raises ValueError as there, and if a prompt occurs twice.
        """
        self._ids = np.sort(np.asarray(prompt_ids, np.uint64))
        if (self._ids[1:] == self._ids[:-1]).any():
            raise ValueError("an oracle takes each prompt once in a step")
        return super().allocate(prompt_ids, budget)

    def _targets(self, rows, budget):
        worth = self._worth()
        strata = np.zeros(worth.size, np.int64)
        if self.strata != "none":
            strata = np.unique(self.labels[self.strata](self._ids), return_inverse=True)[1]
        return (self._share if self.pick == "share" else self._top)(worth, strata, budget)

    def _worth(self):
        p = self.truth(self._ids)
        if self.noise:
            p = np.clip(p, SMALLEST, 1 - SMALLEST)
            logit = np.log(p / (1 - p)) + self.noise * self._rng.normal(size=p.size)
            p = 1 / (1 + np.exp(-logit))
        return VALUES[self.value](np.clip(p, 0.0, 1.0))

    def _share(self, worth, strata, budget):
        """Return real-valued rollouts in proportion to the worth, within each stratum."""
        targets = np.zeros(worth.size)
        for stratum in range(strata.max(initial=-1) + 1):
            mine = strata == stratum
            part = budget * mine.sum() / worth.size
            targets[mine] = scaled_to_sum(worth[mine], part, self.n_min, self.n_max)
        return targets

    def _top(self, worth, strata, budget):
        """Return `each` rollouts for those picked, and 0 for the others."""
        picks, left = divmod(budget, self.each)
        if left or picks > worth.size:
            raise ValueError(
                f"budget={budget} can't be {self.each} rollouts each for some of {worth.size} prompts; "
                "choose another each, or more candidates"
            )
        order = self._rng.permutation(worth.size)  # ties go to those drawn first
        random = round(self.at_random * picks)
        picked, rest = order[:random], order[random:]
        sizes = np.bincount(strata[rest])
        quotas = (picks - random) * sizes / max(rest.size, 1)
        shuffled = self._rng.permutation(sizes.size)
        quotas[shuffled] = round_to_sum(
            quotas[shuffled], picks - random, 0, max(sizes.max(initial=0), 1), self._rng
        )
        targets = np.zeros(worth.size)
        targets[picked] = self.each
        for stratum in np.flatnonzero(quotas):
            mine = rest[strata[rest] == stratum]
            targets[mine[np.argsort(-worth[mine], kind="stable")[: int(quotas[stratum])]]] = self.each
        return targets
