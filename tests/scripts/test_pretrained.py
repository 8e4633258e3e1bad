"""Is the page on the pretrained model what its runs left? Records are made by hand; no model is run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "benchmark"))
import pretrained

FAMILIES = {"a": "sum", "b": "sum", "c": "days"}


def step(number, prompts, successes, trials):
    return {
        "kind": "step", "step": number, "epoch": 0, "budget": sum(trials), "spent": 9 * number,
        "prompts": prompts, "rollouts": trials, "successes": successes, "trials": trials,
        "metrics": {"timing_s/step": 2.0 * number, "cero/tokens/sampled": 100 * number},
    }  # fmt: skip


def run(contender, seed, rate, same, other):
    return {
        "task": "fewshot-fresh", "contender": contender, "seed": seed, "overrides": [],
        "rollouts": [8] * len(rate), "tokens": [100] * len(rate), "seconds": [2.0] * len(rate), "rate": rate,
        "families": {"sum": [[1, 4]] * 3},
        "exact": {"2": {"sum": 0.25, "months": other}, "3": {"sum": same, "months": other}},
    }  # fmt: skip


START = {
    "task": "fewshot-fresh",
    "contender": "start",
    "seed": 0,
    "exact": {"0": {"sum": 0.25, "months": 0.125}},
}
RUNS = [
    run("grpo", 1, [0.2, 0.3, 0.4], 0.40, 0.20),
    run("grpo", 2, [0.2, 0.4, 0.6], 0.50, 0.20),
    run("even-n1", 1, [0.3, 0.4, 0.5], 0.50, 0.10),
    run("even-n1", 2, [0.3, 0.6, 0.6], 0.70, 0.10),
]


def test_prompts_count_alike_however_many_rollouts_they_have():
    records = [
        step(1, ["a", "b"], [4.0, 0.0], [4, 1]),
        step(2, ["a", "c"], [1.0, 0.0], [2, 0]),
        step(3, ["c"], [3.0], [4]),
    ]
    found = pretrained.steps_of(records, FAMILIES)
    assert found["rate"] == [0.5, 0.5, 0.75]
    assert (found["rollouts"], found["tokens"], found["seconds"]) == ([5, 2, 4], [100, 200, 300], [2, 4, 6])
    assert found["families"] == {"sum": [[4, 5], [1, 2], [0, 0]], "days": [[0, 0], [0, 0], [3, 4]]}


def test_prompts_of_a_file_are_known_by_the_ids_of_the_log(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cero.verl.identity import row_prompt_id

    row = {
        "data_source": "fewshot/sum",
        "prompt": [{"role": "user", "content": "1 + 1 ="}],
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"family": "sum"},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "train.parquet")
    number = row_prompt_id(row["data_source"], row["prompt"], "2")
    assert pretrained.family_of_prompts(tmp_path / "train.parquet") == {f"{number:016x}": "sum"}


def test_differences_are_paired():
    cells = {
        line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")
        for line in pretrained.table([START, *RUNS]).splitlines()
    }
    assert cells["before training"][4:7] == ["25.0", "", "12.5"]
    # 0.25 until step 2, then in a line to 0.4 and 0.5: areas of (0.5 + 0.325) / 3 and (0.5 + 0.375) / 3
    assert cells["grpo"][1:7] == ["2", "35.0", "50.0", "45.0", "28.3", "20.0"]
    assert cells["grpo"][7:] == ["-", "-", "300", "2"]
    # 10 and 20 points more at the end; a sixth of that in area
    assert cells["even-n1"][1:7] == ["2", "45.0", "55.0", "60.0", "30.8", "10.0"]
    assert cells["even-n1"][7:] == ["+15.0 ± 5.0", "+2.5 ± 0.8", "300", "2"]


def test_learning_is_averaged_over_seeds():
    x, y = pretrained.learning(RUNS[:2], START, ["sum"], "seconds")
    assert np.allclose(x, [0, 4 / 60, 6 / 60])
    assert np.allclose(y, [25, 25, 45])


def test_the_page_keeps_what_is_around_its_table(tmp_path):
    out, page = tmp_path / "runs.jsonl", tmp_path / "page.md"
    out.write_text("".join(json.dumps(record) + "\n" for record in [START, *RUNS]))
    page.write_text(f"# Before\n{pretrained.BEGIN}\nold\n{pretrained.END}\nafter\n")
    words = ["page", str(page), "--out", str(out), "--image", str(tmp_path / "pretrained.png")]
    pretrained.main(words)
    text = page.read_text()
    assert text.startswith("# Before\n") and text.endswith("after\n") and "old" not in text
    assert "| even-n1 | 2 |" in text and "pretrained-fresh.png" in text
    assert (tmp_path / "pretrained-fresh.png").stat().st_size > 10_000
    pretrained.main(words)
    assert page.read_text() == text


def test_a_page_without_the_place_is_refused(tmp_path, capsys):
    out, page = tmp_path / "runs.jsonl", tmp_path / "page.md"
    out.write_text(json.dumps(START) + "\n" + json.dumps(RUNS[0]) + "\n")
    twice = f"{pretrained.BEGIN}\n{pretrained.END}\n" * 2
    for text in ("# No comments\n", f"{pretrained.END}\n{pretrained.BEGIN}\n", twice):
        page.write_text(text)
        with pytest.raises(SystemExit) as error:
            pretrained.main(
                ["page", str(page), "--out", str(out), "--image", str(tmp_path / "pretrained.png")]
            )
        assert error.value.code == 2 and page.read_text() == text
        assert f"pretrained.py page: {page} has no place for the table" in capsys.readouterr().err
