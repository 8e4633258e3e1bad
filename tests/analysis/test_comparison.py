"""Several runs in one table and one picture."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cero.analysis.comparison import area, common_range, compare_runs, find_runs, gather
from cero.analysis.run import NoStepsError, TrainingRun
from cero.analysis.runlog import RunLog
from cero.cli.main import main


def write_job(folder, overrides, accuracies, allocator=None, per_step=32, signal=0.5):
    """A run of one step between validations; its log and what is written beside it."""
    log = RunLog(folder / "cero" / "allocations.jsonl")
    (folder / "cero").mkdir(parents=True)
    (folder / "cero" / "job.json").write_text(json.dumps({"overrides": overrides, "allocator": allocator}))
    for step, accuracy in enumerate(accuracies):
        if step:
            log.step(
                step=step,
                epoch=0,
                budget=per_step,
                spent=per_step * step,
                prompts=[f"{i:016x}" for i in range(4)],
                rollouts=[per_step // 4] * 4,
                successes=[0, 1, 2, 3],
                trials=[per_step // 4] * 4,
                metrics={
                    "cero/group/signal": signal,
                    "cero/score/prompt_mean": 0.3,
                    "timing_s/step": 2.0,
                    "cero/time/allocate": 0.001,
                    "cero/time/observe": 0.002,
                },
            )
        if accuracy is not None:
            log.validation(step, per_step * step, {"val-core/x/acc/mean@1": accuracy})


@pytest.fixture
def sweep(tmp_path):
    """A sweep of twelve jobs; number 10 failed before its first step, 11 before its log."""
    folder = tmp_path / "sweep"  # of its own: its parent is looked at, too
    shared = ["trainer.default_local_dir=${oc.env:CERO_JOB_DIR}", "+recipe=cero", "trainer.total_epochs=3"]
    for number in range(11):
        name = "cero" if number % 2 else "uniform"
        overrides = [
            *shared,
            f"allocator={name}",
            f"allocator.n_max={16 + number // 2}",
            "trainer.experiment_name=x",
        ]
        last = 0.5 + number / 100
        write_job(folder / str(number), overrides, [0.25, None, last] if number < 10 else [0.25], name)
    (folder / "11" / ".hydra").mkdir(parents=True)
    (folder / "multirun.yaml").write_text("")
    return folder


def test_jobs_are_found_in_natural_order(sweep):
    assert [path.name for path in find_runs([sweep])] == [str(number) for number in range(12)]
    assert find_runs([sweep.parent, sweep / "2"]) == find_runs([sweep])
    assert find_runs([f"{sweep}/1*"]) == [sweep / "1", sweep / "10", sweep / "11"]
    assert find_runs([sweep / "3", sweep / "2", sweep / "3"]) == [sweep / "3", sweep / "2"]
    assert find_runs([sweep / "3" / "cero" / "allocations.jsonl"])[0].name == "allocations.jsonl"


def test_folders_that_may_not_be_read_are_passed_over(sweep, monkeypatch):
    """Tests may run as root, whom nothing is denied: what such a folder does to others is played."""
    (sweep / "4a").mkdir()
    stat = Path.stat

    def denied(path, **options):
        if path.parent.name == "4a" or path.parent.parent.name == "4a":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", denied)
    assert [path.name for path in find_runs([sweep])] == [str(number) for number in range(12)]
    with pytest.raises(PermissionError):
        find_runs([sweep / "4a"])


@pytest.mark.parametrize("where", ["nowhere", "empty", "no*thing"])
def test_nothing_found(tmp_path, where):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no allocation log"):
        find_runs([tmp_path / where])


def test_runs_are_told_apart_by_what_differs(sweep):
    members, left_out = gather([sweep])
    assert len(members) == 10 and [path.rsplit("/", 1)[1] for path in left_out] == ["10", "11"]
    assert (
        "no training step" in left_out[str(sweep / "10")]
        and "no allocation log" in left_out[str(sweep / "11")]
    )
    assert members[3].settings == {"allocator": "cero", "allocator.n_max": "17"}
    assert [members[3].label, members[0].label] == ["cero n_max=17", "uniform n_max=16"]
    one, two = gather([sweep / "1", sweep / "3"])[0]  # the same allocator: no word of it
    assert (one.label, two.label, one.name) == ("n_max=16", "n_max=17", "1")


def test_alike_runs_go_by_their_folder(tmp_path):
    for name in ("a", "b"):
        write_job(tmp_path / name, ["+recipe=cero", "hydra.run.dir=" + name], [0.1, 0.2])
    assert [member.label for member in gather([tmp_path])[0]] == ["a", "b"]


def test_settings_with_the_same_last_word_keep_their_whole_key(tmp_path):
    write_job(tmp_path / "a", ["x.lr=1", "y.lr=1"], [0.1, 0.2])
    write_job(tmp_path / "b", ["x.lr=2", "++y.lr=2"], [0.1, 0.2])
    assert gather([tmp_path])[0][1].label == "x.lr=2 y.lr=2"


def test_every_run_has_words_of_its_own(tmp_path):
    """Where settings differ from some runs only, or in keys that end alike in different runs."""
    for name, override in {"a": "a.lr=1", "b": "a.lr=1", "c": "a.lr=2", "d": "b.lr=1"}.items():
        write_job(tmp_path / name, [override], [0.25, 0.5])
    labels = [member.label for member in gather([tmp_path])[0]]
    assert labels == ["a.lr=1 (a)", "a.lr=1 (b)", "a.lr=2", "b.lr=1"]


def test_a_run_and_its_log_are_one(tmp_path):
    write_job(tmp_path / "a", [], [0.25, 0.5])
    assert find_runs([tmp_path / "a", tmp_path / "a" / "cero" / "allocations.jsonl"]) == [tmp_path / "a"]


def test_nothing_is_cut_off_in_a_file(tmp_path, capsys):
    for end in "ab":
        write_job(tmp_path / ("x" * 150 + end), [], [0.25, 0.5])
    main(["report", str(tmp_path)])
    said = capsys.readouterr().out.replace("\n", "").replace("\u2502", "").replace(" ", "")
    assert "\u2026" not in said and said.count("x" * 20) >= 2


def test_drawn_values_are_rounded_where_they_are_words(tmp_path):
    write_job(tmp_path / "a", ["x.lr=0.860466514526368", "x.n=16"], [0.1, 0.2])
    write_job(tmp_path / "b", ["x.lr=1.23456789e-05", "x.n=32"], [0.1, 0.2])
    members = gather([tmp_path])[0]
    assert [member.label for member in members] == ["lr=0.8605 n=16", "lr=1.235e-05 n=32"]
    assert members[0].settings["x.lr"] == "0.860466514526368"


def test_overrides_from_hydras_own_folder(tmp_path):
    """Runs from before the overrides were written beside the log."""
    pytest.importorskip("yaml")
    for name, place in (("a", ".hydra"), ("b", "hydra/.hydra")):
        write_job(tmp_path / name, [], [0.1, 0.2])
        (tmp_path / name / "cero" / "job.json").unlink()
        (tmp_path / name / place).mkdir(parents=True)
        (tmp_path / name / place / "overrides.yaml").write_text(f"- +recipe=cero\n- data.seed={name}\n")
        (tmp_path / name / place / "config.yaml").write_text("allocator:\n  name: cero\n")
    members = gather([tmp_path])[0]
    assert [(member.label, member.allocator) for member in members] == [
        ("seed=a", "cero"),
        ("seed=b", "cero"),
    ]


def test_area_is_the_mean_accuracy_over_what_all_have_spent(tmp_path):
    write_job(tmp_path / "a", [], [0.2, None, 0.4, 0.8])
    write_job(tmp_path / "b", [], [0.3, None, 0.5])
    a, b = gather([tmp_path])[0]
    assert common_range([a, b]) == (0, 64)
    assert area(a.run, (0, 64)) == pytest.approx(0.3) and area(b.run, (0, 64)) == pytest.approx(0.4)
    assert area(a.run, (0, 96)) == pytest.approx((0.3 * 64 + 0.6 * 32) / 96)
    assert area(a.run, (16, 48)) == pytest.approx(0.3)
    rows = compare_runs([a, b])
    assert [row["area"] for row in rows] == pytest.approx([0.3, 0.4])
    assert rows[0]["accuracy_after"] == 0.8 and rows[0]["rollouts"] == 96 and rows[0]["signal"] == 0.5


def test_area_needs_two_validations(tmp_path):
    write_job(tmp_path / "a", [], [None, None, 0.4])
    write_job(tmp_path / "b", [], [None, None, None])
    members, _ = gather([tmp_path])
    assert common_range(members) is None and [row["area"] for row in compare_runs(members)] == [None, None]
    spent, accuracy = TrainingRun.read(tmp_path / "a").accuracy()
    assert np.array_equal(spent, [64]) and np.array_equal(accuracy, [0.4])


@pytest.mark.slow
def test_command_table_picture_csv(sweep, capsys):
    main(["report", str(sweep), "--csv", str(sweep / "table.csv")])
    out = capsys.readouterr().out
    for words in ("10 runs", "n_max=20", "25.0 % -> 59.0 %", "0 to 64 rollouts", "50.0 %"):
        assert words in out, out
    assert f"Left out: {sweep}/10: no training step" in out
    assert (sweep / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with (sweep / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (
        rows[9]["settings"] == "allocator=cero allocator.n_max=20"
        and float(rows[9]["accuracy_after"]) == 0.59
    )
    assert rows[9]["budget"] == ""


def test_command_json(sweep, capsys):
    main(["report", str(sweep / "0"), str(sweep / "1"), "--json", "--out", str(sweep / "two.png")])
    found = json.loads(capsys.readouterr().out)
    assert [row["settings"] for row in found["runs"]] == [{"allocator": "uniform"}, {"allocator": "cero"}]
    assert found["area_over"] == [0, 64] and found["left_out"] == {} and (sweep / "two.png").exists()


def test_command_without_validations_draws_training_prompts(tmp_path, capsys):
    for name in ("a", "b"):
        write_job(tmp_path / name, [], [None, None])
    main(["report", str(tmp_path)])
    assert "%" in capsys.readouterr().out and (tmp_path / "report.png").exists()


@pytest.mark.slow
def test_one_run_below_a_folder_has_its_own_report(tmp_path, capsys):
    write_job(tmp_path / "only", [], [0.25, 0.75])
    main(["report", str(tmp_path)])
    assert "rollouts per prompt and step" in capsys.readouterr().out
    assert (tmp_path / "only" / "cero" / "report.png").exists()


def test_a_damaged_log_is_an_error_and_not_left_out(tmp_path):
    """Whatever the words of the error: what is left out is known by its class."""
    write_job(tmp_path / "a", [], [0.25, 0.75])
    write_job(tmp_path / "b", [], [0.25])
    log = tmp_path / "b" / "cero" / "allocations.jsonl"
    with pytest.raises(NoStepsError):
        TrainingRun.read(tmp_path / "b")
    log.write_text("no training step\n" + log.read_text())
    with pytest.raises(ValueError, match="line 1"):
        gather([tmp_path])


def test_nothing_but_failed_jobs(sweep, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(sweep / "10"), str(sweep / "11")])
    assert "no training step logged" in capsys.readouterr().err
