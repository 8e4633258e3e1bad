"""The few-shot example: families, files, reward, table. The model is run by examples/fewshot/run.sh."""

import csv
import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "fewshot"
MODULES = ("words", "families", "reward", "prepare", "rates")


def load_example():
    """The example's modules: their names are other examples' too, so they are put away again."""
    kept = {name: sys.modules.pop(name, None) for name in MODULES}
    path = list(sys.path)
    sys.path[:0] = [str(FOLDER)]
    try:
        return [importlib.import_module(name) for name in MODULES]
    finally:
        sys.path[:] = path
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update({name: module for name, module in kept.items() if module})


words, families, reward, prepare, rates = load_example()
FAMILIES = {family.name: family for family in families.FAMILIES}


def score(text, truth="24", family="sum"):
    return reward.compute_score(f"fewshot/{family}", text, truth)["score"]


def drawn(family, count, held_out=False, seed=0):
    rng = np.random.default_rng(seed)
    return [family.draw(rng, held_out) for _ in range(count)]


# ------------------------------------------------------------------ families
def test_there_are_many_families():
    assert len(FAMILIES) == len(families.FAMILIES) >= 16
    assert set(families.KEPT) < set(FAMILIES)
    assert [family.name for family in families.FAMILIES if family.working] == list(reward.WITH_WORKING)


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts(name):
    """Three worked lines, then a question; the same from the same generator."""
    family = FAMILIES[name]
    pairs = drawn(family, 30)
    assert pairs == drawn(family, 30) != drawn(family, 30, seed=1)
    for prompt, answer in pairs:
        *worked, question = prompt.split("\n")
        assert len(worked) == families.WORKED and prompt == prompt.strip() and answer == answer.strip() != ""
        assert len({*worked, question}) == 4 and not any(line.startswith(question + " ") for line in worked)
        assert not family.is_held_out(question)
        assert score(f" {answer}\n", answer, name) == 1.0
        assert score(f" {answer} {answer}\n", answer, name) == 0.0 or family.working
        assert prompt.isascii() and len(prompt) < 300


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_lines(name):
    """A question has one answer; the number of lines is as stated; a sixth of them is held out."""
    family = FAMILIES[name]
    rng, found = np.random.default_rng(0), {}
    draws = 30 * family.lines if family.lines <= 400 else 3000
    for _ in range(draws):
        question, rest = family.line(rng)
        assert isinstance(question, str) and isinstance(rest, str)
        if question in found:
            assert found[question] == rest, question
            continue
        found[question] = rest
        answer = families.answer_of(rest) if family.working else rest
        assert score(f" {rest}", answer, name) == 1.0
    assert len(found) <= family.lines
    if family.lines <= 400:
        assert len(found) == family.lines
    else:  # too many to meet all of them: not many fewer than of equally frequent ones
        assert len(found) > 0.4 * family.lines * -np.expm1(-draws / family.lines)
    held_out = sum(map(family.is_held_out, found)) / len(found)
    assert abs(held_out - 1 / families.HELD_OUT_PART) < 4 * (1 / 6 * 5 / 6 / len(found)) ** 0.5
    assert family.prompts > 10**7


@pytest.mark.slow
def test_held_out_lines_are_not_in_training_prompts():
    for family in families.FAMILIES:
        asked = {prompt.rpartition("\n")[2] for prompt, _ in drawn(family, 40, held_out=True)}
        for prompt, _ in drawn(family, 100) + drawn(family, 40, held_out=True):
            for line in prompt.split("\n")[: families.WORKED]:
                assert not any(line.startswith(question + " ") for question in asked)
        assert all(map(family.is_held_out, asked))


def test_families_that_share_lines_hold_out_the_same():
    """Else a held-out question of one of them would be asked and answered in training."""
    asked, trained = {}, {}
    for family in families.FAMILIES:
        lines = {prompt.rpartition("\n")[2] for prompt, _ in drawn(family, 400, held_out=True)}
        asked |= dict.fromkeys(lines, family.name)
        for prompt, _ in drawn(family, 400):
            trained |= dict.fromkeys([prompt.rpartition("\n")[2]], family.name)
    assert not set(asked) & set(trained)
    shared = [f"{a} + {b} =" for a in range(11, 20) for b in range(2, 20)]
    one, other = FAMILIES["sum"], FAMILIES["sum-two-digits"]
    assert [one.is_held_out(line) for line in shared] == [other.is_held_out(line) for line in shared]
    assert all(family.part_of in (None, *FAMILIES) for family in families.FAMILIES)


ARITHMETIC = {  # from the text of the question alone
    "sum": lambda a, b: a + b,
    "sum-two-digits": lambda a, b: a + b,
    "sum-three": lambda a, b, c: a + b + c,
    "difference": lambda a, b: a - b,
    "product": lambda a, b: a * b,
    "remainder": lambda a, b: a % b,
    "double": lambda a, two: a * two,
    "half": lambda a, two: a / two,
    "sequence": lambda a, b, c, d: 2 * d - c,
    "countdown": lambda a, b, c, d: 2 * d - c,
    "larger": max,
    "largest": max,
    "missing": lambda a, c: c - a,
    "times-ten": lambda a, b: a * b,
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name):
    for prompt, answer in drawn(FAMILIES[name], 50):
        numbers = [int(n) for n in re.findall(r"\d+", prompt.rpartition("\n")[2])]
        assert ARITHMETIC[name](*numbers) == int(answer), prompt


TEXT = {  # a pattern of the question, and the answer of its groups
    "parity": (r"(\d+) is", lambda a: "odd" if a[-1] in "13579" else "even"),
    "equation": (r"(.*) \+ (.*) = (.*) is", lambda a, b, c: str(int(a) + int(b) == int(c)).lower()),
    "count-letter": (r"How many (.) in (.*)\?", lambda c, w: str(len(re.findall(c, w)))),
    "count-items": (r"How many (.) in (.*)\?", lambda c, row: str(row.split().count(c))),
    "length": (r"Letters in (.*):", lambda w: str(len(list(w)))),
    "first-letter": (r"(.).* begins with", lambda c: c),
    "last-letter": (r".*(.): last", lambda c: c),
    "less": (r"(.*) < (.*) is", lambda a, b: str(int(a) < int(b)).lower()),
    "second-letter": (r"The second letter of .(.).* is", lambda c: c),
    "reverse": (r"reverse (.*) ->", lambda row: row[::-1]),
    "sort-digits": (r"sort (.*) ->", lambda row: " ".join(d for d in "123456789" if d in row)),
    "sort-two": (r"sort (.*), (.*) ->", lambda a, b: f"{a}, {b}" if int(a) < int(b) else f"{b}, {a}"),
    "upper-case": (r"(.*) ->", lambda w: w.upper()),
    "last-word": (r"Last of .*, (.*):", lambda w: w),
    "among": (r"Is (.*) among (.*)\?", lambda w, row: "yes" if w in row.split(", ") else "no"),
    "alike": (r"(.*) and (.*):", lambda a, b: "same" if a == b else "different"),
    "first-word": (r"First in the dictionary: (.*):", lambda row: sorted(row.split(", "))[0]),
    "place": (r"Word (.) of (.*) is", lambda k, row: [None, *row.split()][int(k)]),
    "two-steps": (
        r"(.) \w+ of (.) \w+ and (.) (more|fewer):",
        lambda a, b, c, word: str(int(a) * int(b) + int(c) * {"more": 1, "fewer": -1}[word]),
    ),
}


@pytest.mark.parametrize("name", TEXT)
def test_text(name):
    pattern, answer_of = TEXT[name]
    for prompt, answer in drawn(FAMILIES[name], 50):
        match = re.fullmatch(pattern, prompt.rpartition("\n")[2])
        assert match and answer_of(*match.groups()) == answer, prompt


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("days", ("2 days after Saturday is", "Monday")),
        ("days", ("8 days before Monday is", "Sunday")),
        ("months", ("1 month before January is", "December")),
        ("clock", ("12:45 plus 5 minutes is", "12:50")),
        ("clock", ("9:05 plus 35 minutes is", "9:40")),
        ("next-letter", ("a b c d ->", "e")),
        ("next-letter", ("t v x ->", "z")),
        ("number-to-words", ("215:", "two hundred fifteen")),
        ("number-to-words", ("40:", "forty")),
        ("words-to-number", ("ninety-nine:", "99")),
        ("opposite", ("The opposite of cold is", "hot")),
        ("plural", ("one mouse, two", "mice")),
        ("past", ("Today I go, yesterday I", "went")),
        ("kind", ("trumpet:", "instrument")),
    ],
)
def test_examples_of_lines(name, line):
    rng = np.random.default_rng(0)
    assert any(FAMILIES[name].line(rng) == line for _ in range(20000))


def test_numbers_in_words():
    numbers = {0: "zero", 13: "thirteen", 40: "forty", 600: "six hundred", 2006: "two thousand six"}
    numbers |= {9989: "nine thousand nine hundred eighty-nine"}
    assert {n: families.in_words(n) for n in numbers} == numbers


def test_odd_one_out():
    kind_of = {word: kind for kind, row in words.KINDS.items() for word in row.split()}
    for prompt, answer in drawn(FAMILIES["odd-one-out"], 50):
        asked = re.fullmatch(r"Odd one out of (.*):", prompt.rpartition("\n")[2]).group(1).split(", ")
        counts = Counter(kind_of[word] for word in asked)
        assert sorted(counts.values()) == [1, 3] and counts[kind_of[answer]] == 1


def test_word_lists():
    assert len(set(words.WORDS)) == len(words.WORDS) == 192
    assert all(word.isalpha() and word.islower() and 3 <= len(word) <= 12 for word in words.WORDS)
    opposites = [word for pair in words.OPPOSITES for word in pair]
    assert len(set(opposites)) == len(opposites), "an opposite with two answers"
    for pairs in (words.PLURALS, words.PAST):
        assert len({first for first, _ in pairs}) == len(pairs)


def test_deal():
    trained, kept = families.deal(3)
    assert [family.name for family in kept] == list(families.KEPT[:3])
    assert len(trained) + 3 == len(FAMILIES) and not {f.name for f in trained} & {f.name for f in kept}
    assert len(families.deal(0)[0]) == len(FAMILIES)
    for count in (-1, len(families.KEPT) + 1):
        with pytest.raises(ValueError, match="--held-out-families"):
            families.deal(count)


# ------------------------------------------------------------------ reward
@pytest.mark.parametrize(
    ("text", "truth", "right"),
    [
        (" 24\n", "24", 1),
        ("24", "24", 1),
        (" 24.\n8 + 9 = 17", "24", 1),
        (" 024", "24", 1),
        (" 24.0", "24", 1),
        ("28,080", "28080", 1),
        ("28080", "28,080", 1),
        ("2,4", "24", 0),
        (" 24 or 25\n", "24", 0),
        (" 24 25", "24", 0),
        (" 25 24", "24", 0),
        (" 24 = 24", "24", 0),
        (" 20 + 4", "24", 0),
        ("\n24", "24", 0),
        ("", "24", 0),
        (" -24", "24", 0),
        ("24%", "24", 0),
        ("2 4", "24", 0),
        ("٢٤", "24", 0),
        ("²4", "24", 0),
        ("9" * 10000, "9", 0),
        ("nan", "24", 0),
        (" Monday.", "Monday", 1),
        (" monday\nTuesday", "Monday", 1),
        (" Monday or Tuesday", "Monday", 0),
        (" Mondays", "Monday", 0),
        (" forty-two!", "forty-two", 1),
        (" t  a c", "t a c", 1),
        (" t a", "t a c", 0),
        (" 1 2 5", "1 2 5", 1),
        (" 10:05", "10:05", 1),
        (" 10:5", "10:05", 0),
        ("\ud83d\x00\x85\u2028 24", "24", 0),
    ],
)
def test_reward(text, truth, right):
    result = reward.compute_score("fewshot/any", text, truth)
    assert (result["score"], result["acc"]) == (right, right) and isinstance(result["pred"], str)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (" 3 * 4 = 12, 12 + 5 = 17\n", 1),
        (" 3 * 4 = 12, 12 + 5 = 17.", 1),
        (" 3 * 4 = 13, 13 + 5 = 17", 1),  # the working is not judged
        (" 17", 1),
        (" 3 * 4 = 12, 12 + 5 = 17 or 18", 0),
        (" 3 * 4 = 12, 12 + 5 = 17, 17 + 1 = 18", 0),
        (" 3 * 4 = 12, 12 + 5 = 17, 17 + 1", 0),
        (" 3 * 4 = 12, 12 + 5 =", 0),
        (" 3 * 4 = 12\n12 + 5 = 17", 0),
    ],
)
def test_reward_with_working(text, right):
    assert score(text, "17", "two-steps") == right


@pytest.mark.parametrize(
    ("text", "right"), [(" PLATINUM", 1), ("PLATINUM.\n", 1), (" platinum", 0), (" Platinum", 0)]
)
def test_where_the_case_is_asked_for_it_counts(text, right):
    assert score(text, "PLATINUM", "upper-case") == right
    assert set(reward.WITH_CASE) < set(FAMILIES)


def test_reward_never_raises():
    rng = np.random.default_rng(0)
    pieces = ["24", "=", ",", ".", "-", " ", "\n", "é", "\ud800", "\0", "∞", "1e9", "٣", "½", "nan"]
    for _ in range(2000):
        text = "".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(8)))
        for family in ("sum", "two-steps"):
            for truth in ("24", "Monday", text):
                assert score(text, truth, family) in (0.0, 1.0)


# ------------------------------------------------------------------ files
def prompts(rows):
    return [row["prompt"][0]["content"] for row in rows]


@pytest.mark.slow
def test_rows():
    made = prepare.make_rows(600, 200, 4, seed=0)
    assert made == prepare.make_rows(600, 200, 4, seed=0)
    assert prompts(made["train"]) != prompts(prepare.make_rows(600, 200, 4, seed=1)["train"])
    assert {name: len(rows) for name, rows in made.items()} == {
        "train": 600,
        "test": 200,
        "test_families": 200,
    }
    texts = [prompts(rows) for rows in made.values()]
    assert len(set(sum(texts, []))) == 1000, "a prompt twice, within a file or between files"
    kept = {f"fewshot/{name}" for name in families.KEPT[:4]}
    sources = {name: {row["data_source"] for row in rows} for name, rows in made.items()}
    assert sources["test_families"] == kept
    assert sources["train"] == sources["test"] == {f"fewshot/{name}" for name in FAMILIES} - kept
    assert len({row["data_source"] for row in made["train"][:64]}) > 20, "families are mixed in file order"
    for split, rows in made.items():
        assert [row["extra_info"]["index"] for row in rows] == list(range(len(rows)))
        for row in rows:
            family = FAMILIES[row["extra_info"]["family"]]
            assert row["data_source"] == f"fewshot/{family.name}" and row["extra_info"]["split"] == split
            question = row["prompt"][0]["content"].rpartition("\n")[2]
            assert family.is_held_out(question) == (split != "train")
            truth = row["reward_model"]["ground_truth"]
            assert reward.compute_score(row["data_source"], f" {truth}\n", truth)["score"] == 1.0
            assert row["prompt"][0]["role"] == "user" and len(row["prompt"]) == 1


def test_finite_rows_ask_no_line_twice():
    rows = prepare.make_rows(480, 32, 6, seed=0, finite=True)["train"]
    asked = [(row["data_source"], row["prompt"][0]["content"].rpartition("\n")[2]) for row in rows]
    assert len(set(asked)) == 480


@pytest.mark.slow
def test_more_lines_than_there_are():
    with pytest.raises(ValueError, match="days: 113 prompts were asked for"):
        prepare.draw_prompts(FAMILIES["days"], np.random.default_rng(0), 113, False, lines_once=True)


def test_the_mixture_is_balanced():
    counts = Counter(row["data_source"] for row in prepare.make_rows(100, 8, 6, seed=0)["train"])
    assert set(counts.values()) == {2, 3} and len(counts) == len(FAMILIES) - 6


def test_arguments():
    assert (
        prepare.parse_arguments(["--out", "x"]).train,
        prepare.parse_arguments(["--out", "x"]).finite,
    ) == (
        12800,
        False,
    )
    finite = prepare.parse_arguments(["--out", "x", "--finite"])
    assert (finite.train, finite.finite) == (480, True)
    assert prepare.parse_arguments(["--out", "x", "--finite", "--train", "96"]).train == 96
    with pytest.raises(SystemExit):
        prepare.parse_arguments(["--out", "x", "--finite", "--fresh"])


def test_files(tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(prepare, "make_model", lambda folder: folder.mkdir())
    out = tmp_path / "fewshot"
    sizes = ["--train", "70", "--test", "12", "--held-out-families", "2", "--seed", "3"]
    prepare.main(["--out", str(out), *sizes])
    assert sorted(path.name for path in out.iterdir()) == [
        "model",
        "test.parquet",
        "test_families.parquet",
        "train.parquet",
    ]
    for name, rows in prepare.make_rows(70, 12, 2, seed=3).items():
        assert pq.read_table(out / f"{name}.parquet").to_pylist() == rows


def test_plain_text_and_line_ends(tmp_path):
    """The prompt is the content, and every token with a line's end ends a response."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<eos>": 0, "1": 1, "\n": 2, " \n": 3, "2": 4}, unk_token="<eos>")
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    prepare.continue_plain_text(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [0, 2, 3]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    user = [{"role": "user", "content": "1 + 1 ="}]
    text = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    assert text == "1 + 1 ="


# ------------------------------------------------------------------ rates
def test_no_signal():
    p = np.array([0.0, 0.5, 1.0])
    assert rates.no_signal(p).tolist() == [1.0, 2 * 0.5**8, 1.0]


@pytest.mark.slow
def test_rates_of_a_model(tmp_path):
    """On a tiny model: probabilities are those of sampling, and the table and picture are written."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    characters = [chr(i) for i in range(32, 127)]
    vocabulary = {"<eos>": 0, "\n": 1, **{c: i + 2 for i, c in enumerate(characters)}}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<eos>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    inner.decoder = tokenizers.decoders.Fuse()
    words_of = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")
    words_of.save_pretrained(tmp_path)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, eos_token_id=0,
    )  # fmt: skip
    network = transformers.LlamaForCausalLM(config)
    with torch.no_grad():  # mostly spaces, "7" and line ends: short answers are frequent
        network.lm_head.weight *= 40
    network.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    prepare.continue_plain_text(tmp_path)

    model = rates.Model(tmp_path)
    prompts_of = ["7 + 1 =", "A longer one:", "x"]
    texts = model.sample(prompts_of, 4000, 3)
    assert [len(t) for t in texts] == [4000] * 3
    for prompt, part in zip(prompts_of, texts, strict=True):
        pairs = [(prompt, c) for c in characters]
        exact = np.array(model.exact(pairs))
        counts = Counter(part)
        seen = np.array([counts[f" {c}\n"] + counts[f" {c}"] for c in characters]) / 4000
        assert np.abs(seen - exact).max() < 0.03
    arguments = ["--model", str(tmp_path), "--raw", str(tmp_path / "raw.jsonl"), "--out", str(tmp_path)]
    arguments += ["--prompts", "2", "--sampled", "1", "--samples", "2"]
    rates.main([*arguments, "--seconds", "0"])
    assert not (tmp_path / "rates.csv").exists()
    rates.main(arguments)
    rows = list(csv.DictReader((tmp_path / "rates.csv").open()))
    assert [row["family"] for row in rows] == [*FAMILIES, "all trained"]
    assert (tmp_path / "rates.png").stat().st_size < 80_000


def test_committed_table():
    """It is of these families, and as spread as the README says."""
    rows = list(csv.DictReader((FOLDER / "rates.csv").open()))
    assert [row["family"] for row in rows] == [*FAMILIES, "all trained"]
    assert [int(row["lines"]) for row in rows[:-1]] == [family.lines for family in FAMILIES.values()]
    assert float(rows[-1]["no_signal"]) >= 0.3 and float(rows[-1]["middle"]) >= 0.2
    assert (FOLDER / "rates.png").stat().st_size < 80_000
