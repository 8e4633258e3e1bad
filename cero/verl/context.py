"""What does the estimator go by, beside what verl hands it?

verl calls an estimator with rewards, masks and uids only. The rest is a `StepContext`, a value on the step's
record, which the trainer names for the duration of verl's call (`estimating`).
"""

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import numpy as np

from cero.estimators.advantage import Groups, advantages


@dataclass
class StepContext:
    """What the estimator needs beside verl's arguments, of the s sessions and g prompts of one step.

    place : dict of "<uid>_<session>" -> place of that session in the arrays below
    groups : int array, shape (s,): the prompt of each session, in [0, g)
    history_mean : float array, shape (g,): E[p] of each prompt before this step's rewards, in (0, 1)
    sampled : (trials, successes), two arrays of shape (s,): of the session's prompt, over all of its sessions
        of the step, whether they are trained on or not
    known : likewise, over that prompt's sessions up to and including this session's round: what an unbiased
        baseline may use (`cero.estimators.advantage.known_so_far`)
    to_success : callable, rewards -> [0, 1]
    rollouts_per_prompt : int
    options : dict: advantage, history, scale, prompt_weight, aero_form
    baselines : something whose `result()` is a float array, shape (s,), of `cero.estimators.baseline`; None:
        the estimator has its own
    keys : list of str: the keys of the rows of verl's call, "<uid>_<session>_<output>"
    """

    place: dict
    groups: np.ndarray
    history_mean: np.ndarray
    sampled: tuple
    known: tuple
    to_success: object
    rollouts_per_prompt: int
    options: dict
    baselines: object = None
    keys: list | None = None

    def advantages(self, sessions, rewards):
        """Return the advantage of each of `sessions`, if these are all that is trained on.

        sessions : int array, shape (k,), places of sessions; rewards : float array, shape (k,)

        Returns a float array, shape (k,). Raises ValueError if a reward is outside cero.success.range.
        """
        options = dict(self.options)
        kind = options.pop("advantage")
        trials, successes = self.known if kind == "posterior" else self.sampled
        return advantages(
            kind,
            Groups(
                self.to_success(rewards),
                self.groups[sessions],
                self.history_mean.size,
                trials[sessions],
                successes[sessions],
                None if self.baselines is None else self.baselines.result()[sessions],
            ),
            self.history_mean,
            rollouts_per_prompt=self.rollouts_per_prompt,
            **options,
        )


_context = ContextVar("the context of the step whose advantages verl asks for", default=None)


@contextmanager
def estimating(context, keys):
    """Have verl's calls of the estimator go by `context` within it, for rows with these `keys`."""
    token = _context.set(replace(context, keys=list(keys)))
    try:
        yield
    finally:
        _context.reset(token)


def current():
    """Return the context that `estimating` names now, or None."""
    return _context.get()
