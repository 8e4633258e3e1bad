"""Do the arms of scripts/speed/modes.py differ in the trainer only, and is its page what was measured?"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "speed"))
import modes

from cero.research.study.tables import COLUMNS, write_table

OUT = Path("out")


def test_arms_differ_in_recipe_trainer_and_allocator_only():
    by_arm = {arm: modes.overrides(arm, Path("task"), OUT, 24) for arm in modes.ARMS}
    shared = set.intersection(*map(set, by_arm.values()))
    assert {
        arm: [each for each in words if each not in shared] for arm, words in by_arm.items()
    } == modes.ARMS
    assert "actor_rollout_ref.rollout.n=8" in shared and "trainer.total_training_steps=24" in shared
    assert not any("hydra.callbacks" in each or "=turns" in each for each in by_arm["verl"])


def test_each_arm_has_each_place_once_in_three_rounds():
    rounds = [modes.order(number) for number in range(6)]
    for three in (rounds[:3], rounds[3:]):
        assert all(sorted(places) == sorted(modes.ARMS) for places in (*three, *zip(*three, strict=True)))
    assert rounds == [modes.order(number) for number in range(6)]


def test_learning_differs_in_the_mode_only():
    first, second, *others = modes.learning_runs(40, [0, 1])
    assert [run.seed for run in (first, second, *others)] == [0, 0, 1, 1]
    assert set(first.overrides) ^ set(second.overrides) == {
        "trainer.v1.trainer_mode=sync",
        "trainer.v1.trainer_mode=colocate_async",
    }
    assert first.task.budget == second.task.budget == 40 * 128
    assert first.overrides[-1] == "trainer.total_training_steps=128"


def test_a_failed_run_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    begun = []

    def train(arm, task, folder, steps):
        begun.append(folder.name)
        if arm == "uniform":
            raise modes.RunFailed("no reason")
        folder.mkdir(parents=True)
        (folder / "done.json").write_text("{}")

    monkeypatch.setattr(modes, "train", train)
    modes.run_steps(Path("task"), tmp_path, 24, 2, lambda: True)
    assert begun == [f"{number}-{arm}" for number in range(2) for arm in modes.order(number)]
    assert "0-uniform failed: no reason" in capsys.readouterr().err
    begun.clear()
    modes.run_steps(Path("task"), tmp_path, 24, 2, lambda: True)  # what is finished is not repeated
    assert begun == ["0-uniform", "1-uniform"]
    modes.run_steps(Path("task"), tmp_path, 24, 2, lambda: False)
    assert begun == ["0-uniform", "1-uniform"]


def test_ratio_of_rounds():
    rng = np.random.default_rng(1)
    base = {n: (n + 1) * rng.lognormal(0, 0.05, 31) for n in range(3)}
    same, (low, high) = modes.ratio({n: 1.5 * column for n, column in base.items()}, base)
    assert same == pytest.approx(1.5) and low < 1.5 < high and high - low < 0.2
    assert modes.ratio(base, base)[0] == 1
    # A long and a short step that take turns are one draw.
    turns = {n: np.tile([1.0, 3.0], 9) for n in range(3)}
    assert modes.ratio({n: 1.5 * column for n, column in turns.items()}, turns)[1] == pytest.approx(
        (1.5, 1.5)
    )
    # Only rounds that both have count, and a round's speed does not.
    assert modes.ratio({1: base[1], 7: base[0] * 9}, base)[0] == 1


def write_run(out, number, arm, seconds, steps=12):
    """Write a finished run's files: steps of `seconds`, each with eight groups of which the last is late."""
    folder = out / "steps" / f"{number}-{arm}"
    folder.mkdir(parents=True)
    scheduler = {} if arm == "verl" else dict(zip(modes.PARTS, (0.002, 0.001, 0.001, 0.01), strict=True))
    lines, events = [], [{"t": 0, "event": "resume"}]
    for step in range(1, steps + 1):
        begin = (step - 1) * seconds
        figures = {"verl": seconds, "tokens": 4000} | dict.fromkeys(modes.PHASES, seconds / 8) | scheduler
        lines.append({"t": begin + seconds, "seconds": seconds, "cpu": 2 * seconds, "step": step} | figures)
        events.append({"t": begin + 0.1, "event": "sent", "prompts": 8})
        for group in range(8):
            uid, end = f"{step}-{group}", begin + (2 if group == 7 else 1)
            events.append({"t": begin + 0.2, "event": "begin", "uid": uid})
            rollouts = 15 if group == 7 else 7
            events.append({"t": end, "event": "end", "uid": uid, "rollouts": rollouts, "last": end})
        events += [{"t": begin + 2, "event": "pause"}, {"t": begin + seconds, "event": "resume"}]
    (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "done.json").write_text(json.dumps({"steps": steps, "load": [0.5, 1.5], "took": 99}))


def write_learning(out, mode, seed):
    """Write the table of a finished run with validations at the start, in the middle and at the end."""
    accuracy = {0: 0.25, 2: 0.5, 4: 0.75}
    rows = [
        dict.fromkeys(COLUMNS, 1.0)
        | {"step": step, "rollouts_trained": 40.0 if step else np.nan, "accuracy": accuracy.get(step, np.nan)}
        for step in range(5)
    ]
    write_table(out / "learning" / "letters" / mode / f"{seed}.csv", rows, {"seconds": 77.0})


def test_page(monkeypatch, tmp_path):
    for number in range(2):
        for arm, seconds in (("verl", 4), ("uniform", 4), ("cero", 5)):
            write_run(tmp_path, number, arm, seconds)
    (tmp_path / "steps" / "2-verl").mkdir()  # not finished
    (tmp_path / "steps" / "0-cero" / "events.jsonl").unlink()
    for mode in modes.LEARNING:
        write_learning(tmp_path, mode, 0)
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{modes.BEGIN}stale\n{modes.END}after\n")
    monkeypatch.setattr(modes, "PAGE", page)
    monkeypatch.setattr(modes, "FIGURES", tmp_path / "modes.json")
    modes.write_page(tmp_path)

    figures = json.loads((tmp_path / "modes.json").read_text())
    assert len(figures["steps"]) == 6
    assert all(
        len(run["columns"]["seconds"]) == 12 - modes.WARM_UP - modes.COOL_DOWN for run in figures["steps"]
    )
    first = next(run for run in figures["steps"] if run["arm"] == "verl")
    # The engine samples from 0.2 to 2 in each step of 4 seconds, and may from 0 to 2.
    assert first["idle"] == pytest.approx({"paused": 0.5, "empty": 0.05}, abs=1e-3)
    assert [tail["seconds"] for tail in first["tails"]] == [1] * 6
    assert first["tails"][0]["rollouts"] / first["tails"][0]["mean"] == pytest.approx(15 / 8)

    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert "| verl's own, GRPO | 4.00 s | 1 | 1 | 4.00 s | 8.00 s | 1 |  |  |  | 2 x 6 |" in text
    # All phases took a quarter longer, too, so it was the load.
    times = "5.00 s | 1.250 [1.250, 1.250] | 1.000 [1.000, 1.000] | 5.00 s | 10.00 s | 1.250 [1.250, 1.250]"
    assert f"| this plugin's, `allocator=cero` | {times} | 4.0 ms | 0.080% | 10.0 ms | 2 x 6 |" in text
    assert (
        "| verl's own, GRPO | 50.0% | 5.00% | 1.00 s, 25% | 1.00 s, 25.0% | 1.00 s, 25.0% | 1.88 | 12 |"
        in text
    )
    assert "| this plugin's, `allocator=cero` | 60.0% |" in text  # of the one run that has events

    modes.write_page(tmp_path / "elsewhere")  # nothing is there: figures and page stay
    assert json.loads((tmp_path / "modes.json").read_text()) == figures and page.read_text() == text
    assert "| `colocate_async` | 0 | 25.0% | 50.0% | 75.0% | 50.0% | 160 | 1.00 s | 77 s |" in text
