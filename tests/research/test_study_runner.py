"""How are runs executed, and what is left of those that fail, hang or are interrupted?"""

import json
import os
import sys
import time

import psutil
import pytest
from stand_in import TASKS, plan, step_record

from cero.research.study.curves import read_curves
from cero.research.study.plan import lookup
from cero.research.study.runner import RunFailed, Runner
from cero.research.study.tables import read_table


def test_a_run_leaves_its_table(files, runner):
    run = plan(files)
    assert runner.state(run) == "new"
    seen = []
    about = runner.execute(run, lambda records: seen.append(len(records)))
    assert runner.state(run) == "finished" and seen[-1] == 7
    assert about["ended"] == "complete" and about["overrides"] == list(run.overrides)
    assert about["cores"] == os.cpu_count() and about["versions"]["numpy"] and about["warm_start"] is None
    table = read_table(runner.table(run))
    assert table["accuracy"][[0, 2, 4]].tolist() == pytest.approx([0.4, 0.6, 0.8])
    assert "{data}" in lookup(about["overrides"], "data.train_files")  # no paths of this machine
    assert runner.data(run.task).is_dir()
    # Other settings: neither finished nor overwritten unasked.
    assert runner.state(plan(files, "allocator.seed=5")) == "other"
    # What counts is what was set, not the order in which it was written; damaged records are other ones.
    record = runner.table(run).with_suffix(".json")
    for overrides, state in (
        (["data.seed=9", *reversed(run.overrides), f"data.seed={run.seed}"], "finished"),
        (list(run.overrides[1:]), "other"),
        ([1, None], "other"),
        (None, "other"),
        (7, "other"),
    ):
        record.write_text(json.dumps(about | {"overrides": overrides}))
        assert runner.state(run) == state


@pytest.mark.slow
def test_failures_are_recorded_and_tried_again(files, runner):
    run = plan(files, "+stub=fails")
    with pytest.raises(RunFailed, match="ended with 3: ValueError: no good"):
        runner.execute(run)
    assert runner.state(run) == "failed" and not runner.table(run).exists()
    assert "no good" in json.loads((runner.folder(run) / "failure.json").read_text())["error"]
    runner.execute(plan(files))
    assert runner.state(plan(files)) == "finished"
    with pytest.raises(RunFailed, match="at step 1 of 4"):
        runner.execute(plan(files, "+stub=short"))


def test_a_task_that_cannot_be_prepared(files, runner):
    files[0].write_text(TASKS.replace("import pathlib, sys;", "raise SystemExit('no disk');"))
    for _ in range(2):
        with pytest.raises(RunFailed, match="task sums: preparing it ended with 1: no disk"):
            runner.execute(plan(files))


def test_an_unfinished_run_starts_anew(files, runner):
    run = plan(files)
    log = runner.folder(run) / "cero" / "allocations.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps(step_record(step=1)) + '\n{"kind": "st')
    runner.execute(run)
    assert read_table(runner.table(run))["step"].tolist() == [0, 1, 2, 3, 4]


def test_a_run_beyond_the_budget_is_ended(files, runner):
    """Steps of 30 rollouts where 40 are the budget: ended after the validation at 60."""
    run = plan(files, "+stub=greedy")
    about = runner.execute(run)
    assert about["ended"] == "budget"
    assert read_table(runner.table(run))["rollouts_spent"].max() < 120
    (one,) = read_curves(runner.out)
    assert one.rollouts == 40


def gone(pid):
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not psutil.pid_exists(pid)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_no_process_is_left(files, runner):
    """Not by an interrupted run, nor by one that ends well but leaves an orphan in a session of its own."""

    def interrupt(records):
        if log.exists() and log.read_text().strip():
            raise KeyboardInterrupt

    run = plan(files, "+stub=hangs")
    log = runner.folder(run) / "train.log"
    with pytest.raises(KeyboardInterrupt):
        runner.execute(run, interrupt)
    assert gone(int(log.read_text()))
    assert runner.state(run) == "new"
    runner.execute(plan(files, "+stub=leaves"))
    assert gone(int(log.read_text()))


@pytest.mark.slow
def test_a_run_that_hangs_is_ended(files, runner):
    runner.stall = 0.5
    with pytest.raises(RunFailed, match="nothing was heard of it"):
        runner.execute(plan(files, "+stub=hangs"))


def test_one_at_a_time(runner):
    with runner.alone(), pytest.raises(ValueError, match="another benchmark runs"):
        with Runner(runner.out, runner.work).alone():
            pass


def test_benchmark_says_that_it_needs_verl(files, tmp_path):
    runner = Runner(tmp_path / "out", tmp_path / "work", [sys.executable, "-m", "no_such_package.main"])
    assert "verl is not installed" in runner.missing([plan(files)])
    assert Runner(tmp_path, tmp_path, [sys.executable, "-m", "json.tool"]).missing([plan(files)]) is None
