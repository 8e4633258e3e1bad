"""How much does each contender gain? It is compared with the reference, seed by seed.

Seeds are few and shared: a contender's gain is the mean of its differences to the reference at the same seed.
Intervals are percentile bootstraps over seeds (SciPy), at 95 %.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from cero.analysis.reading import describe
from cero.research.ceiling import NO_SHARE, Share, separate_share
from cero.research.laboratory.results import FILES, ceilings
from cero.research.study.curves import common
from cero.research.study.plan import EVEN, REFERENCE

RESAMPLES = 9999


def interquartile_mean(values, axis=None):
    """Return the mean of the middle half of `values`: a quarter is cut from each end, rounded down."""
    return stats.trim_mean(values, 0.25, axis=axis)


def bootstrap_interval(values, statistic=np.mean):
    """Return (low, high) of `statistic` over the first axis of `values`; nan for a single seed.

    values : shape (seeds,) or (seeds, k)
    """
    values = np.asarray(values, np.float64)
    if values.shape[0] < 2 or not np.isfinite(values).all():
        blank = np.full(values.shape[1:], np.nan)
        return blank, blank
    result = stats.bootstrap(
        (values,),
        statistic,
        axis=0,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        random_state=np.random.default_rng(0),
    )
    return result.confidence_interval.low, result.confidence_interval.high


@dataclass(frozen=True)
class Estimate:
    """Holds a mean with its interval, and the interquartile mean; nan where unknown."""

    mean: float
    low: float
    high: float
    iqm: float

    @classmethod
    def of(cls, values):
        values = np.asarray(values, np.float64)
        if not values.size:
            return cls(*(math.nan,) * 4)
        low, high = bootstrap_interval(values)
        return cls(float(values.mean()), float(low), float(high), float(interquartile_mean(values)))


@dataclass(frozen=True)
class Summary:
    """Holds the figures of one contender on one task and split.

    seeds : number of runs
    final, area, tokens_trained, rollouts, step_seconds : Estimate over seeds; see `curves.LearningCurve`
    final_gain, area_gain : Estimate of paired differences to the reference
    ratio : Estimate of rollouts to reach the reference's final accuracy over the reference's own, paired; a
    run that never got there counts with the budget, so the true ratio is larger
    reached, with_ratio : how many runs got there, of how many whose reference got there after its start
    paired : how many runs have a reference at their seed
    train : Estimate of the final accuracy on train questions; nan where not measured
    share : Share of the ceiling, in area; see `read_ceilings`
    """

    task: str
    split: str
    contender: str
    group: str
    seeds: int
    final: Estimate
    area: Estimate
    tokens_trained: Estimate
    rollouts: Estimate
    step_seconds: Estimate
    final_gain: Estimate
    area_gain: Estimate
    ratio: Estimate
    reached: int
    with_ratio: int
    paired: int
    train: Estimate
    share: Share


def references(curves, label=REFERENCE):
    """Return the reference's curves: dict of `LearningCurve.match` -> LearningCurve."""
    return {c.match: c for c in curves if c.contender == label}


def ratio(curve, reference):
    """Return the rollouts to reach the final accuracy of `reference`, over those that it needs itself.

    nan if `curve` never gets there, or if the reference was there before it trained.
    """
    own = reference.reach(reference.final)
    return curve.reach(reference.final) / own if own > 0 else math.nan


def run_results(curves):
    """Return the content of results.json: one JSON-ready dict a run, None where unknown or never reached."""
    base = references(curves)
    out = []
    for curve in curves:
        pair = base.get(curve.match)
        reached = math.nan if pair is None else ratio(curve, pair)
        out.append(
            {
                "task": curve.task,
                "allocator": curve.contender,
                "seed": curve.seed,
                "split": curve.split,
                "rollouts_to_uniform_final": reached,
                "final_accuracy": curve.final,
                "auc": curve.area,
                "rollouts": round(curve.rollouts),
                "tokens_trained": curve.tokens_trained,
                "step_seconds": curve.step_seconds,
            }
        )
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        for record in out
    ]


def curves_by_task(curves):
    """Return the curves by (task, split) and then by contender: dict of dicts of lists."""
    found = {}
    for curve in curves:
        found.setdefault((curve.task, curve.split), {}).setdefault(curve.contender, []).append(curve)
    return found


def duels(curves, champion):
    """Compare the contender `champion` with each other one, ablations apart.

    There is a pair for each task and seed that both ran. Over several tasks only gains and ratio have a
    meaning: accuracies of different tasks have no common mean.

    Returns a list of (opponent's label, Summary of the champion's runs with that opponent as the reference).
    """
    mine = [curve for curve in curves if curve.contender == champion]
    opponents = {
        c.contender: None for c in curves if c.contender != champion and not c.group.startswith("ablation")
    }
    met = [(label, _summary(mine, references(curves, label))) for label in opponents] if mine else []
    return [(label, summary) for label, summary in met if summary.paired]


def read_ceilings(folder, tell=None):
    """Return what an oracle gains in area on each task: dict of task -> `cero.research.ceiling.MeanGain`.

    No run through verl can know success probabilities, so the ceiling is that of the laboratory's runs in
    `folder` (laboratory.jsonl, plain or .bz2), on the same task; {} without such a file.

    tell : None, or a function of a message (str), to which it is told that the file can't be read. There are
        no ceilings then.

    Raises OSError or ValueError, naming the file, for one that can't be read, unless there is `tell`.
    """
    paths = [path for path in (Path(folder) / name for name in FILES) if path.is_file()]
    try:
        return ceilings(paths[0]) if paths else {}
    except (OSError, ValueError) as error:
        if tell is None:
            raise
        tell(f"{describe(error)}; shares of the ceiling are left out")
        return {}


def summarise_contenders(curves, reference=REFERENCE, ceilings=None):
    """Return a `Summary` for each contender of each task and split, in order of appearance: list.

    reference : label of the contender that the others are compared with
    ceilings : of `read_ceilings`; None: shares of the ceiling stay unknown
    """
    base, even = references(curves, reference), references(curves, EVEN)
    return [
        _summary(mine, base, even, (ceilings or {}).get(mine[0].task))
        for contenders in curves_by_task(curves).values()
        for mine in contenders.values()
    ]


def _share(mine, even, ceiling):
    if ceiling is None or mine[0].contender == EVEN:
        return NO_SHARE
    return separate_share([c.area - even[c.match].area for c in mine if c.match in even], ceiling)


def _summary(mine, base, even=None, ceiling=None):
    first = mine[0]
    pairs = [common(c, base[c.match]) for c in mine if c.match in base]
    own = [(c, b, b.reach(b.final)) for c, b in pairs]
    # Where the reference itself was there at once, no ratio exists.
    own = [(c, b, rollouts) for c, b, rollouts in own if rollouts > 0]
    reached = np.array([c.reach(b.final) for c, b, _ in own])
    at_least = np.where(np.isfinite(reached), reached, [b.budget for _, b, _ in own])
    return Summary(
        task=first.task,
        split=first.split,
        contender=first.contender,
        group=first.group,
        seeds=len(mine),
        final=Estimate.of([c.final for c in mine]),
        area=Estimate.of([c.area for c in mine]),
        tokens_trained=Estimate.of([c.tokens_trained for c in mine]),
        rollouts=Estimate.of([c.rollouts for c in mine]),
        step_seconds=Estimate.of([c.step_seconds for c in mine]),
        final_gain=Estimate.of([c.final - b.final for c, b in pairs]),
        area_gain=Estimate.of([c.area - b.area for c, b in pairs]),
        ratio=Estimate.of(at_least / [rollouts for *_, rollouts in own] if own else []),
        reached=int(np.isfinite(reached).sum()),
        with_ratio=len(own),
        paired=len(pairs),
        train=Estimate.of([c.train_final for c in mine]),
        share=_share(mine, even or {}, ceiling),
    )


def band(curves, by):
    """Return the mean accuracy of some runs over what each had spent, with its interval.

    by : "rollouts", "tokens" or "seconds"

    Returns (x, mean, low, high), arrays of shape (k,); x ends where the first of the runs does.
    """
    spent = [curve.grid if by == "rollouts" else getattr(curve, by) for curve in curves]
    x = np.linspace(0, min(s[-1] for s in spent), curves[0].grid.size)
    accuracy = np.array([np.interp(x, s, curve.accuracy) for s, curve in zip(spent, curves, strict=True)])
    return x, accuracy.mean(axis=0), *bootstrap_interval(accuracy)
