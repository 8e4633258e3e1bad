"""What is expected of prompts never seen: by hand, unbiased by enumeration, and kept exactly."""

import itertools

import numpy as np
import pytest

from cero.core.state import load_state, save_state
from cero.estimators.advantage import Groups, advantages
from cero.estimators.baseline import PRIOR, OptimalBaseline
from cero.estimators.shared import (
    FADING,
    LIMIT,
    SLOTS,
    STRENGTH,
    TEXT,
    WIDTH,
    ByColumn,
    ByText,
    make_shared,
    slots_of_texts,
    slots_of_values,
    stacked,
    text_of,
)

TOPICS = ("sums", "names")
QUESTIONS = ("What is 3 + 4 ?", "Which town is the capital of France ?")
KINDS = ("topic", TEXT)
RECORDED = {"sums": 4025, "12 + 7 = ?": [2291, 5287, 1229, 688, 2690, 5837, 9116, 8803, 8381, 13846, 11151]}


def buckets_of(bucket, topics):
    """Buckets of prompts of these topics, 0 or 1."""
    if bucket == TEXT:
        return slots_of_texts([QUESTIONS[topic] for topic in topics])
    return slots_of_values([TOPICS[topic] for topic in topics])


def played(bucket, steps=40, seed=0):
    """A baseline after steps of fresh prompts: topic 0 mostly right, topic 1 mostly wrong and surprised."""
    baseline, rng = OptimalBaseline(bucket=bucket), np.random.default_rng(seed)
    for step in range(steps):
        topics = rng.integers(0, 2, 16)
        rewards = (rng.random(16) < np.where(topics == 0, 0.9, 0.2)).astype(float)
        weights = np.where(topics == 0, 1.0, np.where(rewards == 1, 2.0, 0.5))
        ids = np.arange(16, dtype=np.uint64) + np.uint64(1000 + 16 * step)
        baseline.of_step(ids, np.arange(16), rewards, weights, buckets=buckets_of(bucket, topics))
    return baseline


def test_columns_by_hand():
    shared, slots = ByColumn(), slots_of_values(["a", "b", "a"])
    np.testing.assert_array_equal(shared.expected(slots), np.full((2, 3), 0.5))
    shared.learn(slots[:2], (np.array([1.5, 0.0]), np.array([0.5, 2.0])), (np.ones(2), np.array([0.0, 3.0])))
    shared.learn(slots[:1], (np.array([3.0]), np.zeros(1)), (np.ones(1), np.zeros(1)))
    # Weighted: a has 1.5 g + 3 and 0.5 g, b has 0 and 2 g; plain: 1 g + 1 and 0, 1 g and 3 g.
    g, s = FADING, STRENGTH
    for row, (a, b) in enumerate([((1.5 * g + 3, 0.5 * g), (0, 2 * g)), ((g + 1, 0), (0, 3 * g))]):
        mean = (a[0] + b[0] + s / 2) / (sum(a) + sum(b) + s)
        plain = [(x[0] + s * mean) / (sum(x) + s) for x in (a, b, a)]
        if row == 1:  # its right rollout of the first step counts in both
            mean = (a[0] + g + s / 2) / (sum(a) + g + sum(b) + s)
            plain = [(a[0] + s * mean) / (sum(a) + s), (g + s * mean) / (4 * g + s)]
            plain += plain[:1]
        np.testing.assert_allclose(shared.expected(slots)[row], np.clip(plain, LIMIT, 1 - LIMIT), rtol=1e-6)
    other = slots_of_values(["never seen"])
    mean = (1.5 * g + 3 + s / 2) / (1.5 * g + 3 + 0.5 * g + 2 * g + s)
    assert shared.expected(other)[0] == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("bucket", KINDS)
def test_a_prompt_never_seen_starts_where_its_bucket_is(bucket):
    baseline, buckets = played(bucket), buckets_of(bucket, [0, 1])
    right, wrong = baseline.remembered([1, 2], buckets)
    np.testing.assert_allclose(right + wrong, PRIOR)
    # Topic 0: as often as right. Topic 1: 0.2 x 2 over 0.2 x 2 + 0.8 x 0.5, weighted.
    np.testing.assert_allclose(right / PRIOR, [0.9, 0.5], atol=0.08)
    np.testing.assert_allclose(baseline.expected_success(buckets), [0.9, 0.2], atol=0.08)
    np.testing.assert_allclose(OptimalBaseline(bucket=bucket).remembered([1, 2], buckets), 1.0)
    # Its own evidence takes over.
    for _ in range(30):
        baseline.of_step([1], np.zeros(8, int), np.zeros(8), np.ones(8), buckets=buckets[:1])
    right, wrong = baseline.remembered([1, 2], buckets)
    assert right[0] / (right + wrong)[0] < 0.06


@pytest.mark.parametrize("bucket", KINDS)
@pytest.mark.parametrize("p", [0.1, 0.7])
def test_unbiased_with_prompts_that_share_a_bucket(bucket, p):
    """All outcomes of a step of three prompts, two of which are alike; the gradient is exact in the mean."""
    state, groups = played(bucket, steps=6).state_dict(), np.array([0, 1, 1, 2])
    buckets, score = buckets_of(bucket, [1, 1, 0]), np.zeros(3)
    for outcome in itertools.product([0.0, 1.0], repeat=4):
        rewards = np.array(outcome)
        baseline = OptimalBaseline(bucket=bucket)
        baseline.load_state_dict(state)
        weights = np.where(rewards == 1, (1 - p) ** 2, p**2)
        b = baseline.of_step([1, 2, 3], groups, rewards, weights, buckets=buckets)
        assert ((b > 0) & (b < 1)).all()
        a = advantages("posterior", Groups(rewards, groups, 3, baseline=b), [0.3] * 3, scale=False)
        chance = np.prod(np.where(rewards == 1, p, 1 - p))
        score += chance * np.bincount(groups, a * (rewards - p))
        # What a rollout subtracts is the same whatever it scored.
        for j in range(4):
            other, flipped = OptimalBaseline(bucket=bucket), rewards.copy()
            other.load_state_dict(state)
            flipped[j] = 1 - rewards[j]
            w = np.where(flipped == 1, (1 - p) ** 2, p**2)
            assert other.of_step([1, 2, 3], groups, flipped, w, buckets=buckets)[j] == pytest.approx(b[j])
    np.testing.assert_allclose(score, np.array([1, 2, 1]) * p * (1 - p), rtol=1e-9)


@pytest.mark.slow
def test_texts_learn_without_overshooting():
    """Each step lowers the log-loss of what it shows, however sure, one-sided and heavy the evidence is."""
    rng = np.random.default_rng(1)
    for _ in range(6):
        shared, words = ByText(), rng.integers(0, 30, (12, 6))
        buckets = slots_of_texts([" ".join(f"w{word}" for word in row) for row in words])
        for _ in range(5):
            right = rng.exponential(size=12) * rng.integers(0, 2, 12) * 10.0 ** rng.integers(0, 3)
            wrong = rng.exponential(size=12) * rng.integers(0, 2, 12)

            def loss(right=right, wrong=wrong, shared=shared, buckets=buckets):
                p = shared.expected(buckets)[0]
                return -(right * np.log(p) + wrong * np.log(1 - p)).sum()

            before = loss()
            shared.learn(buckets, (right, wrong), (right > 0, wrong > 0))
            assert loss() <= before + 1e-9
        for _ in range(200):
            shared.learn(buckets, (np.full(12, 50.0), np.zeros(12)), (np.zeros(12), np.full(12, 50.0)))
        np.testing.assert_allclose(shared.expected(buckets), [[1 - LIMIT] * 12, [LIMIT] * 12])


def test_a_word_that_tells_prompts_apart_is_found_among_common_ones():
    shared, rng = ByText(), np.random.default_rng(2)
    common = "Please answer the question below and write only the number :"
    texts = [f"{common} {operation} of {a}" for operation in ("double", "square") for a in range(40)]
    buckets = slots_of_texts(texts)
    for _ in range(60):
        some = np.sort(rng.choice(80, 20, replace=False))
        right = (rng.random(20) < np.where(some < 40, 0.9, 0.1)).astype(float)
        shared.learn(buckets[some], (right, 1 - right), (right, 1 - right))
    fresh = [f"{common} {operation} of 99" for operation in ("double", "square", "half")]
    double, square, half = shared.expected(slots_of_texts(fresh))[1]
    assert double > 0.65 and square < 0.35 and 0.4 < half < 0.6


@pytest.mark.parametrize("bucket", KINDS)
def test_the_order_of_prompts_does_not_matter(bucket):
    rng = np.random.default_rng(0)
    topics, rewards, weights = rng.integers(0, 2, 12), rng.integers(0, 2, 12) * 1.0, rng.random(12)
    buckets, order = buckets_of(bucket, topics), rng.permutation(12)
    one, other = played(bucket), played(bucket)
    ids = np.arange(12, dtype=np.uint64)
    a = one.of_step(ids, np.arange(12), rewards, weights, buckets=buckets)
    b = other.of_step(ids[order], np.arange(12), rewards[order], weights[order], buckets=buckets[order])
    np.testing.assert_allclose(a[order], b)
    np.testing.assert_allclose(one.expected_success(buckets), other.expected_success(buckets), rtol=1e-5)


@pytest.mark.parametrize("bucket", KINDS)
def test_a_run_goes_on_exactly(bucket, tmp_path):
    baseline = played(bucket)
    save_state(baseline.state_dict(), tmp_path / "baseline.npz")
    other = OptimalBaseline(bucket=bucket)
    other.load_state_dict(load_state(tmp_path / "baseline.npz"))
    step = np.arange(16, dtype=np.uint64), np.arange(16), np.tile([0.0, 1.0], 8), np.linspace(0, 2, 16)
    for _ in range(3):
        results = [each.of_step(*step, buckets=buckets_of(bucket, [0, 1] * 8)) for each in (baseline, other)]
        np.testing.assert_array_equal(*results)
    for name, column in baseline.state_dict()["table"].items():
        np.testing.assert_array_equal(column, other.state_dict()["table"][name])


def test_states_of_other_runs():
    plain, buckets = OptimalBaseline(), buckets_of("topic", [0, 1])
    plain.of_step([1, 2], np.arange(2), np.array([1.0, 0.0]), np.ones(2))
    assert set(plain.state_dict()) == {"format", "weights", "table"}
    for bucket in KINDS:  # a state without buckets: these start anew, and prompts keep what they know
        late = played(bucket)
        late.load_state_dict(plain.state_dict())
        np.testing.assert_array_equal(late.expected_success(buckets_of(bucket, [0, 1])), 0.5)
        np.testing.assert_array_equal(late.remembered([1], buckets_of(bucket, [0])), plain.remembered([1]))
    # A state with buckets: of no use without them, or with other ones.
    topics = played("topic")
    without, other = OptimalBaseline(), OptimalBaseline(bucket="source")
    without.load_state_dict(topics.state_dict())
    assert len(without.table) == len(topics.table) and set(without.state_dict()) == {
        "format",
        "weights",
        "table",
    }
    other.load_state_dict(topics.state_dict())
    np.testing.assert_array_equal(other.expected_success(buckets), 0.5)


def test_damaged_states_change_nothing():
    topics, buckets = played("topic"), buckets_of("topic", [0, 1])
    before = topics.expected_success(buckets)
    for name, bad in (("shared.right", np.full(2 * SLOTS, np.nan, np.float32)), ("shared.wrong", np.ones(3))):
        state = played("topic", seed=1).state_dict()
        state["table"][name] = bad
        with pytest.raises(ValueError, match="damaged"):
            topics.load_state_dict(state)
    state["table"].pop("shared.wrong")
    with pytest.raises(ValueError, match="state of the buckets has"):
        topics.load_state_dict(state)
    np.testing.assert_array_equal(topics.expected_success(buckets), before)


@pytest.mark.slow
@pytest.mark.parametrize("bucket", KINDS)
def test_the_state_does_not_grow(bucket):
    baseline, sizes = OptimalBaseline(bucket=bucket), []
    for step in range(3):
        names = [f"topic {i} of {step}" for i in range(4000)]
        slots = slots_of_texts(names) if bucket == TEXT else slots_of_values(names)
        ids = np.arange(4000, dtype=np.uint64) + np.uint64(4000 * step)
        baseline.of_step(ids, np.arange(4000), np.ones(4000), np.ones(4000), buckets=slots)
        sizes.append(sum(column.nbytes for column in baseline.shared.columns().values()))
    assert sizes == [16 * (SLOTS + (bucket == TEXT))] * 3


@pytest.mark.parametrize("bucket", KINDS)
def test_a_prompt_without_a_bucket_is_like_the_mean_and_teaches_no_bucket(bucket):
    baseline = played(bucket)
    nothing = baseline.expected_success(np.full((1, 3), -1, np.int16))
    assert baseline.expected_success(np.zeros((1, 0), np.int16)) == nothing
    topics = baseline.expected_success(buckets_of(bucket, [0, 1]))
    assert topics[1] < nothing[0] < topics[0]
    mine, step = buckets_of(bucket, [0, 1]), ([7, 8], np.array([0, 1]), np.zeros(2), np.ones(2))
    other = played(bucket)
    other.of_step(*step, buckets=np.full_like(mine, -1))
    baseline.of_step(*step, buckets=np.zeros((2, 0), np.int16))
    for name, array in baseline.shared.columns().items():
        np.testing.assert_array_equal(other.shared.columns()[name], array)
    assert baseline.expected_success(mine[:1]) > 0.8


def test_buckets_are_needed_exactly_if_they_are_set():
    step = [1], np.zeros(1, int), np.ones(1), np.ones(1)
    with pytest.raises(ValueError, match="bucket='topic', but none were given"):
        OptimalBaseline(bucket="topic").of_step(*step)
    with pytest.raises(ValueError, match="bucket=None, but some were given"):
        OptimalBaseline().of_step(*step, buckets=buckets_of("topic", [0]))
    with pytest.raises(ValueError, match="bucket=None, but some were given"):
        OptimalBaseline().expected_success(buckets_of("topic", [0]))
    for wrong in (buckets_of("topic", [0, 1]), np.zeros(1, int)):
        with pytest.raises(ValueError, match="one row for each of 1 prompts"):
            OptimalBaseline(bucket="topic").of_step(*step, buckets=wrong)
    assert isinstance(make_shared(TEXT), ByText) and isinstance(make_shared("text_kind"), ByColumn)


def of_text(text):
    return slots_of_texts([text])[0].tolist()


def test_slots_are_the_same_in_every_process():
    assert slots_of_values(["sums", b"sums"]).tolist() == [[RECORDED["sums"]]] * 2
    assert of_text("12 + 7 = ?") == RECORDED["12 + 7 = ?"]
    assert of_text("") == of_text(" ") and len(of_text("")) == 1


def test_slots_of_long_texts():
    long = " ".join(f"word{i} x" for i in range(2000))
    slots = of_text(long)
    assert WIDTH - 8 < len(slots) <= WIDTH == len(set(slots)) + WIDTH - len(slots)
    assert 0 <= min(slots) and max(slots) < SLOTS
    # One more word changes little: the same slots are chosen.
    assert len(set(slots) & set(of_text(f"{long} more"))) >= len(slots) - 3
    assert len(of_text("数える 数")) == 8  # three signs, one of them twice, and five pairs
    # Texts beside each other have nothing to do with each other.
    texts = [long, "", "12 + 7 = ?", "数える 数", "a a a a", long[:4000]]
    for text, row in zip(texts, slots_of_texts(texts).tolist(), strict=True):
        alone = of_text(text)
        assert row[: len(alone)] == alone and set(row[len(alone) :]) <= {-1}


def test_arrays_of_slots():
    parts = [np.array([[1, -1], [2, 3]], np.int16), np.array([[4]], np.int16), slots_of_texts([])]
    assert stacked(parts).tolist() == [[1, -1], [2, 3], [4, -1]] and stacked(parts).dtype == np.int16
    assert slots_of_texts([]).shape == (0, 0) and slots_of_values([]).shape == (0, 1)


def test_the_text_of_messages():
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image", "image": object()}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert text_of(messages) == text_of(np.array(messages, dtype=object)) == "Be brief.\nWhat is this?"
    assert text_of("plain") == "plain" and text_of(None) == ""
