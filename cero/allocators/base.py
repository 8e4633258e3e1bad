"""The interface of every allocator, and what all of them share: options, table, ledger, state, metrics."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cero.allocators.beliefs import Beliefs
from cero.allocators.rounds import Step
from cero.core import beta
from cero.core.arrays import Bools, Floats, Ids, Ints
from cero.core.budget import MOST_TOTAL, Ledger
from cero.core.checks import MOST_SAVED, as_numbers, check_number, shown
from cero.core.prompts import Columns, PromptIds, PromptTable, as_prompt_ids, merge_repeats, sort_ids

STATE_FORMAT = "cero-allocator"
STATE_VERSION = 2
COUNTS = ("steps", "clock")  # numbers of a state that are whole
MOST_ROLLOUTS = 2**31 - 1  # of one prompt, over the whole run
IdleBeside = Mapping[str, tuple[str, tuple[Any, ...]]]


@dataclass
class Description:
    """What an allocator can say of itself, for `cero inspect`.

    Attributes
    ----------
    columns : dict of str to array of shape (prompts,), in the order of the allocator's table
        Always "rollouts" (allocated so far). Where the allocator has them also "visits", "posterior_mean"
        (the expected success probability, in (0, 1)), "strength" (pseudo-counts of the posterior), "value"
        (of one more rollout: E[p (1-p)], unless the allocator has an option `value`), "slope" (of the
        utility, in (0, 1]; nan where there is none yet) and "price" (value per rollout). Columns of other
        names are shown after these.
    steps : int or None
        Steps so far, if the allocator counts them.
    price : float or None
        The budget's price, in value per rollout, if there is one now.
    """

    columns: dict[str, NDArray[Any]]
    steps: int | None = None
    price: float | None = None


class Allocator(ABC):
    """Decide how many rollouts each prompt of a step gets, and learn from their rewards.

    Every allocator has one interface: `begin` a step, sample what it asks for, and `settle` it.

    >>> from cero import make_allocator
    >>> allocator = make_allocator("aero", rollouts_per_prompt=4, epochs=2)
    >>> step = allocator.begin(["1+1=", "2+3="])
    >>> step.start().tolist()  # rollouts to sample first
    [2, 2]
    >>> step.report(0, successes=1, trials=2)  # one of two was right: enough
    {0: 0}
    >>> step.report(1, successes=0, trials=2)  # none was: two more
    {1: 2}
    >>> step.report(1, successes=1, trials=2), step.over
    ({1: 0}, True)
    >>> allocator.settle(step, step.successes, step.trials)

    `allocate` and `observe` are the short form of the same for allocators that decide before sampling
    (`UpfrontAllocator`). One that decides while the step is sampled (`SequentialAllocator`, `sequential` is
    true) has no answer before the first rewards, so there both raise TypeError.

    A rule is a subclass of one of these two, not of this class. It sets `name`, and may extend `columns` and
    the methods under "What subclasses give". It never has to care for budgets, unknown prompts or bad input.

    Parameters
    ----------
    beliefs : dict or None
        Settings of the `Beliefs` that the allocator holds as `beliefs`; None: it holds none.
    rollouts_per_prompt : int >= 1
        What uniform GRPO would spend on every prompt (verl's `rollout.n`).
    epochs : int >= 1
        How often the run means to visit each prompt: the horizon of the prices.
    n_max : int >= rollouts_per_prompt
        Rollouts of one prompt in one step, at most.
    seed : int >= 0
        The same seed, prompts and rewards give the same allocation.
    total_budget : int or None
        Rollouts that the whole run may spend; never exceeded. None: only each step's budget binds.

    Attributes
    ----------
    name : str
        What `make_allocator` and `allocator=...` call it; None for a class that is no rule.
    columns : dict of str to (dtype, value for a new prompt)
        What the rule keeps of each prompt, in `table`.
    ranges : dict of str to (lowest, highest)
        What the columns, and the numbers that `_scalars` gives, can be; a state with others is refused.
    later_scalars : dict of str to float
        Numbers of `_scalars` that states of earlier versions lack, and what stands for them then. A state has
        all of them or none; one that has some is damaged.
    state_options : tuple of str
        Options that decide which figures a state holds, so that it can't be taken up under another value. A
        class adds to what its bases say.
    examples : tuple of dicts of options
        Settings that make sense beside the defaults. The tests take the first that fits where the defaults
        don't fit (n_min=2, or one rollout per prompt), and look under each for what an option changes.
    idle_beside : dict of str to (name of another option, its values)
        Which options change nothing beside which values of another one. A class adds to what its bases say.
    idle_in_runs : likewise
        Where every step has its usual budget, rollouts_per_prompt for each prompt, as in verl's runs.

    Raises
    ------
    ValueError
        Naming the option, its value and the remedy.
    """

    name: ClassVar[str | None] = None
    sequential: ClassVar[bool] = False
    columns: ClassVar[Columns] = {}
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}
    later_scalars: ClassVar[Mapping[str, float]] = {}
    state_options: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    idle_beside: ClassVar[IdleBeside] = {}
    idle_in_runs: ClassVar[IdleBeside] = {}

    def __init__(
        self,
        beliefs: Mapping[str, Any] | None = None,
        /,
        *,
        rollouts_per_prompt: int,
        epochs: int,
        n_max: int = 32,
        seed: int = 0,
        total_budget: int | None = None,
    ) -> None:
        self.rollouts_per_prompt = int(
            check_number("rollouts_per_prompt", rollouts_per_prompt, 1, 2**20, integer=True)
        )
        self.epochs = int(check_number("epochs", epochs, 1, 2**31 - 1, integer=True))
        self.n_max = int(check_number("n_max", n_max, 1, 2**20, integer=True))
        self.seed = int(check_number("seed", seed, 0, 2**63 - 1, integer=True))
        self.ledger = Ledger(total_budget)
        self.table = PromptTable({"allocated": (np.int32, 0), "pending": (np.int32, 0), **self.columns})
        self.beliefs = None if beliefs is None else Beliefs(self.table, **beliefs)
        self._rng = np.random.default_rng(self.seed)
        self._forget_last()

    # ---- the public interface --------------------------------------------------------------------

    @abstractmethod
    def begin(self, prompt_ids: PromptIds, budget: int | None = None) -> Step:
        """Start a step: return a `cero.allocators.rounds.Step`, to be played and then given to `settle`.

        Parameters
        ----------
        prompt_ids : sequence of str, or of integers in [0, 2**64); shape (n,)
            A prompt that occurs twice gets a share for each occurrence.
        budget : int or None
            Rollouts to spend: exactly if the allocator decides before sampling, at most if it decides in
            rounds. None: what the allocator itself wants.

        Raises
        ------
        ValueError
            If the budget can't be met within the bounds, or breaks the run's; nothing has changed then.
        """

    @abstractmethod
    def settle(self, step: Step, successes: ArrayLike, trials: ArrayLike) -> None:
        """End a step that was begun: learn from its rewards, and take back what it did not launch.

        Parameters
        ----------
        successes : floats, shape (n,), in the order of the step's prompts; 0 <= successes <= trials
            Fractional where rewards are.
        trials : integers, shape (n,)
            Fewer than were launched are fine: a rollout that failed teaches nothing, but stays spent.

        Raises
        ------
        ValueError
            On anything else; nothing has changed then.
        """

    def allocate(self, prompt_ids: PromptIds, budget: int | None = None) -> Ints:
        """Return the rollouts of each prompt of a step: the short form of `begin`, see `UpfrontAllocator`.

        Raises
        ------
        TypeError
            If this allocator decides within a step: use `begin` and `settle`.
        """
        raise self._no_short_form("allocate")

    def observe(self, prompt_ids: PromptIds, successes: ArrayLike, trials: ArrayLike) -> None:
        """Learn from rewards: the short form of `settle`, see `UpfrontAllocator`.

        Raises
        ------
        TypeError
            If this allocator decides within a step: use `begin` and `settle`.
        """
        raise self._no_short_form("observe")

    def _no_short_form(self, method: str) -> TypeError:
        return TypeError(
            f"allocator={self.name} decides within a step, so there is no {method}(); use begin() and "
            "settle()"
        )

    def least_rollouts(self) -> int:
        """Return the least rollouts, 1 or more, that a prompt is sure to get if it is sampled at all.

        Of a step that has its usual budget: rollouts_per_prompt for each of its prompts.
        """
        return 1

    def success_mean(self, prompt_ids: PromptIds) -> Floats:
        """Return what is expected of each prompt now: a success probability in (0, 1), shape (n,).

        It is the prior's mean where nothing is known, and 1/2 if the allocator keeps no posteriors.
        """
        ids = as_prompt_ids(prompt_ids)
        if self.beliefs is None:
            return np.full(ids.size, 0.5)
        return self.beliefs.mean(self.table.rows(ids))

    def success_mean_or(self, prompt_ids: PromptIds, of_new: Floats) -> Floats:
        """Return `success_mean`, but `of_new` for prompts of which nothing is known.

        A prompt is known once it has an outcome, or a pass rate measured before the run. One that was offered
        as a candidate, or whose rollouts all failed, is not.

        of_new : shape (n,), what is expected of each prompt by something else, in (0, 1)
        """
        ids = as_prompt_ids(prompt_ids)
        rows = self.table.rows(ids)
        known = rows >= 0
        known[known] = self._has_evidence(rows[known])
        return np.where(known, self.success_mean(ids), of_new)

    def set_pass_rates(self, prompt_ids: PromptIds, pass_rates: ArrayLike, strength: float = 4.0) -> None:
        """Start prompts at pass rates measured before the run.

        Possible where `beliefs` is not None.

        Parameters
        ----------
        prompt_ids : as for `begin`, shape (n,); a prompt that was visited already keeps what was seen
        pass_rates : float array, shape (n,), in [0, 1]; nan where unknown
        strength : float > 0, the rollouts that a pass rate counts for

        Raises
        ------
        ValueError
            Naming what is out of range; or if this allocator keeps no beliefs about prompts.
        """
        if self.beliefs is None:
            raise ValueError(f"{self.name} keeps no posterior that could start at a pass rate; give it none")
        self.beliefs.set_pass_rates(as_prompt_ids(prompt_ids), pass_rates, strength)

    def metrics(self) -> dict[str, float]:
        """Return figures of the last step, its prompts and the run; the cost does not grow with the table.

        With `beliefs` these are "posterior/mean", "posterior/std" and "posterior/strength" of the step's
        prompts, and "posterior/value": what a rollout is worth on average. That is E[p (1-p)], unless the
        allocator has an option `value`.
        """
        figures = {"budget/spent": float(self.ledger.spent), "prompts/seen": float(len(self.table))}
        if self.ledger.total is not None:
            figures["budget/total"] = float(self.ledger.total)
            figures["budget/left"] = float(self.ledger.total - self.ledger.spent)
        figures |= size_figures(self._last)
        if self.beliefs is not None and self._last_rows.size:
            figures |= self.beliefs.metrics(self._last_rows)
        return figures

    def describe(self) -> Description:
        """Return what is known of every prompt and of the run; the cost grows with the table."""
        columns = {"rollouts": self.table["allocated"]}
        if self.beliefs is not None:
            rows = np.arange(len(self.table))
            a, b = self.beliefs.parameters(rows)
            columns |= {
                "posterior_mean": beta.mean(a, b),
                "strength": a + b,
                "value": beta.moment(a, b, 1, 1),
            }
        return Description(columns)

    def options(self) -> dict[str, Any]:
        """Return every option and its value, as `make_allocator` takes them, but for `total_budget`."""
        return {name: self._option(name) for name in option_names(type(self)) if name != "total_budget"}

    def state_dict(self) -> dict[str, Any]:
        """Return all that was learned and spent, as plain data and arrays; `cero.core.state` writes it."""
        return {
            "format": STATE_FORMAT,
            "version": STATE_VERSION,
            "allocator": self.name,
            "options": self.options(),
            "ledger": self.ledger.state_dict(),
            "rng": self._rng.bit_generator.state,
            "scalars": self._all_scalars(),
            "table": self.table.columns(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned. Options may differ, except `state_options`: this allocator's
        count.

        Raises
        ------
        ValueError
            If it is no state of this allocator, or one with other `state_options`; nothing has changed then.
        """
        if not isinstance(state, dict) or not _is(state.get("format"), STATE_FORMAT):
            raise ValueError("this is not an allocator's state; give what state_dict() returned")
        if not _is(state.get("version"), STATE_VERSION):
            raise ValueError(
                f"state version {shown(state.get('version'))} is not the version {STATE_VERSION} of this "
                "cero; go on with the cero that wrote it, or start a new run"
            )
        if not _is(state.get("allocator"), self.name):
            raise ValueError(
                f"this state is of allocator {shown(state.get('allocator'))}, the run uses {self.name!r}; "
                f"set allocator={state.get('allocator')}, or start a new run"
            )
        missing = {"ledger", "rng", "scalars", "table"} - set(state)
        if missing:
            raise ValueError(f"state lacks {sorted(missing)}; the file is damaged")
        for key in ("rng", "scalars", "table"):
            if not isinstance(state[key], Mapping):
                raise ValueError(f"state has {key}={shown(state[key])}; the file is damaged")
        if not isinstance(state.get("options", {}), Mapping):
            raise ValueError(f"state has options={shown(state['options'])}; the file is damaged")
        self._check_state_options(state.get("options", {}))
        table = self._without_retired(state["table"])
        self.table.check_columns(table)
        self.ledger.check_state(state["ledger"])
        scalars, needed = dict(state["scalars"]), self._all_scalars()
        if not set(self.later_scalars) & set(scalars):
            scalars |= self.later_scalars
        if set(scalars) != set(needed):
            raise ValueError(
                f"state has scalars {sorted(state['scalars'])}; this allocator needs {sorted(needed)}"
            )
        for key, value in scalars.items():
            check_number(f"state scalar {key}", value, -math.inf, math.inf)
            if isinstance(value, int) and abs(value) > MOST_TOTAL:  # more than NumPy's integers hold
                raise ValueError(f"state scalar {key}={shown(value)} is no number of a run")
        self._check_ranges({**table, **scalars})
        rng = _generator(state["rng"])

        self._rng = rng
        self.table.load(table)
        self.ledger.load_state_dict(state["ledger"])
        if self.beliefs is not None:
            self.beliefs.load_scalars(scalars)
        self._load_scalars(scalars)
        self._forget_last()

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.options().items())
        return f"{type(self).__name__}({options}, prompts={len(self.table)}, spent={self.ledger.spent})"

    # ---- what subclasses give --------------------------------------------------------------------

    def _own_budget(self, ids: Ids) -> int:
        """Return the rollouts of a step whose budget is left open, at most what the run has left."""
        wanted = ids.size * self.rollouts_per_prompt
        return wanted if self.ledger.left is None else min(wanted, self.ledger.left)

    def _observed(self, rows: Ints, successes: Floats, trials: Ints) -> None:
        """Learn from outcomes: distinct `rows`, trials >= 1. The beliefs are still those before them."""

    def _scalars(self) -> dict[str, float]:
        """Return the numbers that belong to the state beside the table and the beliefs."""
        return {}

    def _load_scalars(self, scalars: Mapping[str, float]) -> None:
        """Take up what `_scalars` returned."""

    def _has_evidence(self, rows: Ints) -> Bools:
        """Return of which of `rows` outcomes are kept, bool, that shape; of none without beliefs."""
        return np.zeros(rows.shape, bool) if self.beliefs is None else self.beliefs.has_evidence(rows)

    def _worth(self, rows: Ints) -> Floats | None:
        """Return the value of a rollout of each of `rows`, >= 0: E[p (1-p)]; None without beliefs."""
        if self.beliefs is None:
            return None
        return beta.moment(*self.beliefs.parameters(rows), 1, 1)

    def _option(self, name: str) -> Any:
        """Return the value of an option; an attribute of that name, unless the class keeps it elsewhere."""
        return getattr(self, name)

    # ---- shared ----------------------------------------------------------------------------------

    def _learn(self, ids: Ids, successes: Floats, trials: Ints, weights: Floats | None = None) -> None:
        """Take up checked outcomes of `ids`, repeats included; refuse trials that were not allocated.

        weights : what each outcome counts for in the beliefs, in (0, 1]; None: 1
        """
        if not ids.size:  # a step without prompts, which is no step
            return
        order, ids = sort_ids(ids)
        outcomes: list[Any] = [successes[order], trials[order]]
        if weights is not None:
            outcomes += [weights[order] * outcome for outcome in outcomes]
        ids, _, successes, trials, *counted = merge_repeats(ids, *outcomes)
        # Mostly these are the prompts of the last step, whose rows are known: a prompt never changes its row.
        last_ids, last_rows = self._last_distinct
        rows = last_rows if np.array_equal(ids, last_ids) else self.table.rows(ids)
        pending = self._pending(rows)
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
        if self.beliefs is not None:
            evidence = [outcome[visited] for outcome in counted] or (successes, trials)
            self.beliefs.observe(rows, *evidence)

    def _pending(self, rows: Ints) -> Ints:
        """Return the rollouts of `rows` that were allocated and not observed yet; 0 for a row of -1."""
        return np.where(rows >= 0, self.table["pending"][rows] if len(self.table) else 0, 0)

    def _all_scalars(self) -> dict[str, float]:
        return ({} if self.beliefs is None else self.beliefs.scalars()) | self._scalars()

    def _without_retired(self, table: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return `table` without a column that earlier versions kept for an option that is gone."""
        retired = (
            {"seen"} - set(self.table.names) if "forgetting_unit" not in option_names(type(self)) else set()
        )
        return {name: column for name, column in table.items() if name not in retired}

    def _check_state_options(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if a state was kept under another value of one of `state_options`."""
        for base in type(self).__mro__:
            for name in vars(base).get("state_options", ()):
                now, then = self._option(name), saved.get(name)
                if name in saved and not _is(then, now):
                    raise ValueError(
                        f"this state was kept with {name}={shown(then)}, and {name}={now} keeps other "
                        f"figures; set {name}={then}, or start a new run"
                    )

    def _check_ranges(self, values: Mapping[str, Any]) -> None:
        """Raise ValueError if a column or a number of a state lies where no run can have brought it."""
        known = {"allocated": (0, MOST_SAVED), "pending": (0, MOST_SAVED), **self.ranges}
        if self.beliefs is not None:
            known |= Beliefs.ranges
        for name, (low, high) in known.items():
            found = np.asarray(values.get(name, low))
            if ((found < low) | (found > high)).any():
                raise ValueError(
                    f"state holds {name}={found[(found < low) | (found > high)].ravel()[0]}, outside "
                    f"[{low}, {high}]; the file is damaged, take an earlier checkpoint"
                )
            if name in COUNTS and (found != np.floor(found)).any():
                raise ValueError(f"state holds {name}={found}, no whole number; the file is damaged")

    def _forget_last(self) -> None:
        self._last: Ints = np.zeros(0, np.int64)  # rollouts of the last step
        self._last_rows: Ints = self._last  # rows of its prompts, repeats included
        self._wished: Floats = np.zeros(0)  # of the step in hand: rollouts its prompts asked for
        # The sorted distinct ids of the last step, and their rows.
        self._last_distinct: tuple[Ids, Ints] = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    @staticmethod
    def _check_unsettled(step: Step) -> None:
        if not isinstance(step, Step):
            raise ValueError(f"step={shown(step)} is no step; settle what begin() returned")
        if step.settled:
            raise ValueError("this step was settled before; settle each step once")

    @staticmethod
    def _check_launched(step: Step, trials: Ints) -> None:
        """Raise ValueError if more came back than the step launched: it would be another step's."""
        if (trials > step.launched).any():
            worst = int(np.argmax(trials - step.launched))
            raise ValueError(
                f"trials={trials[worst]} for prompt {step.ids[worst]:#018x}, of which {step.launched[worst]} "
                "rollouts were launched; observe each rollout once"
            )

    @staticmethod
    def _checked_outcomes(
        prompt_ids: PromptIds, successes: ArrayLike, trials: ArrayLike, name: str = "trials"
    ) -> tuple[Ids, Floats, Ints]:
        """Return ids, successes and trials as arrays; `name` is what the caller calls trials."""
        ids = as_prompt_ids(prompt_ids)
        successes, trials = as_numbers("successes", successes), as_numbers(name, trials)
        for key, array in ((name, trials), ("successes", successes)):
            if array.shape != ids.shape:
                raise ValueError(
                    f"{key} has shape {array.shape}, prompt_ids has {ids.shape}; give one for each prompt"
                )
        if not (np.isfinite(trials) & (trials == np.floor(trials))).all():
            raise ValueError(f"{name}={trials.tolist()[:5]} must be whole numbers of rollouts")
        if (trials < 0).any():
            raise ValueError(f"{name}={trials.min():.0f} is negative; give a number of rollouts")
        if (trials > MOST_ROLLOUTS).any():
            raise ValueError(
                f"{name}={trials.max():.0f} is more than {MOST_ROLLOUTS}, the most that is counted"
            )
        trials = trials.astype(np.int64)
        bad = ~np.isfinite(successes) | (successes < 0) | (successes > trials)
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(
                f"successes={successes[at]} of trials={trials[at]} for prompt {ids[at]:#018x}: successes "
                "must be finite and in [0, trials]; map rewards to [0, 1] first"
            )
        return ids, successes, trials


def size_figures(rollouts: Ints) -> dict[str, float]:
    """Return figures of how many rollouts prompts get: "n/mean", "n/p90" and so on; none for no prompts."""
    if not rollouts.size:
        return {}
    figures = {
        "n/mean": float(rollouts.mean()),
        "n/min": float(rollouts.min()),
        "n/max": float(rollouts.max()),
        "n/std": float(rollouts.std()),
        "n/zero": float((rollouts == 0).mean()),
    }
    quantiles = (10, 50, 90)
    for quantile, n in zip(quantiles, np.percentile(rollouts, quantiles), strict=True):
        figures[f"n/p{quantile}"] = float(n)
    return figures


def _is(found: Any, wanted: str | int | None) -> bool:
    """Return whether a state has what is wanted; an array, say, is not compared with it."""
    return type(found) is type(wanted) and found == wanted


def _generator(state: Mapping[str, Any]) -> np.random.Generator:
    """Return a random generator in `state`. Raise ValueError if it can't be one."""
    rng = np.random.default_rng(0)
    try:
        figures = [*state["state"].values(), state["has_uint32"], state["uinteger"]]
        if any(type(figure) is not int for figure in figures):
            raise ValueError("it holds what is no integer")
        rng.bit_generator.state = dict(state)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"state's random generator can't be restored: {error}") from error
    return rng


def option_names(cls: type) -> list[str]:
    """Return the names of the options that a class takes: its own first, then inherited ones."""
    return list(_option_defaults(cls))


def option_defaults(cls: type) -> dict[str, Any]:
    """Return the options that a class takes, its own first, and their defaults (`Parameter.empty`: none)."""
    return dict(_option_defaults(cls))


@cache
def _option_defaults(cls: type) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            for parameter in inspect.signature(vars(base)["__init__"]).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in defaults:
                    defaults[parameter.name] = parameter.default
    return defaults
