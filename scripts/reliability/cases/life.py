"""Which calls, in which order? Allocators' lives, in which a third of the calls are odd."""

import numpy as np

from cero import available_allocators, make_allocator
from cero.allocators.rounds import OneRound

from .damage import damage_state, odd
from .options import make
from .promises import Finding, attempt, check_whole, need, snapshot


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
