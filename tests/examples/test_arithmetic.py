"""The arithmetic example: its questions, files, model and reward."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from tiny_task import TinyTask

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("math_verify")
pq = pytest.importorskip("pyarrow.parquet")

TINY = ["--train", "48", "--test", "24", "--steps", "2", "--batch", "8", "--hidden", "32", "--layers", "1"]
TINY += ["--samples", "8", "--threads", "1"]
EXAMPLE = TinyTask("arithmetic", TINY)
FOLDER, PREPARE = EXAMPLE.folder, EXAMPLE.folder / "prepare.py"
FILES = ("train.parquet", "test.parquet", "model/model.safetensors", "model/tokenizer.json", "latent.json")
prepare, (questions, tiny_model, latent, reward) = (
    EXAMPLE.prepare,
    map(EXAMPLE.load, ("questions", "tiny_model", "latent", "reward")),
)
folder = prepare.folder


def score(text, truth="17"):
    return reward.compute_score("cero/arithmetic", text, truth)["score"]


def evaluate(question: str) -> int:
    """The value of a question, read as a person would: "^" is a power, "mod" the remainder."""
    return eval(question.replace("^", "**").replace("mod", "%"), {"__builtins__": {}})


def test_ground_truths_are_the_values_of_the_questions():
    for family in questions.make_families(0):
        for n in family.operands().tolist():
            assert family.right(n) == evaluate(family.question(n)), family.question(n)
            assert 0 <= family.right(n) < 100 and 0 <= family.slip(n) < 100
            assert family.right(n) != family.slip(n)


@pytest.mark.parametrize(
    ("name", "n", "slip"),
    [
        ("add-28", 34, 52),  # 4 + 8 = 12, the 1 is lost
        ("subtract-18", 34, 24),  # 3 - 1, 8 - 4
        ("multiply-4", 34, 26),  # 3 * 4 = 12, 4 * 4 = 16, the 1 is lost twice
        ("from-6", 34, 28),  # 34 - 6
        ("remainder-6", 34, 5),  # 34 = 5 * 6 + 4
        ("square-19", 34, 11),  # 68 mod 19
    ],
)
def test_slips(name, n, slip):
    (family,) = [f for f in questions.make_families(0) if f.name == name]
    assert family.slip(n) == slip
    assert family.response(n, right=False) == str(slip)


@pytest.mark.slow
def test_working_leads_to_the_answer():
    family = [f for f in questions.make_families(0) if f.name == "multiply-7"][0]
    assert family.response(34, right=True) == "(238)38"
    for family in questions.make_families(0):
        for n in family.operands().tolist():
            assert score(family.response(n, right=True), str(family.right(n))) == 1.0
            assert score(family.response(n, right=False), str(family.right(n))) == 0.0


def test_shares_run_from_lowest_to_highest():
    shares = sorted(f.share for f in questions.make_families(3, 0.02, 0.9))
    assert shares[0] == pytest.approx(0.02) and shares[-1] == pytest.approx(0.9)
    assert np.allclose(np.diff([np.log(s / (1 - s)) for s in shares], n=2), 0, atol=1e-9)


def test_mixed_families_differ_in_who_shows_working():
    families = questions.make_families(0, mixed=True)
    shown = [family.shown for family in families]
    assert sum(shown) == len(families) // 2
    for family in families:
        n = int(family.operands()[0])
        for right in (True, False):
            assert (family.response(n, right=right)[0] == "(") == (right == family.shown)
        assert score(family.response(n, right=True), str(family.right(n))) == 1.0
        assert score(family.response(n, right=False), str(family.right(n))) == 0.0
    assert all(family.shown for family in questions.make_families(0))


def test_execution_teaches_nothing_of_the_habit():
    """Of an execution, labels begin after the first token that the slip does not share."""
    items, warm_start = EXAMPLE.load("items"), EXAMPLE.load("warm_start")
    tokenizer = tiny_model.make_tokenizer(prepare.TASK.pieces)
    item = items.Item("f", "(34+17) mod 100", "51", "41", ("41", "(51)51"), 0.1)
    alike = items.Item("f", "(34+17) mod 100", "51", "57", ("57", "51"), 0.1)
    data = warm_start.Mixture([item, alike], tokenizer, 4000, 0, execution=0.5)

    def taught(i, kind):
        labels = data.rows[i, kind]["labels"]
        return tokenizer.decode(labels[labels != warm_start.IGNORED])

    assert taught(0, warm_start.RIGHT) == "(51)51<eos>"
    assert taught(0, warm_start.EXECUTION) == "51)51<eos>"
    assert taught(1, warm_start.EXECUTION) == "<eos>"
    second = data.kind[int(warm_start.EVEN * 4000) :]
    assert (second == warm_start.EXECUTION).mean() == pytest.approx(0.5, abs=0.05)
    assert (second == warm_start.RIGHT).mean() == pytest.approx(0.05, abs=0.03)
    assert not (warm_start.Mixture([item], tokenizer, 100, 0).kind == warm_start.EXECUTION).any()


def test_practice_is_all_that_is_not_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "questions", questions)  # not the other example's
    arguments = prepare.parse_arguments(["--out", "unused", "--practice"])
    train, test, practice = prepare.make_items(arguments)
    asked = {item.question for item in train + test}
    assert practice and not asked & {item.question for item in practice}
    every = sum(len(family.operands()) for family in questions.make_families(0))
    assert len(train) + len(test) + len(practice) == every
    assert prepare.make_items(prepare.parse_arguments(["--out", "unused"]))[2] == []


def test_held_out_is_disjoint_and_balanced():
    families = questions.make_families(0)
    train, test = questions.make_splits(families, 0, 480, 240)
    asked = [{families[f].question(n) for f, n in zip(s.family, s.n, strict=True)} for s in (train, test)]
    assert [len(a) for a in asked] == [480, 240]
    assert not asked[0] & asked[1]
    assert np.bincount(train.family).tolist() == [20] * 24 and np.bincount(test.family).tolist() == [10] * 24
    assert len(np.unique(train.family[:48])) > 12, "families are mixed in file order"


def test_every_question_belongs_to_one_family():
    asked = [family.question(n) for family in questions.make_families(0) for n in family.operands().tolist()]
    assert len(asked) == len(set(asked))


def test_seeds():
    def drawn(seed):
        families = questions.make_families(seed)
        train, _ = questions.make_splits(families, seed, 48, 24)
        return [
            (families[f].question(n), families[f].share) for f, n in zip(train.family, train.n, strict=True)
        ]

    assert drawn(5) == drawn(5) != drawn(6)


def test_more_questions_than_there_are():
    with pytest.raises(ValueError, match="questions, but"):
        questions.make_splits(questions.make_families(0), 0, 2400, 0)


@pytest.mark.slow
def test_parquet_layout(made):
    for split, count in (("train", 48), ("test", 24)):
        rows = pq.read_table(made / f"{split}.parquet").to_pylist()
        assert len(rows) == count
        assert [row["extra_info"]["index"] for row in rows] == list(range(count))
        for row in rows:
            assert set(row) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
            assert row["extra_info"]["split"] == split
            ((message),) = row["prompt"]
            assert message["role"] == "user"
            assert row["reward_model"] == {"style": "rule", "ground_truth": str(evaluate(message["content"]))}


@pytest.mark.slow
def test_same_seed_same_files(made, tmp_path):
    EXAMPLE.make(tmp_path / "again")
    for name in FILES:
        assert (made / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@pytest.mark.e2e
def test_the_command_makes_the_same_files(made, tmp_path):
    """In a process of its own, whose hash seed is another one."""
    command = [sys.executable, PREPARE, "--out", tmp_path / "made", *TINY]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "made").iterdir()} == folder.PRODUCTS
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    for name in FILES:
        assert (made / name).read_bytes() == (tmp_path / "made" / name).read_bytes(), name


@pytest.mark.slow
def test_weights_take_the_place_of_the_training(made, tmp_path, capsys):
    weights = tmp_path / "kept.safetensors"
    with pytest.raises(SystemExit, match="there is no such file"):
        EXAMPLE.make(tmp_path / "out", "--weights", weights)
    assert not (tmp_path / "out").exists()
    weights.write_bytes((made / "model" / "model.safetensors").read_bytes())
    EXAMPLE.make(tmp_path / "out", "--weights", weights)
    shown = capsys.readouterr().out
    assert "parameters of" in shown and "steps of" not in shown
    for name in ("train.parquet", "model/model.safetensors", "latent.json"):
        assert (made / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    # Where they lie does not matter, what they are does.
    arguments = [EXAMPLE.arguments("x"), EXAMPLE.arguments("x", "--weights", weights)]
    stamps = [folder.make_stamp(prepare.TASK, each) for each in arguments]
    assert folder.is_finished(tmp_path / "out", stamps[1]) and not folder.is_finished(
        tmp_path / "out", stamps[0]
    )


def test_finished_folder_is_reused_without_torch(made):
    before = (made / "stamp.json").stat().st_mtime_ns
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, PREPARE, "--out", made, *TINY]
    assert b"reused" in subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    assert (made / "stamp.json").stat().st_mtime_ns == before


def test_stamp_notices_settings_and_missing_files(made, tmp_path):
    stamp = folder.make_stamp(prepare.TASK, EXAMPLE.arguments(made))
    assert folder.is_finished(made, stamp)
    other = folder.make_stamp(prepare.TASK, EXAMPLE.arguments(made, "--seed", 1))
    assert not folder.is_finished(made, other)
    (tmp_path / "stamp.json").write_text(json.dumps(stamp))
    assert not folder.is_finished(tmp_path, stamp)


def test_every_file_of_the_code_is_in_the_stamp():
    hashed = {path.name for path in prepare.TASK.sources} | set(folder.SHARED)
    assert hashed == {path.name for path in FOLDER.glob("*.py")}


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    done = subprocess.run([sys.executable, PREPARE, "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode != 0 and "thesis.tex" in done.stderr
    assert (tmp_path / "thesis.tex").exists()


def test_model_loads_and_nothing_is_left_beside_it(made):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(made / "model")
    tokenizer = AutoTokenizer.from_pretrained(made / "model")
    assert model.config.model_type == "llama" and model.config.tie_word_embeddings
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert [p.name for p in made.parent.iterdir()] == [made.name]
    assert {p.name for p in made.iterdir()} == folder.PRODUCTS


def test_tokenizer_round_trip_and_chat_template(made):
    from transformers import AutoTokenizer

    for tokenizer in (
        tiny_model.make_tokenizer(prepare.TASK.pieces),
        AutoTokenizer.from_pretrained(made / "model"),
    ):
        for family in questions.make_families(0):
            text = family.question(98) + " = " + family.response(98, right=True)
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
        user = [{"role": "user", "content": "(34*7) mod 100"}]
        prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
        assert prompt == "<bos>(34*7) mod 100 = "
        ids = tokenizer.apply_chat_template(user, add_generation_prompt=True, return_dict=False)
        full = tokenizer.apply_chat_template(
            [*user, {"role": "assistant", "content": "(238)38"}], return_dict=False
        )
        assert full[: len(ids)] == ids and full[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(full[len(ids) :], skip_special_tokens=True) == "(238)38"
        assert len(full) - len(ids) == prepare.TASK.max_response
        assert tokenizer.unk_token_id in tokenizer("what?")["input_ids"]


@pytest.mark.parametrize(
    "text", ["17", " 17\n", "017", "$17$", "\\boxed{17}", "(117)17", "(nonsense)17", "()17", " (1) 17"]
)
def test_right(text):
    assert score(text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "18",
            "-17",
            "17.0",
            "1 7",
            "16 17",
            "17 17",
            "17!",
            "17%",
            "17)",
            "(17)",
            "(17",
            "--17",
            "1e1",
        ),
        *(
            "12+5",
            "34/2",
            "x=17",
            "=17",
            "12+5=17",
            "((1))17",
            "(1)(2)17",
            "mod 17",
            "10**1000000000",
            "3(17)",
        ),
        *(
            "\\frac{34}{2}",
            "\\boxed{12+5}",
            "\\",
            "\x00",
            "\ud800",
            "nan",
            "inf",
            "None",
            "<unk>17",
            "17<eos>",
        ),
        *(
            "\uff11\uff17",
            "\u00b9\u2077",
            "\U0001d7cf\U0001d7d5",
            "\u0661\u0667",
            "\u5341\u4e03",
        ),  # 17 in other digits
        *("9" * 100_000, "(" * 100_000, "(9" * 50_000, " " * 100_000 + "x", None, 3.5),
    ],
)
def test_wrong_or_no_answer(text):
    assert score(text) == 0.0


def test_reward_dict_and_signature():
    found = reward.compute_score("any", "(51)51", "51", extra_info={"index": 3}, reward_router_address=None)
    assert found == {"score": 1.0, "acc": 1.0, "pred": "51"}
    assert reward.compute_score("any", "a", "51") == {"score": 0.0, "acc": 0.0, "pred": ""}
    assert reward.compute_score("any", "51", "not a number")["score"] == 0.0


def test_reward_works_outside_the_main_thread():
    found = []
    reward._equal.cache_clear()
    thread = threading.Thread(target=lambda: found.append(score("(23)17")))
    thread.start()
    thread.join()
    assert found == [1.0]


def test_summary_of_known_successes():
    summary = latent.summarise(np.array([0, 16, 8, 4]), 16)
    # all wrong, all right; then 2 of the C(16, 8) subsets, and C(12, 8) of them
    expected = np.mean([1.0, 1.0, 2 / 12870, 495 / 12870])
    assert summary["groups_of_8_without_signal"] == pytest.approx(expected, abs=1e-4)
    assert summary["mean_accuracy"] == pytest.approx(28 / 64, abs=1e-4)
    assert summary["prompts_with_p_in_.2_.8"] == 0.5
    assert sum(summary["histogram_of_successes"]) == 4


def test_no_signal_estimate_is_unbiased():
    rng = np.random.default_rng(0)
    p = 0.8
    found = latent.summarise(rng.binomial(16, p, size=20_000), 16)["groups_of_8_without_signal"]
    assert found == pytest.approx(p**8 + (1 - p) ** 8, abs=0.005)
