"""Shares of the ceiling: by hand, in the study's tables, and in the laboratory's."""

import bz2
import json
import math

import pytest

from cero.cli.main import main
from cero.research.ceiling import MeanGain, Share, paired_share, separate_share
from cero.research.laboratory.__main__ import main as laboratory
from cero.research.laboratory.results import (
    append,
    ceilings,
    draw,
    found_rows,
    key,
    read_records,
    read_results,
    table_rows,
    thirds,
)
from cero.research.study.curves import make_curve
from cero.research.study.gains import read_ceilings, summarise_contenders
from cero.research.study.study_report import SUMMARY_COLUMNS, summary_row
from cero.research.study.tables import TRAIN, make_table, read_table, write_table

# ---- by hand -------------------------------------------------------------------------------------


def test_mean_gain():
    gain = MeanGain.of([3.0, 4.0, 5.0])
    assert gain == pytest.approx((4.0, 1 / math.sqrt(3), 3))
    assert gain.is_above_zero  # 4 > 4.303 x 0.577
    assert not MeanGain.of([1.0, 9.0]).is_above_zero  # 5 < 12.7 x 4: two pairs say little
    assert not MeanGain.of([5.0]).is_above_zero and not MeanGain.of([]).is_above_zero
    assert not MeanGain.of([-3.0, -4.0, -5.0]).is_above_zero
    assert math.isnan(MeanGain.of([5.0]).error) and math.isnan(MeanGain.of([]).mean)


def test_paired_share():
    """Mean 2 of mean 4; residuals gain - ceiling / 2 are -0.5, 0, 0.5."""
    share = paired_share([1.0, 2.0, 3.0], [3.0, 4.0, 5.0])
    assert share == pytest.approx((0.5, 0.5 / math.sqrt(3) / 4)) and str(share) == "0.50 ± 0.07"
    assert paired_share([3.0, 4.0, 5.0], [3.0, 4.0, 5.0]) == pytest.approx((1.0, 0.0))
    assert str(paired_share([-1.0, -2.0, -3.0], [3.0, 4.0, 5.0])) == "-0.50 ± 0.07"


def test_no_share_of_a_ceiling_within_noise():
    for ceiling in ([1.0, -1.0, 0.5], [1.0, 9.0, -2.0], [-3.0, -4.0, -5.0]):
        assert str(paired_share([1.0, 2.0, 3.0], ceiling)) == "-"
    assert str(paired_share([1.0], [4.0])) == "-" and str(paired_share([], [])) == "-"


def test_separate_share():
    """Half of the ceiling; variances (0.577 / 4)^2 and (0.5 x 0.5 / 4)^2."""
    share = separate_share([1.0, 2.0, 3.0], MeanGain(4.0, 0.5, 6))
    assert share == pytest.approx((0.5, math.hypot(1 / math.sqrt(3), 0.25) / 4))
    assert str(separate_share([2.0], MeanGain(4.0, 0.5, 6))) == "0.50"  # one pair: no error
    assert str(separate_share([], MeanGain(4.0, 0.5, 6))) == "-"
    assert str(separate_share([2.0, 3.0], MeanGain(4.0, 3.0, 6))) == "-"
    assert str(Share(math.nan, math.nan)) == "-"


# ---- the laboratory's table ----------------------------------------------------------------------


def record(contender, seed, accuracy, task="sums", of_train=None, **more):
    return {
        "task": task, "contender": contender, "written": contender, "seed": seed, "budget": 40,
        "spent": [10 * k for k in range(len(accuracy))], "accuracy": accuracy,
        "train_accuracy": of_train or [min(each + 0.1, 1.0) for each in accuracy],
    } | more  # fmt: skip


def flat(level):
    return [level] * 5


@pytest.fixture
def file(tmp_path):
    """even at 0.5, the oracle 6, 8 and 10 points above it, cero half of that, all over the whole budget."""
    path = tmp_path / "laboratory.jsonl"
    for seed, ceiling in enumerate((0.06, 0.08, 0.10)):
        append(path, record("even", seed, flat(0.5)))
        append(path, record("oracle", seed, flat(0.5 + ceiling)))
        append(path, record("cero", seed, flat(0.5 + ceiling / 2)))
        append(path, record("even", seed, flat(0.5), task="flat"))
        append(path, record("oracle", seed, flat(0.5 + 0.01 * (seed - 1)), task="flat"))
    append(path, record("grpo", 0, [0.2, 0.3, 0.4, 0.5, 0.5]))
    return path


def test_table_by_hand(file):
    rows = {row[0]: row for row in table_rows(read_results(file)["sums"])}
    assert list(rows) == ["oracle", "cero", "even", "grpo"]  # by gain in area
    assert rows["oracle"][1:] == [
        "3", "58.0", "58.0", "68.0", "+8.0 ± 1.2", "+8.0 ± 1.2",
        "+8.0 ± 1.2, +8.0 ± 1.2, +8.0 ± 1.2", "1.00 ± 0.00", "0.00",
    ]  # fmt: skip
    assert rows["cero"][5:9] == [
        "+4.0 ± 0.6",
        "+4.0 ± 0.6",
        "+4.0 ± 0.6, +4.0 ± 0.6, +4.0 ± 0.6",
        "0.50 ± 0.00",
    ]
    assert rows["even"][5] == "+0.0 ± 0.0" and rows["even"][8] == "-"
    # One pair: no errors, and no ceiling that could be told from zero.
    assert rows["grpo"][1] == "1" and rows["grpo"][5] == "-11.2" and rows["grpo"][8] == "-"
    assert rows["grpo"][9] == "1.00"
    flat_rows = {row[0]: row for row in table_rows(read_results(file)["flat"])}
    assert flat_rows["oracle"][5] == "+0.0 ± 0.6" and flat_rows["oracle"][8] == "-"


def test_a_run_without_its_last_validation_is_compared_up_to_there(file, tmp_path):
    """As older runs are that stopped a few rollouts short of their budget."""
    for seed in range(3):
        append(file, record("short", seed, [0.5, 0.5, 0.6, 0.6]))
    append(file, record("short", 3, flat(0.6)))
    results = read_results(file)
    rows = {row[0]: row for row in table_rows(results["sums"])}
    # 0, 0, 10 and 10 points more at 0, 10, 20 and 30: 15 of 30 in area.
    assert rows["short"][5:7] == ["+5.0 ± 0.0", "+10.0 ± 0.0"]
    draw(results, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_thirds_by_hand(file):
    (rising,) = read_results(file)["sums"]["grpo"].values()
    # Linear from 0.2 at 0 to 0.5 at 30, then flat, of 40.
    assert thirds(rising) == pytest.approx([0.2667, 0.4, 0.4958], abs=1e-3)
    assert thirds(rising).mean() == pytest.approx(rising.area, abs=1e-3)


def test_files(file, tmp_path):
    """A torn line is replaced; packed files read alike; a run made twice counts once."""
    whole = file.read_bytes()
    packed = tmp_path / "packed.jsonl.bz2"
    packed.write_bytes(bz2.compress(whole))
    assert read_records(packed) == read_records(file)
    file.write_bytes(whole + b'{"task": "su')
    assert len(read_records(file)) == 16
    again = record("cero", 0, flat(0.9))
    append(file, again)
    records = read_records(file)
    assert len(records) == 16 and [r for r in records if key(r) == key(again)] == [again]
    append(file, record("cero", 7, flat(0.9), written="another"))
    with pytest.raises(ValueError, match="'cero' stands for 'cero' and for 'another'"):
        read_results(file)
    file.write_bytes(whole)
    append(file, record("cero", 7, flat(0.9), budget=20))
    with pytest.raises(ValueError, match="runs of sums have budgets of 40 and of 20 rollouts"):
        read_results(file)
    file.write_text('{"task": "sums"}\n')
    with pytest.raises(ValueError, match="run 1: it has no 'contender'"):
        read_results(file)
    file.write_text("no json\n")
    with pytest.raises(ValueError, match="laboratory.jsonl"):
        read_records(file)


def test_table_command(file, capsys):
    laboratory(["table", str(file), "--tasks", "sums", "--like", "cero"])
    shown = capsys.readouterr().out
    assert "## sums" in shown and "## flat" not in shown and "| cero | 3 |" in shown
    assert "rollouts to grpo's end" in shown
    for wrong in (["table", "nowhere.jsonl"], ["table", str(file), "--tasks", "nothing"]):
        with pytest.raises(SystemExit) as error:
            laboratory(wrong)
        assert error.value.code == 2 and capsys.readouterr().err.count("\n") == 1


# ---- the study's table ---------------------------------------------------------------------------


def study_curve(contender, seed, level, task="sums"):
    table = {
        name: [float("nan"), 1.0, 1.0] for name in ("tokens", "tokens_trained", "seconds")
    } | {"step": [0.0, 1.0, 2.0], "rollouts_spent": [0.0, 20.0, 40.0], "accuracy": [level] * 3}  # fmt: skip
    about = {"task": task, "contender": contender, "group": "main", "split": "tune", "seed": seed}
    import numpy as np

    columns = {name: np.array(column) for name, column in table.items()}
    columns[TRAIN] = np.array([0.1, float("nan"), 0.9])
    return make_curve(columns, about | {"budget": 40, "interval": 20})


@pytest.mark.slow
def test_study_has_the_laboratorys_ceiling(file):
    found = read_ceilings(file.parent)
    assert found == ceilings(file)
    assert found["sums"] == pytest.approx((0.08, 0.02 / math.sqrt(3), 3))
    assert read_ceilings(file.parent / "nowhere") == {}
    curves = [
        study_curve(label, seed, level, task)
        for task in ("sums", "flat", "unknown")
        for label, level in (("grpo", 0.4), ("even-n1", 0.5), ("cero-n1", 0.52))
        for seed in (0, 1)
    ]
    shares = {(s.task, s.contender): str(s.share) for s in summarise_contenders(curves, ceilings=found)}
    # 0.02 of 0.08; the error is the ceiling's alone, 0.25 x 0.0115 / 0.08.
    assert shares["sums", "cero-n1"] == "0.25 ± 0.04"
    assert shares["sums", "even-n1"] == "-" and shares["sums", "grpo"] == "-1.25 ± 0.18"
    assert {shares[task, "cero-n1"] for task in ("flat", "unknown")} == {"-"}
    assert {str(s.share) for s in summarise_contenders(curves)} == {"-"}
    row = dict(zip(SUMMARY_COLUMNS, summary_row(summarise_contenders(curves)[0]), strict=True))
    # The last two places of the grid: 0.5 and 0.9.
    assert row["train accuracy"] == "70.0 [70.0, 70.0]"


STEP = {
    "kind": "step", "step": 1, "epoch": 0, "budget": 8, "spent": 8, "prompts": ["a"], "rollouts": [8],
    "successes": [4], "trials": [8], "metrics": {"timing_s/step": 1.0},
}  # fmt: skip


def write_run(folder, contender, rows, budget):
    """Leave a run in `folder` as `cero benchmark` does; budget : int, its rollouts, validated every 8."""
    about = {
        "task": "sums", "contender": contender, "group": "main", "split": "tune", "seed": 0,
        "budget": budget, "interval": 8,
    }  # fmt: skip
    write_table(folder / "sums" / contender / "0.csv", rows, about)


def test_a_folder_of_runs_is_read_as_well(tmp_path):
    for name, reached in (("even-n1", 0.5), ("other", 0.75)):
        scores = [{"val-core/x/acc/mean@4": accuracy} for accuracy in (0.25, reached)]
        records = [
            {"kind": "validation", "step": at, "spent": 8 * at, "metrics": metrics}
            for at, metrics in enumerate(scores)
        ]
        write_run(tmp_path, name, make_table([*records, STEP]), budget=8)
    ((_, even), (_, other)) = read_results(tmp_path, "sums")["sums"].items()
    # 12.5 points more at the end's mean of two places, and a line that rises to 25 points more
    assert other[0].final - even[0].final == pytest.approx(0.125)
    row = table_rows(read_results(tmp_path)["sums"], even="even-n1")[0]
    assert row[:2] == ["other", "1"] and row[5:8] == ["+12.5", "+12.5", "+4.2, +12.5, +20.8"]
    assert read_results(tmp_path, "differences") == {}


@pytest.mark.slow
def test_train_accuracy_is_a_column_of_its_own(tmp_path, monkeypatch):
    """It is not taken for held-out accuracy; runs with and without it are packed together."""
    scores = {"val-core/cero/x/acc/mean@4": 0.5, "val-core/cero/x/train/acc/mean@1": 0.75}
    for name, metrics in (("with", scores), ("without", {"val-core/cero/x/acc/mean@4": 0.5})):
        records = [{"kind": "validation", "step": at, "spent": 8 * at, "metrics": metrics} for at in (0, 1)]
        rows = make_table([*records, STEP, STEP | {"step": 2, "spent": 16}])
        assert [row["accuracy"] for row in rows[:2]] == [0.5, 0.5] and math.isnan(rows[2]["accuracy"])
        assert (TRAIN in rows[0]) == (name == "with")
        write_run(tmp_path / "out", name, rows, budget=16)
    table = read_table(tmp_path / "out" / "sums" / "with" / "0.csv")
    assert table[TRAIN][:2].tolist() == [0.75, 0.75] and math.isnan(table[TRAIN][2])
    monkeypatch.chdir(tmp_path)
    main(["study", "out", "--out", "before", "--json"])
    main(["study", "out", "--out", "after", "--pack"])
    assert not list(tmp_path.glob("out/sums/*/*.csv"))
    for name in ("report.md", "results.json"):
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    assert "75.0" in (tmp_path / "after" / "report.md").read_text()
    assert json.loads((tmp_path / "after" / "results.json").read_text())


def test_value_found_by_hand():
    runs = [("look", (0.1, 0.15, 0.2)), ("look", (0.1, 0.19, 0.2)), ("best", (0.05, 0.25, 0.25))]
    records = [
        {"contender": label, "found": dict(zip(("offered", "bought", "best"), values, strict=True))}
        for label, values in (*runs, ("all of them", (0.1, 0.1, 0.1)))
    ]
    records.append({"contender": "even"})  # chooses nothing
    assert found_rows(records) == [
        ["best", "1", "0.050", "0.250", "0.250", "1.00"],
        ["look", "2", "0.100", "0.170", "0.200", "0.70 ± 0.20"],
    ]
    assert [cells[0] for cells in found_rows(records, like="oo")] == ["look"]
