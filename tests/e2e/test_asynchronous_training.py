"""Does verl's colocate_async train with the scheduler, and pay for each rollout once if it is killed?"""

import pytest
from tiny import command, kill_after_step, make_data, make_model, run

from cero.analysis.runlog import read_log
from cero.core.state import load_state

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.beside]

STEPS, SIZE, ROLLOUTS = 4, 16, 4

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return (extra_info["index"] * 37 % 11) / 10
"""


def test_train_kill_and_resume(tmp_path):
    make_model(tmp_path / "model", tied=True)
    make_data(tmp_path / "train.parquet")
    (tmp_path / "reward.py").write_text(REWARD)
    arguments = command(
        tmp_path,
        "trainer.v1.trainer_mode=colocate_async",
        "trainer.v1.colocate_async.num_warmup_batches=0.5",
        "trainer.val_before_train=false",
        "trainer.total_epochs=1",
        "trainer.save_freq=2",
        "allocator.n_max=16",
    )
    checkpoints = tmp_path / "checkpoints"
    kill_after_step(arguments, tmp_path, step=3)
    assert (checkpoints / "latest_checkpointed_iteration.txt").read_text() == "2"
    saved = load_state(checkpoints / "global_step_2" / "cero" / "in_flight.npz")
    ahead = SIZE // 2  # the warm-up of half a batch
    assert len(saved["table"]["uid"]) == ahead and int(saved["table"]["launched"].sum()) == ahead * ROLLOUTS
    spent = (2 * SIZE + ahead) * ROLLOUTS
    assert saved["counts"] == {
        "launched": spent,
        "returned": 2 * SIZE * ROLLOUTS,
        "lost": 0,
        "withdrawn": 0,
    }
    run(arguments, tmp_path)

    # Every prompt of the pass was trained on once, what was in flight too, and the run cost its budget.
    records = [record for record in read_log(checkpoints / "cero" / "allocations.jsonl")]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    prompts = [prompt for record in records for prompt in record["prompts"]]
    assert len(prompts) == len(set(prompts)) == STEPS * SIZE
    total = STEPS * SIZE * ROLLOUTS
    assert sum(sum(record["rollouts"]) for record in records) == total
    assert all(record["trials"] == record["rollouts"] for record in records)
    assert records[2]["spent"] == spent + SIZE * ROLLOUTS and records[-1]["spent"] == total
    assert records[1]["metrics"]["cero/in_flight/prompts"] == ahead
    assert max(record["metrics"]["cero/staleness/max"] for record in records) >= 1
    assert all(record["metrics"]["cero/padded_rows"] == 0 for record in records)

    last = load_state(checkpoints / f"global_step_{STEPS}" / "cero" / "in_flight.npz")
    assert last["counts"] == {"launched": total, "returned": total, "lost": 0, "withdrawn": 0}
    assert len(last["table"]["uid"]) == 0
    ledger = load_state(checkpoints / f"global_step_{STEPS}" / "cero" / "allocator.npz")["ledger"]
    assert ledger == {"spent": total, "total": total}
