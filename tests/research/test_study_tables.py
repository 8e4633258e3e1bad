"""A run's table: what a step's record becomes, and what is packed."""

import bz2
import json

import numpy as np
import pytest
from stand_in import step_record

from cero.research.study.archive import RECORDS, TABLES, pack, read_runs
from cero.research.study.tables import COLUMNS, make_table, read_table, write_table


def test_table_of_a_step():
    validation = {"kind": "validation", "step": 1, "spent": 8, "metrics": {
        "val-core/x/acc/mean@4": 0.5, "val-core/y/acc/mean@4": 0.7, "val-core/y/acc/best@4/mean": 1.0,
    }}  # fmt: skip
    first = validation | {"step": 0, "spent": 0}
    counted = {"cero/tokens/sampled": 40.0, "cero/tokens/trained": 25.0}
    before, row = make_table([first, validation, step_record(sampled=8, trained=5, metrics=counted)])
    assert row["accuracy"] == pytest.approx(0.6) and before["accuracy"] == pytest.approx(0.6)
    counted = {
        "step": 1,
        "rollouts_spent": 8,
        "rollouts": 8,
        "rollouts_trained": 5,
        "groups": 2,
        "signal": 0.5,
    }
    assert {key: row[key] for key in counted} == counted
    assert (row["tokens"], row["tokens_trained"], row["seconds"], row["seconds_gen"]) == (40, 25, 3, 2)
    assert not any("agent_loop" in column for column in row)


def test_table_without_counts():
    """Older logs: what was sampled was trained on; tokens from verl's mean length, or unknown."""
    row = make_table([step_record()])[0]
    assert (
        row["rollouts"] == row["rollouts_trained"] == 8
        and np.isnan(row["tokens"])
        and np.isnan(row["accuracy"])
    )
    row = make_table([step_record(metrics={"response_length/mean": 5.0})])[0]
    assert row["tokens"] == row["tokens_trained"] == 40


def test_table_of_dynamic_sampling():
    """Filtered groups never come back: they count as rollouts, and as tokens of the usual length."""
    record = step_record(
        rollouts=[4, 4, 4], trials=[4, 0, 0], sampled=12, trained=4, spent=12,
        metrics={"cero/tokens/sampled": 20.0, "cero/tokens/trained": 20.0, "cero/group/signal": 1.0,
                 "cero/group/count": 1.0},
    )  # fmt: skip
    row = make_table([record])[0]
    assert (row["rollouts"], row["rollouts_trained"], row["tokens"], row["tokens_trained"]) == (12, 4, 60, 20)
    assert row["signal"] == pytest.approx(1 / 3)


def test_table_round_trip(tmp_path):
    rows = make_table([step_record(step=step, spent=8 * step) for step in (1, 2)])
    write_table(tmp_path / "a" / "0.csv", rows, {"seed": 0})
    assert json.loads((tmp_path / "a" / "0.json").read_text()) == {"seed": 0}
    table = read_table(tmp_path / "a" / "0.csv")
    assert table["rollouts_spent"].tolist() == [8, 16] and np.isnan(table["accuracy"]).all()
    assert list(tmp_path.glob("a/*.tmp")) == []
    (tmp_path / "bad.csv").write_text("step\n1\n")
    with pytest.raises(ValueError, match="bad.csv lacks the column 'rollouts_spent'"):
        read_table(tmp_path / "bad.csv")
    with pytest.raises(ValueError, match="no training step"):
        make_table([])


def test_packed_tables_hold_a_steps_columns_and_the_runs_phases(tmp_path):
    rows = make_table([step_record(step=step, spent=8 * step) for step in (1, 2)])
    about = {"task": "a", "contender": "b", "seed": 0}
    write_table(tmp_path / "a" / "b" / "0.csv", rows, about)
    assert pack(tmp_path) == 1
    ((where, table, record),) = read_runs(tmp_path)
    assert where == f"{tmp_path / TABLES}, a/b/0" and list(table) == list(COLUMNS)
    assert record == about | {"phase_seconds": {"gen": 4.0}}
    records = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).unlink()
    with pytest.raises(ValueError, match="a/b/0: runs.jsonl.bz2 has no record"):
        read_runs(tmp_path)
    (tmp_path / RECORDS).write_bytes(records)
    write_table(tmp_path / "a" / "c" / "0.csv", rows, about)
    (tmp_path / "a" / "c" / "0.json").write_text("{")
    with pytest.raises(ValueError, match="0.csv"):
        pack(tmp_path)
    assert (tmp_path / "a" / "c" / "0.csv").exists()


def test_the_run_in_which_a_packed_table_is_cut_is_left_out(tmp_path):
    """Its last rows are lost, so it would count as a run that ended early."""
    about = {"task": "a", "contender": "b"}
    rows = make_table([step_record(step=step, spent=8 * step) for step in range(1, 400)])
    for seed in range(30):
        noise = [row | {"seconds": (row["seconds"] or 0) + 0.001 * (seed * 7919 % 997)} for row in rows]
        write_table(tmp_path / "a" / "b" / f"{seed}.csv", noise, about | {"seed": seed})
    pack(tmp_path)
    whole = {record["seed"]: table for _, table, record in read_runs(tmp_path)}
    data = (tmp_path / TABLES).read_bytes()
    text = bz2.decompress(data)
    # Two streams, of which the second is damaged: what comes before it can be read.
    middle = text.index(b"\n", len(text) // 2) + 1
    streams = bz2.compress(text[:middle]), bz2.compress(text[middle:])
    (tmp_path / TABLES).write_bytes(streams[0] + streams[1][:100])
    said = []
    found = {record["seed"]: table for _, table, record in read_runs(tmp_path, said.append)}
    assert 0 < len(found) < 30 and "a/b/" in said[0]
    for seed, table in found.items():
        np.testing.assert_array_equal(table["step"], whole[seed]["step"])
    with pytest.raises(ValueError, match="after line"):
        read_runs(tmp_path)


def test_packing_refuses_a_record_of_another_run(tmp_path):
    """A folder that was copied or renamed; packed, it could not be read any more."""
    rows = make_table([step_record(step=1, spent=8)])
    write_table(tmp_path / "a" / "old" / "0.csv", rows, {"task": "a", "contender": "b", "seed": 0})
    write_table(tmp_path / "a" / "b" / "0.csv", rows, {"task": "a", "contender": "b", "seed": 0})
    message = "old/0.csv: its record is of a/b/0; put it where it belongs"
    with pytest.raises(ValueError, match=message):
        pack(tmp_path)
    assert (tmp_path / "a" / "old" / "0.csv").exists() and not (tmp_path / TABLES).exists()
    said = []
    assert len(read_runs(tmp_path, said.append)) == 1 and message in said[0]


def test_packing_refuses_tables_without_a_record(tmp_path):
    rows = make_table([step_record(step=1, spent=8)])
    write_table(tmp_path / "a" / "b" / "0.csv", rows, {"task": "a", "contender": "b", "seed": 0})
    pack(tmp_path)
    (tmp_path / RECORDS).write_bytes(bz2.compress(b""))
    write_table(tmp_path / "a" / "c" / "0.csv", rows, {"task": "a", "contender": "c", "seed": 0})
    with pytest.raises(ValueError, match="no record of a/b/0; restore both files together"):
        pack(tmp_path)
