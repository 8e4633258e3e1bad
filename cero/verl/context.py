"""What does the estimator need to know that verl does not hand it?

verl calls an estimator with rewards, masks and uids only. The rest is a `StepContext`, a value on the step's
record. The trainer makes it the current one while verl's call lasts (`estimating`).
"""

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import numpy as np

from cero.estimators.advantage import Groups, advantages


@dataclass
class StepContext:
    """Hold what the estimator needs beside verl's arguments, of the s sessions and g prompts of one step.

    place : dict of "<uid>_<session>" -> place of that session in the arrays below
    groups : int array, shape (s,): the prompt of each session, in [0, g)
    history_mean : float array, shape (g,): E[p] of each prompt before this step's rewards, in (0, 1)
    sampled : (trials, successes), two arrays of shape (s,): of the session's prompt, over all its sessions
        in this step, whether they are trained on or not
    known : (trials, successes) likewise, over the prompt's sessions up to and including this session's round:
        what an unbiased baseline may use (`cero.estimators.advantage.known_so_far`)
    to_success : callable, rewards -> successes in [0, 1]
    rollouts_per_prompt : int, verl's actor_rollout_ref.rollout.n
    options : dict of the estimator's options: advantage, history, scale, prompt_weight, aero_form, mapp_group
    prior : (a, b), two float arrays of shape (g,): of each prompt's posterior before this step, for the
        advantage `mapp`; or None
    baselines : an object whose `result()` is a float array, shape (s,), of `cero.estimators.baseline`; or
        None, where the estimator has a baseline of its own
    keys : list of str, "<uid>_<session>_<output>": the keys of the rows of verl's call
    """

    place: dict
    groups: np.ndarray
    history_mean: np.ndarray
    sampled: tuple
    known: tuple
    to_success: object
    rollouts_per_prompt: int
    options: dict
    prior: tuple | None = None
    baselines: object = None
    keys: list | None = None

    def advantages(self, sessions, rewards):
        """Return the advantage of each of `sessions`, when no others are trained on.

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
                self.prior,
            ),
            self.history_mean,
            rollouts_per_prompt=self.rollouts_per_prompt,
            **options,
        )


_context = ContextVar("the context of the step whose advantages verl asks for", default=None)


@contextmanager
def estimating(context, keys):
    """Make `context` the current one within it, for verl's calls of the estimator on rows with `keys`."""
    token = _context.set(replace(context, keys=list(keys)))
    try:
        yield
    finally:
        _context.reset(token)


def current():
    """Return the current `StepContext`, or None outside of `estimating`."""
    return _context.get()
