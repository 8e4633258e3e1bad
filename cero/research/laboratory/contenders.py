"""What competes in the laboratory? A method of the simulator, and the shape of its steps behind an @.

    cero:signal_hard/n_min=1/n_max=1@n=1,batch=40,baseline=optimal

Before the @ stands what `cero.research.simulation.methods.parse_method` takes, behind it what else differs:

    n, batch    rollouts a prompt and prompts a step; their product is the step's budget
    candidates  prompts that a step draws, among which the budget is spent; all: the whole data set
                (without it: `batch` prompts)
    refresh     with candidates=all, after how many steps an oracle looks at all prompts again
    look        with value=given, prompts are worth the mean entropy of the first so many tokens of the
                likeliest response; 0: an oracle knows the truth
    lr          learning rate
    baseline    mean or optimal
    bucket      with baseline=optimal, what prompts share: family, kind or text (`cero.estimators.shared`)
    exact       1: each step costs its budget; 0: what the allocator asks for, within the run's budget

NAMED has short names for those that are compared most.
"""

from dataclasses import dataclass, replace

from cero.core.checks import check_choice
from cero.estimators.baseline import BASELINES
from cero.estimators.shared import TEXT
from cero.research.simulation.methods import Method, parse_method

SINGLE = "@n=1,batch=40,baseline=optimal"
BUCKETS = ("family", "kind", TEXT)
TOP = "oracle/pick=top/at_random=0.2"
NAMED = {
    "grpo": "uniform",
    "grpo-20x2": "uniform@n=2,batch=20",
    # 40 single rollouts a step with the optimal baseline: one for each prompt, or by CERO's prices, with a
    # fixed response or with one that follows its skill.
    "even": f"cero:signal_hard/n_min=1/n_max=1{SINGLE}",
    "even-family": f"cero:signal_hard/n_min=1/n_max=1{SINGLE},bucket=family",
    "even-text": f"cero:signal_hard/n_min=1/n_max=1{SINGLE},bucket=text",
    "cero": f"cero:signal_hard/response=4{SINGLE}",
    "cero-auto": f"cero:signal_hard/response=auto{SINGLE}",
    "cero-160": f"cero:signal_hard/response=4{SINGLE},candidates=160",
    # The same budget by the true success probability: among 160 candidates, in the loader's batch, or free.
    "oracle": f"oracle{SINGLE},candidates=160",
    "oracle-batch": f"oracle{SINGLE}",
    "oracle-free": f"oracle{SINGLE},candidates=all",
    # 40 of 160, a fifth of them at random: by the truth, by a noisy signal, and by either within strata.
    "top": f"{TOP}{SINGLE},candidates=160",
    "top-noise-3": f"{TOP}/noise=3{SINGLE},candidates=160",
    "top-within": f"{TOP}/strata=family{SINGLE},candidates=160",
    "top-within-noise-3": f"{TOP}/noise=3/strata=family{SINGLE},candidates=160",
    "top-within-noise-6": f"{TOP}/noise=6/strata=family{SINGLE},candidates=160",
    # The same by a signal that any model gives: the entropy of its next token, or of its next four.
    "look-within-1": f"{TOP}/value=given/strata=family{SINGLE},candidates=160,look=1",
    "look-within-4": f"{TOP}/value=given/strata=family{SINGLE},candidates=160,look=4",
    "look-1": f"{TOP}/value=given{SINGLE},candidates=160,look=1",
    # Beside the shared baseline. CERO ships as cero-auto-text.
    "cero-text": f"cero:signal_hard/response=4{SINGLE},bucket=text",
    "cero-auto-text": f"cero:signal_hard/response=auto{SINGLE},bucket=text",
    "oracle-text": f"oracle{SINGLE},candidates=160,bucket=text",
    "top-within-noise-3-text": f"{TOP}/noise=3/strata=family{SINGLE},candidates=160,bucket=text",
    "look-within-1-text": f"{TOP}/value=given/strata=family{SINGLE},candidates=160,bucket=text,look=1",
    "look-within-4-text": f"{TOP}/value=given/strata=family{SINGLE},candidates=160,bucket=text,look=4",
    # GRPO's groups of 8 and its advantage, with an oracle that knows every p.
    "oracle-batch-grpo": "oracle/estimator=grpo",
    "top-free-grpo": "oracle/pick=top/each=8/estimator=grpo@n=8,batch=16,candidates=all",
}


@dataclass(frozen=True)
class LabContender:
    """Describes what is trained: `method`, and what stands behind the @; candidates=0 stands for all."""

    label: str
    method: Method
    n: int
    batch: int
    lr: float
    candidates: int | None = None
    refresh: int = 8
    look: int = 0
    baseline: str = "mean"
    bucket: str | None = None
    exact: bool = True

    @property
    def step_budget(self):
        """Return the rollouts of a step."""
        return self.n * self.batch

    @property
    def written(self):
        """Return what the label stands for."""
        return NAMED.get(self.label, self.label)


def parse_contender(label, n=8, batch=16, lr=2e-4):
    """Return the `LabContender` that `label` names or spells; n, batch, lr : where it says nothing of them.

    Raises ValueError that names what is wrong.
    """
    written, _, more = NAMED.get(label, label).partition("@")
    own = dict(word.partition("=")[::2] for word in more.split(",")) if more else {}
    found = LabContender(label, parse_method(written), n, batch, lr)
    readers = {
        "n": int,
        "batch": int,
        "candidates": lambda word: 0 if word == "all" else int(word),
        "refresh": int,
        "look": int,
        "lr": float,
        "baseline": lambda word: check_choice("baseline", word, BASELINES),
        "bucket": lambda word: check_choice("bucket", word, BUCKETS),
        "exact": lambda word: check_choice("exact", word, ("0", "1")) == "1",
    }
    for key, word in own.items():
        if key not in readers:
            raise ValueError(f"contender {label!r}: behind the @ may stand {', '.join(readers)}, not {key!r}")
        try:
            found = replace(found, **{key: readers[key](word)})
        except ValueError as error:
            raise ValueError(f"contender {label!r}: {key}={word}: {error}") from error
    given = found.method.options.get("value") == "given"
    if found.look < 0 or given != (found.look > 0):
        raise ValueError(f"contender {label!r}: look={found.look} and value=given need each other")
    if found.bucket is not None and found.baseline != "optimal":
        raise ValueError(f"contender {label!r}: bucket={found.bucket} needs baseline=optimal")
    if min(found.n, found.batch, found.refresh) < 1 or (found.candidates or found.batch) < found.batch:
        raise ValueError(
            f"contender {label!r}: n, batch and refresh must be 1 or more, and candidates no fewer than batch"
        )
    return found
