"""examples/math: rows from the hub to verl's layout, and the reward."""

import importlib.util
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("math_verify")
FOLDER = Path(__file__).parents[1] / "examples" / "math"


def module(name):
    spec = importlib.util.spec_from_file_location(f"examples_math_{name}", FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look themselves up there
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def reward():
    return module("reward")


@pytest.fixture(scope="module")
def prepare():
    pytest.importorskip("pyarrow")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)  # as `python examples/math/prepare.py` has it
        patch.delitem(sys.modules, "reward", raising=False)  # another example's, if its tests ran here
        yield module("prepare")
        sys.modules.pop("reward", None)


# ---- reward -----------------------------------------------------------------------------------------------------

RIGHT = [
    ("34", r"It is \boxed{34}."),
    ("34", r"\boxed{ 34 }"),
    ("025", r"\boxed{25}"),
    ("12000", r"\boxed{12,000}"),
    ("12000", r"\boxed{12{,}000}"),
    ("-3", r"\boxed{-3}"),
    ("42", r"\boxed{42.0}"),
    ("2", r"\boxed{\frac{4}{2}}"),
    (r"\frac{1}{2}", r"\boxed{0.5}"),
    (r"\frac{1}{2}", r"\boxed{\dfrac{2}{4}}"),
    (r"\frac12", r"\boxed{1/2}"),
    (r"2\sqrt{3}", r"\boxed{\sqrt{12}}"),
    (r"(x+1)^2", r"\boxed{x^2+2x+1}"),
    (r"\left(3,\frac{\pi}{2}\right)", r"\boxed{(3, \pi/2)}"),
    (r"\{1,2\}", r"\boxed{\{2, 1\}}"),
    (r"\text{even}", r"\boxed{\text{even}}"),
    (7, r"\boxed{7}"),
    ("2", r"First \boxed{1}, no: \boxed{2}"),
]
WRONG = [
    ("34", r"\boxed{35}"),
    ("34", "The answer is 34."),
    ("34", ""),
    ("34", r"\boxed{}"),
    ("34", r"\boxed{ }"),
    ("34", r"\boxed"),
    ("34", r"\boxed{34"),
    ("1", r"First \boxed{1}, no: \boxed{2}"),
    ("1", r"First \boxed{1}, but then \boxed{1 + "),
    ("34", r"\boxed{\frac{{{}"),
    ("34", r"\boxed{)(*&^%$#@!\left\right\\\}"),
    ("34", "\\boxed{\x00\ud800\u202e三十四}"),
    ("34", r"\boxed{\mathbb{R} \setminus \emptyset \Rightarrow}"),
    (r"\frac{1}{2}", r"\boxed{\frac{1}{3}}"),
    ("", r"\boxed{34}"),
    (None, r"\boxed{34}"),
]


@pytest.mark.parametrize(("expected", "text"), RIGHT)
def test_right(reward, expected, text):
    result = reward.compute_score("math_dapo", text, expected, extra_info={"index": 0}, other=1)
    assert result["score"] == result["acc"] == 1 and result["pred"]


@pytest.mark.parametrize(("expected", "text"), WRONG)
def test_wrong(reward, expected, text):
    result = reward.compute_score("math_dapo", text, expected)
    assert result["score"] == result["acc"] == 0 and isinstance(result["pred"], str)


def test_last_boxed(reward):
    assert reward.last_boxed(r"\boxed{\{1,2\}} ") == r"\{1,2\}"
    assert reward.last_boxed(r"\boxed {3}") == "3"
    assert reward.last_boxed(r"\boxed{a\\{b}}") == r"a\\{b}"
    longest = "1" * reward.MAX_ANSWER
    assert reward.last_boxed(f"\\boxed{{{longest}}}") == longest
    assert reward.last_boxed(f"\\boxed{{{longest}1}}") is None


@pytest.mark.parametrize("text", ["x" * 10**7, "\\boxed{" * 10**5, "\\boxed{" + "1+" * 10**6 + "1}", "{" * 10**6])
def test_huge_responses_are_quick(reward, text):
    started = time.perf_counter()
    assert reward.compute_score("math_dapo", text, "1")["score"] == 0
    assert time.perf_counter() - started < 5


def test_endless_computations_end(reward, monkeypatch):
    """Answers that math-verify alone would work on for ever; the next answer is judged as usual."""
    monkeypatch.setattr(reward, "TIME_LIMIT", 1.0)
    monkeypatch.setattr(reward, "_judge", reward._Judge())
    started = time.perf_counter()
    for answer in (r"(x+1)^{2000}", r"10^{10^{10}}"):
        assert reward.compute_score("math_dapo", f"\\boxed{{{answer}}}", r"(x+1)^{10}")["score"] == 0
    assert 2 < time.perf_counter() - started < 60
    monkeypatch.setattr(reward, "TIME_LIMIT", 30.0)
    assert reward.compute_score("math_dapo", r"\boxed{\frac{2}{4}}", r"\frac{1}{2}")["score"] == 1


def test_scores_in_threads(reward):
    """verl calls it in a thread pool, where signal.alarm would raise."""
    answers = [rf"\boxed{{\frac{{{i}}}{{10}}}}" for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(lambda text: reward.compute_score("math", text, "0.3")["score"], answers))
    assert scores == [0, 0, 0, 1, 0, 0, 0, 0]


# ---- data -------------------------------------------------------------------------------------------------------


def dapo_row(prepare, question, answer, index="a"):
    content = f"{prepare.DAPO_BEFORE}\n\n{question}\n\n{prepare.DAPO_AFTER}"
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": content, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }


def test_from_dapo(prepare):
    item = prepare.from_dapo(dapo_row(prepare, "What is $1+1$?", "2", "9a9b-6eb4"))
    assert item == prepare.Item("What is $1+1$?", "2", "9a9b-6eb4")


def test_from_math(prepare):
    row = {
        "problem": "Half?",
        "level": "Level 3",
        "type": "Algebra",
        "solution": r"\boxed{1}, so $\boxed{\frac{1}{2}}$.",
    }
    assert prepare.from_math(row) == prepare.Item("Half?", r"\frac{1}{2}")
    assert prepare.from_math(row, levels=[3, 4, 5]) is not None
    assert prepare.from_math(row, levels=[4, 5]) is None
    assert prepare.from_math(row | {"level": "Level ?"}, levels=[3]) is None
    assert prepare.from_math(row | {"solution": "Obvious."}) is None


def test_from_validation_sets(prepare):
    row = {
        "problem": "P",
        "solution": "S",
        "answer": r"\pi",
        "subject": "Algebra",
        "level": 2,
        "unique_id": "test/1.json",
    }
    assert prepare.from_math500(row) == prepare.Item("P", r"\pi", "test/1.json")
    assert prepare.from_aime24({"id": 60, "problem": "P", "answer": "025"}) == prepare.Item("P", "025", "60")
    for answer in ("27", 27, 27.0):
        assert prepare.from_amc23({"id": 0, "question": "Q", "answer": answer}) == prepare.Item("Q", "27", "0")


def test_unique(prepare):
    item = prepare.Item
    items = [
        item("a b", "1", "x"),
        item("A  b\n", "1", "y"),
        item("c", "2"),
        item("d", "3"),
        item("c", "4"),
        item("c", "2"),
    ]
    assert prepare.unique(items * 100) == [item("a b", "1", "x"), item("d", "3")]


def test_without_validation_questions(prepare):
    items = [prepare.Item("a", "1"), prepare.Item("b", "2")]
    assert prepare.without(items, [prepare.Item(" B ", "other")]) == items[:1]


def test_prompt_asks_for_a_box(prepare, reward):
    row = prepare.to_row(prepare.Item("Why?", "1", "id"), 5, "math_dapo", "train")
    (message,) = row["prompt"]
    assert message["role"] == "user" and message["content"].startswith("Why?")
    assert message["content"].endswith(r"put your final answer within \boxed{}.")
    assert row["reward_model"] == {"style": "rule", "ground_truth": "1"}
    assert row["extra_info"] == {"index": 5, "split": "train", "source_id": "id"}
    assert reward.last_boxed(message["content"]) is None  # echoing the question is no answer


class Rows(list):
    """What load_dataset returns, as far as prepare.py uses it."""

    column_names = ["some", "columns"]


def hub(prepare, **changes):
    """A hub with made-up data sets: {name: rows}."""
    question = "Is DAPO's question number {}?".format
    sets = {
        "BytedTsinghua-SIA/DAPO-Math-17k": Rows(dapo_row(prepare, question(i % 5), str(i % 5)) for i in range(50)),
        "DigitalLearningGmbH/MATH-lighteval": Rows(
            {"problem": f"M{i}", "level": f"Level {i}", "solution": rf"\boxed{{{i}}}"} for i in range(1, 6)
        ),
        "HuggingFaceH4/MATH-500": Rows([{"problem": question(0), "answer": r"\pi", "unique_id": "t/1.json"}]),
        "HuggingFaceH4/aime_2024": Rows([{"id": 60, "problem": "AIME?", "answer": "025"}]),
        "math-ai/amc23": Rows([{"id": 0, "question": "AMC?", "answer": 27.0}]),
    }
    return sets | changes


def run(prepare, monkeypatch, sets, *argv):
    datasets = pytest.importorskip("datasets")

    def load_dataset(name, split):
        if isinstance(sets[name], Exception):
            raise sets[name]
        return sets[name]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    prepare.main([str(arg) for arg in argv])


def test_files(prepare, monkeypatch, tmp_path):
    """Files as verl reads them: one schema, so that validation sets concatenate; distinct prompts for the table."""
    datasets = pytest.importorskip("datasets")
    real = datasets.load_dataset
    run(prepare, monkeypatch, hub(prepare), "--out", tmp_path / "new")
    read = {
        file.stem: real("parquet", data_files=str(file), cache_dir=str(tmp_path / "cache"))["train"]
        for file in sorted((tmp_path / "new").iterdir())
    }
    assert set(read) == {"train", *prepare.VALIDATION}
    assert [row["reward_model"]["ground_truth"] for row in read["train"]] == ["1", "2", "3", "4"]  # 0 is held out
    assert [row["extra_info"]["index"] for row in read["train"]] == [0, 1, 2, 3]
    both = datasets.concatenate_datasets([read[name] for name in prepare.VALIDATION])
    assert [row["data_source"] for row in both] == list(prepare.VALIDATION)
    assert [row["reward_model"]["ground_truth"] for row in both] == [r"\pi", "025", "27"]


def test_levels(prepare, monkeypatch, tmp_path):
    argv = ("--out", tmp_path, "--train", "math", "--levels", "4", "5", "--validation", "amc23", "--suffix", "")
    run(prepare, monkeypatch, hub(prepare), *argv)
    rows = prepare.pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert [(row["prompt"][0]["content"], row["reward_model"]["ground_truth"]) for row in rows] == [
        ("M4", "4"),
        ("M5", "5"),
    ]
    with pytest.raises(SystemExit):
        prepare.main(["--out", str(tmp_path), "--levels", "5"])


def test_no_hub(prepare, monkeypatch, tmp_path):
    sets = hub(prepare, **{"HuggingFaceH4/MATH-500": ConnectionError("Couldn't reach 'HuggingFaceH4/MATH-500'")})
    with pytest.raises(SystemExit, match=r"could not load HuggingFaceH4/MATH-500 .*\n.*HF_ENDPOINT"):
        run(prepare, monkeypatch, sets, "--out", tmp_path)


def test_other_columns(prepare, monkeypatch, tmp_path):
    sets = hub(prepare, **{"math-ai/amc23": Rows([{"problem": "P", "answer": "1"}])})
    with pytest.raises(SystemExit, match="KeyError: 'question'.*some, columns.*from_amc23"):
        run(prepare, monkeypatch, sets, "--out", tmp_path)
