"""Within a step: who is sampled again on what was seen so far, and when is it over?"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from cero.core.arrays import Bools, Floats, Ids, Ints
from cero.core.checks import as_numbers

WAIT = -1  # what a rule answers for a prompt of which it wants to be asked again


class Step(ABC):
    """One step's sampling, in rounds: launch, hear what came back, launch more or end.

    A rule is a subclass that gives `_first` and `_next`. Prompts go on independently of each other unless the
    rule makes them wait, whatever order they report in. It holds plain NumPy arrays, so that it can be sent
    to the process that samples.

    Parameters
    ----------
    ids : uint64 array, shape (n,); repeats are prompts of their own
    cap : int, rollouts that the step may launch in all
    n_max : int, rollouts that a prompt may get

    Attributes
    ----------
    launched : int64 array, shape (n,), in the order of `ids`: rollouts launched
    rounds : likewise: how often the prompt was launched
    successes, trials : likewise: what came back; trials < launched where rollouts failed
    """

    def __init__(self, ids: Ids, cap: int, n_max: int) -> None:
        self.settled = False  # set by the allocator
        self.ids = np.asarray(ids, np.uint64)
        self.cap, self.n_max = int(cap), int(n_max)
        n = self.ids.size
        self.launched: Ints = np.zeros(n, np.int64)
        self.trials: Ints = np.zeros(n, np.int64)
        self.successes: Floats = np.zeros(n)
        self.rounds: Ints = np.zeros(n, np.int64)
        self._before: Ints = np.zeros(n, np.int64)  # `launched` at the last launch
        self._starts: list[tuple[Ints, Ints]] = []  # (prompts, `launched` before) of each launch
        self._in_flight: Bools = np.zeros(n, bool)
        self._over: Bools = np.zeros(n, bool)

    @property
    def left(self) -> int:
        """The rollouts that may still be launched."""
        return self.cap - int(self.launched.sum())

    @property
    def over(self) -> bool:
        """Whether every prompt has ended."""
        return bool(self._over.all())

    def start(self) -> Ints:
        """Return the rollouts to launch first, shape (n,). A prompt with none may get some later, or not.

        Raises ValueError if the step was started before.
        """
        if self._starts:
            raise ValueError("this step was started before; start each step once")
        counts = self._launch(np.arange(self.ids.size), self._first())
        # Nobody reports for a prompt that was not launched: it waits for others, or it is over.
        if not self._in_flight.any():
            self._over[:] = True
        return counts

    def report(self, prompt: int, successes: float, trials: int) -> dict[int, int]:
        """Take up what came back of all rollouts of `prompt` (an index) that were in flight.

        successes, trials : of these rollouts only, 0 <= successes <= trials <= their number. Fewer trials
        than rollouts means that some failed, which ends the prompt.

        Returns
        -------
        dict of index -> rollouts to launch now; 0 means that the prompt is over. Prompts that are not in it
        go on waiting, or are in flight. When nothing is in flight any more, nothing waits.

        Raises
        ------
        ValueError
            If the prompt has nothing in flight, or the figures don't fit.
        """
        return self.report_all([prompt], [successes], [trials])

    def report_all(
        self, prompts: Sequence[int] | Ints, successes: ArrayLike, trials: ArrayLike
    ) -> dict[int, int]:
        """Take up several distinct prompts at once, as `report` does one; they are decided on together.

        prompts, successes, trials : sequences of one length
        """
        places, successes = as_numbers("prompt", prompts), as_numbers("successes", successes)
        trials = as_numbers("trials", trials)
        if not (places.ndim == 1 and places.shape == successes.shape == trials.shape):
            raise ValueError(
                f"prompt, successes and trials have shapes {places.shape}, {successes.shape} and "
                f"{trials.shape}; give one of each for each prompt"
            )
        known = (places >= 0) & (places < self.ids.size) & (places == np.floor(places))
        known[known] = self._in_flight[places[known].astype(np.int64)]
        if not known.all() or np.unique(places).size < places.size:
            wrong = places[~known][0] if not known.all() else places[0]
            wrong = int(wrong) if wrong == np.floor(wrong) and abs(wrong) < 2**53 else wrong
            raise ValueError(
                f"prompt={wrong} has nothing in flight; report each prompt once after each launch"
            )
        indices = places.astype(np.int64)
        flown = self.launched[indices] - self._before[indices]
        whole = trials == np.floor(trials)
        bad = ~((successes >= 0) & (successes <= trials) & (trials <= flown) & whole)
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(
                f"prompt={indices[at]}: successes={successes[at]} of trials={trials[at]:g} must lie in 0 <= "
                f"successes <= trials <= {flown[at]}, the rollouts in flight, and trials be whole"
            )
        self._in_flight[indices] = False
        self.successes[indices] += successes
        self.trials[indices] += trials.astype(np.int64)
        failed = indices[trials < flown]
        self._over[failed] = True
        return {int(i): 0 for i in failed} | self._decide()

    def round_of(self, prompts: ArrayLike, sessions: ArrayLike) -> Ints:
        """Return in which of its rounds, 0, 1, ..., each rollout was launched, shape (k,).

        prompts, sessions : int arrays, shape (k,)
            The rollout's prompt (an index), and its number 0, 1, ... among that prompt's rollouts, as
            launched.
        """
        prompts, sessions = np.asarray(prompts, np.int64), np.asarray(sessions, np.int64)
        stride = int(self.launched.max(initial=0)) + 1
        begun = np.sort(np.concatenate([p * stride + before for p, before in self._starts]))
        at = np.searchsorted(begun, prompts * stride + sessions, side="right")
        return at - np.searchsorted(begun, prompts * stride, side="left") - 1

    def _decide(self) -> dict[int, int]:
        idle = np.flatnonzero(~self._in_flight & ~self._over)
        if not idle.size:
            return {}
        wanted = np.asarray(self._next(idle), np.int64)
        waits = wanted == WAIT
        counts = self._launch(idle[~waits], wanted[~waits])
        ended = idle[~waits][counts == 0]
        if not self._in_flight.any():
            ended = np.concatenate([ended, idle[waits]])  # nobody is left to wait for
        self._over[ended] = True
        launched = idle[~waits][counts > 0]
        return {int(i): int(self.launched[i] - self._before[i]) for i in launched} | {
            int(i): 0 for i in ended
        }

    def _launch(self, prompts: Ints, wanted: ArrayLike) -> Ints:
        counts: Ints = np.minimum(np.asarray(wanted, np.int64), self.n_max - self.launched[prompts])
        counts = np.maximum(counts, 0)
        # Beyond the cap the last of the prompts go without: a rule that minds looks at `left` itself.
        if counts.sum() > self.left:
            counts = np.diff(np.minimum(np.cumsum(counts), self.left), prepend=0)
        self._before[prompts] = self.launched[prompts]
        self._starts.append((prompts[counts > 0], self._before[prompts][counts > 0]))
        self.launched[prompts] += counts
        self._in_flight[prompts] = counts > 0
        self.rounds[prompts] += counts > 0
        return counts

    # ---- what rules give -------------------------------------------------------------------------

    @abstractmethod
    def _first(self) -> Ints:
        """Return the rollouts of the first round, shape (n,)."""

    def _next(self, idle: Ints) -> Ints:
        """Return what to do with the prompts `idle`, which are neither in flight nor over; after each report.

        An array of the shape of `idle`: rollouts to launch, 0 to end the prompt, WAIT to be asked again.
        """
        return np.zeros(idle.size, np.int64)


class OneRound(Step):
    """All is decided before sampling: the step of every allocator without rounds.

    counts : int array, shape (n,), the rollouts of each prompt
    """

    def __init__(self, ids: Ids, counts: ArrayLike) -> None:
        counts = np.asarray(counts, np.int64)
        super().__init__(ids, counts.sum(), counts.max(initial=0))
        self.counts = counts

    def _first(self) -> Ints:
        return self.counts


class Rounds(Step):
    """Rounds over all prompts of the step: each starts when enough of the last one's prompts are back.

    A rule gives `_first` and `_spend`.

    Parameters
    ----------
    rounds : int >= 0, how many after the first
    quorum : float in (0, 1]
        The next round starts when this share of the launched prompts is back; 1 waits for all. Below 1 rounds
        overlap (an engine need not idle for its longest answers), late prompts miss a round's share, and who
        gets what depends on who was back first.
    """

    def __init__(self, ids: Ids, cap: int, n_max: int, rounds: int, quorum: float) -> None:
        super().__init__(ids, cap, n_max)
        self.rounds_left, self.quorum = int(rounds), float(quorum)
        self._awaited = 0

    def start(self) -> Ints:
        counts = super().start()
        self._awaited = int(self._in_flight.sum())
        return counts

    def _next(self, idle: Ints) -> Ints:
        if self.rounds_left == 0 or self.left <= 0:
            return np.zeros(idle.size, np.int64)
        if self._in_flight.sum() > (1.0 - self.quorum) * self._awaited + 1e-9:
            return np.full(idle.size, WAIT)
        counts = np.asarray(self._spend(idle, -(-self.left // self.rounds_left)), np.int64)
        self.rounds_left -= 1
        self._awaited = int(self._in_flight.sum() + (counts > 0).sum())
        if self.rounds_left == 0 or not (counts > 0).any():
            return counts
        return np.where(counts > 0, counts, WAIT)

    @abstractmethod
    def _spend(self, idle: Ints, budget: int) -> Ints:
        """Divide at most `budget` rollouts among the prompts `idle`; return an array of that shape."""


AnyStep = TypeVar("AnyStep", bound=Step)


def play(step: AnyStep, sample: Callable[[Ints, Ints], tuple[ArrayLike, ArrayLike]]) -> AnyStep:
    """Run a step to its end, for simulations and tests; return it.

    sample : called with prompts (indices) and their rollouts; returns successes and trials. All are arrays of
        one shape. All prompts of a round report together.
    """
    counts = step.start()
    prompts = np.flatnonzero(counts)
    rollouts = counts[prompts]
    while prompts.size:
        more = step.report_all(prompts, *sample(prompts, rollouts))
        more = {prompt: n for prompt, n in more.items() if n}
        prompts, rollouts = np.array(list(more), np.int64), np.array(list(more.values()), np.int64)
    return step
