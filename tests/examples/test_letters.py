"""The letters example: its questions, files and reward. What it shares with arithmetic is tested there."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tiny_task import SHARED, TinyTask

pytest.importorskip("torch")
pytest.importorskip("transformers")
pq = pytest.importorskip("pyarrow.parquet")

TINY = ["--train", "80", "--test", "40", "--practice", "0", "--steps", "1", "--batch", "8", "--hidden", "32"]
TINY += ["--layers", "1", "--samples", "8", "--threads", "1"]
EXAMPLE = TinyTask("letters", TINY)
FOLDER, prepare = EXAMPLE.folder, EXAMPLE.prepare
questions, reward = EXAMPLE.load("questions"), EXAMPLE.load("reward")
folder, tiny_model = prepare.folder, EXAMPLE.load("tiny_model", SHARED)
FAMILIES = {family.name: family for family in questions.make_families(0)}


def tokenizer():
    return tiny_model.make_tokenizer(prepare.TASK.pieces)


def drawn(count=20):
    """(family, string): some of every family."""
    rng = np.random.default_rng(0)
    return [(family, s) for family in FAMILIES.values() for s in family.draw(rng, count)]


def score(text, truth="bead"):
    return reward.compute_score("cero/letters", text, truth)["score"]


@pytest.mark.parametrize(
    ("name", "s", "right", "slip"),
    [
        ("next-4", "cagh", "caga", "cagg"),  # h is followed by a
        ("turn-2", "fadce", "(fa)dcefa", "(ce)cefad"),
        ("mirror-3", "fadce", "(fad)dafce", "faecd"),
        ("rank-3", "fcadb", "(abcdf)c", "a"),
        ("sort-3", "fcadb", "(fca)acfdb", "abcdf"),
        ("swap-2", "fadce", "fedca", "(f)afdce"),
        ("cut-2", "fadce", "fdce", "fade"),
        ("drop-a", "abacad", "(aaa)bcd", "bacad"),
        ("count-a", "cbaad", "(aa)2", "(cb)3"),
        ("move-b", "cbabd", "(bb)cadbb", "bbcad"),
    ],
)
def test_procedures(name, s, right, slip):
    family = FAMILIES[name]
    assert family.response(s, right=True) == right and family.response(s, right=False) == slip
    assert family.question(s) == f"{s} {name.replace('-', ' ')}"


def test_ten_kinds_of_four():
    assert len(FAMILIES) == 40
    assert [kind.name for kind in questions.KINDS] == list(prepare.WORDS)
    assert all(len(kind.constants) == 4 for kind in questions.KINDS)


def test_only_the_right_procedure_is_rewarded():
    for family, s in drawn():
        assert family.right(s) != family.slip(s)
        assert score(family.response(s, right=True), family.right(s)) == 1.0
        assert score(family.response(s, right=False), family.right(s)) == 0.0


def test_some_of_either_procedure_write_working():
    styles = {tuple("(" in family.response(s, right) for right in (False, True)) for family, s in drawn(1)}
    assert styles == {(False, False), (False, True), (True, False), (True, True)}


def test_shares_fall_with_length_and_weights_are_geometric():
    family = FAMILIES["turn-1"]
    shares = [family.share_of(s) for s in ("abcd", "abcde", "abcdef")]
    assert shares[0] > shares[1] > shares[2] and shares[1] == pytest.approx(family.share)
    weights = np.sort([family.weight for family in FAMILIES.values()])
    assert np.allclose(weights[1:] / weights[:-1], questions.SPREAD ** (1 / 39))
    assert sorted(f.share for f in questions.make_families(0, 0.1, 0.9))[::39] == pytest.approx([0.1, 0.9])


def test_apportion():
    assert questions.apportion(np.array([1.0, 1.0, 2.0]), 6).tolist() in ([1, 2, 3], [2, 1, 3])
    assert questions.apportion(np.geomspace(1, 6, 40), 480).sum() == 480


def test_splits_are_disjoint():
    splits = questions.make_splits(list(FAMILIES.values()), 0, 480, 240, 500)
    asked = [[family.question(s) for family, s in split] for split in splits]
    assert [len(a) for a in asked] == [480, 240, 500]
    assert len(set(sum(asked, []))) == 1220
    assert {f.name for f, _ in splits[0]} == {f.name for f, _ in splits[1]} == set(FAMILIES)
    assert len({f.name for f, _ in splits[0][:48]}) > 20, "families are mixed in file order"


def test_seeds():
    def asked(seed):
        families = questions.make_families(seed)
        return [(f.question(s), f.share) for f, s in questions.make_splits(families, seed, 80, 40)[0]]

    assert asked(5) == asked(5) != asked(6)


def test_every_question_has_an_answer():
    """Of `bbbb drop b` nothing is left, and the reward wants a letter at least."""
    b = questions.ALPHABET.index("b")

    class Dealt:
        strings = iter([[b] * 4, [b, 0, b, b]])

        def choice(self, lengths):
            return 4

        def integers(self, most, size):
            return next(self.strings)

    assert FAMILIES["drop-b"].draw(Dealt(), 1) == [f"b{questions.ALPHABET[0]}bb"]


def test_more_questions_than_there_are(monkeypatch):
    monkeypatch.setattr(questions, "LENGTHS", (1,))
    with pytest.raises(ValueError, match="9 questions were asked for, 8 found"):
        FAMILIES["next-1"].draw(np.random.default_rng(0), 9)


def test_tokenizer_round_trip():
    words = tokenizer()
    for family, s in drawn(5):
        for right in (False, True):
            user = [{"role": "user", "content": family.question(s)}]
            response = family.response(s, right)
            prompt = words.apply_chat_template(user, add_generation_prompt=True, return_dict=False)
            whole = words.apply_chat_template(
                [*user, {"role": "assistant", "content": response}], return_dict=False
            )
            assert whole[: len(prompt)] == prompt and words.unk_token_id not in whole
            assert words.decode(whole, skip_special_tokens=True) == f"{family.question(s)} = {response}"
            assert len(prompt) <= 10 and len(whole) - len(prompt) <= prepare.TASK.max_response


@pytest.mark.slow
def test_files(made):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert {path.name for path in made.iterdir()} == folder.PRODUCTS
    rows = {split: pq.read_table(made / f"{split}.parquet").to_pylist() for split in ("train", "test")}
    assert [len(r) for r in rows.values()] == [80, 40]
    for row in rows["train"]:
        s, _, _ = row["prompt"][0]["content"].split(" ")
        family = FAMILIES[row["extra_info"]["family"]]
        assert row["prompt"] == [{"role": "user", "content": family.question(s)}]
        assert row["reward_model"] == {"style": "rule", "ground_truth": family.right(s)}
        assert row["data_source"] == "cero/letters" and row["extra_info"]["slip"] == family.slip(s)
    loaded = AutoTokenizer.from_pretrained(made / "model")
    assert loaded.get_vocab() == tokenizer().get_vocab()
    assert AutoModelForCausalLM.from_pretrained(made / "model").config.vocab_size == len(loaded)
    report = json.loads((made / "latent.json").read_text())
    assert report["prompts"] == 80 and set(report["families"]) == set(FAMILIES)


def test_stamp(made, monkeypatch):
    def stamp(*changes):
        return folder.make_stamp(prepare.TASK, EXAMPLE.arguments(made, *changes))

    assert folder.is_finished(made, stamp()) and folder.is_finished(made, stamp("--threads", "2"))
    assert not folder.is_finished(made, stamp("--practice", "1"))
    assert {path.name for path in prepare.TASK.sources} == {path.name for path in FOLDER.glob("*.py")}
    monkeypatch.setattr(folder, "SHARED", folder.SHARED[1:])
    assert not folder.is_finished(made, stamp()), "the shared code counts, too"


def test_finished_folder_is_reused_without_torch(made):
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, FOLDER / "prepare.py", "--out", made, *TINY]
    assert b"reused" in subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


@pytest.mark.parametrize("text", ["bead", " bead\n", "(x)bead", "(be)bead", "()bead", "(no such thing)bead"])
def test_right(text):
    assert score(text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "bea",
            "beads",
            "Bead",
            "b ead",
            "bead bead",
            "(bead)",
            "(bead",
            "bead)",
            "bead(x)",
            "((x))bead",
        ),
        *(
            "(x)(y)bead",
            "(x) bead",
            "bead.",
            "= bead",
            "daeb",
            "<unk>bead",
            "bead<eos>",
            "b\u00e9ad",
            "\uff42ead",
        ),
        *("\x00", "\ud800", "b" * 100_000, "(" * 100_000, " " * 100_000 + "x", None, 3.5),
    ],
)
def test_wrong_or_no_answer(text):
    assert score(text) == 0.0


def test_reward_dict_and_signature():
    found = reward.compute_score("any", "(aa)2", "2", extra_info={"index": 3}, reward_router_address=None)
    assert found == {"score": 1.0, "acc": 1.0, "pred": "2"}
    assert reward.compute_score("any", "?", "2") == {"score": 0.0, "acc": 0.0, "pred": ""}
