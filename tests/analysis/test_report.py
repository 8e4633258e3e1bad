"""The run log and what is made of it."""

import json
import subprocess
import sys

import pytest

from cero.analysis.figures import colours, figure
from cero.analysis.report import plot_run, summarise_run
from cero.analysis.run import TrainingRun
from cero.analysis.runlog import RunLog, read_log


def write_run(path, steps=6, epoch_steps=3):
    log = RunLog(path)
    log.validation(0, 0, {"val-core/x/acc/mean@1": 0.25})
    for step in range(1, steps + 1):
        prompts = [f"{(step % epoch_steps) * 4 + i:016x}" for i in range(4)]
        log.step(
            step=step,
            epoch=(step - 1) // epoch_steps,
            budget=32,
            spent=32 * step,
            prompts=prompts,
            rollouts=[2, 6, 8, 16],
            successes=[0, 3, 4.5, 16],
            trials=[2, 6, 8, 16],
            metrics={
                "cero/group/signal": 0.5,
                "cero/budget/total": 192.0,
                "cero/padded_rows": 0.0,
                "timing_s/step": 2.0,
                "cero/time/allocate": 0.001,
                "cero/time/observe": 0.002,
            },
        )
    # Of several samples verl reports more than a mean.
    log.validation(steps, 32 * steps, {"val-core/x/acc/mean@4": 0.75, "val-core/x/acc/best@4/mean": 1.0})
    return log


def test_summary(tmp_path):
    write_run(tmp_path / "allocations.jsonl")
    summary = summarise_run(TrainingRun.read(tmp_path))
    assert summary == {
        "steps": 6,
        "rollouts": 192,
        "budget": 192,
        "prompts": 12,
        "rollouts_min": 2,
        "rollouts_max": 16,
        "accuracy_before": 0.25,
        "accuracy_after": 0.75,
        "signal_first": 0.5,
        "signal_last": 0.5,
        "padded_rows": 0,
        "step_seconds": 2.0,
        "scheduler_seconds": pytest.approx(0.003),
    }


def test_seconds_in_the_scheduler_are_all_for_which_verl_waits(tmp_path):
    """The log is written after a step, so its seconds come with the next one's."""
    log = RunLog(tmp_path / "allocations.jsonl")
    for step in range(1, 4):
        seconds = {"cero/time/allocate": 0.001, "cero/time/observe": 0.002}
        seconds |= {"cero/time/log": 0.5} if step > 1 else {}
        log.step(step, 0, 4, 4 * step, ["0"], [4], [1], [4], seconds)
    assert summarise_run(TrainingRun.read(tmp_path))["scheduler_seconds"] == pytest.approx(0.503)


def test_grid_counts_rollouts_by_prompt_and_epoch(tmp_path):
    write_run(tmp_path / "allocations.jsonl")
    grid, success = TrainingRun.read(tmp_path).prompt_epochs()
    assert grid.shape == (12, 2) and grid.sum() == 192
    assert sorted(success[:4]) == [0, 0.5, 4.5 / 8, 1]


@pytest.mark.slow
def test_picture(tmp_path):
    write_run(tmp_path / "allocations.jsonl")
    picture = plot_run(TrainingRun.read(tmp_path), tmp_path / "sub" / "report.png")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 20_000


def test_pictures_are_small_and_keep_their_colours(tmp_path):
    """A palette holds the colours of lines exactly, and the file is no larger than it may be on a page."""
    image = pytest.importorskip("PIL.Image")
    with figure(tmp_path / "a.png", 1, 2, size=(9, 4)) as (_, (left, right)):
        for k, colour in enumerate(colours(18)):
            left.plot([0, 1], [k, k + 1], color=colour, linewidth=3)
            right.fill_between([0, 1], [k, k], [k + 1, k + 2], color=colour)
    with image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P" and picture.size == (900, 400)
        found = {colour for _, colour in picture.convert("RGB").getcolors()}
    assert {tuple(round(255 * part) for part in colour) for colour in colours(18)} | {
        (255, 255, 255)
    } <= found
    assert (tmp_path / "a.png").stat().st_size < 80_000


def test_a_mosaic_of_panels(tmp_path):
    with figure(tmp_path / "m.png", mosaic=[["a", "b"], ["c", "b"]]) as (_, axes):
        assert set(axes) == {"a", "b", "c"}
    assert (tmp_path / "m.png").exists()


def test_rewind_drops_later_steps_and_a_torn_line(tmp_path):
    path = tmp_path / "allocations.jsonl"
    log = write_run(path)
    path.write_text(path.read_text() + '{"kind": "step", "st')
    log.rewind(4)
    assert [r["step"] for r in read_log(path)] == [0, 1, 2, 3, 4]


def test_damage_inside_a_log_is_an_error(tmp_path):
    path = tmp_path / "allocations.jsonl"
    write_run(path)
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(ValueError, match="line 1"):
        read_log(path)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cero", *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
def test_command_line(tmp_path):
    write_run(tmp_path / "run" / "cero" / "allocations.jsonl")
    result = command("report", str(tmp_path / "run"), "--json")
    assert json.loads(result.stdout)["rollouts"] == 192, result.stderr
    assert (tmp_path / "run" / "cero" / "report.png").exists()
    result = command("report", str(tmp_path / "run"))
    assert "192 of 192" in result.stdout and "25.0 % -> 75.0 %" in result.stdout


@pytest.mark.slow
def test_command_line_errors(tmp_path):
    result = command("report", str(tmp_path))
    assert (
        result.returncode == 2 and "no allocation log" in result.stderr and "Traceback" not in result.stderr
    )
    (tmp_path / "allocations.jsonl").write_text("")
    result = command("report", str(tmp_path))
    assert result.returncode == 2 and "no training step" in result.stderr
