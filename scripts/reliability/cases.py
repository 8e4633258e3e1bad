"""What is a case, and what must hold in it? Shared by fuzz.py, soak.py and their tests.

A case is one call with drawn input. `Finding` is raised where it breaks a promise:

- a call ends well, or is refused with ValueError or TypeError whose message names the key;
- what is refused has changed nothing;
- rollouts cost their budget exactly, within their bounds; nothing is nan; nothing is lost by saving.
"""

import datetime
import json
import math
import types
import typing
from decimal import Decimal
from fractions import Fraction

import numpy as np

from cero import available_allocators, make_allocator
from cero.allocators import allocator_class, option_names
from cero.allocators.rounds import OneRound
from cero.core.budget import Ledger, project_to_sum, round_to_sum
from cero.core.prompts import PromptTable, as_prompt_ids, prompt_id
from cero.core.state import load_state, save_state


class Finding(AssertionError):
    """Raised where a promise is broken."""


def need(condition, message):
    """Raise Finding with `message` unless `condition` holds."""
    if not condition:
        raise Finding(message)


# ---- odd values ----------------------------------------------------------------------------------

ODD = (
    None, True, False, 0, 1, -1, 2, 7, 0.0, -0.0, 0.5, 1.5, -2.5, 1e-320, 1e300, -1e300,
    math.nan, math.inf, -math.inf, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63), 10**400, -(10**400),
    "", "a", "1", "nan", "auto", "\0", "\ud800", b"", b"a", (), [], {}, [1], [1.5, "a"], [[1], [2]], {"a": 1},
    np.float32(1.1), np.float64(np.nan), np.int8(3), np.uint64(2**64 - 1), np.bool_(True), np.str_("x"),
    np.complex64(1),
    np.array(3), np.array(2.5), np.array([]), np.array([1, 2]), np.array([[1, 2]]), np.array(["a"]),
    np.array([None], object), np.array([np.nan, 1.0]), np.datetime64("NaT"), np.timedelta64(3, "D"),
    Decimal("2"), Decimal("1.5"), Decimal("NaN"), Decimal("sNaN"), Fraction(1, 3), Fraction(4, 2), 1 + 1j,
    range(3), set(), frozenset({1}), object(), object, len, Ellipsis, slice(1), datetime.date(2026, 1, 1),
    types.SimpleNamespace(a=1),
)  # fmt: skip


def odd(rng):
    """Return an odd value; now and then a short list or array of them."""
    value = ODD[rng.integers(len(ODD))]
    kind = rng.integers(12)
    if kind == 0:
        return [value, ODD[rng.integers(len(ODD))]]
    if kind == 1:
        return [value] * int(rng.integers(1, 6))
    return value


# ---- calls ---------------------------------------------------------------------------------------


def attempt(call, names, state_of=None):
    """Return (result, None), or (None, error) where `call()` was refused as it should be.

    names : words of which the refusal's message must have one
    state_of : function without arguments; what it returns must be the same after a refusal
    """
    before = None if state_of is None else state_of()
    try:
        return call(), None
    except (ValueError, TypeError) as error:
        message = str(error)
        need(any(name in message for name in names), f"refused without naming a key: {error!r}")
        if state_of is not None:
            need(state_of() == before, f"refused after it had changed something: {error!r}")
        return None, error
    except RuntimeWarning as warning:
        raise Finding(f"warned: {warning}") from warning
    except Exception as error:
        raise Finding(f"failed with {error!r}") from error


def snapshot(allocator):
    """Return all that an allocator's state holds, for a comparison."""
    table = allocator.table
    rng = allocator._rng.bit_generator.state
    return (
        allocator.ledger.spent,
        allocator.ledger.total,
        tuple(allocator._all_scalars().items()),
        rng["state"]["state"],
        rng["has_uint32"],
        tuple(table[name].tobytes() for name in table.names),
    )


def check_whole(allocator, shown=True):
    """Raise Finding unless what an allocator knows is finite, and what it shows too if `shown`."""
    for name in allocator.table.names:
        column = allocator.table[name]
        if column.dtype.kind == "f":
            need(np.isfinite(column).all(), f"column {name} is not finite")
        elif column.dtype.kind == "i" and name in ("allocated", "pending"):
            need(column.min(initial=0) >= 0, f"column {name} is negative")
    for source in (allocator._all_scalars(), allocator.metrics() if shown else {}):
        for key, value in source.items():
            need(math.isfinite(value), f"{key}={value}")


# ---- options -------------------------------------------------------------------------------------

_HINTS = {}


def hints(cls):
    """Return the types of a class's options: dict of name -> type."""
    if cls not in _HINTS:
        found = {}
        for base in reversed(cls.__mro__):
            if "__init__" in vars(base) and base is not object:
                found |= typing.get_type_hints(vars(base)["__init__"])
        _HINTS[cls] = {name: found[name] for name in option_names(cls)}
    return _HINTS[cls]


INTEGERS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 1024)
FLOATS = (
    0.0,
    1e-6,
    0.01,
    0.1,
    0.125,
    0.25,
    0.3,
    0.5,
    0.7,
    0.75,
    0.9,
    0.95,
    1.0,
    1.5,
    2.0,
    4.0,
    10.0,
    1e4,
    1e6,
)


def draw_option(rng, hint):
    """Return a value of an option's type, in range or not."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if typing.get_origin(hint) is typing.Union:
        kinds = typing.get_args(hint)
    kind = kinds[rng.integers(len(kinds))]
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        return choices[rng.integers(len(choices))]
    if kind is type(None):
        return None
    if kind is bool:
        return bool(rng.integers(2))
    if kind is int:
        return int(INTEGERS[rng.integers(len(INTEGERS))])
    if rng.integers(3) == 0:
        return float(10.0 ** rng.uniform(-6, 4))
    return float(FLOATS[rng.integers(len(FLOATS))])


def draw_options(rng, name, most=5):
    """Return options of an allocator that may fit: the needed ones, and up to `most` others."""
    cls = allocator_class(name)
    known = hints(cls)
    options = {"rollouts_per_prompt": int(rng.integers(1, 17)), "epochs": int(rng.integers(1, 30))}
    if cls.examples and rng.integers(2):
        options |= cls.examples[rng.integers(len(cls.examples))]
    for key in rng.permutation(list(known))[: rng.integers(most + 1)]:
        options[str(key)] = draw_option(rng, known[str(key)])
    if options.get("predictor") == "gp":
        options["predictor"] = "posterior"  # a Gaussian process takes milliseconds a step
    options["seed"] = int(rng.integers(2**31))
    if options.get("total_budget") is not None:
        options["total_budget"] = int(rng.integers(0, 4000))
    return options


def make(rng, name):
    """Return (allocator, its options), drawn until they fit."""
    for _ in range(200):
        options = draw_options(rng, name)
        allocator, _ = attempt(lambda options=options: make_allocator(name, **options), hints_of(name))
        if allocator is not None:
            return allocator, options
    raise Finding(f"no options of {name} fit")


def hints_of(name):
    """Return the names of an allocator's options."""
    return list(hints(allocator_class(name)))


def check_options(name, options):
    """One case: an allocator is made, or refused with the name of an option. Returns it, or None."""
    allocator, _ = attempt(lambda: make_allocator(name, **options), [*hints_of(name), *options])
    if allocator is not None:
        check_whole(allocator)
        again = make_allocator(name, **allocator.options(), total_budget=allocator.ledger.total)
        need(again.options() == allocator.options(), "options() do not make the same allocator")
    return allocator


def option_cases(rng):
    """Yield after each case: options as drawn, half of them with an odd value among them."""
    names = available_allocators()
    while True:
        name = names[rng.integers(len(names))]
        options = draw_options(rng, name)
        if rng.integers(2):
            known = hints_of(name)
            options[known[rng.integers(len(known))]] = odd(rng)
        if rng.integers(50) == 0:
            options["luck"] = odd(rng)
        check_options(name, options)
        yield name


# ---- an allocator's life -------------------------------------------------------------------------


class Life:
    """Holds an allocator that is driven by drawn calls, and perhaps a twin that gets the same ones."""

    def __init__(self, rng, name):
        self.rng, self.name = rng, name
        self.allocator, self.options = make(rng, name)
        self.twin = make_allocator(name, **self.options) if rng.integers(3) == 0 else None
        self.pool = rng.integers(0, 2**64, 24, dtype=np.uint64)
        self.pool[:3] = 0, 1, 2**64 - 1
        self.steps = []  # begun and not settled

    @property
    def everyone(self):
        return [self.allocator] if self.twin is None else [self.allocator, self.twin]

    def state_of(self):
        return snapshot(self.allocator)

    def draw_ids(self, most=10):
        """Return ids of a step; repeats are likely."""
        n = (
            int(self.rng.integers(0, most + 1))
            if self.rng.integers(20) == 0
            else int(self.rng.integers(1, most + 1))
        )
        return self.pool[self.rng.integers(0, self.pool.size, n)]

    def bounds(self):
        """Return (least, most) rollouts of a prompt in a step."""
        return getattr(self.allocator, "n_min", 0), self.allocator.n_max

    # ---- calls that must end well ----------------------------------------------------------------

    def begin(self):
        """Begin a step with a budget that can be met, or with none named, and keep it."""
        ids, rng, allocator = self.draw_ids(), self.rng, self.allocator
        low, high = self.bounds()
        least, most, left = ids.size * low, ids.size * high, allocator.ledger.left
        budget = None
        if rng.integers(4):
            most = least + min(most - least, 60 * ids.size)  # an optimum found exactly takes longer
            if left is not None and least > left:
                _, error = attempt(lambda: allocator.begin(ids, least), ["total_budget"], self.state_of)
                need(error is not None, "a step beyond the run's budget was begun")
                return
            budget = int(rng.integers(least, (most if left is None else min(most, left)) + 1))
        generators = []
        spent = allocator.ledger.spent
        for each in self.everyone:
            step, error = attempt(
                lambda each=each: each.begin(ids, budget),
                ["budget", "solver"],
                lambda each=each: snapshot(each),
            )
            if error is not None:
                # Left open, a budget may be more than the run has left; an exact optimum may be too large.
                need(budget is None or "solver=exact" in str(error), f"refused: {error!r}")
                return
            generators.append(step)
        step = generators[0]
        need(step.cap == allocator.ledger.spent - spent, "the ledger does not have the step's budget")
        need(budget is None or step.cap == budget, "a step costs another budget")
        self.steps.append(generators)
        check_whole(allocator)

    def play(self):
        """Sample a step to its end, prompts reporting in any order, some rollouts lost; and settle it."""
        if not self.steps:
            self.begin()
            return
        rng = self.rng
        steps = self.steps.pop(int(rng.integers(len(self.steps))))
        seed, lost = int(rng.integers(2**31)), rng.choice([0.0, 0.0, 0.3])
        fractional = bool(rng.integers(2))
        results = []
        for allocator, step in zip(self.everyone, steps, strict=False):
            play_step(step, np.random.default_rng(seed), lost, fractional, self.bounds())
            before = allocator.ledger.spent
            _, error = attempt(lambda a=allocator, s=step: a.settle(s, s.successes, s.trials), ["never"])
            need(error is None, "a step that was played is not settled")
            need(allocator.ledger.spent == before - step.left, "what was not launched is not refunded")
            _, error = attempt(
                lambda a=allocator, s=step: a.settle(s, s.successes, s.trials),
                ["settled before"],
                lambda a=allocator: snapshot(a),
            )
            need(error is not None, "a step was settled twice")
            results.append((step.launched.tolist(), snapshot(allocator)))
            check_whole(allocator)
        need(len(results) < 2 or results[0] == results[1], "the same calls gave another allocation")

    def reload(self):
        """Go on with a new allocator that loads this one's state, in the place of this one."""
        seed = self.options["seed"] + 1
        new = make_allocator(self.name, **(self.options | {"seed": seed}))
        new.load_state_dict(self.allocator.state_dict())
        need(snapshot(new) == snapshot(self.allocator), "a state is not what was saved")
        self.allocator = new

    def look(self):
        """Ask for what is known."""
        means, _ = attempt(lambda: self.allocator.success_mean(self.draw_ids()), ["never"], self.state_of)
        need(((means >= 0) & (means <= 1)).all(), "a success probability outside [0, 1]")
        need(
            1 <= self.allocator.least_rollouts() <= self.allocator.n_max,
            "least_rollouts is no number of rollouts",
        )
        found = self.allocator.describe()
        for name, column in found.columns.items():
            need(column.shape == (len(self.allocator.table),), f"described {name} has another shape")
            need(name == "slope" or np.isfinite(column).all(), f"described {name} is not finite")

    def rates(self):
        """Start prompts at pass rates."""
        ids = self.draw_ids()
        rates = self.rng.random(ids.size)
        rates[self.rng.random(ids.size) < 0.3] = np.nan
        strength = float(10.0 ** self.rng.uniform(-3, 3))
        for each in self.everyone:
            _, error = attempt(
                lambda each=each: each.set_pass_rates(ids, rates, strength),
                ["posterior"],
                lambda e=each: snapshot(e),
            )
            need(error is None or each.beliefs is None, "pass rates are refused")

    # ---- calls with odd input --------------------------------------------------------------------

    def odd_begin(self):
        """Begin a step with odd ids or an odd budget; what is taken is a step like any other."""
        rng, allocator = self.rng, self.allocator
        ids, budget = self.draw_ids(), odd(rng)
        if rng.integers(2):
            ids, budget = odd(rng), None
        low, high = self.bounds()
        if isinstance(budget, int) and rng.integers(2):
            budget = int(ids.size * (high + 1) if rng.integers(2) else ids.size * low - 1)
        names = ["budget", "prompt_ids", "n_max", "solver"]
        step, error = attempt(lambda: allocator.begin(ids, budget), names, self.state_of)
        if error is None:
            check_whole(allocator)
            need(budget is None or step.cap == budget, "another budget than was asked for")
            self.twin = None
            self.steps.append([step])

    def odd_settle(self):
        """Settle a step with odd outcomes, which is refused or leaves a whole state."""
        if not self.steps:
            return
        rng, allocator = self.rng, self.allocator
        step = self.steps[-1][0]
        n = step.ids.size
        outcomes = []
        for _ in range(2):
            values = odd(rng)
            kind = rng.integers(3)
            if kind == 0:
                values = np.resize(np.asarray([0, 1, 2, 0.5, -1, np.nan, np.inf, 1e18], float), n)[
                    rng.permutation(n)
                ]
            elif kind == 1:
                values = [values] * n
            outcomes.append(values)
        _, error = attempt(lambda: allocator.settle(step, *outcomes), ["successes", "trials"], self.state_of)
        if error is None:
            self.steps.pop()
            self.twin = None
            check_whole(allocator)

    def odd_rates(self):
        """Give odd pass rates, strengths or ids."""
        allocator, rng = self.allocator, self.rng
        ids = self.draw_ids() if rng.integers(2) else odd(rng)
        rates = (
            [odd(rng)] * len(ids)
            if isinstance(ids, np.ndarray) and ids.ndim and rng.integers(2)
            else odd(rng)
        )
        strength = odd(rng) if rng.integers(2) else 4.0
        names = ["pass_rates", "prompt_ids", "strength", "posterior"]
        _, error = attempt(lambda: allocator.set_pass_rates(ids, rates, strength), names, self.state_of)
        if error is None:
            self.twin = None
            check_whole(allocator)

    def odd_report(self):
        """Report what no prompt can report; a sequential rule's step and any other take the same."""
        if not self.steps:
            return
        rng, step = self.rng, self.steps[-1][0]

        def state_of():
            return tuple(
                getattr(step, name).tobytes()
                for name in ("launched", "trials", "successes", "rounds", "_in_flight", "_over")
            )

        prompt = odd(rng) if rng.integers(2) else int(rng.integers(-2, step.ids.size + 2))
        _, error = attempt(
            lambda: step.report(prompt, odd(rng), odd(rng)), ["prompt", "successes", "trials"], state_of
        )
        if error is None:
            self.steps.pop()  # its course is another now
            self.twin = None

    def odd_state(self):
        """Load a state with one thing changed: it is refused, or makes an allocator that works."""
        state = self.allocator.state_dict()
        changed = damage_state(self.rng, state)
        new = make_allocator(self.name, **self.options)
        names = [
            "state", "scalar", "ledger", "column", "table", "generator", "total_budget", "allocator",
            "prompt", "version",
        ]  # fmt: skip
        _, error = attempt(lambda: new.load_state_dict(changed), names, lambda: snapshot(new))
        if error is None:
            check_whole(new)
            ids = self.draw_ids(4)
            if new.ledger.left is None or new.ledger.left >= ids.size * new.rollouts_per_prompt:
                step, refused = attempt(
                    lambda: new.begin(ids, ids.size * new.rollouts_per_prompt),
                    ["solver", "rollouts of one prompt"],
                )
                if refused is None:
                    play_step(step, np.random.default_rng(0), 0.0, False, self.bounds())
                    new.settle(step, step.successes, step.trials)
                    check_whole(new)


def play_step(step, rng, lost=0.0, fractional=False, bounds=(0, 2**31), together=1):
    """Play a step to its end: prompts report in a drawn order, a share `lost` of them less than they flew.

    together : most prompts that report at once
    """
    low, high = bounds
    counts = step.start()
    need(counts.dtype == np.int64 and counts.shape == step.ids.shape, "rollouts of another shape")
    flying = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    while flying:
        prompts = list(flying)
        size = 1 if together == 1 else int(rng.integers(1, min(together, len(prompts)) + 1))
        prompts = [prompts[i] for i in rng.permutation(len(prompts))[:size]]
        flown = np.array([flying.pop(prompt) for prompt in prompts])
        came = np.where(rng.random(size) < lost, (flown * rng.random(size)).astype(np.int64), flown)
        won = rng.binomial(came, 0.5) * (rng.random(size) if fractional else 1.0)
        if size == 1:
            answer = step.report(prompts[0], float(won[0]), int(came[0]))
        else:
            answer = step.report_all(prompts, won, came)
        need(not set(answer) & set(flying), "a prompt is asked that has not reported")
        flying |= {i: n for i, n in answer.items() if n}
    launched = step.launched
    need(step.over, "nothing flies, and the step is not over")
    need(
        launched.min(initial=high) >= low and launched.max(initial=0) <= high, "rollouts outside their bounds"
    )
    need(launched.sum() <= step.cap and step.left >= 0, "more rollouts than the step's budget")
    need(launched.sum() == step.cap or not isinstance(step, OneRound), "rollouts do not cost the budget")
    need(
        (step.trials <= launched).all() and (step.successes <= step.trials).all(), "more came back than flew"
    )


def damage_state(rng, state):
    """Return a state with one thing changed, or something else in its place."""
    state = {
        **state,
        "ledger": dict(state["ledger"]),
        "scalars": dict(state["scalars"]),
        "table": dict(state["table"]),
    }
    kind = rng.integers(8)
    if kind == 0:
        return odd(rng)
    if kind == 1:
        state.pop(list(state)[rng.integers(len(state))])
    elif kind == 2:
        state[list(state)[rng.integers(len(state))]] = odd(rng)
    elif kind == 3:
        part = state[("ledger", "scalars", "table", "rng")[rng.integers(4)]]
        if part is state["rng"]:
            part = state["rng"] = dict(part)
        if part:
            key = list(part)[rng.integers(len(part))]
            if rng.integers(3) == 0:
                part.pop(key)
            else:
                part[key] = odd(rng)
    elif kind == 4:
        state["rng"] = {**state["rng"], "state": {**state["rng"]["state"]}}
        state["rng"]["state"][("state", "inc")[rng.integers(2)]] = odd(rng)
    else:
        name = list(state["table"])[rng.integers(len(state["table"]))]
        column = state["table"][name].copy()
        if kind == 5 and column.size:
            numbers = np.array([-1, 2.0**31, 2.0**31 - 1, 2.0**30, np.nan, np.inf, -np.inf, 1e300, 0.5])
            with np.errstate(all="ignore"):
                column[rng.integers(column.size)] = numbers.astype(column.dtype)[rng.integers(numbers.size)]
        elif kind == 6:
            column = column.astype((np.float32, np.int8, np.int64, object, "U3")[rng.integers(5)])
        else:
            column = (column[:-1], column[None], np.tile(column, 2), column[::-1], np.zeros(0))[
                rng.integers(5)
            ]
        state["table"][name] = column
    return state


GOOD = ("begin", "play", "play", "begin", "play", "reload", "look", "rates")
ODD_CALLS = ("odd_begin", "odd_settle", "odd_rates", "odd_report", "odd_state")


def life_cases(rng):
    """Yield after each call of allocators' lives: some 40 calls each, a third of them odd."""
    names = available_allocators()
    while True:
        life = Life(rng, names[rng.integers(len(names))])
        for _ in range(40):
            calls = ODD_CALLS if rng.integers(3) == 0 else GOOD
            call = calls[rng.integers(len(calls))]
            try:
                getattr(life, call)()
            except Finding as finding:
                raise Finding(f"{life.name}, {call}, {life.options}: {finding}") from finding
            yield life.name


# ---- ids, budgets, ledgers -----------------------------------------------------------------------


def id_cases(rng):
    """Yield after each case: ids of any kind, and a table of prompts against a dict."""
    while True:
        table, oracle = PromptTable({"seen": (np.int32, 0)}), {}
        for _ in range(20):
            if rng.integers(2):
                kind = rng.integers(4)
                n = int(rng.integers(0, 30))
                values = rng.integers(0, 2**64, n, dtype=np.uint64) >> np.uint64(rng.integers(0, 64))
                given = values
                if kind == 1:
                    given = values.tolist()
                elif kind == 2:
                    given = [str(value) for value in values.tolist()]
                    values = np.array([prompt_id(text) for text in given], np.uint64)
                elif kind == 3:
                    given = values.astype(object)
                ids = as_prompt_ids(given)
                need(ids.dtype == np.uint64 and np.array_equal(ids, values), "ids are not those given")
                rows = table.rows(ids)
                need(rows.tolist() == [oracle.get(i, -1) for i in ids.tolist()], "a row is another's")
                for value in sorted(set(ids.tolist()) - set(oracle)):
                    oracle[value] = len(oracle)
                rows = table.add(ids)
                need(rows.tolist() == [oracle[i] for i in ids.tolist()], "a row is another's once added")
                need(len(table) == len(oracle), "a table of another size")
            else:
                value = odd(rng)
                ids, error = attempt(lambda value=value: as_prompt_ids(value), ["prompt_ids"])
                need(error is not None or (ids.dtype == np.uint64 and ids.ndim == 1), "ids that are none")
            yield "ids"


def budget_cases(rng):
    """Yield after each case: targets of any size made into rollouts that cost the budget."""
    while True:
        n = int(rng.integers(1, 40))
        n_min = int(rng.integers(0, 5))
        n_max = n_min + int(rng.integers(0, 60))
        budget = int(rng.integers(n * n_min, n * n_max + 1))
        targets = rng.normal(size=n) * 10.0 ** rng.uniform(-3, 12)
        if rng.integers(3) == 0:
            targets = np.round(targets)
        shares = project_to_sum(targets, budget, n_min, n_max)
        need(abs(shares.sum() - budget) <= 1e-6 * max(1, budget), "a projection with another sum")
        rounding = ("systematic", "largest_remainder")[rng.integers(2)]
        counts = round_to_sum(shares, budget, n_min, n_max, rng, rounding)
        need(counts.sum() == budget, "rollouts with another sum")
        need(n_min <= counts.min() and counts.max() <= n_max, "rollouts outside their bounds")
        yield "budgets"


def ledger_cases(rng):
    """Yield after each case: a ledger against two integers."""
    while True:
        value = odd(rng) if rng.integers(3) == 0 else int(rng.integers(0, 1000))
        ledger, error = attempt(lambda value=value: Ledger(value), ["total_budget"])
        if error is not None:
            yield "ledger"
            continue
        spent = 0
        for _ in range(15):
            value = odd(rng) if rng.integers(3) == 0 else int(rng.integers(0, 120))
            call = ("spend", "refund", "check")[rng.integers(3)]
            method = getattr(ledger, call)
            _, error = attempt(
                lambda method=method, value=value: method(value),
                ["spend", "refund", "budget"],
                ledger.state_dict,
            )
            if error is None and call != "check":
                spent += int(value) if call == "spend" else -int(value)
            need(ledger.spent == spent and 0 <= spent, "a ledger that counts wrongly")
            need(ledger.total is None or spent <= ledger.total, "more was spent than there is")
            state = ledger.state_dict()
            if rng.integers(4) == 0:
                state[("spent", "total")[rng.integers(2)]] = odd(rng)
            other = Ledger(ledger.total)
            _, error = attempt(
                lambda other=other, state=state: other.load_state_dict(state), ["ledger"], other.state_dict
            )
            need(error is not None or other.spent >= 0, "a ledger with a debt")
            yield "ledger"


# ---- files ---------------------------------------------------------------------------------------


def file_cases(rng, folder):
    """Yield after each case: a saved state, damaged, is refused or is what was saved."""
    names = available_allocators()
    path = folder / "allocator.npz"
    while True:
        name = names[rng.integers(len(names))]
        life = Life(rng, name)
        life.twin = None
        for _ in range(6):
            life.play()
        state = life.allocator.state_dict()
        save_state(state, path)
        whole = path.read_bytes()
        for _ in range(25):
            path.write_bytes(damage_bytes(rng, whole))
            found, error = attempt(lambda: load_state(path), ["allocator.npz"])
            if error is None:
                new = make_allocator(name, **life.options)
                _, error = attempt(
                    lambda new=new, found=found: new.load_state_dict(found),
                    ["state", "allocator", "prompt table"],
                    lambda new=new: snapshot(new),
                )
                need(
                    error is not None or snapshot(new) == snapshot(life.allocator),
                    "a damaged file passes for another state",
                )
            yield name
        path.write_bytes(whole)
        new = make_allocator(name, **life.options)
        new.load_state_dict(load_state(path))
        need(snapshot(new) == snapshot(life.allocator), "a file holds another state than was saved")


def damage_bytes(rng, whole):
    """Return bytes with some of them changed, gone, doubled or more."""
    data = bytearray(whole)
    at, size = int(rng.integers(len(data))), int(rng.integers(1, 65))
    kind = rng.integers(7)
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at : at + size] = bytes(len(data[at : at + size]))
    elif kind == 3:
        data[at : at + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
    elif kind == 4:
        del data[at : at + size]
    elif kind == 5:
        data += data[at:]
    else:
        data = bytearray(rng.integers(0, 256, size * 8, dtype=np.uint8).tobytes())
    return bytes(data)


# ---- logs ----------------------------------------------------------------------------------------


def line_cases(rng, folder):
    """Yield after each case: a log with lines that were damaged, or have an odd value, is read and told."""
    from cero.analysis.reading import one_line
    from cero.analysis.report import summarise_run
    from cero.analysis.run import NoStepsError, TrainingRun
    from cero.analysis.runlog import RunLog

    path = folder / "allocations.jsonl"
    while True:
        path.unlink(missing_ok=True)
        log = RunLog(path)
        for step in range(1, 4):
            prompts = [f"{i:016x}" for i in range(3)]
            log.step(
                step, 0, 12, 12 * step, prompts, [4] * 3, [1, 0.5, 4], [4] * 3, {"cero/group/signal": 0.5}
            )
            log.validation(step, 12 * step, {"val-core/x/acc/mean@1": 0.5})
        lines = path.read_bytes().splitlines(keepends=True)
        for _ in range(10):
            changed = list(lines)
            at = int(rng.integers(len(lines)))
            kind = rng.integers(3)
            if kind == 0:
                changed[at] = damage_bytes(rng, lines[at])
            elif kind == 1:
                changed.insert(int(rng.integers(len(lines) + 1)), lines[at])
            else:
                record = json.loads(lines[at])
                record[list(record)[rng.integers(len(record))]] = odd(rng)
                changed[at] = json.dumps(record, default=str).encode() + b"\n"
            path.write_bytes(b"".join(changed))
            told = []
            try:
                summary = summarise_run(TrainingRun.read(path, told.append))
                json.dumps(summary, allow_nan=False)
            except NoStepsError:
                pass
            except Exception as error:
                raise Finding(f"failed with {error!r}") from error
            for message in told:
                need(
                    str(path) in message and "line" in message and message == one_line(message),
                    f"told {message!r}",
                )
            yield "lines"
