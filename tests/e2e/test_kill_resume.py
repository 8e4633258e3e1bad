"""Does a run that is killed between checkpoints, and resumed, allocate as one that was never killed?"""

import json

import numpy as np
import pytest
from tiny import command, kill_after_step, make_data, make_model, run

from cero.analysis.runlog import read_log
from cero.core.state import load_state

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.beside]

STEPS = 8  # two epochs of four steps; rollouts differ in the second

# The same reward for each rollout of a prompt, so that sampling can't make two runs differ. Rewards differ
# between prompts, so that the allocator learns.
REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return (extra_info["index"] * 37 % 11) / 10
"""


def options(folder):
    return command(
        folder,
        "allocator=cero",
        "trainer.val_before_train=false",
        f"trainer.total_epochs={STEPS // 4}",
        "trainer.save_freq=3",
    )


def log_of(folder):
    return folder / "checkpoints" / "cero" / "allocations.jsonl"


def steps_in(folder):
    return [record["step"] for record in read_log(log_of(folder))] if log_of(folder).exists() else []


def test_kill_and_resume(tmp_path):
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    for folder in folders.values():
        folder.mkdir()
        make_model(folder / "model", tied=True)
        make_data(folder / "train.parquet")
        (folder / "reward.py").write_text(REWARD)
    metrics = tmp_path / "whole.jsonl"
    run(options(folders["whole"]), folders["whole"], VERL_FILE_LOGGER_PATH=str(metrics))

    # verl's logger has the scheduler's metrics. Every step cost its budget, nothing was padded, and the
    # second epoch differs.
    logged = [json.loads(line)["data"] for line in metrics.read_text().splitlines()]
    assert [row["cero/budget/spent"] for row in logged] == [64 * step for step in range(1, STEPS + 1)]
    assert [row["cero/padded_rows"] for row in logged] == [0] * STEPS
    assert [row["cero/n/mean"] for row in logged] == [4] * STEPS
    assert logged[-1]["cero/budget/left"] == 0
    assert max(row["cero/n/max"] for row in logged[4:]) > 4 > min(row["cero/n/min"] for row in logged[4:])
    names = (
        "group/signal",
        "group/all_right",
        "group/all_wrong",
        "posterior/mean",
        "dual/budget",
        "dual/prompt_mean",
    )
    for key in names:
        assert all(f"cero/{key}" in row for row in logged)

    # Killed in the second epoch, after step 5: the last checkpoint is that of step 3.
    kill_after_step(options(folders["killed"]), folders["killed"], step=5)
    assert (folders["killed"] / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "3"
    assert 5 in steps_in(folders["killed"])
    run(options(folders["killed"]), folders["killed"])

    whole, resumed = (read_log(log_of(folder)) for folder in folders.values())
    assert [r["step"] for r in resumed] == list(range(1, STEPS + 1))
    for one, other in zip(whole, resumed, strict=True):
        for key in ("prompts", "rollouts", "successes", "trials", "budget", "spent"):
            assert one[key] == other[key], (one["step"], key)
    last = f"global_step_{STEPS}"
    one, other = (
        load_state(folder / "checkpoints" / last / "cero" / "allocator.npz") for folder in folders.values()
    )
    np.testing.assert_equal(one, other)
    assert one["ledger"]["spent"] == 64 * STEPS
    # What the baseline learned is there, and was resumed, not begun anew. Its numbers can't be compared,
    # since no two runs have the same log-probs.
    tables = [
        load_state(folders["killed"] / "checkpoints" / f"global_step_{step}" / "cero" / "baseline.npz")[
            "table"
        ]
        for step in (3, STEPS)
    ]
    first = set(tables[0]["id"].tolist())
    assert first <= set(tables[1]["id"].tolist()) == set(one["table"]["id"].tolist())
