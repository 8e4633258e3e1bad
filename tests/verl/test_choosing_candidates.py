"""Candidates through verl's own loop: which prompts are offered and chosen, passes, resumes and refusals."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from one_process import Bench, rows_of
from test_resume_kills import Copies
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import RandomSampler
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.dataset.rl_dataset import collate_fn

from cero import make_allocator
from cero.analysis.runlog import read_log
from cero.core.state import BASELINE_FILE, COMMIT_MARKER, STATE_FILE, load_meta, load_state, save_state
from cero.verl.candidates import ROW, WAITING_FILE, Numbered, Pass, numbered
from cero.verl.identity import row_prompt_id
from cero.verl.preflight import Preflight
from cero.verl.reading import read_settings

BATCH, N, ROWS = 8, 4, 32  # of `Bench.config`: four steps of a pass, three passes
TWO, BACK = "cero.candidates=2", "cero.unchosen=return"


@pytest.fixture
def bench(composed, monkeypatch):
    return Bench(composed, monkeypatch)


def steps_of(folder):
    return [record for record in read_log(folder / "cero" / "allocations.jsonl") if record["kind"] == "step"]


def id_of(row):
    return f"{row_prompt_id(row['data_source'], row['raw_prompt'], row['reward_model']['ground_truth']):016x}"


# ---- the queue of a pass -------------------------------------------------------------------------


def play_pass(passes, rng, choose):
    """Play one pass; returns (places chosen in each step, offers of each place)."""
    order, given = rng.permutation(passes.rows), 0
    taken, offers, steps = [], np.zeros(passes.rows, int), passes.rows // passes.batch
    for _ in range(steps):
        offer = passes.offer()
        fresh = order[given : given + offer.batches * passes.batch]
        given += fresh.size
        offered = np.concatenate([fresh, offer.again])
        assert offered.size == np.unique(offered).size <= passes.factor * passes.batch
        assert 1 <= offer.least <= offer.most <= offered.size
        # A budget of batch x n gives each of so many one rollout.
        assert offer.least <= passes.capacity and offer.most <= passes.budget
        number = choose(offer.least, offer.most)
        chosen = rng.permutation(offered.size)[:number]
        offers[offered] += 1
        taken.append(offered[chosen])
        passes.settle(offer, offered, chosen)
    return taken, offers


CHOICES = {
    "least": lambda least, most: least,
    "most": lambda least, most: most,
    "any": lambda least, most: int(np.random.default_rng(least * 100 + most).integers(least, most + 1)),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    "rows, batch, factor, rollouts",
    [
        (32, 8, 2, 4),
        (32, 8, 4, 4),
        (35, 8, 3, 1),
        (100, 4, 8, 2),
        (64, 1, 16, 8),
        (16, 8, 2, 16),
        (8, 4, 2, 1),
    ],
)
def test_everyone_is_chosen_once_before_the_pass_ends(rows, batch, factor, rollouts, choice):
    """The bound on waiting: whatever is chosen within the limits, a pass leaves nobody behind."""
    passes, rng = Pass(rows, batch, factor, rollouts), np.random.default_rng(1)
    for _ in range(3):
        taken, offers = play_pass(passes, rng, CHOICES[choice])
        flat = np.concatenate(taken)
        assert flat.size == np.unique(flat).size == rows // batch * batch
        assert passes.waiting.size == passes.steps == passes.fresh == 0
        assert all(each.size >= 1 for each in taken) and offers.max() <= rows // batch
        if rollouts == 1:  # a rollout for each: then every step has a batch, and only the order is chosen
            assert [each.size for each in taken] == [batch] * (rows // batch)


def test_those_that_wait_come_back_in_the_order_in_which_they_were_offered():
    passes = Pass(16, 2, 2, 4)
    seen = []
    for k in range(8):
        offer = passes.offer()
        seen.append(offer.again.tolist())
        offered = np.concatenate([np.arange(4 * k, 4 * k + 2 * offer.batches), offer.again])
        passes.settle(offer, offered, np.arange(offered.size)[:2])
    assert seen[:4] == [[], [], [], []]  # first all that is fresh
    assert seen[4:] == [[2, 3, 6, 7], [10, 11, 14, 15], [6, 7, 14, 15], [14, 15]]


def test_a_pass_goes_on_from_its_state_wherever_it_is_cut(tmp_path):
    for cut in range(9):
        whole, rng = Pass(64, 8, 3, 4), np.random.default_rng(3)
        other = Pass(64, 8, 3, 4)
        for k in range(10):
            if k == cut:
                save_state(whole.state_dict(), tmp_path / "waiting.npz")
                other.load_state_dict(load_state(tmp_path / "waiting.npz"))
            one = whole.offer()
            if k >= cut:
                two = other.offer()
                np.testing.assert_equal(vars(one), vars(two))
            fresh = np.arange(one.batches * 8) + (whole.read if whole.steps else 0)
            offered = np.concatenate([fresh, one.again])
            chosen = rng.permutation(offered.size)[: one.least + (one.most - one.least) // 2]
            whole.settle(one, offered, chosen)
            if k >= cut:
                other.settle(two, offered, chosen)
                np.testing.assert_equal(whole.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", ["greedy", "mapp"])
@pytest.mark.parametrize(
    "batch, n, factor, group", [(16, 2, 4, 8), (16, 4, 8, 16), (8, 1, 4, 1), (8, 3, 4, 24)]
)
def test_a_rule_that_chooses_few_can_choose_in_every_step(name, batch, n, factor, group):
    """Prompts that wait grow in number; their step still has a rollout for each that it may choose."""
    passes = Pass(batch * 20, batch, factor, n)
    allocator = make_allocator(name, rollouts_per_prompt=n, epochs=2, n_min=0, n_max=64, group=group)
    for _ in range(2):
        given = 0
        for _ in range(20):
            offer = passes.offer()
            offered = np.concatenate([np.arange(given, given + offer.batches * batch), offer.again])
            given += offer.batches * batch
            choice = allocator.choose(offered.astype(np.uint64), batch * n, offer.least, offer.most)
            passes.settle(offer, offered, choice.chosen)
        assert passes.left == 0 and passes.steps == 0


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("waiting", [0, 5, 8, 13, 40])
@pytest.mark.parametrize("read", [16, 24, 30, 64])
def test_a_pass_that_goes_on_under_other_sizes_can_be_played_to_its_end(n, waiting, read):
    passes = Pass(64, 8, 4, n)
    passes.go_on(read, steps=7, waiting=np.arange(min(waiting, read)))
    while passes.steps:
        offer = passes.offer()
        offered = np.concatenate([np.arange(passes.read, passes.read + offer.batches * 8), offer.again])
        assert 1 <= offer.least <= offer.most <= min(offered.size, 8 * n)
        passes.settle(offer, offered, np.arange(offer.least))
    assert passes.left == 0


BAD_STATES = {
    "foreign": lambda s: s | {"format": "other"},
    "newer": lambda s: s | {"version": 9},
    "no count": lambda s: {key: value for key, value in s.items() if key != "fresh"},
    "negative": lambda s: s | {"steps": -1},
    "fraction": lambda s: s | {"read": 1.5},
    "no queue": lambda s: s | {"table": {}},
    "other numbers": lambda s: s | {"table": {"row": np.array([0.5])}},
    "beyond the data": lambda s: s | {"table": {"row": np.array([64])}},
    "twice": lambda s: s | {"table": {"row": np.array([3, 3])}},
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_bad_states_are_refused_and_change_nothing(case):
    passes = Pass(64, 8, 3, 4)
    before = passes.state_dict()
    with pytest.raises(ValueError, match="earlier checkpoint|damaged"):
        passes.load_state_dict(BAD_STATES[case](Pass(64, 8, 2, 4).state_dict()))
    np.testing.assert_equal(passes.state_dict(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_say_their_place(workers):
    rows = rows_of(12)

    def loader():
        generator = torch.Generator()
        generator.manual_seed(3)
        sampler = RandomSampler(data_source=rows, generator=generator)
        return StatefulDataLoader(
            rows, batch_size=4, num_workers=workers, drop_last=True, collate_fn=collate_fn, sampler=sampler
        )

    plain, with_places = list(loader()), list(numbered(loader()))
    for one, other in zip(plain, with_places, strict=True):
        places = other.pop(ROW).tolist()  # a tensor
        assert [rows[i]["raw_prompt"] for i in places] == list(one["raw_prompt"])
        assert one.keys() == other.keys() and list(one["raw_prompt"]) == list(other["raw_prompt"])
    extended = Numbered(SimpleNamespace(state_dict=lambda: {"a": 1}, __getitems__=None))
    assert extended.state_dict() == {"a": 1} and not hasattr(extended, "__getitems__")


# ---- whole runs ----------------------------------------------------------------------------------


def check_run(folder, trainer, steps, per_pass):
    ledger, lines = trainer.scheduler.allocator.ledger, steps_of(folder)
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    assert [line["epoch"] for line in lines] == [(step - 1) // per_pass for step in range(1, steps + 1)]
    for line in lines:
        assert sum(line["rollouts"]) == line["budget"] == BATCH * N and min(line["rollouts"]) >= 1
        assert line["metrics"]["cero/candidates/chosen"] == len(line["prompts"])
        assert line["metrics"]["cero/n/zero"] == 0
    assert ledger.spent == ledger.total == steps * BATCH * N
    assert trainer.steps_per_epoch == per_pass
    config = trainer.config
    assert config.actor_rollout_ref.actor.optim.total_training_steps == steps
    assert config.data.train_batch_size == BATCH


ALLOCATORS = ("cero", "cero_resolve", "greedy", "mapp", "thompson", "greso", "variance")


def options(allocator):
    zero = ("allocator.n_min=0",) if allocator == "variance" else ()
    return (f"allocator={allocator}", *zero)


@pytest.mark.slow
@pytest.mark.parametrize(
    "allocator, factor, workers, steps, per_pass",
    [("cero", 2, 0, 6, 2), ("cero", 2, 2, 6, 2), ("cero", 3, 0, 3, 1), ("greedy", 4, 0, 3, 1)],
)
def test_drop(bench, tmp_path, allocator, factor, workers, steps, per_pass):
    trainer = bench.train(
        tmp_path,
        *options(allocator),
        f"cero.candidates={factor}",
        f"data.dataloader_num_workers={workers}",
    )
    check_run(tmp_path, trainer, steps, per_pass)
    lines = steps_of(tmp_path)
    for line in lines:
        assert line["metrics"]["cero/candidates/count"] == factor * BATCH
        assert line["metrics"]["cero/candidates/forced"] == 0
        assert "cero/candidates/waiting" not in line["metrics"]
    # Nobody is offered twice in a pass.
    for first in range(0, steps, per_pass):
        prompts = [prompt for line in lines[first : first + per_pass] for prompt in line["prompts"]]
        assert len(prompts) == len(set(prompts)) <= factor * BATCH * per_pass
    assert not (tmp_path / "global_step_3" / WAITING_FILE).exists()
    assert trainer.scheduler.allocator.epochs == int(np.ceil(3 / factor))


@pytest.mark.slow
@pytest.mark.parametrize(
    "allocator, factor, n, workers",
    [(name, 4, 4, 0) for name in ALLOCATORS]
    + [("cero", 2, 4, 2), ("mapp", 4, 4, 2), ("cero", 3, 1, 0), ("greso", 2, 1, 0)],
)
def test_return(bench, tmp_path, allocator, factor, n, workers):
    bench.rows = rows_of(ROWS + 3)  # three that a pass leaves out, as verl does
    trainer = bench.train(
        tmp_path,
        *options(allocator),
        f"cero.candidates={factor}",
        BACK,
        f"actor_rollout_ref.rollout.n={n}",
        f"data.dataloader_num_workers={workers}",
    )
    lines = steps_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["epoch"] for line in lines] == [step // 4 for step in range(12)]
    for first in (0, 4, 8):
        prompts = [prompt for line in lines[first : first + 4] for prompt in line["prompts"]]
        assert len(prompts) == len(set(prompts)) == ROWS
        waiting = [line["metrics"]["cero/candidates/waiting"] for line in lines[first : first + 4]]
        assert waiting[0] == factor * BATCH - len(lines[first]["prompts"]) and waiting[-1] == 0
    for line in lines:
        assert sum(line["rollouts"]) == line["budget"] == BATCH * n and min(line["rollouts"]) >= 1
        assert n > 1 or len(line["prompts"]) == BATCH
    ledger = trainer.scheduler.allocator.ledger
    assert ledger.spent == ledger.total == 12 * BATCH * n and trainer.scheduler.allocator.epochs == 3
    # What was chosen is what was sampled, and the rewards are those of these prompts.
    known = {id_of(row) for row in bench.rows}
    assert {prompt for line in lines for prompt in line["prompts"]} <= known


def test_return_without_shuffling_reads_in_order(bench, tmp_path):
    trainer = bench.train(tmp_path, "allocator=greedy", TWO, BACK, "data.shuffle=false")
    names = {id_of(row): place for place, row in enumerate(bench.rows)}
    lines = steps_of(tmp_path)
    for first in (0, 4, 8):
        chosen = [{names[prompt] for prompt in line["prompts"]} for line in lines[first : first + 4]]
        assert chosen[0] < set(range(16)) and chosen[1] < set(range(16, 32))
        # Then those that were not chosen, in that order.
        assert chosen[2] <= set(range(32)) - chosen[0] - chosen[1]
        assert set().union(*chosen) == set(range(32))
    assert trainer.offers.steps == 0


# ---- resumes -------------------------------------------------------------------------------------

SAME = ("step", "epoch", "budget", "spent", "prompts", "rollouts", "successes", "trials")


def check_same(whole, folder, last):
    for one, other in zip(steps_of(whole), steps_of(folder), strict=True):
        assert {key: one[key] for key in SAME} == {key: other[key] for key in SAME}, one["step"]
        for key in one["metrics"]:
            if "candidates" in key:
                assert one["metrics"][key] == other["metrics"][key], key
    for name in (STATE_FILE, BASELINE_FILE, WAITING_FILE):
        paths = [each / f"global_step_{last}" / name for each in (whole, folder)]
        assert paths[0].exists() == paths[1].exists() == (name != WAITING_FILE or paths[0].exists())
        if paths[0].exists():
            np.testing.assert_equal(*map(load_state, paths))


@pytest.mark.slow
@pytest.mark.parametrize(
    "unchosen, saved, workers",
    [("drop", saved, 0) for saved in (1, 2)]
    + [("return", saved, 0) for saved in (1, 2, 3, 4, 5)]
    + [("drop", 2, 2), ("return", 2, 2), ("return", 4, 2)],
)
def test_a_stopped_run_goes_on_as_if_it_had_not(bench, tmp_path, unchosen, saved, workers):
    """From each place of a pass, its end included, where the loader is at its end, or was before."""
    words = (TWO, f"cero.unchosen={unchosen}", f"data.dataloader_num_workers={workers}")
    words += (f"trainer.save_freq={saved}", "trainer.total_epochs=4", "trainer.total_training_steps=8")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    bench.rows = rows_of(ROWS + 5)
    last = bench.train(whole, *words).global_steps - 1
    assert last == 8
    bench.train(stopped, *words, stop_after=saved + 1 if saved < 3 else saved)
    bench.train(stopped, *words)
    check_same(whole, stopped, last)


@pytest.mark.slow
@pytest.mark.parametrize("unchosen, every", [("return", 1), ("drop", 6)])
def test_killed_at_each_point(bench, monkeypatch, tmp_path, unchosen, every):
    """As in test_resume_kills: resumed in a copy of the folder taken at every point around a checkpoint."""
    words = (TWO, f"cero.unchosen={unchosen}", "trainer.total_epochs=4", "trainer.total_training_steps=8")
    (tmp_path / "copies").mkdir()
    copies = Copies(bench, monkeypatch, tmp_path / "whole", tmp_path / "copies")
    bench.train(tmp_path / "whole", *words)
    copies.on = False
    names = [point for _, point in copies.points]
    assert any(name.startswith("after replace waiting") for name in names) == (unchosen == "return")
    found = sorted((tmp_path / "copies").iterdir())
    assert len(found) > 30
    for copy in found[::every]:
        bench.train(copy, *words)
        check_same(tmp_path / "whole", copy, 8)


@pytest.mark.slow
def test_the_queue_is_on_disk_before_the_marker(bench, monkeypatch, tmp_path):
    (tmp_path / "copies").mkdir()
    copies = Copies(bench, monkeypatch, tmp_path / "whole", tmp_path / "copies")
    bench.train(tmp_path / "whole", TWO, BACK, "trainer.total_training_steps=4")
    order = [point for step, point in copies.points if step == 3]
    assert order.index("saved by the workers") > next(
        i for i, point in enumerate(order) if point.startswith("after replace waiting")
    )


CHANGED = [
    ((), (TWO, BACK)),
    ((TWO, BACK), ()),
    ((TWO, BACK), (TWO,)),
    ((TWO,), (TWO, BACK)),
    ((TWO, BACK), ("cero.candidates=4", BACK)),
    (("cero.candidates=4", BACK), (TWO, BACK)),
    ((TWO, BACK), (TWO, BACK, "actor_rollout_ref.rollout.n=1")),
    ((TWO, BACK), (TWO, BACK, "data.train_batch_size=4")),
    ((TWO, BACK), (TWO, BACK, "data.train_batch_size=16")),
    (("cero.candidates=4", BACK, "actor_rollout_ref.rollout.n=8"), (TWO, BACK)),
]


@pytest.mark.slow
@pytest.mark.parametrize("then, now, stop", [(*case, 6) for case in CHANGED] + [(*CHANGED[4], 3)])
def test_resumed_with_other_candidates(bench, tmp_path, capsys, then, now, stop):
    bench.train(tmp_path, *then, stop_after=stop)
    capsys.readouterr()
    trainer = bench.train(tmp_path, *now, "trainer.total_epochs=12", "trainer.total_training_steps=24")
    batch, n = trainer.config.data.train_batch_size, trainer.settings.rollouts_per_prompt
    lines = steps_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 25))
    for line in lines[stop:]:
        assert sum(line["rollouts"]) == batch * n
        assert BACK not in now or min(line["rollouts"]) >= 1
    ledger = trainer.scheduler.allocator.ledger
    assert ledger.spent == ledger.total == sum(sum(line["rollouts"]) for line in lines)
    said = capsys.readouterr().err
    was, are = (read_settings(bench.config(tmp_path, *words)).offers for words in (then, now))
    for key in was:
        assert (f"cero.{key}={are[key]} (was {was[key]})" in said) == (was[key] != are[key])
    if BACK in now:  # whole passes again from some step on, each with everyone once
        per_pass = ROWS // batch
        begins = [k for k in range(stop, 24) if trainer.offers is not None and 24 - k >= per_pass]
        wholes = [
            sorted(prompt for line in lines[k : k + per_pass] for prompt in line["prompts"]) for k in begins
        ]
        everyone = sorted(id_of(row) for row in bench.rows)
        assert everyone in wholes


@pytest.mark.slow
@pytest.mark.parametrize("rows", [rows_of(48), rows_of(24), rows_of(40, first=20), rows_of(32)[::-1]])
def test_resumed_with_other_data(bench, tmp_path, rows):
    """From the first step of a pass, of which 16 prompts were read and some of them wait."""
    bench.train(tmp_path, TWO, BACK, "trainer.save_freq=1", stop_after=5)
    bench.rows = rows
    trainer = bench.train(tmp_path, TWO, BACK, "trainer.total_epochs=6")
    lines = steps_of(tmp_path)
    assert len(lines) == 6 * (len(rows) // BATCH)
    for line in lines[5:]:
        assert sum(line["rollouts"]) == BATCH * N and min(line["rollouts"]) >= 1
    assert trainer.scheduler.allocator.ledger.left == 0


def test_a_pass_begins_anew_without_the_loaders_state(bench, tmp_path):
    bench.train(tmp_path, TWO, BACK, stop_after=6)
    assert load_state(tmp_path / "global_step_6" / WAITING_FILE)["table"]["row"].size
    (tmp_path / "global_step_6" / "data.pt").unlink()
    trainer = bench.train(tmp_path, TWO, BACK)
    lines = steps_of(tmp_path)
    assert len({prompt for line in lines[6:10] for prompt in line["prompts"]}) == ROWS
    assert trainer.scheduler.allocator.ledger.left == 0


def test_a_damaged_queue_is_refused_before_anything_starts(bench, tmp_path):
    bench.train(tmp_path, TWO, BACK, stop_after=4)
    path = tmp_path / "global_step_3" / WAITING_FILE
    pq.write_table(pa.table({"prompt": [""] * ROWS}), tmp_path / "train.parquet")
    data = f"data.train_files={tmp_path}/train.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(SystemExit, match="waiting.npz.*damaged"):
        Preflight().on_job_start(config=bench.config(tmp_path, TWO, BACK, data))
    with pytest.raises(ValueError, match="waiting.npz.*damaged"):
        bench.train(tmp_path, TWO, BACK)


def test_what_was_set_is_in_the_state_only_where_there_are_candidates(bench, tmp_path):
    bench.train(tmp_path / "one", stop_after=3)
    bench.train(tmp_path / "two", TWO, BACK, stop_after=3)
    one, two = (load_meta(tmp_path / name / "global_step_3" / STATE_FILE) for name in ("one", "two"))
    assert "candidates" not in one and two["candidates"] == {"candidates": 2, "unchosen": "return"}
    assert json.dumps(sorted({*two} - {*one})) == '["candidates"]'
    assert (tmp_path / "two" / COMMIT_MARKER).read_text() == "3"


# ---- verl's side ---------------------------------------------------------------------------------


def test_verl_sends_and_waits_for_the_chosen_only(bench, monkeypatch, tmp_path):
    """Its queue and its engine see no other prompt, and its buffer is asked for as many as were sent."""
    sent, asked = [], []
    submit = PPOTrainerSync._submit_batch_to_rollout

    def noted(trainer, batch):
        sent.append(
            (
                len(batch),
                [int(n) for n in batch["__rollout_n__"]],
                sorted(batch.keys()),
                batch["global_steps"],
            )
        )
        assert len(batch["raw_prompt"]) == len(set(batch["uid"])) == len(batch)
        return submit(trainer, batch)

    def once(trainer, metrics, timing_raw, sample_batch_size):
        asked.append(sample_batch_size)

    step = PPOTrainerSync.step

    def whole(trainer, metrics, timing_raw):
        trainer.prepare_step()
        trainer._step_once(metrics, timing_raw, BATCH)
        trainer.prepare_step = lambda: {}
        try:
            return step(trainer, metrics, timing_raw)
        finally:
            del trainer.prepare_step

    monkeypatch.setattr(PPOTrainerSync, "_submit_batch_to_rollout", noted)
    monkeypatch.setattr(PPOTrainerSync, "_step_once", once)
    monkeypatch.setattr(PPOTrainerSync, "step", whole)
    bench.train(tmp_path, TWO, BACK, "allocator.response=20", "trainer.save_freq=-1")
    assert len(sent) == 12 and asked == [size for size, *_ in sent]
    assert len({size for size, *_ in sent}) > 1  # not a batch each: as many as get rollouts
    for k, (size, rollouts, columns, step) in enumerate(sent):
        assert len(rollouts) == size and sum(rollouts) == BATCH * N and step == k + 1
        assert ROW not in columns and not any(column.startswith("__cero") for column in columns)


def test_without_candidates_verl_fetches_and_waits_as_ever(bench, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        PPOTrainerSync,
        "_step_once",
        lambda trainer, metrics, timing, size: calls.append(size),
    )
    trainer = bench.train(tmp_path, stop_after=1)
    trainer._step_once({}, {}, 8)
    assert calls == [8] and trainer.offers is None and trainer.train_dataloader.batch_size == 8
    assert not isinstance(trainer.train_dataloader.dataset, Numbered)
    assert not any("candidates" in key for line in steps_of(tmp_path) for key in line["metrics"])


# ---- refusals ------------------------------------------------------------------------------------

RUN = ["+recipe=cero", "actor_rollout_ref.rollout.n=8"]
REFUSED = {
    "none": (["cero.candidates=0"], r"cero.candidates=0"),
    "a part": (["cero.candidates=1.5"], r"cero.candidates=1.5"),
    "no number": (["cero.candidates=many"], r"cero.candidates='many'"),
    "unchosen": ([TWO, "cero.unchosen=keep"], r"cero.unchosen='keep'.*drop, return"),
    "nothing to return": ([BACK], r"cero.unchosen=return has no effect with cero.candidates=1.*to 2 or more"),
    "uniform": (["allocator=uniform", TWO], r"cero.candidates=2 with allocator=uniform.*allocator=greedy"),
    "dapo": (
        ["allocator=uniform", "algorithm.filter_groups.enable=True", TWO],
        r"cero.candidates=2 with algorithm.filter_groups.enable=True.*cero.candidates=1",
    ),
    "rounds": (["allocator=cero_seq", TWO], r"cero.candidates=2 with allocator=cero_seq.*candidates=1"),
    "aero": (["allocator=aero", TWO], r"cero.candidates=2 with allocator=aero"),
    "least": (["allocator=variance", TWO], r"allocator.n_min=2 with cero.candidates=2.*n_min=0"),
    "vip": (["allocator=vip", TWO], r"allocator.n_min=4 with cero.candidates=2"),
    "fetches": ([TWO, "+data.gen_batch_size=4"], r"data.gen_batch_size=4 with cero.candidates=2.*null"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_refused(composed, case):
    overrides, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        read_settings(composed(*RUN, *overrides))


def test_more_candidates_than_data(bench, tmp_path):
    pq.write_table(pa.table({"prompt": [""] * ROWS}), tmp_path / "train.parquet")
    data = f"data.train_files={tmp_path}/train.parquet"
    message = (
        "cero.candidates=5 x data.train_batch_size=8 are 40 prompts a step.* has 32; set cero.candidates to 4"
    )
    for unchosen in ("drop", "return"):
        words = ("cero.candidates=5", f"cero.unchosen={unchosen}")
        with pytest.raises(SystemExit, match=message):
            Preflight().on_job_start(config=bench.config(tmp_path, data, *words))
        with pytest.raises(ValueError, match=message):
            bench.train(tmp_path, *words)


def test_pass_rates_of_candidates_decide_whom_to_choose(bench, tmp_path):
    """And nobody else is told them: `cero.pass_rates` is read of all candidates."""
    for place, row in enumerate(bench.rows):
        row["rate"] = 0.5 if place % 4 == 0 else 0.0
    bench.train(
        tmp_path,
        "allocator=greedy",
        "cero.candidates=4",
        "cero.pass_rates.column=rate",
        "cero.pass_rates.strength=100",
        stop_after=1,
    )
    (line,) = steps_of(tmp_path)
    assert set(line["prompts"]) == {id_of(row) for row in bench.rows[::4]}
    assert line["metrics"]["cero/candidates/value_ratio"] > 3
