"""Which methods are compared? Each is an allocator, its options and an estimator, written as one word."""

from dataclasses import dataclass, field, replace

from cero.allocators import allocator_class, available_allocators, make_allocator
from cero.allocators.base import option_names
from cero.estimators.advantage import ADVANTAGES, PROMPT_WEIGHTS
from cero.estimators.keep import KEEP
from cero.research.oracle import Oracle

WORDS = {"estimator": ADVANTAGES, "weight": PROMPT_WEIGHTS, "keep": KEEP}
NUMBERS = ("history", "ratio", "count", "pass_rates", "strength")
# What a run sets for all methods alike.
OF_THE_RUN = ("rollouts_per_prompt", "epochs", "seed", "total_budget")


@dataclass(frozen=True)
class Method:
    """Describes an allocator with its options, and how its rollouts are kept and weighed.

    label : name in tables
    allocator, options : for `make_allocator`, or "oracle" with those of `cero.research.oracle.Oracle`
    estimator, weight, history : of `cero.estimators.advantage.advantages`
    keep, ratio, count : of `cero.estimators.keep.kept`
    pass_rates : rollouts of each prompt from which its pass rate was measured before the run (0: none); they
    cost nothing and are worth `strength` pseudo-counts to the posterior
    even : every prompt gets rollouts_per_prompt; what the allocator learns goes to the estimator only
    """

    label: str
    allocator: str
    estimator: str = "posterior"
    weight: str = "trajectory"
    history: float = 8.0
    keep: str = "all"
    ratio: float = 1.0
    count: int = 4
    pass_rates: int = 0
    strength: float = 4.0
    even: bool = False
    options: dict = field(default_factory=dict)

    def make(self, **of_the_run):
        """Return the allocator.

        of_the_run : rollouts_per_prompt, epochs, seed, total_budget, n_min, n_max
        """
        known = option_names(class_of(self.allocator))  # not every rule has bounds
        options = {key: value for key, value in of_the_run.items() if key in known} | self.options
        if self.even:
            options["n_min"] = options["n_max"] = of_the_run["rollouts_per_prompt"]
        if self.allocator == Oracle.name:
            return Oracle(**options)
        return make_allocator(self.allocator, **options)


def class_of(allocator):
    """Return the class of an allocator, the oracle among them. Raises ValueError for an unknown name."""
    return Oracle if allocator == Oracle.name else allocator_class(allocator)


METHODS = {
    method.label: method
    for method in (
        Method("uniform", "uniform", "grpo"),
        # GRPO's allocation with the baseline of what was learned; `uniform` itself learns nothing.
        Method("even+posterior", "cero", "posterior", even=True),
        # The abstract's value; what ships is `cero:signal_hard`.
        Method("cero", "cero", "posterior", options={"value": "variance"}),
        Method("cero+grpo", "cero", "grpo", options={"value": "variance"}),
        Method("cero_resolve", "cero_resolve", "posterior", options={"value": "variance"}),
        Method("cero_resolve+grpo", "cero_resolve", "grpo", options={"value": "variance"}),
        Method("cero:signal+grpo", "cero", "grpo", options={"value": "signal"}),
        Method("cero:signal_hard+grpo", "cero", "grpo", options={"value": "signal_hard"}),
        Method("cero:signal_hard", "cero", "posterior", options={"value": "signal_hard"}),
        Method("cero:knapsack+grpo", "cero", "grpo", options={"value": "knapsack"}),
        # Peers with the estimator and the selection that they are published with.
        Method("aero", "aero", "aero", keep="aero"),
        Method("vip", "vip", "dr_grpo", options={"n_min": 4}),
        Method("knapsack", "knapsack", "grpo", options={"n_max": 128}),
        Method("reinforce_ada_est", "reinforce_ada_est", "ada_est"),
        Method("reinforce_ada_seq", "reinforce_ada_seq", "ada_global", keep="balanced"),
        Method("gdro", "gdro", "grpo"),
        Method("thompson", "thompson", "grpo"),
        Method("greso", "greso", "grpo", options={"n_min": 0}),
        Method("vigor", "vigor", "grpo"),
        Method("pilot_commit", "pilot_commit", "grpo"),
        Method("pods", "uniform", "grpo", keep="pods"),
        # It knows every success probability: the ceiling for what gives rollouts within a step's batch.
        Method("oracle", "oracle", "posterior", options={"n_min": 0}),
    )
}
# The others are measured against the first.
DEFAULT_METHODS = ["uniform", "even+posterior", "cero", "cero_resolve", "cero:signal_hard"]


def parse_method(label):
    """Return the `Method` written `base/key=value/...`, e.g. `cero/value=signal_hard/estimator=grpo`.

    base : one of METHODS, or any allocator (estimator "posterior")
    key : `estimator`, `weight`, `history`, `keep`, `ratio`, `count`, `pass_rates`, `strength`, or an option
    of the allocator
    value : a number, true, false, none, or a word

    Raises ValueError that names what there is.
    """
    base, *settings = label.split("/")
    if base in METHODS:
        found = METHODS[base]
    elif base in available_allocators():
        found = Method(label, base)
    else:
        raise ValueError(
            f"method {label!r}: {base!r} is not known; "
            f"choose of {', '.join([*METHODS, *available_allocators()])}"
        )
    options = dict(found.options)
    of_estimator = {}
    fixed = (*OF_THE_RUN, *(("n_min", "n_max") if found.even else ()))
    known = [key for key in option_names(class_of(found.allocator)) if key not in fixed]
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"method {label!r}: {setting!r} is not of the form key=value")
        value = typed(text)
        if key in WORDS:
            if value not in WORDS[key]:
                raise ValueError(f"method {label!r}: {key}={text!r} is none of {', '.join(WORDS[key])}")
            of_estimator[key] = value
        elif key in NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"method {label!r}: {key}={text!r} must be a number above 0")
            of_estimator[key] = value
        elif key in known:
            options[key] = value
        else:
            raise ValueError(
                f"method {label!r}: {key!r} is no option of {found.allocator!r}; "
                f"there are {', '.join([*WORDS, *NUMBERS, *known])}"
            )
    return replace(found, label=label, options=options, **of_estimator)


def typed(text):
    """Return `text` as int, float, True, False or None where it reads as one, else as it is."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
