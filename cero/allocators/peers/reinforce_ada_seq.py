"""Reinforce-Ada-Seq: sample a prompt in rounds until its group carries enough signal (arXiv 2510.04996)."""

from typing import Any, Literal, get_args

import numpy as np

from cero.allocators.rounds import Step
from cero.allocators.sequential import SequentialAllocator
from cero.core.arrays import Ids, Ints
from cero.core.checks import check_choice, check_number

Criterion = Literal["balanced", "positive"]


class UntilSignal(Step):
    """Each prompt for itself: at most `rounds` of `size`, until `right` successes and `wrong` failures."""

    def __init__(
        self, ids: Ids, cap: int, n_max: int, size: int, rounds: int, right: int, wrong: int
    ) -> None:
        super().__init__(ids, cap, n_max)
        self.size, self.most, self.right, self.wrong = size, rounds, right, wrong

    def _first(self) -> Ints:
        return np.full(self.ids.size, min(self.size, max(self.cap // max(self.ids.size, 1), 1)))

    def _next(self, idle: Ints) -> Ints:
        failures = self.trials[idle] - self.successes[idle]
        done = (self.successes[idle] >= self.right) & (failures >= self.wrong)
        return np.where(done | (self.rounds[idle] >= self.most), 0, self.size)


class ReinforceAdaSeq(SequentialAllocator):
    """Successive elimination: a prompt leaves when its group would fill what is kept of it; published.

    The whole method also keeps `count` of a prompt's rollouts, half right and half wrong
    (`cero.keep.rule=balanced`), and subtracts the mean over all of them
    (`algorithm.cero.advantage=ada_global`). This project sizes its rounds by the step's budget. As published,
    each prompt may have 4 x 8 rollouts, eight times what is trained on.

    Parameters
    ----------
    n_round : int or None
        Rollouts of a round. Published: 8. None: rollouts_per_prompt // rounds, or 1 if there are fewer
        rollouts than rounds. There are as many rounds then as rollouts_per_prompt has room for, so that no
        step can need more than uniform GRPO would spend. With a number, the step's budget may run out: the
        prompts that report first are served first.
    rounds : int >= 1
        Rounds of one prompt at most. Published: 4.
    criterion : "balanced" or "positive"
        A prompt leaves with count/2 successes and as many failures; or with one success (published as
        "positive-focused").
    count : int >= 2
        Rollouts of a prompt that are trained on, for "balanced". Published: 4; keep it equal to
        `cero.keep.count`.
    **common : see `SequentialAllocator`
    """

    name = "reinforce_ada_seq"
    idle_beside = {"count": ("criterion", ("positive",))}

    def __init__(
        self,
        *,
        n_round: int | None = None,
        rounds: int = 4,
        criterion: Criterion = "balanced",
        count: int = 4,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.n_round = None if n_round is None else check_number("n_round", n_round, 1, 2**20, integer=True)
        self.rounds = check_number("rounds", rounds, 1, 1000, integer=True)
        self.criterion = check_choice("criterion", criterion, get_args(Criterion))
        self.count = check_number("count", count, 2, 2**20, integer=True)
        if self._size() > self.rollouts_per_prompt:
            raise ValueError(
                f"n_round={self.n_round} is more than rollouts_per_prompt={self.rollouts_per_prompt}: the "
                "first round alone would break the step's budget; lower n_round, or raise "
                "actor_rollout_ref.rollout.n"
            )

    def _size(self) -> int:
        """Return the rollouts of a round."""
        return self.n_round if self.n_round is not None else max(1, self.rollouts_per_prompt // self.rounds)

    def _step(self, rows: Ints, ids: Ids, cap: int) -> Step:
        right, wrong = (
            (1, 0) if self.criterion == "positive" else (self.count // 2, self.count - self.count // 2)
        )
        rounds = self.rounds
        if self.n_round is None:
            rounds = min(rounds, self.rollouts_per_prompt)
        return UntilSignal(ids, cap, self.n_max, self._size(), rounds, right, wrong)
