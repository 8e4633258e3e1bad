"""The laboratory: exact success probabilities, contenders, and runs that can be gone on with."""

import itertools
import json
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from cero.analysis.runlog import RunLog
from cero.research.laboratory.contenders import NAMED, parse_contender
from cero.research.oracle import Oracle
from cero.verl.identity import row_prompt_id, slots_of_rows

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pq = pytest.importorskip("pyarrow.parquet")

from safetensors.torch import save_file  # noqa: E402 (they need torch)

from cero.research.laboratory import __main__ as laboratory  # noqa: E402
from cero.research.laboratory.policy import Policy  # noqa: E402
from cero.research.laboratory.questions import Questions  # noqa: E402
from cero.research.laboratory.replay import replay  # noqa: E402
from cero.research.laboratory.training import Laboratory, Run  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LENGTH = 3
# Right are three texts of the first question and one of the second; "ab" is right, but no known form.
RIGHT = {"b": {"b", "bb", "ab"}, "a": {"a"}}
FORMS = {"b": ["b", "bb", "bbb"], "a": ["a"]}  # "bbb" has no room for its end within LENGTH


def score(source, text, truth):
    return {"score": float(text in RIGHT[truth])}


def save_questions(path, questions):
    import pyarrow as pa

    rows = [
        {
            "data_source": "test/small",
            "prompt": [{"role": "user", "content": text}],
            "reward_model": {"ground_truth": truth},
            "extra_info": {"family": f"{text[0]}-{at % 2}", "forms": FORMS[truth]},
        }
        for at, (text, truth) in enumerate(questions)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The model is too small for more than one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared task of 24 questions and a model of random weights that says a, b or the end mostly."""
    spec = spec_from_file_location("lab_tiny_model", ROOT / "examples" / "arithmetic" / "tiny_model.py")
    tiny_model = module_from_spec(spec)
    sys.modules[spec.name] = tiny_model
    spec.loader.exec_module(tiny_model)
    made = tmp_path_factory.mktemp("lab")
    torch.manual_seed(0)
    tokenizer = tiny_model.make_tokenizer((*"ab", " = "))
    model = tiny_model.make_model(tokenizer, hidden=32, layers=1, heads=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)  # sharper than chance, and different by question
    model.save_pretrained(made / "model")
    tokenizer.save_pretrained(made / "model")
    texts = ["".join(word) for size in (2, 3, 4) for word in itertools.product("ab", repeat=size)]
    questions = [(text, "ab"[at % 2]) for at, text in enumerate(texts[:24])]
    save_questions(made / "train.parquet", questions)
    save_questions(made / "test.parquet", questions[:6])
    save_questions(made / "train_sample.parquet", questions[6:12])
    return made


@pytest.fixture(scope="module")
def small(folder):
    return Laboratory(folder, score, LENGTH, budget=48)


@pytest.fixture
def policy(folder):
    return Policy(folder / "model", score, LENGTH, lr=1e-3, seed=1)


def responses_of(policy):
    """Every response there can be: token ids, shape (r, LENGTH), padded behind the end."""
    ids = range(len(policy.tokenizer))
    found = set()
    for tokens in itertools.product(ids, repeat=LENGTH):
        if policy.end in tokens:
            tokens = tokens[: tokens.index(policy.end) + 1]
        found.add(tokens + (policy.pad,) * (LENGTH - len(tokens)))
    return torch.tensor(sorted(found))


def test_success_is_exact(folder, policy):
    """Against the sum over every sequence of tokens, computed without left padding or batches of others."""
    questions = Questions(folder / "test.parquet", policy.tokenizer, LENGTH)
    rows = np.array([3, 0, 5, 1])
    found = policy.success(questions, rows)
    for row, probability in zip(rows, found, strict=True):
        prompt = questions.ids[row][questions.mask[row] > 0].tolist()
        total = 0.0
        for form in FORMS[questions.truths[row]]:
            tokens = [*policy.tokenizer(form, add_special_tokens=False)["input_ids"], policy.end]
            if len(tokens) > LENGTH:
                continue
            with torch.no_grad():
                logits = policy.model(torch.tensor([prompt + tokens])).logits[0].double()
            likely = torch.log_softmax(logits, -1)
            total += float(sum(likely[len(prompt) + k - 1, t] for k, t in enumerate(tokens)).exp())
        assert probability == pytest.approx(total, rel=1e-4) and 1e-3 < probability < 1


def test_entropy_along_the_likeliest_continuation(folder, policy):
    """Against one forward pass for each token of each question, without padding."""
    questions = Questions(folder / "test.parquet", policy.tokenizer, LENGTH)
    rows = np.array([3, 0, 5, 1])
    for tokens in (1, 3):
        found = policy.entropy(questions, rows, tokens)
        for row, share in zip(rows, found, strict=True):
            said, entropies = questions.ids[row][questions.mask[row] > 0].tolist(), []
            while len(entropies) < tokens and said[-1] != policy.end:
                with torch.no_grad():
                    likely = torch.softmax(policy.model(torch.tensor([said])).logits[0, -1].double(), -1)
                entropies.append(float(-(likely * likely.log()).sum()) / np.log(likely.numel()))
                said.append(int(likely.argmax()))
            assert share == pytest.approx(np.mean(entropies), rel=1e-4) and 0 < share < 1


@pytest.mark.slow
def test_success_and_accuracy_against_sampling(folder, policy):
    """10,000 samples of each question: within 4 standard errors, whether known or not."""
    questions = Questions(folder / "test.parquet", policy.tokenizer, LENGTH)
    count = 10_000
    for row in range(3):
        rows = np.full(count, row)
        responses, rewards, _ = policy.sample(questions, rows)
        known = questions.is_known(rows, responses)
        assert rewards[known].all()
        p = policy.success(questions, np.array([row]))[0]
        assert abs(known.mean() - p) < 4 * np.sqrt(p * (1 - p) / count)
        if questions.truths[row] == "b":
            assert (rewards[~known] > 0).any()  # "ab", and right texts with special tokens in them
    rewards = policy.sample(questions, np.tile(np.arange(6), count // 3))[1]
    accuracy = policy.accuracy(questions, torch.Generator().manual_seed(0), samples=2000)
    assert accuracy == pytest.approx(rewards.mean(), abs=0.01)


def test_every_response_has_its_probability(folder, policy):
    """The log probabilities of all responses there can be add up to probability 1."""
    questions = Questions(folder / "test.parquet", policy.tokenizer, LENGTH)
    responses = responses_of(policy)
    with torch.no_grad():
        likely = policy.log_probs(questions, np.full(len(responses), 2), responses)
    # A pad inside a response does not count as said: only responses without one are complete.
    inside = (responses == policy.pad) & (responses.flip(1) != policy.pad).cumsum(1).flip(1).bool()
    late = ((responses == policy.pad).any(1) & ~(responses == policy.end).any(1)) | inside.any(1)
    total = float(likely.sum(1).exp()[~late].sum())
    pads = policy.sample(questions, np.full(4000, 2))[0]
    padded = ((pads == policy.pad) & ~_after_end(pads, policy.end)).any(1).float().mean()
    assert total == pytest.approx(1 - float(padded), abs=0.02)


def _after_end(responses, end):
    return (responses == end).cumsum(1) > 0


def test_learning_makes_what_was_rewarded_likelier(folder, policy):
    questions = Questions(folder / "test.parquet", policy.tokenizer, LENGTH)
    rows = np.arange(6).repeat(8)
    before = policy.success(questions, np.arange(6)).mean()
    for _ in range(10):
        responses, rewards, weights = policy.sample(questions, rows)
        assert weights.shape == rewards.shape and (weights >= 0).all()
        policy.learn(questions, rows, responses, rewards - rewards.mean())
    assert policy.success(questions, np.arange(6)).mean() > before


# ---- contenders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("label", NAMED)
def test_named_contenders_can_be_made(label):
    contender = parse_contender(label)
    assert contender.label == label and contender.written == NAMED[label]
    assert contender.step_budget == (128 if label.endswith("grpo") else 40)
    allocator = contender.method.make(rollouts_per_prompt=contender.n, epochs=21, seed=0, total_budget=10240)
    if isinstance(allocator, Oracle):
        allocator.truth = lambda ids: np.linspace(0.1, 0.9, ids.size)
        allocator.labels = {"family": lambda ids: ids % 4}
    drawn = contender.candidates or contender.batch
    step = allocator.begin(np.arange(drawn, dtype=np.uint64), contender.step_budget)
    assert step.start().sum() == contender.step_budget


def test_what_contenders_say():
    found = parse_contender("oracle/pick=top@n=2,batch=20,candidates=80,lr=1e-3,baseline=optimal,exact=0")
    assert (found.n, found.batch, found.candidates, found.lr, found.exact) == (2, 20, 80, 1e-3, False)
    assert found.written == found.label and parse_contender("grpo", n=4, batch=6).step_budget == 24
    assert parse_contender("uniform@candidates=all").candidates == 0
    for wrong, message in (
        (
            "uniform@batches=2",
            "refresh, look, lr, baseline, bucket, exact, not 'batches'",
        ),
        ("uniform@n=0", "must be 1 or more"),
        ("uniform@n=many", "n=many"),
        ("uniform@candidates=8", "no fewer than batch"),
        ("uniform@baseline=best", "baseline=best"),
        ("nobody@n=2", "nobody"),
        ("uniform@bucket=family", "needs baseline=optimal"),
        ("oracle@look=1", "look=1 and value=given need each other"),
        ("oracle/value=given@n=1", "look=0 and value=given need each other"),
        ("uniform@baseline=optimal,bucket=answer", "bucket"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_contender(wrong)


def test_buckets_are_those_of_a_run_through_verl(small):
    """A text has the slots that it has there; questions share a slot exactly if they are of one family."""
    questions = small.train
    of_text = questions.buckets("text")
    for text, slots in zip(questions.texts, of_text.tolist(), strict=True):
        row = {"raw_prompt": [{"role": "user", "content": text}]}
        assert [slot for slot in slots if slot >= 0] == slots_of_rows([row], "text")[0].tolist()
    of_family = questions.buckets("family")
    assert of_family.shape == (len(questions), 1) and np.unique(questions.labels["family"]).size > 1
    same = questions.labels["family"][:, None] == questions.labels["family"]
    assert np.array_equal(of_family == of_family.T, same)


# ---- runs ----------------------------------------------------------------------------------------

SMALL = "@n=1,batch=4,baseline=optimal"
CONTENDERS = (
    f"cero:signal_hard/n_min=1/n_max=1{SMALL}",
    f"oracle{SMALL},candidates=12",
    f"oracle/value=given/pick=top/strata=family{SMALL},candidates=12,look=2",
    f"cero:signal_hard{SMALL},bucket=family",
    f"cero:signal_hard{SMALL},bucket=text",
    f"oracle{SMALL},candidates=all,refresh=3",
    f"oracle/pick=top/strata=family/noise=3{SMALL},candidates=12",
    "uniform@n=4,batch=2",
    "cero_seq/n_max=8@n=2,batch=4",
    "aero@n=4,batch=4",
)


@pytest.mark.slow
@pytest.mark.parametrize("label", CONTENDERS)
def test_a_run_spends_its_budget(small, label):
    record = small.run(parse_contender(label), seed=0)
    json.dumps(record, allow_nan=False)
    assert record["spent"][0] == 0 and record["spent"] == sorted(set(record["spent"]))
    assert record["spent"][-1] == 48 or label.startswith(("aero", "cero_seq"))
    assert 48 - record["spent"][-1] < 4  # validated at its end, where less than a step's prompts are left
    assert len(record["accuracy"]) == len(record["train_accuracy"]) == len(record["spent"])
    assert all(0 < each < 1 for each in record["accuracy"] + record["train_accuracy"])
    assert 0 <= record["known"] <= 1 and 1 <= record["families"] <= 4
    if label.startswith("oracle/"):
        assert record["found"]["offered"] < record["found"]["best"]
    elif label.startswith("oracle"):
        assert record["found"]["offered"] < record["found"]["bought"]


@pytest.mark.slow
def test_seeds_are_paired(small):
    """A run is the same at the same seed; contenders meet the same prompts, and start from the same model."""
    label = CONTENDERS[1]
    one, again, other = (small.run(parse_contender(label), seed) for seed in (0, 0, 1))
    assert one | {"seconds": 0} == again | {"seconds": 0} and one["accuracy"] != other["accuracy"]
    even = small.run(parse_contender(CONTENDERS[0]), 0)
    assert even["accuracy"][0] == one["accuracy"][0]


def test_each_prompt_once_an_epoch(small):
    run = Run(small, parse_contender("uniform@n=1,batch=10"), 0, small.policy(0, 1e-3))
    epochs = [np.concatenate([run._next_rows(), run._next_rows()]) for _ in range(3)]
    assert all(np.unique(rows).size == 20 for rows in epochs)  # 4 of 24 fill no step
    with pytest.raises(ValueError, match="draws 40 prompts, but the task has 24"):
        small.run(parse_contender("even"), 0)


@pytest.mark.slow
def test_the_command_goes_on(folder, tmp_path, monkeypatch, capsys):
    """What the file has is not run again; what is missing is added."""
    (tmp_path / "tasks.yaml").write_text(f"""
tasks:
  small:
    about: a stand-in
    prepare: cp -r {folder} {{data}}
    seeds: {{tune: [0]}}
    overrides:
      - data.train_batch_size=4
      - data.max_response_length={LENGTH}
      - actor_rollout_ref.rollout.n=2
      - actor_rollout_ref.actor.optim.lr=1e-3
      - trainer.total_training_steps=4
      - trainer.test_freq=2
      - reward.custom_reward_function.path=reward.py
""")
    (tmp_path / "reward.py").write_text(
        f"RIGHT = {RIGHT!r}\ndef compute_score(source, text, truth):\n"
        "    return {'score': float(text in RIGHT[truth])}\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["run", "small", "grpo", "--task-file", "tasks.yaml", "--out", "out/lab.jsonl", "--work", "work"]
    laboratory.main(words)
    assert "1 runs, 0 done before, 1 to go" in capsys.readouterr().out
    first = Path("out/lab.jsonl").read_text()
    record = json.loads(first)
    assert record["task"] == "small" and len(record["warm_start"]) == 16 and record["spent"][-1] == 32
    laboratory.main([*words, "--seeds", "0,1"])
    assert "2 runs, 1 done before, 1 to go" in capsys.readouterr().out
    lines = Path("out/lab.jsonl").read_text().splitlines()
    assert lines[0] + "\n" == first and [json.loads(line)["seed"] for line in lines] == [0, 1]
    laboratory.main([*words, "--seeds", "0,1"])
    assert "0 to go" in capsys.readouterr().out
    laboratory.main(["table", "out/lab.jsonl", "--even", "grpo", "--plot", "out/lab.png"])
    assert Path("out/lab.png").read_bytes().startswith(b"\x89PNG")
    assert "| grpo | 2 |" in capsys.readouterr().out
    for wrong in (["run", "nothing", "grpo", *words[3:]], ["run", "small", "nobody", *words[3:]]):
        with pytest.raises(SystemExit) as error:
            laboratory.main(wrong)
        assert error.value.code == 2 and "laboratory run: " in capsys.readouterr().err


# ---- a run of verl's, gone through again ----------------------------------------------------------

LOG = "cero/allocations.jsonl"
RECORDED = f"cero:signal_hard/response=4{SMALL},bucket=text,lr=1e-3"


@pytest.fixture(scope="module")
def left_by_verl(folder, small, tmp_path_factory):
    """What a run through verl would have left: the files, here of one of the laboratory itself.

    Padding is taken out of responses, since a text does not show it. tests/e2e/test_replay.py has a run
    through verl.
    """
    out = tmp_path_factory.mktemp("run")
    (out / "cero").mkdir()
    (out / "rollouts").mkdir()
    log = RunLog(out / "cero" / "allocations.jsonl")

    class Readable(Policy):
        def sample(self, questions, rows, draw=None):
            responses, _, _ = super().sample(questions, rows, draw)
            texts = self.tokenizer.batch_decode(responses, skip_special_tokens=True)
            again = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            responses = torch.tensor(
                [(tokens + [self.end] + [self.pad] * LENGTH)[:LENGTH] for tokens in again], dtype=torch.long
            )
            with torch.no_grad():
                likely = self.log_probs(questions, rows, responses)
            return responses, self.rewarded(questions, rows, texts), self.weighed(likely, responses)

    class Recorded(Run):
        def _take_note(self, rows, trials, group, rewards, responses):
            super()._take_note(rows, trials, group, rewards, responses)
            texts = self.policy.tokenizer.batch_decode(responses, skip_special_tokens=True)
            lines = [
                {"input": asked[rows[at]], "gts": self.train.truths[rows[at]], "output": text}
                for at, text in zip(group, texts, strict=True)
            ]
            path = out / "rollouts" / f"{self.steps + 1}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            log.step(
                step=self.steps + 1, epoch=0, budget=4, spent=self.spent,
                prompts=[f"{int(each):016x}" for each in self.ids[rows]], rollouts=trials.tolist(),
                successes=np.bincount(group, rewards, rows.size).tolist(), trials=trials.tolist(),
                metrics={"cero/tokens/sampled": float(self.policy.said(responses).sum())},
            )  # fmt: skip

    contender = parse_contender(RECORDED)
    run = Recorded(small, contender, 3, small.policy(3, contender.lr, Readable))
    entries = pq.read_table(folder / "train.parquet").to_pylist()
    run.ids = np.array(
        [row_prompt_id(e["data_source"], e["prompt"], e["reward_model"]["ground_truth"]) for e in entries],
        np.uint64,
    )
    asked = [
        run.policy.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
        for ids, mask in zip(run.train.ids, run.train.mask, strict=True)
    ]
    while run.goes_on:
        run.step()
    log.close()
    saved = out / f"global_step_{run.steps}" / "actor" / "huggingface"
    saved.mkdir(parents=True)
    save_file({n: p.detach() for n, p in run.policy.model.named_parameters()}, saved / "model.safetensors")
    return out, run.steps


@pytest.mark.slow
def test_a_run_is_gone_through_again(left_by_verl, small):
    out, steps = left_by_verl
    found = replay(small, parse_contender(RECORDED), 3, out)
    ((step, moved, apart),) = found.weights
    assert (step, found.steps, found.rollouts) == (steps, steps, 48) and found.pairs > 0
    assert moved > 0.01 and apart < 1e-6 * moved and found.ended == ""
    assert found.surprise > 4  # without their padding, responses are not those of the policy
    other = replay(small, parse_contender(RECORDED.replace("lr=1e-3", "lr=2e-3")), 3, out)
    assert other.weights[0][2] > 0.1 * moved


@pytest.mark.slow
def test_it_ends_at_a_response_that_can_not_be_read_back(left_by_verl, small, tmp_path):
    """What was compared until then counts."""
    out, steps = left_by_verl
    copy = shutil.copytree(out, tmp_path / "run")
    shutil.copytree(copy / f"global_step_{steps}", copy / "global_step_2")  # weights of any kind
    log = copy / LOG
    lines = log.read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace('/sampled": ', '/sampled": 1')
    log.write_text("".join(lines))
    found = replay(small, parse_contender(RECORDED), 3, copy)
    assert [step for step, *_ in found.weights] == [2] and (found.steps, found.rollouts) == (3, 12)
    assert "step 4: the responses had 1" in found.ended


def torn(out, copy, change):
    shutil.copytree(out, copy)
    change(copy)
    return copy


def without(pattern):
    return lambda run: [shutil.rmtree(each) for each in run.glob(pattern)]


def changed(name, old, new):
    return lambda run: replace_in(run / name, old, new)


@pytest.mark.slow
@pytest.mark.parametrize(
    "contender, seed, change, error, message",
    [
        (RECORDED, 4, None, ValueError, r"step \d+: the allocator gives the question '[ab]+' \d rollouts"),
        (RECORDED.replace("=4@", "=2@"), 3, None, ValueError, "is this the run's contender and its seed"),
        ("aero@n=1,batch=4", 3, None, ValueError, "samples in rounds"),
        (RECORDED, 3, without("rollouts"), FileNotFoundError, "rollout_data_dir"),
        (RECORDED, 3, without("cero"), FileNotFoundError, "allocations.jsonl"),
        (RECORDED, 3, without("global_step_*"), FileNotFoundError, "save_contents"),
        (RECORDED, 3, changed("rollouts/2.jsonl", ': "a', ': "q'), ValueError, "no prompt of"),
        (RECORDED, 3, changed(LOG, '"prompts": ["', '"prompts": ["1'), ValueError, "the task has not"),
        (RECORDED, 3, changed(LOG, '/sampled": ', '/sampled": 1'), ValueError, "a special token within"),
    ],
)
def test_what_is_no_such_run(left_by_verl, small, tmp_path, contender, seed, change, error, message):
    out, _ = left_by_verl
    if change is not None:
        out = torn(out, tmp_path / "torn", change)
    with pytest.raises(error, match=message):
        replay(small, parse_contender(contender), seed, out)


def replace_in(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    "odd",
    [{"accuracy": [0.5]}, {"seed": [1]}, {"spent": []}, {"spent": 5}, {"accuracy": ["a", "b"]}]
    + [{"accuracy": None}, {"contender": 3}, {"spent": [0, 0]}],
    ids=str,
)
def test_a_line_that_is_no_run_is_named(tmp_path, odd):
    good = {
        "task": "t",
        "contender": "even",
        "seed": 1,
        "spent": [10, 20],
        "accuracy": [0.5, 0.6],
        "budget": 20,
    }
    path = tmp_path / "laboratory.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (good, good | {"seed": 2} | odd)))
    with pytest.raises(ValueError, match="laboratory.jsonl, line 2: "):
        laboratory.read_results(path)
