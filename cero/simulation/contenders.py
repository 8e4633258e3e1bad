"""Who competes? An allocator with its options and the estimator it trains with, written as one word."""

from dataclasses import dataclass, field, replace

from cero.advantage import PROMPT_WEIGHTS
from cero.allocators import allocator_class, available_allocators, make_allocator
from cero.allocators.base import option_names
from cero.simulation.gradient import ESTIMATORS

# What a run decides for all contenders alike.
OF_THE_RUN = ("rollouts_per_prompt", "epochs", "seed", "total_budget")


@dataclass(frozen=True)
class Contender:
    """An allocator with its options, and the estimator it trains with.

    label : name in tables; allocator, options : for `make_allocator`; estimator : "grpo" or "cero";
    weight : "trajectory" or "prompt"; history : pseudo-rollouts of the estimator "cero", > 0
    """

    label: str
    allocator: str
    estimator: str = "cero"
    weight: str = "trajectory"
    history: float = 8.0
    options: dict = field(default_factory=dict)

    def make(self, **of_the_run):
        """The allocator for a run of that `rollouts_per_prompt`, `epochs`, `seed`, `total_budget`, `n_min`, `n_max`."""
        return make_allocator(self.allocator, **of_the_run | self.options)


NAMED = {
    contender.label: contender
    for contender in (
        Contender("uniform", "uniform", "grpo"),
        Contender("uniform+posterior", "uniform", "cero"),
        Contender("cero", "cero", "cero"),
        Contender("cero+grpo", "cero", "grpo"),
        Contender("cero_resolve", "cero_resolve", "cero"),
        Contender("cero_resolve+grpo", "cero_resolve", "grpo"),
        Contender("cero:signal+grpo", "cero", "grpo", options={"value": "signal"}),
        Contender("cero:signal_hard+grpo", "cero", "grpo", options={"value": "signal_hard"}),
        Contender("cero:signal_hard", "cero", "cero", options={"value": "signal_hard"}),
        Contender("cero:knapsack+grpo", "cero", "grpo", options={"value": "knapsack"}),
    )
}
# The first of the list is what the others are measured against.
DEFAULT = ["uniform", "uniform+posterior", "cero", "cero_resolve", "cero:signal_hard"]


def parse(label):
    """The contender written `base/key=value/key=value`, e.g. `cero/value=signal_hard/n_max=64/estimator=grpo`.

    base : one of NAMED, or any allocator (estimator "cero"); key : `estimator`, `weight`, `history`, or an option of
    the allocator; value : a number, true, false, none, or a word. Raises ValueError, naming what there is.
    """
    base, *settings = label.split("/")
    if base in NAMED:
        found = NAMED[base]
    elif base in available_allocators():
        found = Contender(label, base)
    else:
        raise ValueError(
            f"contender {label!r}: {base!r} is not known; choose of {', '.join([*NAMED, *available_allocators()])}"
        )
    options = dict(found.options)
    of_estimator = {}
    known = [key for key in option_names(allocator_class(found.allocator)) if key not in OF_THE_RUN]
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"contender {label!r}: {setting!r} is not of the form key=value")
        value = typed(text)
        if key in ("estimator", "weight"):
            choices = ESTIMATORS if key == "estimator" else PROMPT_WEIGHTS
            if value not in choices:
                raise ValueError(f"contender {label!r}: {key}={text!r} is none of {', '.join(choices)}")
            of_estimator[key] = value
        elif key == "history":
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"contender {label!r}: history={text!r} must be a number above 0")
            of_estimator[key] = float(value)
        elif key in known:
            options[key] = value
        else:
            raise ValueError(
                f"contender {label!r}: {key!r} is no option of {found.allocator!r}; "
                f"there are estimator, weight, history, {', '.join(known)}"
            )
    return replace(found, label=label, options=options, **of_estimator)


def typed(text):
    """`text` as int, float, True, False or None where it reads as one, else as it is."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
