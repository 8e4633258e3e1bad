"""Fresh data for letters: --more adds train questions, and everything else stays as it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pq = pytest.importorskip("pyarrow.parquet")

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "letters"
CODE = """
import json, sys
sys.path[:0] = [{folder!r}]
import prepare
from items import known_forms
made = [
    prepare.make_items(prepare.parse_arguments(["--out", "x", *words]))
    for words in json.loads(sys.argv[1])
]
print(json.dumps([[[[i.question, i.answer, i.family, known_forms(i)] for i in part] for part in parts]
                  for parts in made]))
"""
PREPARE = """
import json, sys
sys.path[:0] = [{folder!r}]
import prepare
for words in json.loads(sys.argv[1]):
    prepare.folder.prepare(prepare.TASK, prepare.parse_arguments(words))
"""


@pytest.fixture(scope="module")
def items():
    """`items(*settings)`: train, held-out and practice questions of each list of words, from one process."""

    def items(*settings):
        code = CODE.format(folder=str(FOLDER))
        command = [sys.executable, "-c", code, json.dumps(settings)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)

    return items


@pytest.mark.slow
def test_more_changes_no_other_question(items):
    plain, more, again, other = items(
        [], ["--more", "2000"], ["--more", "2000"], ["--more", "2000", "--seed", "1"]
    )
    assert [len(part) for part in plain] == [480, 240, 2400]
    assert [len(part) for part in more] == [2480, 240, 2400]
    assert more[0][:480] == plain[0] and more[1:] == plain[1:]
    assert more == again and more[0] != other[0]
    questions = [question for part in more for question, *_ in part]
    assert len(set(questions)) == len(questions) == 5120

    def shares(part):
        families = [family for _, _, family, _ in part]
        return {family: families.count(family) / len(families) for family in set(families)}

    first, further = shares(more[0][:480]), shares(more[0][480:])
    assert len(further) == 40 and all(abs(first[family] - further[family]) < 0.003 for family in first)
    assert len({family for _, _, family, _ in more[0][480:520]}) > 15, "families are mixed in file order"


@pytest.mark.slow
def test_known_forms_are_right_and_no_others(items):
    sys.path[:0] = [str(FOLDER)]
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("letters_reward_of_forms", FOLDER / "reward.py")
    reward = module_from_spec(spec)
    spec.loader.exec_module(reward)
    sys.path.remove(str(FOLDER))
    ((train, _, _),) = items([])
    forms = {question: known for question, _, _, known in train}
    assert all(1 <= len(known) <= 3 and len(set(known)) == len(known) for known in forms.values())
    for _, answer, _, known in train:
        assert answer in known and all(form.endswith(answer) for form in known)
        assert all(reward.compute_score("", form, answer)["score"] == 1.0 for form in known)
    assert {len(known) for known in forms.values()} == {1, 2, 3}


@pytest.mark.e2e  # prepares both in a process of its own
def test_files_of_fresh_data(tmp_path):
    """The warm start and its report are of the first questions; a sample of them is for validation."""
    tiny = ["--train", "80", "--test", "40", "--practice", "0", "--steps", "1", "--batch", "8"]
    tiny += ["--hidden", "32", "--layers", "1", "--samples", "8", "--threads", "1"]
    mores = {"plain": [], "more": ["--more", "300"]}
    settings = [["--out", str(tmp_path / name), *tiny, *more] for name, more in mores.items()]
    command = [sys.executable, "-c", PREPARE.format(folder=str(FOLDER)), json.dumps(settings)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    rows = {
        (name, split): pq.read_table(tmp_path / name / f"{split}.parquet").to_pylist()
        for name in mores
        for split in ("train", "test", "train_sample")
    }
    assert len(rows["more", "train"]) == 380 and rows["more", "train"][:80] == rows["plain", "train"]
    assert rows["more", "test"] == rows["plain", "test"]
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("plain", "more")]
    assert weights[0] == weights[1]
    reports = [json.loads((tmp_path / name / "latent.json").read_text()) for name in ("plain", "more")]
    assert reports[0] == reports[1] and reports[0]["prompts"] == 80
    sample = rows["more", "train_sample"]
    assert len(sample) == 240 and {row["data_source"] for row in sample} == {"cero/letters/train"}
    assert [row["prompt"] for row in sample] == [row["prompt"] for row in rows["more", "train"][:240]]
    assert rows["plain", "train_sample"] == sample[:80]
    for row in sample:
        answer = row["reward_model"]["ground_truth"]
        assert answer in row["extra_info"]["forms"]
