"""A disk that is full, or can't be written to for another reason: what ends a run, and what does not?"""

import errno
import os

import numpy as np
import pytest
from one_process import Bench, marker

from cero.analysis import runlog
from cero.analysis.runlog import MOST_WAITING, RunLog, read_log
from cero.core import state as state_module
from cero.core.state import BASELINE_FILE, STATE_FILE, STEP_FILE, load_state

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
LOG = "cero/allocations.jsonl"


@pytest.fixture
def bench(composed, monkeypatch):
    return Bench(composed, monkeypatch)


class Disk:
    """Let appends to a log fail from `full` appends on, until `room` of them; each first writes a part."""

    def __init__(self, monkeypatch, error, full, room=10**9):
        self.error, self.full, self.room, self.appends = error, full, room, 0
        open_path = type(runlog.Path()).open
        disk = self

        def opening(path, mode="r", *args, **kwargs):
            file = open_path(path, mode, *args, **kwargs)
            return file if mode != "ab" else Half(file, disk)

        monkeypatch.setattr(runlog.Path, "open", opening)


class Half:
    """An unbuffered file on a `Disk`: a write that fails has left half of its bytes."""

    def __init__(self, file, disk):
        self.file, self.disk = file, disk

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.disk.appends += 1
        if self.disk.full < self.disk.appends <= self.disk.room:
            if len(data) > 1 and self.disk.appends % 2:
                return self.file.write(data[: len(data) // 2])
            raise OSError(self.disk.error, os.strerror(self.disk.error))
        return self.file.write(data)


@pytest.mark.parametrize("error", ERRORS)
def test_a_log_that_cant_be_written_ends_no_run(bench, monkeypatch, capsys, tmp_path, error):
    Disk(monkeypatch, error, full=4)
    trainer = bench.train(tmp_path)
    assert trainer.scheduler.allocator.ledger.left == 0 and marker(tmp_path) == 12
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cero: ")]
    assert len(said) == 2, said
    assert f"{LOG}: the log can't be written ({os.strerror(error)}); training goes on" in said[0]
    assert "12 lines of this run could not be written" in said[1]  # 8 steps and 4 validations
    # What is there is whole; and what is not there stands in the checkpoints, as far as they have it.
    assert [record["step"] for record in read_log(tmp_path / LOG)] == [1, 2, 3, 3]
    assert (tmp_path / "global_step_12" / STEP_FILE).exists()


def test_lines_are_written_late_where_there_is_room_again(bench, monkeypatch, capsys, tmp_path):
    Disk(monkeypatch, errno.ENOSPC, full=4, room=11)
    bench.train(tmp_path / "full")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cero: ")]
    assert len(said) == 1 and "the lines wait in memory" in said[0]
    monkeypatch.undo()
    steps = [(record["kind"], record["step"]) for record in read_log(tmp_path / "full" / LOG)]
    assert [step for kind, step in steps if kind == "step"] == list(range(1, 13))
    assert [step for kind, step in steps if kind == "validation"] == [3, 6, 9, 12]


@pytest.mark.slow
def test_a_run_resumes_over_the_gap_and_says_so(bench, monkeypatch, capsys, tmp_path):
    with monkeypatch.context() as full:
        Disk(full, errno.ENOSPC, full=2)
        bench.train(tmp_path, stop_after=7)
    assert [record["step"] for record in read_log(tmp_path / LOG)] == [1, 2]
    capsys.readouterr()
    bench.train(tmp_path)
    said = capsys.readouterr().err
    assert f"{LOG}: of the 6 steps before this one, 3 are not in the log" in said
    steps = [record["step"] for record in read_log(tmp_path / LOG) if record["kind"] == "step"]
    assert steps == [1, 2, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.slow
def test_a_log_that_cant_be_cut_back_ends_no_run(bench, monkeypatch, capsys, tmp_path):
    """Nothing is written behind lines that should not be there; it is all done once it is possible."""
    bench.train(tmp_path, stop_after=8)
    before = (tmp_path / LOG).read_bytes()

    def fails(*args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as read_only:
        read_only.setattr(runlog.os, "truncate", fails)
        bench.train(tmp_path, stop_after=10)
        assert (tmp_path / LOG).read_bytes() == before
        assert "the log can't be written" in capsys.readouterr().err
        log = RunLog(tmp_path / LOG)
        log.rewind(6)
        log.step(7, 0, 8, 8, ["0"], [8], [4], [8], {})
        assert (tmp_path / LOG).read_bytes() == before
    log.step(8, 0, 8, 8, ["0"], [8], [4], [8], {})
    steps = [record["step"] for record in read_log(tmp_path / LOG) if record["kind"] == "step"]
    assert steps == list(range(1, 9))


def test_what_waits_is_bounded(tmp_path, capsys):
    (tmp_path / "cero").write_text("a file where the log's folder would be")
    log = RunLog(tmp_path / LOG)
    for step in range(MOST_WAITING + 50):
        log.validation(step + 1, 8, {})
    assert len(log._waiting) == MOST_WAITING and log.missing == 50
    (tmp_path / "cero").unlink()
    log.close()
    assert [record["step"] for record in read_log(tmp_path / LOG)] == list(range(51, MOST_WAITING + 51))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "50 lines of this run could not be written" in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("file, place", [(STATE_FILE, 1), (BASELINE_FILE, 2), (STEP_FILE, 3)])
def test_a_state_that_cant_be_saved_ends_the_run(bench, monkeypatch, tmp_path, error, file, place):
    """With the path and the remedy; the last checkpoint is as it was, and a run goes on from it."""
    bench.train(tmp_path, stop_after=4)
    before = {path: path.read_bytes() for path in (tmp_path / "global_step_3").rglob("*") if path.is_file()}
    saves = [0]
    write_atomically = state_module.write_atomically

    def full(path, write):
        saves[0] += 1
        if saves[0] < place:
            return write_atomically(path, write)

        def part(file):
            file.write(b"half")
            raise OSError(error, os.strerror(error))

        return write_atomically(path, part)

    with monkeypatch.context() as disk:
        disk.setattr(state_module, "write_atomically", full)
        disk.setattr("cero.verl.scheduler.write_atomically", full)
        message = (
            rf"global_step_6/{file} could not be written \({os.strerror(error)}\)\. The checkpoint of step "
            r"6 is not complete and does not count; the last one before it is intact\. Make room in "
            r"trainer\.default_local_dir, and give the same command again"
        )
        with pytest.raises(OSError, match=message) as stop:
            bench.train(tmp_path)
        assert stop.value.errno == error
    assert marker(tmp_path) == 3
    assert not list((tmp_path / "global_step_6" / "cero").glob(".*"))
    for path, data in before.items():
        assert path.read_bytes() == data
    trainer = bench.train(tmp_path)
    assert trainer.scheduler.allocator.ledger.left == 0
    steps = [record["step"] for record in read_log(tmp_path / LOG) if record["kind"] == "step"]
    assert steps == list(range(1, 13))
    assert np.all(load_state(tmp_path / "global_step_12" / STATE_FILE)["table"]["pending"] == 0)
