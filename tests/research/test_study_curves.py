"""What the study makes of its runs: curves, paired comparisons with intervals, the report."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cero.research.study.curves import common, make_curve, read_curves
from cero.research.study.gains import (
    REFERENCE,
    Estimate,
    band,
    bootstrap_interval,
    duels,
    interquartile_mean,
    run_results,
    summarise_contenders,
)
from cero.research.study.study_report import write_study
from cero.research.study.tables import COLUMNS, write_table


def curve(accuracy, contender=REFERENCE, seed=0, spent=None, budget=40, **more):
    """A curve of interval 10 from its validations; a step costs 1 second and 70 tokens."""
    spent = np.arange(len(accuracy)) * 10.0 if spent is None else np.asarray(spent, float)
    steps = np.arange(len(accuracy), dtype=float)
    table = {
        "step": steps,
        "rollouts_spent": spent,
        "accuracy": np.asarray(accuracy, float),
        "tokens": np.where(steps > 0, 70.0, np.nan),
        "tokens_trained": np.where(steps > 0, 35.0, np.nan),
        "seconds": np.where(steps > 0, 1.0, np.nan),
    }
    about = {"task": "sums", "contender": contender, "group": "main", "split": "tune", "seed": seed}
    return make_curve(table, about | {"budget": budget, "interval": 10} | more)


def test_runs_of_two_budgets_are_not_compared(tmp_path):
    """Places of their curves would be compared that lie at different rollouts."""
    for contender, budget, interval in (("cero-n1", 80, 20), ("grpo", 40, 10)):
        rows = [
            dict.fromkeys(COLUMNS, "")
            | {"step": step, "rollouts_spent": step * interval, "accuracy": 0.1 * step}
            | {"seconds": 1.0}
            for step in range(5)
        ]  # fmt: skip
        about = {"task": "sums", "contender": contender, "group": "main", "split": "tune", "seed": 0}
        write_table(
            tmp_path / "sums" / contender / "0.csv", rows, about | {"budget": budget, "interval": interval}
        )
    message = "its budget is 40 rollouts, validated every 10, and other runs of sums have 80 and 20"
    with pytest.raises(ValueError, match=message):
        read_curves(tmp_path)
    said = []
    assert [curve.contender for curve in read_curves(tmp_path, said.append)] == ["cero-n1"]
    assert message in said[0]


@pytest.mark.parametrize("key, value", [("budget", 10**400), ("seed", float("inf")), ("interval", -1)])
def test_a_record_with_a_number_that_is_none(tmp_path, key, value):
    rows = [
        dict.fromkeys(COLUMNS, "") | {"step": i, "rollouts_spent": 10 * i, "accuracy": 0.5, "seconds": 1.0}
        for i in range(5)
    ]
    about = {"task": "sums", "contender": "grpo", "group": "main", "split": "tune", "seed": 0}
    for seed in (0, 1):
        record = about | {"seed": seed, "budget": 40, "interval": 10}
        write_table(
            tmp_path / "sums" / "grpo" / f"{seed}.csv", rows, record | ({key: value} if seed == 0 else {})
        )
    said = []
    assert [curve.seed for curve in read_curves(tmp_path, said.append)] == [1] and "0.csv" in said[0]


# ---- one run -------------------------------------------------------------------------------------


def test_curve_by_hand():
    one = curve([0.2, 0.4, 0.4, 0.6, 0.8])
    assert one.smooth.tolist() == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.7])
    assert one.final == pytest.approx(0.7)  # mean of 0.6 and 0.8
    assert one.area == pytest.approx((0.3 + 0.4 + 0.5 + 0.7) / 4)
    assert one.reach(0.35) == pytest.approx(15)
    assert one.reach(0.2) == 0 and np.isnan(one.reach(0.71))
    assert one.tokens.tolist() == [0, 70, 140, 210, 280] and one.tokens_trained == 140
    assert one.rollouts == 40 and one.step_seconds == 1


def test_curve_is_read_up_to_the_budget():
    """Steps of 25 rollouts: places in between are linear, what lies beyond 40 is not read."""
    one = curve([0.0, 0.25, 0.5, 1.0], spent=[0, 25, 50, 75])
    assert one.accuracy.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert one.rollouts == 40 and one.tokens[-1] == pytest.approx(70 * 40 / 25)
    assert one.tokens_trained == pytest.approx(35 * 40 / 25)


def test_curve_that_ends_early_stays():
    one = curve([0.0, 0.3, 0.5], spent=[0, 10, 20])
    assert one.accuracy.tolist() == pytest.approx([0, 0.3, 0.5, 0.5, 0.5])
    assert one.rollouts == 20 and one.tokens_trained == 70


def test_curve_needs_validations():
    with pytest.raises(ValueError, match="two validations"):
        curve([0.5])


# ---- many runs -----------------------------------------------------------------------------------


def test_interquartile_mean_by_hand():
    assert interquartile_mean([0.0, 1.0, 2.0, 100.0]) == 1.5
    assert interquartile_mean([-50.0, 1.0, 2.0, 3.0, 90.0]) == 2.0


def test_interval_by_hand():
    """Two values resample to means 0, 1/2, 1 with chances 1/4, 1/2, 1/4: the middle 95 % are all of it."""
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)
    assert bootstrap_interval([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3))
    assert np.isnan(bootstrap_interval([1.0])).all()
    # Of n normal values the bootstrap's interval is about mean +- 1.96 s sqrt((n-1)/n) / sqrt(n).
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(values.size)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_estimate_of_nothing():
    assert np.isnan([Estimate.of([]).mean, Estimate.of([]).low]).all()
    assert Estimate.of([2.0]).mean == 2.0 and np.isnan(Estimate.of([2.0]).low)


def test_runs_that_began_with_other_models_are_not_compared():
    mine = curve([0.0, 0.5, 1.0], "cero", budget=20, warm_start="b1")
    for theirs, paired in (("b1", 1), ("b2", 0), (None, 0)):
        baseline = curve([0.0, 0.5, 1.0], budget=20, warm_start=theirs)
        assert [s.paired for s in summarise_contenders([baseline, mine])] == [1, paired]
        assert (run_results([baseline, mine])[1]["rollouts_to_uniform_final"] is None) == (not paired)


def test_ratios_are_paired_and_censored():
    up = [0.0, 0.2, 0.4, 0.6, 0.8]  # smooth 0, 0.1, 0.3, 0.5, 0.7; final 0.7, which it reaches at 40
    curves = [
        curve(up, seed=0),
        curve([0.1, 0.1, 0.1, 0.1, 0.2], seed=1),  # smooth 0.1 and at last 0.15, which is final
        curve([0.0, 0.7, 0.7, 0.7, 0.7], "cero", seed=0),  # smooth 0, 0.35, 0.7: at 20
        curve([0.0, 0.1, 0.1, 0.1, 0.1], "cero", seed=1),  # never
        curve(up, "lonely", seed=7),  # no baseline
    ]
    rows = {(r["allocator"], r["seed"]): r for r in run_results(curves)}
    assert list(rows["grpo", 0]) == [
        "task", "allocator", "seed", "split", "rollouts_to_uniform_final", "final_accuracy", "auc",
        "rollouts", "tokens_trained", "step_seconds",
    ]  # fmt: skip
    assert rows["grpo", 0]["rollouts_to_uniform_final"] == pytest.approx(1)
    assert rows["cero", 0]["rollouts_to_uniform_final"] == pytest.approx(0.5)
    assert rows["cero", 1]["rollouts_to_uniform_final"] is None
    assert rows["lonely", 7]["rollouts_to_uniform_final"] is None
    assert rows["grpo", 0]["final_accuracy"] == pytest.approx(0.7) and rows["grpo", 0][
        "auc"
    ] == pytest.approx(0.4)
    json.dumps(list(rows.values()), allow_nan=False)

    by = {s.contender: s for s in summarise_contenders(curves)}
    assert (by["cero"].reached, by["cero"].paired, by["cero"].seeds) == (1, 2, 2)
    assert by["cero"].ratio.mean == pytest.approx((0.5 + 1.0) / 2)  # the censored run counts with the budget
    assert by["cero"].final_gain.mean == pytest.approx(((0.7 - 0.7) + (0.1 - 0.15)) / 2)
    assert by["grpo"].area_gain.mean == 0 and by["grpo"].ratio.mean == pytest.approx(1)
    assert by["lonely"].paired == 0 and np.isnan(by["lonely"].ratio.mean)


def test_opponents_that_got_worse_stay_in_the_table():
    """Of them there is no ratio, since they were at their end from the start; their gains are known."""
    rise, fall = [0.1, 0.3, 0.5, 0.5, 0.5], [0.3, 0.1, 0.1, 0.1, 0.1]
    curves = [curve(rise, "ours", seed=seed) for seed in (0, 1)]
    curves += [curve(fall, "worse", seed=0), curve(fall, "mixed", seed=0), curve(rise, "mixed", seed=1)]
    met = dict(duels(curves, "ours"))
    assert (met["worse"].paired, met["worse"].with_ratio) == (1, 0) and np.isnan(met["worse"].ratio.mean)
    assert met["worse"].final_gain.mean == pytest.approx(0.4)
    assert (met["mixed"].paired, met["mixed"].with_ratio, met["mixed"].reached) == (2, 1, 1)
    assert met["mixed"].final_gain.mean == pytest.approx(0.2)


def test_runs_are_compared_where_both_were_validated():
    whole, short = curve([0.0, 0.2, 0.4, 0.6, 0.8]), curve([0.0, 0.3, 0.5], budget=20)
    one, other = common(whole, short)
    assert one.accuracy.tolist() == [0.0, 0.2, 0.4] and one.budget == other.budget == 20
    assert one.tokens.size == one.seconds.size == 3 and other is short
    assert common(whole, whole) == (whole, whole)
    summary = summarise_contenders([whole, replace(short, contender="cero")])[1]
    assert summary.area_gain.mean == pytest.approx(short.area - 0.2)


def test_band():
    x, mean, low, high = band(
        [curve([0, 0.2, 0.4, 0.6, 0.8]), curve([0, 0.4, 0.8, 1, 1], seed=1)], "rollouts"
    )
    assert x.tolist() == [0, 10, 20, 30, 40] and mean.tolist() == pytest.approx([0, 0.3, 0.6, 0.8, 0.9])
    assert low[1] == pytest.approx(0.2) and high[1] == pytest.approx(0.4)
    assert band([curve([0, 0.2, 0.4, 0.6, 0.8])], "tokens")[0][-1] == 280


def test_duels():
    """The champion seed by seed against each opponent; where they share none, and ablations, are left out."""
    rise, slow = [0.1, 0.3, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]
    curves = [curve(rise, "ours", seed=seed) for seed in (0, 1)] + [
        curve(slow, "theirs", seed=1),
        curve(slow, "others", seed=7),
        replace(curve(slow, "x-1"), group="ablation:x"),
    ]
    ((opponent, met),) = duels(curves, "ours")
    assert opponent == "theirs" and met.contender == "ours" and (met.paired, met.reached) == (1, 1)
    assert met.final_gain.mean == pytest.approx(0.05) and met.area_gain.mean == pytest.approx(0.1)
    # Smoothed, `slow` ends at 0.45 after all of its budget, and `rise` is there at 0.45 between its third and
    # fourth.
    assert met.ratio.mean == pytest.approx(2.5 / 4)
    assert duels(curves, "nobody") == []


@pytest.mark.slow
def test_all_tasks_together(tmp_path):
    """A pair for each task, split and seed that both ran."""
    rise, slow = [0.1, 0.3, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]
    curves = [curve(rise, "ours", seed=seed) for seed in (0, 1)] + [
        curve(slow, "theirs", seed=1),
        curve(rise, "ours", task="more", split="confirm"),
        curve(rise, "theirs", task="more", split="confirm"),
        curve(slow, "theirs", task="others", seed=1),
        replace(curve(slow, "x-1"), group="ablation:x"),
    ]
    ((opponent, met),) = duels(curves, "ours")
    assert opponent == "theirs" and met.paired == 2
    assert met.final_gain.mean == pytest.approx(0.025) and met.area_gain.mean == pytest.approx(0.05)
    assert duels(curves, "nobody") == []
    write_study(curves, tmp_path, champion="ours")
    assert "together\n\n`ours` against each, a pair" in (tmp_path / "report.md").read_text()
    write_study([each for each in curves if each.task == "sums"], tmp_path, champion="ours")
    assert "together" not in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_report_of_one_contender(tmp_path):
    """Nothing to compare with, one seed: still a report."""
    assert all(path.exists() for path in write_study([curve([0.1, 0.2, 0.3, 0.4, 0.5], "cero")], tmp_path))
