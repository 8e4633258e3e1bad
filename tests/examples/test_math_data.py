"""examples/math: rows from the hub to verl's layout, and the reward."""

import importlib.util
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("math_verify")
FOLDER = Path(__file__).parents[2] / "examples" / "math"


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


# ---- reward --------------------------------------------------------------------------------------

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
    ("100, 200", r"\boxed{200, 100}"),  # several answers are a set
    ("1,2", r"\boxed{2, 1}"),
    (r"50\%", r"\boxed{50}"),
    ("50", r"\boxed{50\%}"),
    ("50", r"\boxed{50 %}"),
    ("33", r"\boxed{33.}"),
    ("4.5e33", r"\boxed{4.5 \times 10^{33}.}"),
    (r"\text{June 20}", r"\boxed{June 20}"),
    ("Navy", r"\boxed{\mathrm{Navy}}"),
    ("12000", r"\boxed{12\,000}"),
    ("12000", r"\boxed{12 000}"),
    ("12000", r"\boxed{12\!000}"),
    ("3", r"\boxed{3 \text{ cm}}"),
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
    ("1, 100", r"\boxed{1100}"),  # two answers are not one
    ("2, 345", r"\boxed{2345}"),
    ("1100", r"\boxed{1, 100}"),
    ("12", r"\boxed{1 2}"),
    ("50", r"\boxed{\%}"),
    ("1", r"\boxed{1\\}"),
    ("", r"\boxed{%}"),
    ("", r"\boxed{34}"),
    (None, r"\boxed{34}"),
]


@pytest.mark.parametrize(("expected", "text"), RIGHT)
def test_right(reward, expected, text):
    result = reward.compute_score("math_dapo", text, expected, extra_info={"index": 0}, other=1)
    assert result == {"score": 1.0, "acc": 1.0}


@pytest.mark.parametrize(("expected", "text"), WRONG)
def test_wrong(reward, expected, text):
    result = reward.compute_score("math_dapo", text, expected)
    assert result == {"score": 0.0, "acc": 0.0}


def test_without_its_judge_it_is_refused(monkeypatch):
    """Else every answer but the simplest would count as wrong, unseen."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install math-verify"):
        module("reward")


def test_last_boxed(reward):
    assert reward.last_boxed(r"\boxed{\{1,2\}} ") == r"\{1,2\}"
    assert reward.last_boxed(r"\boxed {3}") == "3"
    assert reward.last_boxed(r"\boxed{a\\{b}}") == r"a\\{b}"
    longest = "1" * reward.MAX_ANSWER
    assert reward.last_boxed(f"\\boxed{{{longest}}}") == longest
    assert reward.last_boxed(f"\\boxed{{{longest}1}}") is None


@pytest.mark.parametrize(
    "text", ["x" * 10**7, "\\boxed{" * 10**5, "\\boxed{" + "1+" * 10**6 + "1}", "{" * 10**6]
)
def test_huge_responses_are_quick(reward, text):
    started = time.perf_counter()
    assert reward.compute_score("math_dapo", text, "1")["score"] == 0
    assert time.perf_counter() - started < 5


@pytest.mark.slow
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


# ---- data ----------------------------------------------------------------------------------------


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
    for convert in (prepare.from_aime24, prepare.from_aime25):
        assert convert({"id": 60, "problem": "P", "answer": "025"}) == prepare.Item("P", "025", "60")
    for answer in ("27", 27, 27.0):
        assert prepare.from_amc23({"id": 0, "question": "Q", "answer": answer}) == prepare.Item(
            "Q", "27", "0"
        )
    assert prepare.from_minerva({"question": "Q", "answer": "4.5e33"}) == prepare.Item("Q", "4.5e33")


def olympiad_row(question, answers, context=None, image=None):
    """A row in the columns of Hothan/OlympiadBench."""
    return {
        "id": 1606,
        "question": question,
        "solution": ["..."],
        "final_answer": answers,
        "context": context,
        **{f"image_{i}": image if i == 1 else None for i in range(1, 10)},
        "modality": "Text-only",
        "difficulty": "Competition",
        "is_multiple_answer": answers is not None and "," in answers[0],
        "unit": None,
        "answer_type": "Numerical",
        "error": None,
        "question_type": "Open-ended",
        "subfield": "Algebra",
        "subject": "Math",
        "language": "English",
    }


def test_from_olympiad(prepare):
    convert = prepare.from_olympiad
    assert convert(olympiad_row("Q", ["2"])) == prepare.Item("Q", "2", "1606")
    assert convert(olympiad_row("Q", ["$2,5$"])) == prepare.Item("Q", "2,5", "1606")
    assert convert(olympiad_row("Q", ["$2$", "$5$"])) == prepare.Item("Q", "2, 5", "1606")
    assert convert(olympiad_row("Q", ["2"], context="Let $x$.")) == prepare.Item("Let $x$.\nQ", "2", "1606")
    assert convert(olympiad_row("Q", ["2"], image={"bytes": b"", "path": None})) is None
    assert convert(olympiad_row("Q", None)) is None


# Answers of each set's kinds, as the hub has them, and what a model writes: (row's answer, right ones, wrong
# ones).
ANSWERS = {
    "aime24": [("033", ["33", "033", "33.0"], ["34", "-33", "330"])],
    "aime25": [("588", ["588", r"\ 588"], ["587", "58"]), ("70", [r"70"], ["7"])],
    "amc23": [(27.0, ["27", "27.0", r"\frac{54}{2}"], ["26"]), ("361.0", ["361"], ["3.61"])],
    "math500": [
        (r"\left( 3, \frac{\pi}{2} \right)", [r"(3,\frac{\pi}{2})", r"(3, \pi/2)"], [r"(3,\pi)", "3"]),
        ("p - q", ["p-q", "-q+p"], ["q-p"]),
        (r"\text{Evelyn}", [r"\text{Evelyn}", "Evelyn"], [r"\text{Debra}"]),
        ("6 - 5i", ["6-5i"], ["6+5i"]),
    ],
    "minerva": [
        ("4.5e33", [r"4.5 \times 10^{33}", "4.5e33", r"4.5\cdot10^{33}"], ["4.5", r"4.5 \times 10^{32}"]),
        ("1e-6", ["10^{-6}", r"1\times 10^{-6}", "0.000001"], ["10^{6}"]),
        ("-13.6", ["-13.6", r"-13.6 \text{ eV}"], ["13.6"]),
        (
            r"\arcsin{1.3 \sin{\theta_w}}",
            [r"\arcsin(1.3\sin\theta_w)", r"\sin^{-1}(1.3 \sin \theta_w)"],
            ["1.3"],
        ),
    ],
    "olympiad": [
        (["$2,5$"], ["5, 2", r"\{2,5\}"], ["2", "2,6"]),
        (
            ["$(1,8,19), (2,7,13), (4,5,7)$"],
            ["(2,7,13),(1,8,19),(4,5,7)"],
            ["(1,8,19)", "(8,1,19),(2,7,13),(4,5,7)"],
        ),
        ([r"$\frac{1}{n+1}$"], [r"\frac{1}{1+n}", r"(n+1)^{-1}"], [r"\frac{1}{n}"]),
        ([r"$(-\infty, 2]$"], [r"(-\infty,2]"], [r"(-\infty,2)"]),
    ],
}


def validation_row(name, answer):
    """A row of the set `name` on the hub with this answer."""
    if name == "olympiad":
        return olympiad_row("Q?", answer)
    question = "question" if name in ("amc23", "minerva") else "problem"
    return {question: "Q?", "answer": answer, "id": 1, "unique_id": "test/1.json"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_each_set(prepare, reward, name):
    """From the hub's row through the conversion to the reward of what a model may write."""
    assert set(ANSWERS) == set(prepare.VALIDATION)
    source = prepare.VALIDATION[name]
    for answer, right, wrong in ANSWERS[name]:
        row = prepare.to_row(source.convert(validation_row(name, answer)), 0, source.data_source, "test")
        for text, expected in [(text, 1.0) for text in right] + [(text, 0.0) for text in wrong]:
            response = f"So the answer is $\\boxed{{{text}}}$."
            score = reward.compute_score(row["data_source"], response, row["reward_model"]["ground_truth"])
            assert score["acc"] == expected, (answer, text)


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
    """Qwen2.5-Math's own prompt: its system message, the bare question."""
    row = prepare.to_row(prepare.Item("Why?", "1", "id"), 5, "math_dapo", "train")
    system, user = row["prompt"]
    assert system["role"] == "system" and system["content"].endswith(
        r"put your final answer within \boxed{}."
    )
    assert user == {"role": "user", "content": "Why?"}
    assert row["reward_model"] == {"style": "rule", "ground_truth": "1"}
    assert row["extra_info"] == {"index": 5, "split": "train", "source_id": "id"}
    assert reward.last_boxed(system["content"]) is None  # echoing the request is no answer
    assert prepare.messages("Why?", system="", suffix=" Box it.") == [
        {"role": "user", "content": "Why? Box it."}
    ]


class Rows(list):
    """What load_dataset returns, as far as prepare.py uses it."""

    column_names = ["some", "columns"]


def hub(prepare, **changes):
    """A hub with made-up data sets: {name: rows}."""
    question = "Is DAPO's question number {}?".format
    sets = {
        "BytedTsinghua-SIA/DAPO-Math-17k": Rows(
            dapo_row(prepare, question(i % 5), str(i % 5)) for i in range(50)
        ),
        "DigitalLearningGmbH/MATH-lighteval": Rows(
            {"problem": f"M{i}", "level": f"Level {i}", "solution": rf"\boxed{{{i}}}"} for i in range(1, 6)
        ),
        "HuggingFaceH4/MATH-500": Rows([{"problem": question(0), "answer": r"\pi", "unique_id": "t/1.json"}]),
        "HuggingFaceH4/aime_2024": Rows([{"id": 60, "problem": "AIME?", "answer": "025"}]),
        "math-ai/aime25": Rows([{"id": "0", "problem": "AIME, too?", "answer": "70"}]),
        "math-ai/minervamath": Rows([{"question": "How hot?", "answer": "4.5e33"}]),
        "Hothan/OlympiadBench": Rows(
            [
                olympiad_row("Which?", ["$2,5$"]),
                olympiad_row("See the picture.", ["1"], image={"bytes": b"x"}),
            ]
        ),
        "math-ai/amc23": Rows([{"id": 0, "question": "AMC?", "answer": 27.0}]),
    }
    return sets | changes


def run(prepare, monkeypatch, sets, *argv):
    datasets = pytest.importorskip("datasets")
    known = [*prepare.TRAIN.values(), *prepare.VALIDATION.values()]

    def load_dataset(name, subset=None, *, split):
        assert (name, subset, split) in {(s.hub, s.subset, s.split) for s in known}
        if isinstance(sets[name], Exception):
            raise sets[name]
        return sets[name]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    prepare.main([str(arg) for arg in argv])


def test_files(prepare, monkeypatch, tmp_path):
    """Files as verl reads them: one schema, so that validation sets concatenate, and distinct prompts."""
    datasets = pytest.importorskip("datasets")
    real = datasets.load_dataset
    run(prepare, monkeypatch, hub(prepare), "--out", tmp_path / "new")
    read = {
        file.stem: real("parquet", data_files=str(file), cache_dir=str(tmp_path / "cache"))["train"]
        for file in sorted((tmp_path / "new").iterdir())
    }
    assert set(read) == {"train", *prepare.VALIDATION}
    assert [row["reward_model"]["ground_truth"] for row in read["train"]] == [
        "1",
        "2",
        "3",
        "4",
    ]  # 0 is held out
    assert [row["extra_info"]["index"] for row in read["train"]] == [0, 1, 2, 3]
    both = datasets.concatenate_datasets([read[name] for name in prepare.VALIDATION])
    assert [row["data_source"] for row in both] == list(prepare.VALIDATION)
    assert [row["reward_model"]["ground_truth"] for row in both] == [
        "025",
        "70",
        "27",
        r"\pi",
        "4.5e33",
        "2,5",
    ]
    assert [row["__rollout_n__"] for row in both] == [32, 32, 32, 4, 4, 4]
    assert "__rollout_n__" not in read["train"].column_names  # there, it is the allocator's to say


def test_samples(prepare, monkeypatch, tmp_path):
    run(
        prepare,
        monkeypatch,
        hub(prepare),
        "--out",
        tmp_path,
        "--samples",
        "1",
        "--validation",
        "aime25",
        "minerva",
    )
    for name in ("aime25", "minerva"):
        assert prepare.pq.read_table(tmp_path / f"{name}.parquet")["__rollout_n__"].to_pylist() == [1]
    assert not (tmp_path / "aime24.parquet").exists()
    with pytest.raises(SystemExit):
        prepare.main(["--out", str(tmp_path), "--samples", "0"])


def test_levels(prepare, monkeypatch, tmp_path):
    argv = (
        "--out",
        tmp_path,
        "--train",
        "math",
        "--levels",
        "4",
        "5",
        "--validation",
        "amc23",
        "--system",
        "",
    )
    run(prepare, monkeypatch, hub(prepare), *argv)
    rows = prepare.pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert [(row["prompt"][0]["content"], row["reward_model"]["ground_truth"]) for row in rows] == [
        ("M4", "4"),
        ("M5", "5"),
    ]
    with pytest.raises(SystemExit):
        prepare.main(["--out", str(tmp_path), "--levels", "5"])


def test_no_hub(prepare, monkeypatch, tmp_path):
    sets = hub(
        prepare, **{"HuggingFaceH4/MATH-500": ConnectionError("Couldn't reach 'HuggingFaceH4/MATH-500'")}
    )
    with pytest.raises(SystemExit, match=r"could not load HuggingFaceH4/MATH-500 .*\n.*HF_ENDPOINT"):
        run(prepare, monkeypatch, sets, "--out", tmp_path)


def test_other_columns(prepare, monkeypatch, tmp_path):
    sets = hub(prepare, **{"math-ai/amc23": Rows([{"problem": "P", "answer": "1"}])})
    with pytest.raises(SystemExit, match="KeyError: 'question'.*some, columns.*from_amc23"):
        run(prepare, monkeypatch, sets, "--out", tmp_path)
