"""The interface every allocator has, and all that they share: checks, the table, the ledger, exact integers."""

import inspect
import math
from abc import ABC, abstractmethod

import numpy as np

from cero.allocators.rounds import OneRound
from cero.core.budget import ROUNDINGS, Ledger, check_feasible, project_to_sum, round_to_sum
from cero.core.checks import check_choice, check_number
from cero.core.prompts import PromptTable, as_prompt_ids, merge_repeats, sort_ids

STATE_FORMAT = "cero-allocator"
STATE_VERSION = 2


class Allocator(ABC):
    """Decides how many rollouts each prompt of a step gets, and learns from their rewards.

    A subclass sets `name`, gives `_targets`, and may extend `columns`, `_allocated`, `_observed`, `_scalars`
    and `metrics`. It never has to care for integers, budgets, unknown prompts or bad input.

    Parameters
    ----------
    rollouts_per_prompt : int >= 1
        What uniform GRPO would spend on every prompt (verl's rollout.n).
    epochs : int >= 1
        How often the run means to visit each prompt: the horizon of the prices.
    n_min, n_max : int, 0 <= n_min <= rollouts_per_prompt <= n_max
        Bounds on a prompt's rollouts in one step.
    seed : int >= 0
        Same seed, same prompts, same rewards: same allocation.
    total_budget : int or None
        Rollouts the whole run may spend; never exceeded. None: no limit but each step's.
    rounding : "systematic" (unbiased, seeded) or "largest_remainder" (deterministic)

    Raises
    ------
    ValueError
        Naming the option, its value and the remedy.
    """

    name = None
    sequential = False  # decides within a step: see `begin`
    columns = {}

    def __init__(
        self,
        *,
        rollouts_per_prompt,
        epochs,
        n_min=2,
        n_max=32,
        seed=0,
        total_budget=None,
        rounding="systematic",
    ):
        self.rollouts_per_prompt = check_number(
            "rollouts_per_prompt", rollouts_per_prompt, 1, 2**20, integer=True
        )
        self.epochs = check_number("epochs", epochs, 1, 2**31 - 1, integer=True)
        self.n_max = check_number("n_max", n_max, 1, 2**20, integer=True)
        self.n_min = check_number("n_min", n_min, 0, self.n_max, integer=True)
        if not self.n_min <= self.rollouts_per_prompt <= self.n_max:
            raise ValueError(
                f"rollouts_per_prompt={self.rollouts_per_prompt} lies outside n_min={self.n_min} ... "
                f"n_max={self.n_max}, so no step could cost its budget; widen the bounds"
            )
        self.seed = check_number("seed", seed, 0, 2**63 - 1, integer=True)
        self.rounding = check_choice("rounding", rounding, ROUNDINGS)
        self.ledger = Ledger(total_budget)
        self.table = PromptTable({"allocated": (np.int32, 0), "pending": (np.int32, 0), **self.columns})
        self._rng = np.random.default_rng(self.seed)
        self._forget_last()

    # ---- the public interface --------------------------------------------------------------------

    def allocate(self, prompt_ids, budget=None):
        """Rollouts for each prompt of a step.

        Parameters
        ----------
        prompt_ids : sequence of str, or of integers in [0, 2**64); shape (n,)
            A prompt that occurs twice gets a share for each occurrence.
        budget : int or None
            Rollouts to spend, exactly. None: what the allocator itself wants (see `_own_budget`).

        Returns
        -------
        int64 array, shape (n,), each within [n_min, n_max], summing to `budget`. It does not depend on the
        order of the prompts: permuted prompts get permuted rollouts.

        Raises
        ------
        ValueError
            If the budget can't be met within the bounds or breaks the run's; nothing has changed then.
        """
        order, ids = sort_ids(as_prompt_ids(prompt_ids))
        if budget is None:
            budget = self._own_budget(ids)
        check_feasible(budget, ids.size, self.n_min, self.n_max)
        budget = int(budget)
        self.ledger.check(budget)

        distinct, times = merge_repeats(ids)
        distinct_rows = self.table.add(distinct)
        rows = np.repeat(distinct_rows, times)
        shares = project_to_sum(self._targets(rows, budget), budget, self.n_min, self.n_max)
        counts = round_to_sum(shares, budget, self.n_min, self.n_max, self._rng, self.rounding)
        self.ledger.spend(budget)
        added = merge_repeats(rows, counts.astype(np.int32))[2]
        self.table["allocated"][distinct_rows] += added
        self.table["pending"][distinct_rows] += added
        self._allocated(rows, shares, counts)

        result = np.empty_like(counts)
        result[order] = counts
        self._last, self._last_rows = result, rows
        self._last_distinct = distinct, distinct_rows
        return result.copy()

    def observe(self, prompt_ids, successes, trials):
        """Learn from rewards.

        Parameters
        ----------
        prompt_ids : as for `allocate`, shape (n,); repeats are added up
        successes : floats, shape (n,), 0 <= successes <= trials; fractional where rewards are
        trials : integers, shape (n,); at most what was allocated to the prompt and not yet observed.
            Fewer are fine: a rollout that failed teaches nothing, but stays spent.

        Raises
        ------
        ValueError
            On anything else; nothing has changed then.
        """
        ids, successes, trials = self._checked_outcomes(prompt_ids, successes, trials)
        order, ids = sort_ids(ids)
        ids, _, successes, trials = merge_repeats(ids, successes[order], trials[order])
        # Mostly these are the prompts of the last `allocate`, whose rows are known: a prompt never changes
        # its row.
        last_ids, last_rows = self._last_distinct
        rows = last_rows if np.array_equal(ids, last_ids) else self.table.rows(ids)
        pending = np.where(rows >= 0, self.table["pending"][rows] if len(self.table) else 0, 0)
        if (trials > pending).any():
            worst = int(np.argmax(trials - pending))
            raise ValueError(
                f"trials={trials[worst]} for prompt {ids[worst]:#018x}, which has {pending[worst]} rollouts "
                "allocated and not yet observed; observe each rollout once, after allocate()"
            )
        visited = trials > 0
        rows, successes, trials = rows[visited], successes[visited], trials[visited]
        self.table["pending"][rows] -= trials.astype(np.int32)
        self._observed(rows, successes, trials)

    def begin(self, prompt_ids, budget=None):
        """Start a step: a `cero.allocators.rounds.Step`, to be played and then given to `settle`.

        As `allocate` in every other respect. An allocator that decides before sampling plays a single round;
        one with `sequential` set decides round by round, within `budget`.
        """
        ids = as_prompt_ids(prompt_ids)
        return OneRound(ids, self.allocate(ids, budget))

    def settle(self, step, successes, trials):
        """End a step that was begun: what it did not launch returns to the ledger, and its rewards are observed.

        successes, trials : as for `observe`, in the order of the step's prompts.
        """
        self.observe(step.ids, successes, trials)

    def least_rollouts(self):
        if self.sequential:
            first = getattr(self, "n_explore", 1)
            return self.rollouts_per_prompt // 2 if first is None else first
        return self.n_min

    beliefs = None

    def success_mean(self, prompt_ids):
        """What is expected of each prompt now: a success probability in (0, 1), or 1/2 where nothing is known."""
        return np.full(as_prompt_ids(prompt_ids).size, 0.5)

    def metrics(self):
        """Figures (str to float) of the last `allocate`, its prompts and the run; the cost is flat in the table."""
        figures = {"budget/spent": float(self.ledger.spent), "prompts/seen": float(len(self.table))}
        if self.ledger.total is not None:
            figures["budget/total"] = float(self.ledger.total)
            figures["budget/left"] = float(self.ledger.left)
        if self._last.size:
            figures |= {
                "n/mean": float(self._last.mean()),
                "n/min": float(self._last.min()),
                "n/max": float(self._last.max()),
                "n/std": float(self._last.std()),
                "n/zero": float((self._last == 0).mean()),
            }
            quantiles = (10, 50, 90)
            for quantile, n in zip(quantiles, np.percentile(self._last, quantiles), strict=True):
                figures[f"n/p{quantile}"] = float(n)
        return figures

    def options(self):
        """Every option and its value, as `make_allocator` takes them (`total_budget` apart)."""
        names = [name for name in option_names(type(self)) if name != "total_budget"]
        return {name: getattr(self, name) for name in names}

    def state_dict(self):
        """Everything that was learned and spent: plain data and NumPy arrays. See `cero.core.state` to write it."""
        return {
            "format": STATE_FORMAT,
            "version": STATE_VERSION,
            "allocator": self.name,
            "options": self.options(),
            "ledger": self.ledger.state_dict(),
            "rng": self._rng.bit_generator.state,
            "scalars": self._scalars(),
            "table": self.table.columns(),
        }

    def load_state_dict(self, state):
        """Take up a `state_dict`. Raises ValueError if it is not one of this allocator's; nothing has changed then."""
        if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
            raise ValueError("this is not an allocator's state; give what state_dict() returned")
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"state version {state.get('version')!r} is not the version {STATE_VERSION} of this cero"
            )
        if state.get("allocator") != self.name:
            raise ValueError(
                f"this state is of allocator {state.get('allocator')!r}, the run uses {self.name!r}; "
                f"set allocator={state.get('allocator')}, or start a new run"
            )
        missing = {"ledger", "rng", "scalars", "table"} - set(state)
        if missing:
            raise ValueError(f"state lacks {sorted(missing)}; the file is damaged")
        self.table.check_columns(state["table"])
        if (state["table"]["pending"] < 0).any() or (state["table"]["allocated"] < 0).any():
            raise ValueError("state holds negative rollouts; the file is damaged")
        self.ledger.check_state(state["ledger"])
        scalars = self._scalars()
        if set(state["scalars"]) != set(scalars):
            raise ValueError(
                f"state has scalars {sorted(state['scalars'])}; this allocator needs {sorted(scalars)}"
            )
        for key, value in state["scalars"].items():
            check_number(f"state scalar {key}", value, -math.inf, math.inf)
        rng = np.random.default_rng(0)
        try:
            rng.bit_generator.state = state["rng"]
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"state's random generator can't be restored: {error}") from error

        self._rng = rng
        self.table.load(state["table"])
        self.ledger.load_state_dict(state["ledger"])
        self._load_scalars(state["scalars"])
        self._forget_last()

    def __repr__(self):
        options = ", ".join(f"{key}={value!r}" for key, value in self.options().items())
        return f"{type(self).__name__}({options}, prompts={len(self.table)}, spent={self.ledger.spent})"

    # ---- what subclasses give --------------------------------------------------------------------

    @abstractmethod
    def _targets(self, rows, budget):
        """Rollouts wished for, real-valued and unbounded, shape of `rows`; they are then made to cost `budget`."""

    def _own_budget(self, ids):
        """Rollouts to spend on these prompts when the caller leaves it open: nbar each, as far as the ledger goes."""
        wanted = ids.size * self.rollouts_per_prompt
        return wanted if self.ledger.left is None else min(wanted, self.ledger.left)

    def _allocated(self, rows, shares, counts):
        """Called with what was given, real-valued and rounded: `rows` in ascending id order, repeats included."""

    def _observed(self, rows, successes, trials):
        """Called with outcomes: distinct `rows`, trials >= 1."""

    def _scalars(self):
        """Numbers that belong to the state beside the table."""
        return {}

    def _load_scalars(self, scalars):
        """Take up `_scalars`."""

    def _forget_last(self):
        self._last = self._last_rows = np.zeros(0, np.int64)
        self._last_distinct = (
            np.zeros(0, np.uint64),
            np.zeros(0, np.int64),
        )  # sorted ids of the last step, their rows

    # ---- checks ----------------------------------------------------------------------------------

    @staticmethod
    def _checked_outcomes(prompt_ids, successes, trials):
        ids = as_prompt_ids(prompt_ids)
        successes = np.asarray(successes, np.float64)
        trials = np.asarray(trials)
        for key, array in (("successes", successes), ("trials", trials)):
            if array.shape != ids.shape:
                raise ValueError(
                    f"{key} has shape {array.shape}, prompt_ids has {ids.shape}; give one for each prompt"
                )
        if trials.dtype.kind not in "iu" and not (trials.astype(np.float64) == np.floor(trials)).all():
            raise ValueError(f"trials={trials.tolist()[:5]} must be whole numbers of rollouts")
        trials = trials.astype(np.int64)
        if (trials < 0).any():
            raise ValueError(f"trials={trials.min()} is negative; give the number of rollouts observed")
        bad = ~np.isfinite(successes) | (successes < 0) | (successes > trials)
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(
                f"successes={successes[at]} of trials={trials[at]} for prompt {ids[at]:#018x}: successes must be "
                "finite and in [0, trials]; map rewards to [0, 1] first"
            )
        return ids, successes, trials


def option_names(allocator_class):
    """Names of the options a class takes, common ones included, in order of definition (own ones first)."""
    names = []
    for cls in allocator_class.__mro__:
        if "__init__" in vars(cls) and cls is not object:
            for parameter in inspect.signature(cls.__init__).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in names:
                    names.append(parameter.name)
    return names
