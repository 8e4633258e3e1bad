"""Do sampling in rounds, selection and dropping of rows work through verl's whole stack?"""

import json

import numpy as np
import pytest
from tiny import command, make_data, make_model, run

from cero.analysis.runlog import read_log
from cero.core.state import load_state

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.beside]

CAP = 16 * 4

# A quarter of the prompts is never right; most others are learned. The calls for four prompts (5, 21, ...)
# are counted together: one for each in the validation before training, and the first one after that fails.
# The calls for four more (6, 22, ...) are counted for each prompt: wrong in the validation and twice in the
# exploration, then right once in the rescue.
RESCUE_REWARD = """
from pathlib import Path


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    index = extra_info["index"]
    if index % 16 == 5 and count("all") == 5:
        raise RuntimeError("an injected failure")
    if index % 16 == 6:
        return float(count(index) == 4)
    return float(index % 4 > 0 and ground_truth in solution_str)


def count(name):
    with Path(__file__).with_name(f"calls-{name}").open("a") as calls:
        calls.write(".")
        return calls.tell()
"""

# The same reward for each rollout of a prompt, so that sampling can't make two runs differ.
SAME_REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return (extra_info["index"] * 37 % 11) / 10
"""


def prepared(folder, reward):
    make_model(folder / "model", tied=True)
    make_data(folder / "train.parquet")
    (folder / "reward.py").write_text(reward)
    return folder


def test_aero_explores_rescues_rejects_and_drops(tmp_path):
    folder, metrics = prepared(tmp_path, RESCUE_REWARD), tmp_path / "metrics.jsonl"
    arguments = command(
        folder,
        "algorithm.adv_estimator=grpo",  # under AERO's own advantage no row is zero
        "cero.drop_zero_advantage=true",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",  # two optimizer steps
        "trainer.total_training_steps=4",
        "trainer.resume_mode=disable",
        recipe="aero_cpu",
    )
    output = run(arguments, folder, VERL_FILE_LOGGER_PATH=str(metrics))
    assert "an injected failure" in output
    validation, *records = read_log(folder / "checkpoints/cero/allocations.jsonl")
    assert validation["kind"] == "validation" and validation["spent"] == 0 and validation["metrics"]
    steps = [json.loads(line)["data"] for line in metrics.read_text().splitlines()][1:]
    assert len(records) == len(steps) == 4
    spent = 0
    for record, step in zip(records, steps, strict=True):
        launched, won, trials = (np.array(record[key]) for key in ("rollouts", "successes", "trials"))
        spent += launched.sum()
        assert launched.sum() == record["sampled"] == step["cero/rollouts/sampled"] <= record["budget"] == CAP
        # All that was launched is paid for, and nothing else.
        assert record["spent"] == step["cero/budget/spent"] == spent
        assert step["cero/budget/refunded"] == CAP - launched.sum()
        # A prompt is explored twice. Without a success it is rescued, to four rollouts in all.
        whole = launched == trials
        assert set(launched) <= {2, 4} and (launched[whole] == 4)[won[whole] == 0].all()
        assert record["trained"] < record["kept"] <= trials.sum() <= record["sampled"]
        assert step["cero/rows/dropped_as_zero"] == record["kept"] - record["trained"]
        assert step["cero/rows/dropped_by_selection"] == trials.sum() - record["kept"]
        assert 0 < step["cero/tokens/trained"] < step["cero/tokens/sampled"]
        # Equal where every token that was sampled is kept; verl's averaging of metrics costs a last digit.
        share = step["cero/tokens/trained"] / step["cero/tokens/sampled"]
        assert share <= step["cero/advantage_scale"] * (1 + 1e-9) < 1
        assert 1 < step["cero/rounds/mean"] <= step["cero/rounds/max"] <= 2
        assert np.isfinite(step["actor/grad_norm"]) and step["cero/padded_rows"] <= 1
    assert sum(record["sampled"] - sum(record["trials"]) for record in records) == 1
    # Prompts that are right once in four rollouts: of the three wrong ones, two are rejected.
    assert sum(step["cero/rows/dropped_by_selection"] for step in steps) >= 4 * 2


def test_rounds_over_all_prompts(tmp_path):
    """cero_seq, with a selection that is drawn at random. Resuming is tested in test_kill_resume.py."""
    folder = prepared(tmp_path, SAME_REWARD)
    arguments = command(
        folder,
        "allocator=cero_seq",
        "allocator.n_max=12",
        "cero.keep.rule=balanced",
        "trainer.val_before_train=false",
        "trainer.total_epochs=2",
        "trainer.total_training_steps=6",
        "trainer.save_freq=3",
    )
    run(arguments, folder)
    checkpoints = folder / "checkpoints"
    whole, state = (
        read_log(checkpoints / "cero/allocations.jsonl"),
        checkpoints / "global_step_6/cero/allocator.npz",
    )
    spent = 0
    for record in whole:
        launched = np.array(record["rollouts"])
        spent += launched.sum()
        assert launched.sum() == record["sampled"] <= record["budget"] == CAP and record["spent"] == spent
        assert record["trials"] == record["rollouts"] and launched.max() <= 12
        assert record["kept"] == np.minimum(launched, 4).sum() == record["trained"]
        assert {"cero/rounds/max", "cero/budget/refunded", "cero/tokens/trained"} <= set(record["metrics"])
    assert (
        max(record["metrics"]["cero/rounds/max"] for record in whole) == 4
    )  # one first round and three more
    assert min(min(record["rollouts"]) for record in whole[4:]) < 2  # known prompts get no first round
    assert load_state(state)["ledger"]["spent"] == spent
