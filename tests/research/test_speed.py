"""Are a run's groups seen as they are, and what follows from them: idle time and tails?"""

import asyncio
import json
import math
import sys
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from cero.research.speed import groups as watching
from cero.research.speed.tails import awake, common, groups, idleness, length, read_events, tails, union

# ---- what is noted -------------------------------------------------------------------------------


@pytest.fixture
def noted(monkeypatch, tmp_path):
    """A function that returns the events noted so far."""
    monkeypatch.setenv(watching.EVENTS, str(tmp_path / "events.jsonl"))
    watching._file.cache_clear()
    yield lambda: [
        {key: value for key, value in event.items() if key != "t"}
        for event in read_events(tmp_path / "events.jsonl")
    ]
    watching._file.cache_clear()


def test_a_group_is_told_of_at_its_begin_and_end(noted):
    seen = watching.Groups()
    seen.written("train", ["a", "b"], [{"status": "running"}] * 2)
    seen.written(
        "train", ["a_0_0", "a_1_0", "a_1_1"], [{"status": "success"}] * 3
    )  # two rollouts, three rows
    seen.written("val", ["c"], [{"status": "running"}])
    seen.written("train", ["a"], [{"status": "finished"}])
    seen.written("train", ["b"], [{"status": "failure"}])
    *begun, first, second = noted()
    assert begun == [{"event": "begin", "uid": "a"}, {"event": "begin", "uid": "b"}]
    assert first.pop("last") > 0 and first == {"event": "end", "uid": "a", "rollouts": 2}
    assert second == {"event": "end", "uid": "b", "rollouts": 0, "last": None}


def test_the_queue_is_watched_and_written_to(noted):
    written = []

    async def put(keys, partition_id, fields=None, tags=None):
        written.append((keys, partition_id, fields, tags))
        return "meta"

    module = SimpleNamespace(async_kv_batch_put=put)
    watching.watch_queue(module)
    tags = [{"status": "running"}]
    assert asyncio.run(module.async_kv_batch_put(["a"], "train", None, tags)) == "meta"
    assert asyncio.run(module.async_kv_batch_put(keys=["x"], partition_id="train")) == "meta"
    assert written == [(["a"], "train", None, tags), (["x"], "train", None, None)]
    assert noted() == [{"event": "begin", "uid": "a"}]


def test_a_worker_is_watched_before_its_rows_travel_together(noted):
    class Queue:
        async def async_kv_put(self, key, partition_id, tag):
            assert [event["event"] for event in noted()][-1] in ("begin", "end")

        async def async_kv_batch_put(self, keys, partition_id, fields, tags):
            rows.extend(keys)

    rows, seen = [], watching.Groups()
    worker = SimpleNamespace(Queue=Queue)
    watching.watch_worker(None, seen)
    watching.watch_worker(worker, seen)
    once = Queue.async_kv_put
    watching.watch_worker(worker, seen)
    assert Queue.async_kv_put is once

    async def write():
        await Queue().async_kv_put("a", "train", {"status": "running"})
        await Queue().async_kv_batch_put(["a_0_0"], "train", [{}], [{"status": "success"}])
        await Queue().async_kv_put("a", "train", {"status": "finished"})

    asyncio.run(write())
    seen.written("train", ["a"], [{"status": "finished"}])  # the same, on its way to the queue
    begun, ended = noted()
    assert rows == ["a_0_0"] and begun["event"] == "begin" and ended["rollouts"] == 1


def test_trainers_are_watched_and_verls_own_gets_a_name(noted, monkeypatch):
    workers = []
    monkeypatch.setitem(sys.modules, "cero.verl.cpu.workers", SimpleNamespace(use_cpu_workers=workers.append))

    class PPOTrainer:
        def _submit_batch_to_rollout(self, batch):
            return len(batch)

        def _init_resource_pool_mgr(self):
            pass

    class PPOTrainerColocateAsync(PPOTrainer):
        def __init__(self, config):
            self.config, self.mode = config, config.trainer.v1.trainer_mode
            self.replay_buffer = SimpleNamespace(poll_interval=2.0)
            self._init_resource_pool_mgr()

        def on_init_end(self):
            pass

        def on_sample_end(self):
            watching.note("aborted")

        def on_step_end(self):
            watching.note("updated")

    registered = {}
    v1 = SimpleNamespace(
        PPOTrainer=PPOTrainer,
        PPOTrainerColocateAsync=PPOTrainerColocateAsync,
        register_trainer=lambda name: lambda made: registered.setdefault(name, made),
    )
    watching.watch_trainer(v1)
    config = OmegaConf.create({"trainer": {"device": "cpu", "v1": {"trainer_mode": watching.PLAIN}}})
    trainer = registered[watching.PLAIN](config)
    assert trainer.mode == "colocate_async" and trainer.replay_buffer.poll_interval == watching.POLL
    assert workers == [trainer]
    trainer.on_init_end()
    assert trainer._submit_batch_to_rollout([1, 2, 3]) == 3
    trainer.on_sample_end()
    trainer.on_step_end()
    assert [event["event"] for event in noted()] == [
        "resume",
        "sent",
        "pause",
        "aborted",
        "updated",
        "resume",
    ]
    assert noted()[1]["prompts"] == 3


def test_the_queue_is_looked_at_as_often_as_the_recipe_says():
    text = (files("cero.recipe") / "cero_cpu.yaml").read_text()
    assert yaml.safe_load(text)["cero"]["poll_interval"] == watching.POLL


# ---- what follows --------------------------------------------------------------------------------


def test_unions():
    assert union([(3, 4), (0, 1), (0.5, 2), (5, 5)]).tolist() == [[0, 2], [3, 4]]
    assert union([]).shape == (0, 2) and length(union([])) == 0
    shared = common(union([(0, 2), (3, 6)]), union([(1, 4), (5, math.inf)]))
    assert shared.tolist() == [[1, 2], [3, 4], [5, 6]] and length(shared) == 3


def test_unions_agree_with_a_fine_grid():
    rng = np.random.default_rng(0)
    grid = np.arange(0, 20, 0.125) + 0.0625
    for _ in range(20):
        first, second = (np.sort(rng.integers(0, 40, (6, 2)) / 2, axis=1) for _ in range(2))

        def covered(intervals):
            return np.any((intervals[:, :1] < grid) & (grid < intervals[:, 1:]), axis=0)

        assert length(union(first)) == pytest.approx(covered(first).sum() * 0.125)
        both = common(union(first), union(second))
        assert length(both) == pytest.approx((covered(first) & covered(second)).sum() * 0.125)


def events():
    """Return a run's events: two dispatches of four groups, and a pause from 10 to 14."""
    found = [{"t": 0, "event": "resume"}, {"t": 1, "event": "sent", "prompts": 4}]
    ends = {"a": (4, 2), "b": (6, 2), "c": (8, 4), "d": (15, 8)}  # d goes on in the pause, unsampled
    found += [{"t": 1.5, "event": "begin", "uid": uid} for uid in ends]
    found += [
        {"t": end + 0.25, "event": "end", "uid": uid, "rollouts": rollouts, "last": end}
        for uid, (end, rollouts) in ends.items()
    ]
    found += [{"t": 10, "event": "pause"}, {"t": 14, "event": "resume"}]
    found += [{"t": 16, "event": "sent", "prompts": 1}, {"t": 16, "event": "begin", "uid": "e"}]
    return sorted(found, key=lambda event: event["t"])


def test_groups_belong_to_their_dispatch():
    *first, last = groups(events())
    assert [(group.begin, group.end, group.rollouts, group.dispatch) for group in first] == [
        (1.5, 4, 2, 0),
        (1.5, 6, 2, 0),
        (1.5, 8, 4, 0),
        (1.5, 15, 8, 0),
    ]
    assert (last.begin, last.end, last.rollouts, last.dispatch) == (16, math.inf, None, 1)


def test_the_engine_is_idle_where_it_may_sample_and_nothing_is_in_flight():
    assert awake(events()).tolist() == [[0, 10], [14, math.inf]]
    # From 0 to 1.5 and from 15 to 16; e never ends.
    assert idleness(events(), (0, 20)) == pytest.approx({"paused": 4 / 20, "empty": 2.5 / 20})
    assert idleness(events(), (10, 14)) == pytest.approx({"paused": 1, "empty": 0})
    assert idleness(events(), (14, 16)) == pytest.approx({"paused": 0, "empty": 0.5})


def test_the_tail_is_from_the_median_group_to_the_last():
    (tail,) = tails(events(), (0, 20), least=4)
    assert tail == pytest.approx({"seconds": 8, "awake": 4, "rollouts": 8, "mean": 4})
    assert tails(events(), (0, 20)) == []  # fewer than eight groups
    assert tails(events(), (1.6, 20), least=1) == tails(events(), (0, 14.5), least=1) == []  # not all within


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(
        json.dumps({"t": 2, "event": "b"}) + "\n" + json.dumps({"t": 1, "event": "a"}) + '\n{"t": 3'
    )
    assert [event["event"] for event in read_events(path)] == ["a", "b"]
