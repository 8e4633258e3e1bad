"""CERO: a price for each prompt, a price for the budget, both learned online (arXiv 2606.05606)."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from cero.allocators.base import Description
from cero.allocators.options import WithValue
from cero.allocators.skill import Skill
from cero.allocators.upfront import UpfrontAllocator
from cero.core import beta, duals
from cero.core.arrays import Floats, Ids, Ints
from cero.core.checks import MOST_SAVED, check_choice, check_number
from cero.core.utility import UTILITIES, UtilityName

Anchor = Literal["equal", "last"]
Primal = Literal["proximal", "bang_bang"]
StepRule = Literal["scaled", "plain"]
Averaging = Literal["none", "responses", "duals"]
FULL_RESPONSE = 4.0  # of response=auto, once the skill is FULL_SKILL or more
FULL_SKILL = 0.3


class Cero(WithValue, UpfrontAllocator):
    """Projected online gradient descent on the Fenchel duals of a saturating utility of cumulative rollouts.

    The posterior variance as value, the concave saturating utility, the prompt duals, the budget dual and
    their projected online gradient descent are from the paper's abstract. The paper's body was not available
    to this project. So the utilities' forms, the proximal response, the warm start and the step sizes below
    are this project's (docs/method/allocation.md).

    Parameters
    ----------
    n_min, n_max, value, forgetting : see `UpfrontAllocator`, `WithValue` and `Beliefs`
        The defaults are this project's (docs/results/study.md). Any prompt may be left out or get many. What
        counts is whether a hard prompt's group may hold both outcomes. Evidence lasts long enough to tell a
        solved prompt by single rollouts. The value in the paper's abstract is "variance".
    utility : "exp", "rational" or "log"
        Of a prompt's cumulative rollouts, see `cero.core.utility`; the first two saturate.
    saturation : float > 0
        The utility's scale, in units of epochs x rollouts_per_prompt: how far past its equal share a prompt
        stays worth paying for. If it is large, few prompts take all. If it is small, all get the same.
    response : float > 0, or "auto"
        How strongly rollouts follow prices: a prompt priced 10 % over the market asks for 10 % x response
        more rollouts. Where no step has a budget of its own (`allocate(ids, None)`), 2 is steadier than the
        default, because a strong response makes the price swing. "auto" goes from 0, where everyone gets the
        same, to 4. It grows with the square of how well the expected success rates have lately told prompts
        apart (`Skill`, full at 0.3). That is this project's. The duals' steps are those of 4 then, and with
        primal=bang_bang, which takes all it can, nothing else follows from it.
    anchor : "equal" or "last"
        The number of rollouts that a response starts from: rollouts_per_prompt, or what the prompt got at its
        last visit. Only "last" converges to the offline optimum of fixed utilities, because an anchor that
        stays put keeps pulling toward equality. "equal" is steadier over few epochs.
    prompt_step, budget_step : float >= 0
        Step sizes of the two duals, in units that make 1 a sensible size. They are divided by sqrt(epochs)
        and by the square root of the number of steps so far. 0 freezes a dual.
    warm_start : bool
        Whether the duals start at the optimum under the prior. If not, they start where nothing was allocated
        yet and the budget is free: slope 1 (mu_i = U_i'(0) = v_i) and price 0.
    primal : "proximal" or "bang_bang"
        How prices become rollouts. "bang_bang" is the plain dual's response: n_max to a prompt priced above
        the market, n_min to one below. Where a step has a budget, n_max goes to the highest prices, as far as
        the budget goes.
    step_rule : "scaled" or "plain"
        Units of the two steps: `duals.scaled_steps`, or the textbook's `duals.plain_steps`, both over
        sqrt(epochs).
    averaging : "none", "responses" or "duals"
        Ask for the running mean of a prompt's responses over its visits; or respond to the running means of
        its dual and of the price. Costs 8 bytes for each prompt.
    **options : see `WithBeliefs` and `UpfrontAllocator`

    The last four are switches on how plain the iteration is. docs/results/regret.md measures each.

    The state is a slope per prompt (column "slope"), warm-started at the optimum under the prior, and
    `price`, the budget's. With a budget given for each step (the default under verl) the budget binds by
    itself. The common shift that makes the step exact then plays the price's part, and `price` is what the
    market would ask. With `allocate(ids, budget=None)` the price decides how much the step spends. `demand`
    is what the last step asked for, in rollouts per prompt, before it was made to cost its budget.
    """

    name = "cero"
    state_options = ("averaging",)
    idle_beside = {"anchor": ("primal", ("bang_bang",))}  # a bang-bang response starts nowhere
    columns = {
        "slope": (np.float64, 0.0),  # 0: not priced yet
        "last": (np.float32, 0.0),  # rollouts at the last visit, before rounding
    }
    ranges = {
        "slope": (0.0, 1.0),
        "last": (0.0, 2.0**20),  # the largest n_max
        "visits": (0, MOST_SAVED),
        "steps": (0, MOST_SAVED),
        "price": (0.0, max(beta.BOUNDS.values())),
        "price_average": (0.0, max(beta.BOUNDS.values())),
        **Skill.ranges,
    }
    later_scalars = Skill.later_scalars

    def __init__(
        self,
        *,
        n_min: int = 0,
        n_max: int = 64,
        value: beta.Value = "signal_hard",
        utility: UtilityName = "exp",
        saturation: float = 1.0,
        response: float | Literal["auto"] = "auto",
        anchor: Anchor = "equal",
        prompt_step: float = 1.0,
        budget_step: float = 1.0,
        warm_start: bool = True,
        primal: Primal = "proximal",
        step_rule: StepRule = "scaled",
        averaging: Averaging = "none",
        forgetting: float | Literal["auto"] = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(n_min=n_min, n_max=n_max, value=value, forgetting=forgetting, **options)
        self.averaging = check_choice("averaging", averaging, get_args(Averaging))
        if averaging != "none":
            self.table.add_columns({"average": (np.float32, 0.0), "visits": (np.int32, 0)})
        self.utility = check_choice("utility", utility, UTILITIES)
        self.saturation = check_number("saturation", saturation, 0, 1e6, open_low=True)
        self._skill = Skill()  # whatever the response is, so that a run may go on with auto
        self.response = response
        self._full_response = FULL_RESPONSE
        if not self._follows_skill:
            self.response = check_number("response (a number, or auto)", response, 0, 1e6, open_low=True)
            self._full_response = float(self.response)
        self.anchor = check_choice("anchor", anchor, get_args(Anchor))
        self.prompt_step = check_number("prompt_step", prompt_step, 0, 1e6)
        self.budget_step = check_number("budget_step", budget_step, 0, 1e6)
        self.warm_start = check_choice("warm_start", warm_start, (True, False))
        self.primal = check_choice("primal", primal, get_args(Primal))
        self.step_rule = check_choice("step_rule", step_rule, get_args(StepRule))
        self._utility = UTILITIES[utility]
        # The offline optimum under the prior gives everyone rollouts_per_prompt: that slope and its price are
        # the units, and the warm start.
        share = self.epochs * self.rollouts_per_prompt
        self._scale = self.saturation * share
        with np.errstate(over="ignore"):  # the slope is 0 then, and refused below
            self._slope_unit = float(self._utility.slope(share, self._scale))
        if self._slope_unit < duals.SLOPE_FLOOR:
            raise ValueError(
                f"saturation={saturation} with utility={utility}: a prompt's equal share would be worth "
                f"{self._slope_unit:.1e} of its first rollout, less than a price can be told from 0 "
                f"({duals.SLOPE_FLOOR}); raise saturation, e.g. to 0.1 or more"
            )
        self._price_unit = self.prior_value() * self._slope_unit
        self._first_slope = self._slope_unit if warm_start else 1.0
        self.price = self._price_unit if warm_start else 0.0
        self._price_average = self.price
        self._price_max = beta.BOUNDS[self.value]  # no price above the largest value moves anything
        self._steps = 0
        self.demand = float("nan")

    def _stored(self, column: str, rows: Ints, fresh: float) -> Floats:
        """Return `column` at `rows`; `fresh` for a prompt never allocated to (row -1, or no slope yet)."""
        values = np.full(rows.shape, float(fresh))
        known = np.flatnonzero(rows >= 0)
        known = known[self.table["slope"][rows[known]] > 0]
        values[known] = self.table[column][rows[known]]
        return values

    def prices(self, rows: Ints, column: str = "slope") -> Floats:
        """Return mu_i = v_i s_i of `rows`, in value per rollout; a row of -1 is a prompt never seen."""
        values = np.full(rows.shape, self.new_value())
        values[rows >= 0] = self.values(rows[rows >= 0])
        return values * self._stored(column, rows, self._first_slope)

    @property
    def _follows_skill(self) -> bool:
        return isinstance(self.response, str) and self.response == "auto"

    def _strength(self) -> float:
        """Return how strongly rollouts follow prices now."""
        if self.primal == "bang_bang":
            return duals.BANG_BANG
        if not self._follows_skill:
            return self._full_response
        return self._full_response * min(1.0, self._skill.value / FULL_SKILL) ** 2

    def _response(self, rows: Ints) -> Floats:
        nbar = self.rollouts_per_prompt
        anchor = (
            self._stored("last", rows, nbar) if self.anchor == "last" else np.full(rows.shape, float(nbar))
        )
        prices, price = self.prices(rows), self.price
        if self.averaging == "duals":
            prices, price = self.prices(rows, "average"), self._price_average
        asked = duals.response(anchor, prices, price, self._price_unit, nbar, self._strength())
        if self.averaging == "responses":
            asked = np.clip(asked, self.n_min, self.n_max)
            asked += (self._stored("average", rows, nbar) - asked) * (
                1.0 - 1.0 / (self._stored("visits", rows, 0) + 1)
            )
        return asked

    def _step_sizes(self) -> tuple[float, float]:
        """Return (slope per rollout, price per rollout) of the step in hand."""
        if self.step_rule == "plain":
            sizes = duals.plain_steps(self.prior_value(), self.rollouts_per_prompt, self.epochs)
        else:
            sizes = duals.scaled_steps(
                self._slope_unit,
                self._price_unit,
                self.rollouts_per_prompt,
                self.saturation,
                self._full_response,
                self.epochs,
                self._steps,
            )
        return self.prompt_step * sizes[0], self.budget_step * sizes[1]

    def _targets(self, rows: Ints, budget: int) -> Floats:
        asked = self._response(rows)
        self.demand = float(np.clip(asked, self.n_min, self.n_max).mean()) if rows.size else 0.0
        return asked

    def _own_budget(self, ids: Ids) -> int:
        wanted = np.clip(self._response(self.table.rows(ids)), self.n_min, self.n_max).sum()
        least = ids.size * self.n_min
        asked = round(float(wanted))
        return max(least, asked if self.ledger.left is None else min(asked, self.ledger.left))

    def _allocated(self, rows: Ints, shares: Floats, counts: Ints) -> None:
        if not rows.size:  # a step without prompts says nothing of the price
            return
        self._steps += 1
        prompt_step, budget_step = self._step_sizes()
        self.price = duals.price_step(
            self.price, self.rollouts_per_prompt, self.demand, budget_step, self._price_max
        )
        self._price_average += (self.price - self._price_average) / (self._steps + 1)
        # A prompt that occurs twice makes one step with the sum of its shares.
        rows, first, inverse, times = np.unique(
            rows, return_index=True, return_inverse=True, return_counts=True
        )
        shares = np.bincount(inverse, shares, rows.size).astype(np.float64, copy=False)
        self.table["last"][rows] = shares / times
        slopes = self._stored("slope", rows, self._first_slope)
        demand = self._utility.demand(slopes, self._scale) / self.epochs
        moved = duals.slope_step(slopes, shares, demand, prompt_step)
        if self.averaging != "none":
            self.table["visits"][rows] += 1
        if self.averaging == "responses":
            self.table["average"][rows] = self._wished[first]
        if self.averaging == "duals":  # of the slopes responded to so far and the new one
            average = self._stored("average", rows, self._first_slope)
            self.table["average"][rows] = average + (moved - average) / (self.table["visits"][rows] + 1)
        self.table["slope"][rows] = moved

    def _observed(self, rows: Ints, successes: Floats, trials: Ints) -> None:
        self._skill.observe(self.beliefs.mean(rows), successes, trials)

    def _scalars(self) -> dict[str, float]:
        average = {"price_average": float(self._price_average)} if self.averaging == "duals" else {}
        return {"price": float(self.price), "steps": self._steps} | average | self._skill.scalars()

    def _load_scalars(self, scalars: Mapping[str, float]) -> None:
        self.price, self._steps = float(scalars["price"]), int(scalars["steps"])
        self._price_average = float(scalars.get("price_average", self.price))
        self._skill.load_scalars(scalars)

    def metrics(self) -> dict[str, float]:
        figures = super().metrics()
        slopes = self.table["slope"][self._last_rows]
        figures["dual/budget"] = float(self.price)
        figures["posterior/skill"] = self._skill.value
        if self._follows_skill:
            figures["dual/response"] = self._strength()
        if slopes.size:
            figures |= {
                "dual/prompt_mean": float(slopes.mean()),
                "dual/prompt_min": float(slopes.min()),
                "dual/prompt_max": float(slopes.max()),
            }
        return figures

    def describe(self) -> Description:
        description = super().describe()
        slopes = self.table["slope"]
        description.columns["slope"] = np.where(slopes > 0, slopes, np.nan)
        description.columns["price"] = self.prices(np.arange(len(self.table)))
        if self.averaging != "none":
            description.columns["visits"] = self.table["visits"]
        description.steps, description.price = self._steps, float(self.price)
        return description
