"""The SmolLM2 example: its questions and its reward; the model itself is run by examples/smollm2/run.sh."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "smollm2"


def load(name):
    spec = importlib.util.spec_from_file_location(f"smollm2_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare, reward = load("prepare"), load("reward")


@pytest.mark.parametrize(
    "text, answer, score",
    [
        ("17", "17", 1.0),
        ("12 + 5 = 17", "17", 1.0),
        ("The answer is 28,080.", "28080", 1.0),
        ("17 or 18", "17", 0.0),
        ("16", "17", 0.0),
        ("", "17", 0.0),
        ("no idea \ud83d\ude00", "17", 0.0),
        ("9" * 5000, "9", 0.0),
    ],
)
@pytest.mark.parametrize("task", ["chain_sum", "gsm_symbolic"])
def test_reward(task, text, answer, score):
    result = reward.compute_score(f"reasoning_gym/{task}", text, answer)
    assert (result["score"], result["acc"]) == (score, score) and isinstance(result["pred"], str)


@pytest.mark.parametrize(
    "text, number",
    [("= 3.14159265358979", ""), ("24.0000000001", ""), ("\u221224", "-24"), ("5,10", ""), ("1,510", "1510")]
    + [("it is 24.", "24"), ("12 and 3.5", "3.5"), ("1234567", "1234567"), ("12,345,678", "12345678")],
)
def test_what_a_number_is(text, number):
    """A longer fraction is no whole number, and a comma stands between thousands."""
    assert reward.extract(text) == number


def test_signs_count():
    """chain_sum has negative answers; gsm_symbolic's scorer would overlook the sign."""
    assert reward.compute_score("reasoning_gym/chain_sum", "-4", "-4")["score"] == 1
    assert reward.compute_score("reasoning_gym/chain_sum", "4", "-4")["score"] == 0
    assert reward.compute_score("reasoning_gym/gsm_symbolic", "-24", "24")["score"] == 0


@pytest.mark.parametrize("task", ["chain_sum", "gsm_symbolic"])
def test_questions(task, tmp_path):
    import pyarrow.parquet as pq

    rows = prepare.make_rows(task, 0, 24, 8)
    assert rows == prepare.make_rows(task, 0, 24, 8)
    questions = [row["prompt"][0]["content"] for part in rows.values() for row in part]
    assert len(set(questions)) == 32
    for row in rows["train"]:
        assert reward.compute_score(
            row["data_source"], row["reward_model"]["ground_truth"], row["reward_model"]["ground_truth"]
        )["score"]
    prepare.write_parquet(rows, tmp_path)
    assert pq.read_table(tmp_path / "train.parquet").to_pylist() == rows["train"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.parquet", "train.parquet"]
