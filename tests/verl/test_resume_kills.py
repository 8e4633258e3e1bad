"""A run that is killed anywhere around a checkpoint, and resumed, has lost nothing, and has nothing twice.

A kill leaves what is in the folder at that moment. So the folder is copied at each point while one run goes
on, and a run is resumed in each copy. A power failure leaves what was flushed to disk; that this is so before
the marker is written is looked at on its own.
"""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch
from one_process import Bench, marker

from cero.analysis import runlog
from cero.analysis.comparison import JOB_FILE
from cero.analysis.runlog import RunLog, read_log
from cero.core import state as state_module
from cero.core.state import BASELINE_FILE, COMMIT_MARKER, STATE_FILE, STEP_FILE, load_state
from cero.verl.preflight import Preflight
from cero.verl.sweep_jobs import Jobs

LOG = "cero/allocations.jsonl"
SAME = ("step", "epoch", "budget", "spent", "prompts", "rollouts", "successes", "trials")
STEPS = 8  # of which 3, 6 and the last are saved and validated
SHORT = ("trainer.total_training_steps=8",)


def records(folder, kind="step"):
    return [record for record in read_log(folder / LOG) if record["kind"] == kind]


class Copies:
    """Copy a run's folder at each point, from step 3 to step 4, and note the order of points."""

    def __init__(self, bench, monkeypatch, folder, copies):
        self.bench, self.folder, self.copies, self.points = bench, folder, copies, []
        self.on = True
        for owner, name in ((os, "replace"), (os, "fsync"), (torch, "save"), (runlog, "_write_all")):
            monkeypatch.setattr(owner, name, self.around(name, getattr(owner, name)))
        bench.at = self.at

    def around(self, name, function):
        def call(*args, **kwargs):
            words = f"{name} {self.file_of(args[0])}"
            self.at(f"before {words}")
            result = function(*args, **kwargs)
            self.at(f"after {words}")
            return result

        return call

    def file_of(self, what):
        if isinstance(what, int):
            what = os.readlink(f"/proc/self/fd/{what}")
        what = getattr(what, "name", what)
        return (
            "data.pt" if isinstance(what, dict) else os.path.basename(str(what)).lstrip(".").split(".npz")[0]
        )

    def at(self, point):
        if not self.on:
            return
        step = self.bench.trainer.global_steps
        self.points.append((step, point))
        if step in (3, 4) and self.folder.exists():
            shutil.copytree(self.folder, self.copies / f"{len(self.points):03d} {step} {point}")


@pytest.fixture
def bench(composed, monkeypatch):
    return Bench(composed, monkeypatch)


@pytest.fixture
def killed(bench, monkeypatch, tmp_path):
    """`killed(*overrides)`: (the uninterrupted run's folder, the copies, the points in order)."""

    def killed(*overrides):
        (tmp_path / "copies").mkdir()
        copies = Copies(bench, monkeypatch, tmp_path / "whole", tmp_path / "copies")
        trainer = bench.train(tmp_path / "whole", *SHORT, *overrides)
        copies.on = False
        assert trainer.global_steps == STEPS + 1
        return tmp_path / "whole", sorted((tmp_path / "copies").iterdir()), copies.points

    return killed


def check_resumed(whole, folder, trainer):
    """Look whether a resumed run has what the uninterrupted one has, each line once."""
    lines = records(folder)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1)), folder.name
    for one, other in zip(records(whole), lines, strict=True):
        assert {key: one[key] for key in SAME} == {key: other[key] for key in SAME}, (
            folder.name,
            one["step"],
        )
        assert one["metrics"].keys() >= {"cero/group/signal", "timing_s/step"} <= other["metrics"].keys()
    ledger = trainer.scheduler.allocator.ledger
    assert sum(sum(line["rollouts"]) for line in lines) == lines[-1]["spent"] == ledger.spent == ledger.total
    for name in (STATE_FILE, BASELINE_FILE):
        np.testing.assert_equal(
            *(load_state(each / f"global_step_{STEPS}" / name) for each in (whole, folder))
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "validates_first",
    ["false", pytest.param("true", marks=pytest.mark.e2e)],  # for its 10 s
)
def test_killed_at_each_point(killed, bench, validates_first):
    first = f"trainer.val_before_train={validates_first}"
    whole, copies, points = killed(first)
    names = [copy.name.split(" ", 2)[2] for copy in copies]
    for point in (
        "before fsync allocator",
        "after replace allocator",
        "after replace baseline",
        "before replace step.json.",
        "saved by the workers",
        "after save data.pt",
        "validating",
        "before the log",
        "before _write_all allocations.jsonl",
        "logged by verl",
    ):
        assert any(name.startswith(point) for name in names), (point, names)
    assert len(copies) > 30
    for copy in copies:
        saved = marker(copy) if (copy / COMMIT_MARKER).exists() else 0
        assert saved in (0, 3)
        trainer = bench.train(copy, *SHORT, first)
        check_resumed(whole, copy, trainer)
        validated = [line["step"] for line in records(copy, "validation")]
        assert validated == sorted(set(validated)) and set(validated) >= {6, 8}
        # A validation that was killed is made up for by the one before training, if there is one.
        assert 3 in validated or (validates_first == "false" and saved == 3)
        shutil.rmtree(copy)


@pytest.mark.slow
def test_killed_within_a_line(killed, bench):
    """The log's last line is cut anywhere, its end of line included."""
    whole, copies, _ = killed()
    after = next(copy for copy in reversed(copies) if "after _write_all" in copy.name and " 4 " in copy.name)
    data = (after / LOG).read_bytes()
    last = data.rstrip(b"\n").rindex(b"\n") + 1
    for end in (last, last + 1, last + 40, len(data) - 2, len(data) - 1):
        folder = after.with_name(f"cut at {end}")
        shutil.copytree(after, folder)
        (folder / LOG).write_bytes(data[:end])
        check_resumed(whole, folder, bench.train(folder, *SHORT))
    # And so within the line of the checkpoint itself, where everything before it is missing, too.
    steps = data.split(b"\n")
    for kept in range(4):
        folder = after.with_name(f"{kept} lines")
        shutil.copytree(after, folder)
        (folder / LOG).write_bytes(b"\n".join(steps[:kept])[:-9])
        bench.train(folder, *SHORT)
        logged = [line["step"] for line in records(folder)]
        assert logged == sorted(set(logged)) and set(logged) >= {3, 4, 5, 6, 7, 8}


def test_all_of_a_checkpoint_is_on_disk_before_its_marker(killed):
    """Flushed, in this order: the log, the state, the baseline, the step's line; then verl's own files."""
    _, _, points = killed()
    order = [point for step, point in points if step == 3]
    save = order[: order.index("saved by the workers")]
    flushed = [point for point in save if point.startswith(("after fsync", "after replace"))]
    places = [
        next(i for i, point in enumerate(flushed) if point.startswith(words))
        for words in (
            "after fsync allocations.jsonl",
            "after fsync allocator",
            "after replace allocator",
            "after fsync baseline",
            "after replace baseline",
            "after fsync step.json",
            "after replace step.json",
        )
    ]
    assert places == sorted(places)
    assert (
        order.index("saved by the workers") < order.index("before save data.pt") < order.index("validating")
    )
    assert flushed[-1] == "after fsync cero"  # the folder's own entries


def test_a_marker_that_was_torn_is_refused_before_anything_starts(bench, tmp_path):
    bench.train(tmp_path, *SHORT, stop_after=4)
    (tmp_path / COMMIT_MARKER).write_text("")
    with pytest.raises(SystemExit, match="latest_checkpointed_iteration.txt holds '' instead of a step"):
        Preflight().on_job_start(config=bench.config(tmp_path, *SHORT))


@pytest.mark.slow
def test_the_line_is_put_back_only_where_it_belongs(bench, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    bench.train(run, *SHORT, stop_after=4)
    path = f"trainer.resume_from_path={run}/global_step_3"
    bench.train(other, *SHORT, "trainer.resume_mode=resume_path", path)
    assert [line["step"] for line in records(other)] == [4, 5, 6, 7, 8]  # another run's log is not continued
    for text in ("", "{", "[1]", '{"kind": "step"}', '{"kind": "step", "step": 2}', '{"kind": 1, "step": 3}'):
        (run / "global_step_3" / STEP_FILE).write_text(text)
        lines = (run / LOG).read_text().splitlines(keepends=True)
        (run / LOG).write_text("".join(lines[:2]))
        bench.train(run, *SHORT, stop_after=4)
        assert [line["step"] for line in records(run)] == [1, 2, 4]
    # Without a log, none is begun; and the line of an earlier run in the folder goes.
    bench.train(run, *SHORT, "cero.log_allocations=false")
    assert not (run / "global_step_6" / STEP_FILE).exists() and len(records(run)) == 3


def test_a_job_file_that_was_torn_stops_no_sweep(tmp_path, composed, monkeypatch):
    """It is written like a state, and one torn by an earlier version is written anew."""
    from hydra import compose

    config = compose(
        "ppo_trainer",
        overrides=["+recipe=cero", f"trainer.default_local_dir={tmp_path}", "allocator.n_max=16"],
        return_hydra_config=True,
    )
    jobs = Jobs()
    jobs.swept = ["allocator.n_max"]
    path = tmp_path / "cero" / JOB_FILE
    path.parent.mkdir()
    for torn in ("", '{"overrides": ["alloc', "[]", "{}"):
        path.write_text(torn)
        jobs._write_down(config)
        assert "allocator.n_max=16" in json.loads(path.read_text())["overrides"]

    def fails(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = path.read_text()
    monkeypatch.setattr(state_module.os, "fsync", fails)
    with pytest.raises(OSError):
        jobs._write_down(config)
    assert path.read_text() == before


def test_a_log_is_kept_whole_by_many_rewinds(tmp_path):
    log = RunLog(tmp_path / "allocations.jsonl")
    rng, expected = np.random.default_rng(3), []
    for _ in range(300):
        last = expected[-1] if expected else 0
        if rng.random() < 0.2:
            to = int(rng.integers(0, last + 1))
            if rng.random() < 0.5 and log.path.exists():
                with log.path.open("a") as file:
                    file.write('{"kind": "step", "st')
            log = RunLog(log.path)
            log.rewind(to)
            expected = [step for step in expected if step <= to]
        else:
            log.step(last + 1, 0, 8, 8, ["0"], [8], [4], [8], {})
            expected.append(last + 1)
        if log.path.exists():
            assert [record["step"] for record in read_log(log.path)] == expected
    assert len(expected) > 2
