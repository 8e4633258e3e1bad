"""What a look at a prompt finds: shares by hand, the fit by brute force, the model by its logits."""

import itertools
import json

import numpy as np
import pytest

from cero.research.laboratory import prefill

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

LETTERS = "0123456789ab+= \n"


def test_the_value_of_a_pair_is_unbiased():
    for p in (0.1, 0.5, 0.9):
        chance = {k: 0.0 for k in range(prefill.PAIR + 1)}
        for outcome in itertools.product((0, 1), repeat=prefill.PAIR):
            chance[sum(outcome)] += np.prod([p if each else 1 - p for each in outcome])
        expected = sum(prefill.pair_value(np.array(k)) * weight for k, weight in chance.items())
        assert expected == pytest.approx(prefill.value(p))


def test_share_found_by_hand():
    worth = np.array([1.0, 3.0, 2.0, 6.0])
    families = np.array([0, 0, 1, 1])
    assert prefill.share_found(worth, worth, families) == 1
    assert prefill.share_found(-worth, worth, families) == -1
    assert prefill.share_found(np.zeros(4), worth, families) == 0  # ties are no choice
    # The best of the first family and the worst of the second: (3 + 2 - 6) / (9 - 6).
    assert prefill.share_found(np.array([0, 1, 1, 0]), worth, families) == pytest.approx(-1 / 3)
    assert np.isnan(prefill.share_found(worth, np.ones(4), families))  # nothing is there to be found


def test_the_fit_is_a_weighted_ridge_regression_with_a_mean_for_each_family():
    """Against least squares with one column for each family and rows for the penalty."""
    rng = np.random.default_rng(0)
    fit, rows = prefill.WithinFamilies(), []
    scalars = rng.normal(size=(3, 20, 4))
    families = rng.integers(0, 3, size=(3, 20))
    targets = rng.normal(size=(3, 20)) + scalars[..., 0] * 2 + families
    for step in range(3):
        fit.learn(scalars[step], targets[step], families[step])
    weights = np.repeat(prefill.FADING ** np.array([2, 1, 0]), 20)
    x, y, of = scalars.reshape(-1, 4), targets.ravel(), families.ravel()
    scale = x.std(axis=0) + 1e-9
    columns = np.concatenate([x / scale, np.eye(3)[of]], axis=1) * np.sqrt(weights)[:, None]
    penalty = np.concatenate([np.sqrt(prefill.RIDGE) * np.eye(4), np.zeros((4, 3))], axis=1)
    rows = np.concatenate([columns, penalty])
    expected = np.linalg.lstsq(rows, np.concatenate([y * np.sqrt(weights), np.zeros(4)]))[0][:4]
    new, theirs = rng.normal(size=(6, 4)), np.array([0, 0, 1, 1, 2, 2])
    found = fit.predict(new, theirs)
    for family in range(3):
        mine = theirs == family
        relative = (new[mine] - new[mine].mean(axis=0)) / scale @ expected
        np.testing.assert_allclose(found[mine], relative, rtol=1e-6)
    assert fit.means(4)[3] == 0
    first = of == 1
    assert fit.means(4)[1] == pytest.approx(np.average(y[first], weights=weights[first]))


def test_before_the_first_outcome_nothing_is_known():
    fit = prefill.WithinFamilies()
    assert not fit.predict(np.ones((3, 4)), np.zeros(3, int)).any() and not fit.means(2).any()


def test_the_engine_tells_of_two_tokens_and_of_the_length():
    scalars = np.zeros((2, len(prefill.SCALARS)))
    scalars[:, prefill.SCALARS.index("top")] = 1, 0.5
    scalars[:, prefill.SCALARS.index("top_next")] = 0.25, 1
    scalars[:, prefill.SCALARS.index("length")] = 3, 4
    assert np.allclose(prefill.engine_scalars(scalars), [[0, np.log(0.25), 3], [np.log(0.5), 0, 4]])


def test_errors_are_of_seeds_where_there_are_several():
    def record(seed, step, value):
        return {"seed": seed, "step": step, "found": {"value fit": value, "entropy": 2 * value}}

    one = [record(0, step, value) for step, value in enumerate((9.0, 0.1, 0.2, 0.6))]
    rows = dict((name, cells) for name, *cells in prefill.table_rows(one))
    assert list(rows) == ["value fit", "entropy"]  # those that were measured
    assert rows["value fit"] == ["0.10", "0.20", "0.60", "0.30 ± 0.15"]  # sd 0.265 of three steps
    other = [record(1, step, value) for step, value in enumerate((9.0, 0.3, 0.2, 0.4))]
    rows = dict((name, cells) for name, *cells in prefill.table_rows(one + other))
    assert rows["value fit"] == ["0.20 ± 0.10", "0.20 ± 0.00", "0.50 ± 0.10", "0.30 ± 0.00"]
    assert rows["entropy"][0] == "0.40 ± 0.20"
    # A run that was interrupted and made again: of a step made twice, the last counts.
    again = [record(0, step, 0.9) for step in (0, 1, 2)] + one
    assert prefill.table_rows(again) == prefill.table_rows(one)
    with pytest.raises(ValueError, match="several learning rates"):
        prefill.table_rows([each | {"lr": rate} for each, rate in zip(one[1:3], (1e-5, 1e-4), strict=True)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model that says characters, with questions of two families."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = tmp_path_factory.mktemp("prefill")
    tokens = {token: i for i, token in enumerate(["<pad>", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(made / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, initializer_range=0.5, bos_token_id=None, pad_token_id=0,
        eos_token_id=tokens["\n"],
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [tokens["\n"], tokens["b"]]
    model.save_pretrained(made / "model")
    rows = [
        {
            "data_source": f"fewshot/{family}",
            "prompt": [{"role": "user", "content": f"{i % 10}{sign}{i // 10}="}],
            "reward_model": {"ground_truth": str(i % 7)},
            "extra_info": {"family": family},
        }
        for family, sign in (("sums", "+"), ("letters", "a"), ("two-steps", " "))
        for i in range(24)
    ]
    pq.write_table(pa.Table.from_pylist(rows), made / "train.parquet")
    return made


@pytest.fixture
def learner(folder):
    return prefill.Learner(folder / "model", seed=0)


def test_a_look_is_exact(learner):
    """Against one forward pass for each prompt, without padding: the answer and either of two ends."""
    prompts, answers = ["1+2=", "12+2=", "a="], ["3", "14", "b"]
    p, scalars = learner.look(prompts, answers)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids = learner.tokens(prompt + " " + answer)
        with torch.no_grad():
            likely = torch.softmax(learner.model(torch.tensor([ids])).logits[0].double(), -1)
        start = len(learner.tokens(prompt))
        chance = float(likely[-1, learner.ends].sum())
        for place in range(start, len(ids)):
            chance *= float(likely[place - 1, ids[place]])
        assert p[i] == pytest.approx(chance, rel=1e-4)
        named = dict(zip(prefill.SCALARS, scalars[i], strict=True))
        # The space is a token of its own, so the place after it says what number comes.
        for end, place in (("", start - 1), ("_next", start)):
            there = likely[place].numpy()
            assert named[f"entropy{end}"] == pytest.approx(-(there * np.log(there)).sum(), rel=1e-4)
            first, second = np.sort(there)[::-1][:2]
            assert named[f"top{end}"] == pytest.approx(first, rel=1e-4)
            assert named[f"margin{end}"] == pytest.approx(first - second, rel=1e-3, abs=1e-6)
            assert named[f"sum_squares{end}"] == pytest.approx((there**2).sum(), rel=1e-4)
            assert named[f"spread{end}"] == pytest.approx((there**2 * (1 - there)).sum(), rel=1e-4)
        of_prompt = [np.log(float(likely[at - 1, ids[at]])) for at in range(1, start)]
        assert named["prompt_mean"] == pytest.approx(np.mean(of_prompt), rel=1e-4)
        assert named["prompt_least"] == pytest.approx(min(of_prompt), rel=1e-4)
        assert named["prompt_last"] == pytest.approx(of_prompt[-1], rel=1e-4)
        assert named["length"] == pytest.approx(np.log(start))


def test_learning_makes_what_has_advantage_likelier(learner):
    """The gradient is that of the mean over all tokens, those of rows without advantage included."""
    prompts, ends = ["1+2=", "12+3=", "9+9="], learner.tokens("\n")
    responses = [learner.tokens(" 3") + ends, learner.tokens(" 1") + ends, learner.tokens(" 18") + ends]
    advantage = np.array([1.0, -1.0, 0.0])

    def likelihoods():
        found = []
        for prompt, response in zip(prompts, responses, strict=True):
            ids = torch.tensor([learner.tokens(prompt) + response])
            likely = learner.model(ids).logits[0, :-1].log_softmax(-1)
            found.append(likely.gather(-1, ids[0, 1:, None])[-len(response) :, 0].sum())
        return found

    before = likelihoods()
    total = sum(map(len, responses))
    loss = -sum(a * each for a, each in zip(advantage, before, strict=True)) / total
    loss.backward()
    parameters = list(learner.model.parameters())
    expected = [each.grad.clone() for each in parameters]
    norm = torch.sqrt(sum((each**2).sum() for each in expected))
    learner.learn(prompts, responses, advantage)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * min(1, 1 / norm), rtol=1e-3, atol=1e-6)
    after = likelihoods()
    assert after[0] - before[0] > 0 > after[1] - before[1]


@pytest.mark.slow
def test_a_run_of_three_steps_is_repeatable_and_gives_a_table(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prefill, "LENGTH", 4)
    threads = torch.get_num_threads()
    for name in ("one", "other"):
        words = [
            "run",
            "--data",
            str(folder),
            "--steps",
            "4",
            "--out",
            str(tmp_path / name),
            "--threads",
            "1",
        ]
        prefill.main(words)
    torch.set_num_threads(threads)
    one, other = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in ("one", "other")
    )
    assert [record["step"] for record in one] == [0, 1, 2, 3]
    for record in [*one, *other]:
        del record["seconds"], record["looked"]
    assert one == other
    for record in one:
        found = record["found"]
        assert set(found) == set(prefill.PREDICTORS) and all(-4 < each <= 1 for each in found.values())
        assert found["truth at the start"] > 0.9  # the model has hardly moved
    assert one[0]["found"]["value fit"] == 0  # nothing is known yet
    capsys.readouterr()
    words = [*words[:-4], "--without-start", "--out", str(tmp_path / "without"), *words[-2:]]
    prefill.main(words)
    without = [json.loads(line)["found"] for line in (tmp_path / "without").read_text().splitlines()]
    for found, record in zip(without, one, strict=True):
        assert found == {k: v for k, v in record["found"].items() if k != "truth at the start"}
    torch.set_num_threads(threads)
    capsys.readouterr()
    prefill.main(["table", str(tmp_path / "one")])
    said = capsys.readouterr().out
    assert all(f"| {name} |" in said for name in prefill.PREDICTORS)
    with pytest.raises(SystemExit):
        prefill.main(["run", "--data", str(folder), "--steps", "99", "--out", str(tmp_path / "more")])
    assert "are enough for 6" in capsys.readouterr().err
