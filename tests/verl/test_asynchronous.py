"""What do verl's asynchronous trainers get from the scheduler, and what can't they have?"""

import itertools
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from cero.core.state import load_state, save_state
from cero.verl.asynchronous import joined, metrics_of_parts
from cero.verl.in_flight import Group, InFlight, buckets_of
from cero.verl.modes import MODES, is_asynchronous, take_scheduled_trainer
from cero.verl.preflight import Preflight
from cero.verl.queue import Returned
from cero.verl.reading import read_settings

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "reliability"))
from interleavings import World

COLOCATED = ["+recipe=cero", "trainer.v1.trainer_mode=cero_colocate_async"]
SEPARATE = [
    "+recipe=cero",
    "trainer.v1.trainer_mode=cero_separate_async",
    "data.train_batch_size=64",
    "actor_rollout_ref.actor.ppo_mini_batch_size=16",
    "actor_rollout_ref.rollout.n=8",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.n_gpus_per_node=8",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
]

# ---- modes and settings -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_verls_word_chooses_the_trainer_with_the_scheduler(composed, mode):
    from verl.trainer.ppo.v1 import get_trainer_cls

    config = composed("+recipe=cero", f"trainer.v1.trainer_mode={mode}")
    Preflight().on_run_start(config)
    assert is_asynchronous(config) == (mode != "sync")
    trainer = get_trainer_cls(config.trainer.v1.trainer_mode)
    assert issubclass(trainer, get_trainer_cls(mode)) and trainer is not get_trainer_cls(mode)
    assert trainer.verl_mode == mode
    assert config.trainer.v1.colocate_async.num_warmup_batches == 1  # settings stay where verl reads them


def test_the_recipes_own_word_stays(composed):
    config = composed("+recipe=cero")
    take_scheduled_trainer(config)
    assert config.trainer.v1.trainer_mode == "cero"


REFUSED = {
    "a sweep's job": (
        ["+recipe=cero", "trainer.v1.trainer_mode=separate_async"],
        r"trainer_mode=separate_async.*sweep.*cero_separate_async",
    ),
    "rounds": ([*COLOCATED, "allocator=aero"], r"allocator=aero with .*colocate_async.*overlaps.*=sync"),
    "rounds of cero": ([*SEPARATE, "allocator=cero_seq"], r"allocator=cero_seq with .*allocator=cero"),
    "candidates": ([*COLOCATED, "cero.candidates=2"], r"candidates=2 with .*colocate_async.*candidates=1"),
    "a critic": ([*COLOCATED, "critic.enable=true"], r"critic.enable=True with allocator=cero.*uniform"),
    "all for one": (
        [*COLOCATED, "data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4"],
        r"allocator.n_max=64 with .*parts of 4 rollouts.*n_min=1",
    ),
    "dynamic sampling": ([*COLOCATED, "algorithm.filter_groups.enable=true"], r"filter_groups.*=uniform"),
    "staleness": ([*COLOCATED, "cero.staleness=0"], r"cero.staleness=0"),
    "staleness in sync": (["+recipe=cero", "cero.staleness=0.5"], r"cero.staleness=0.5 has no effect.*cero"),
    "naive": (
        [*SEPARATE, "actor_rollout_ref.rollout.checkpoint_engine.backend=naive"],
        r"backend=naive with .*separate_async.*nccl.*shared_memory",
    ),
    "no devices": ([*SEPARATE, "actor_rollout_ref.rollout.nnodes=0"], r"nnodes=0 x .*n_gpus_per_node=8"),
    "verl's message": ([*SEPARATE, "actor_rollout_ref.hybrid_engine=false"], r"=False.*VERL_LOGGING_LEVEL"),
    "a reward model beside the trainer": (
        [*SEPARATE, "reward.reward_model.enable=true"],
        r"reward_model.enable=True .*separate_async.*set reward.reward_model.enable_resource_pool=True",
    ),
    "unequal parts": ([*SEPARATE, "data.train_batch_size=32"], r"train_batch_size=32.* = 4 x 16"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(composed, case, monkeypatch):
    monkeypatch.delenv("VERL_LOGGING_LEVEL", raising=False)
    overrides, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        read_settings(composed(*overrides))


def test_that_message_is_not_printed_at_a_higher_level(composed, monkeypatch):
    monkeypatch.setenv("VERL_LOGGING_LEVEL", "WARN")
    assert read_settings(composed(*REFUSED["verl's message"][0]))


def test_accepted(composed):
    for words in (COLOCATED, SEPARATE):
        for more in (
            [],
            ["cero.staleness=0.5"],
            ["allocator=uniform", "algorithm.filter_groups.enable=true"],
            ["cero.keep.rule=pods"],
            ["cero.drop_zero_advantage=true", "algorithm.cero.baseline=mean"],
            ["algorithm.cero.bucket=data_source"],
        ):
            read_settings(composed(*words, *more))


def test_preflight_names_what_is_refused(composed):
    config = composed("+recipe=cero", "trainer.v1.trainer_mode=colocate_async", "allocator=aero")
    preflight = Preflight()
    preflight.on_run_start(config)
    with pytest.raises(SystemExit, match="allocator=aero with trainer.v1.trainer_mode=cero_colocate_async"):
        preflight.on_job_start(config)


# ---- the baseline ------------------------------------------------------------------------------------

RATE, ROLLOUTS = 0.3, 2


def expected_gradient(tmp_path, baseline, later_history=False):
    """Return E[sum of advantage x score] of the first of two groups of one prompt, over all outcomes.

    Both groups are sent at once. Where the first has no success, it comes back last: after the outcomes of
    the second one have been observed. The score of a success is 1 / p, and of a failure -1 / (1 - p). So the
    gradient of the expected number of successes is ROLLOUTS, whatever an unbiased baseline is.
    """
    total = 0.0
    for outcomes in itertools.product([0.0, 1.0], repeat=2 * ROLLOUTS):
        world = World(
            np.random.default_rng(5),
            tmp_path,
            mode="colocate_async",
            parts=1,
            part=1,
            steps=2,
            rollouts=ROLLOUTS,
            n_min=1,
            n_max=ROLLOUTS,
            allocator="greedy",
            budgeted=True,
            baseline=baseline,
            advantage="posterior",
            staleness=1.0,
            pool=1,
        )
        scheduler = world.scheduler
        scheduler.settings.estimator["scale"] = False
        for uid in ("first", "second"):
            scheduler.allocate(np.array([uid], object), world.pool)
        groups = {"first": outcomes[:ROLLOUTS], "second": outcomes[ROLLOUTS:]}
        for uid in ("first", "second") if any(groups["first"]) else ("second", "first"):
            scheduler.expect(1)
            scheduler.selected([uid])
            keys = [f"{uid}_{i}_0" for i in range(ROLLOUTS)]
            record = scheduler.open_record(keys, [{"response_len": 1}] * ROLLOUTS)
            rewards = np.array(groups[uid])
            if later_history:
                record.dispatches[0].history_mean = scheduler.allocator.success_mean(record.ids)
                record.known = None
            scheduler.observe_all(record, Returned(rewards, None, np.zeros(ROLLOUTS)))
            if scheduler.baseline is not None:
                learned = scheduler.learn_baselines(record, keys, dict.fromkeys(keys, 1.0))
                record.context.baselines = SimpleNamespace(result=lambda learned=learned: learned)
            if uid == "first":
                advantages = record.context.advantages(np.arange(ROLLOUTS), rewards)
        score = np.where(np.array(groups["first"]) == 1, 1 / RATE, -1 / (1 - RATE))
        weight = np.prod([RATE if won else 1 - RATE for won in outcomes])
        total += weight * float(advantages @ score)
    return total


@pytest.mark.parametrize("baseline", ["mean", "optimal"])
def test_a_baseline_of_the_time_it_was_sent_has_no_bias(tmp_path, baseline):
    """One of the time it came back has: how late that is depends on the outcomes themselves."""
    assert expected_gradient(tmp_path, baseline) == pytest.approx(ROLLOUTS, abs=1e-9)
    assert expected_gradient(tmp_path, baseline, later_history=True) != pytest.approx(ROLLOUTS, abs=0.01)


# ---- what is in flight -------------------------------------------------------------------------------


def test_what_is_in_flight_is_saved_and_resumed(tmp_path):
    flights, path = InFlight("text"), tmp_path / "in_flight.npz"
    flights.send("a-b", Group(2**63 + 5, 3, 7, 0.25, (1.0, 2.0), (0.5, 0.5, 1.5), (4,)))
    flights.send("c", Group(9, 0, 7, 0.5, buckets=(4, 6)))
    flights.send("gone", Group(9, 5, 8, 0.5))
    flights.take(["gone"])
    flights.landed(5, 3)
    save_state(flights.state_dict(), path)
    resumed = InFlight("text")
    resumed.load_state_dict(load_state(path))
    assert list(resumed.groups) == ["a-b", "c"] and resumed.groups["a-b"].prompt == 2**63 + 5
    assert resumed.groups["a-b"].buckets == (4, -1) and resumed.groups["c"].buckets == (4, 6)
    assert (resumed.launched, resumed.returned, resumed.lost, resumed.rollouts) == (8, 3, 2, 3)
    for bucket in (None, "topic"):  # slots of a text's words are none of a column's values
        other = InFlight(bucket)
        other.load_state_dict(load_state(path))
        assert [group.buckets for group in other.groups.values()] == [(), ()]
        assert other.groups["c"].history_mean == 0.5
    without = load_state(path)
    del without["bucket"]  # as earlier versions wrote it
    resumed.load_state_dict(without)
    assert resumed.groups["c"].buckets == () and buckets_of(list(resumed.groups.values())).shape == (2, 0)

    empty = InFlight()
    empty.load_state_dict(InFlight().state_dict())
    assert len(empty) == 0
    odd = {"history_mean": (0.0, 1.0), "prior": (-1.0,), "known": (-1.0,)}
    for name, value in ((name, value) for name, values in odd.items() for value in values):
        state = flights.state_dict()
        state["table"][name][...] = value
        with pytest.raises(ValueError, match="out of range|negative number"):
            empty.load_state_dict(state)
    for key, value in {"launched": 9, "lost": -1, "returned": 1.5}.items():
        state = flights.state_dict()
        state["counts"][key] = value
        with pytest.raises(ValueError, match="damaged"):
            empty.load_state_dict(state)
    state = flights.state_dict()
    state["table"]["launched"] = state["table"]["launched"][:1]
    with pytest.raises(ValueError, match="columns don't fit"):
        empty.load_state_dict(state)
    with pytest.raises(ValueError, match="in flight already"):
        flights.send("c", Group(9, 0, 7, 0.5))
    with pytest.raises(ValueError, match="'x'.* are not in flight"):
        flights.take(["c", "x"])
    assert "c" in flights.groups


def test_old_outcomes_count_less(tmp_path):
    worlds = {}
    for staleness in (1.0, 0.5):
        world = worlds[staleness] = World(
            np.random.default_rng(2),
            tmp_path,
            allocator="greedy",
            budgeted=True,
            part=1,
            parts=1,
            steps=4,
            rollouts=2,
            n_min=1,
            n_max=2,
            baseline="mean",
            advantage="posterior",
            staleness=staleness,
            pool=3,
        )
        scheduler = world.scheduler
        scheduler.allocate(np.array(["u"], object), world.pool[:1])
        scheduler.step = 4  # of version 3, and what comes back is of version 1
        scheduler.expect(1)
        scheduler.selected(["u"])
        tags = [{"response_len": 1, "min_global_steps": version} for version in (3, 1)]
        record = scheduler.open_record(["u_0_0", "u_1_0"], tags)
        metrics = scheduler.observe_all(record, Returned(np.ones(2), None, np.zeros(2)))
        assert metrics["cero/staleness/max"] == 2
    for staleness, world in worlds.items():
        assert world.scheduler.allocator.table["successes"].tolist() == [2 * staleness**2]


def test_a_portion_has_its_share_of_what_is_left():
    """After losses, later prompts share what is left; nothing is sent that training would not take."""
    world = World(
        np.random.default_rng(2),
        None,
        mode="colocate_async",
        allocator="cero",
        budgeted=True,
        parts=1,
        part=8,
        steps=3,
        rollouts=4,
        n_min=0,
        n_max=8,
        baseline="mean",
        advantage="posterior",
        pool=40,
    )
    scheduler, pool = world.scheduler, world.pool

    def send(prompts, name):
        prompts = scheduler.admit(prompts)
        uids = np.array([f"{name}{i}" for i in range(prompts)], object)
        return int(scheduler.allocate(uids, pool[:prompts]).rollouts.sum())

    assert [send(12, "a"), send(8, "b")] == [48, 32]
    lost = [uid for uid, group in scheduler.in_flight.groups.items() if group.launched][:4]
    gone = sum(scheduler.in_flight.groups[uid].launched for uid in lost)
    scheduler.evicted(lost)
    assert scheduler.unsent == 8 and scheduler.allocator.ledger.left == 16
    assert [send(4, "c"), send(100, "d")] == [8, 8]
    assert scheduler.unsent == 0 and scheduler.admit(5) == 0 and scheduler.allocator.ledger.left == 0
    assert scheduler.in_flight.lost == gone


def test_uniform_sends_whole_groups_after_losses():
    """Fewer prompts, and none with fewer rollouts than rollout.n: verl's estimators would compare nothing."""
    world = World(
        np.random.default_rng(2), None, mode="colocate_async", allocator="uniform", budgeted=True,
        parts=1, part=8, steps=2, rollouts=2, baseline="mean", advantage="grpo", pool=40,
    )  # fmt: skip
    scheduler, pool = world.scheduler, world.pool
    sent = []
    for portion in range(4):
        prompts = scheduler.admit(8)
        uids = np.array([f"{portion}-{i}" for i in range(prompts)], object)
        sent.append(scheduler.allocate(uids, pool[:prompts]).rollouts.tolist() if prompts else [])
        scheduler.evicted(uids.tolist()[:6])
    assert sent == [[2] * 8, [2] * 8, [], []] and scheduler.allocator.ledger.left == 0


@pytest.mark.parametrize("allocator", ["uniform", "cero"])
@pytest.mark.parametrize(
    "advantage, baseline", [("posterior", "mean"), ("posterior", "optimal"), ("mapp", "mean")]
)
def test_groups_that_were_sent_under_other_settings(allocator, advantage, baseline):
    """No posterior and no baseline was kept with them; their advantages are numbers all the same."""
    world = World(
        np.random.default_rng(3), None, mode="colocate_async", allocator=allocator, budgeted=True,
        parts=1, part=3, steps=2, rollouts=3, n_min=1, n_max=5, baseline=baseline,
        advantage=advantage, pool=40,
    )  # fmt: skip
    scheduler, ids = world.scheduler, world.pool[:3]
    scheduler.allocate(np.array(["a", "b", "c"], object), ids)
    groups = scheduler.in_flight.groups
    for uid, group in groups.items():
        groups[uid] = Group(group.prompt, group.launched, 0, 0.25)
    scheduler.expect(3)
    scheduler.selected(["a", "b", "c"])
    assert [group.launched for group in groups.values()] == [3, 3, 3]
    keys = [f"{uid}_{i}_0" for uid, back in zip("abc", (1, 3, 2), strict=True) for i in range(back)]
    record = scheduler.open_record(keys, [{"response_len": 1, "min_global_steps": 0}] * 6)
    rewards = np.array([1.0, 0, 0, 0, 1, 0])
    scheduler.observe_all(record, Returned(rewards, None, np.zeros(6)))
    if scheduler.baseline is not None:
        baselines = scheduler.learn_baselines(record, keys, dict.fromkeys(keys, 1.0))
        assert np.all((baselines > 0) & (baselines < 1))
        record.context.baselines = SimpleNamespace(result=lambda: baselines)
    assert np.isfinite(record.context.advantages(np.arange(6), rewards)).all()


def test_the_queue_holds_what_is_in_flight(monkeypatch):
    """Prompts that nobody knows leave verl's queue, and rows that were trained on before the checkpoint."""
    from cero.verl import async_trainers

    held = {
        "known": {"is_prompt": True},
        "known_0_0": {},
        "strange": {"is_prompt": True},
        "strange_0_0": {},
        "trained_1_0": {},
    }
    monkeypatch.setattr(
        async_trainers,
        "tq",
        SimpleNamespace(
            kv_list=lambda partition_id: {partition_id: dict(held)},
            kv_clear=lambda keys, partition_id: [held.pop(key) for key in keys],
        ),
    )
    flights = InFlight()
    flights.send("known", Group(1, 2, 0, 0.5))
    assert async_trainers.queued_prompts() == {"known", "strange"}
    async_trainers.forget({"strange"}, flights)
    assert set(held) == {"known", "known_0_0"}


def test_a_sampler_that_can_not_be_heard_is_refused():
    from cero.verl.async_trainers import tap

    with pytest.raises(ValueError, match=r"custom_sampler.name=Counter has no _materialize_batch.*=null"):
        tap(Counter(), None)


def test_the_buffers_decisions_are_heard():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBufferAsync

    from cero.verl.async_trainers import tap

    buffer = ReplayBufferAsync("colocate_async", OmegaConf.create({}), None, "drop", None)
    heard = []
    scheduler = SimpleNamespace(
        evicted=lambda uids: heard.append(("evicted", uids)),
        selected=lambda uids: heard.append(("selected", uids)),
        at_most=lambda size: 2,
    )
    buffer._clear_groups = lambda partition_id, uids: None
    buffer._materialize_batch = lambda partition_id, uids, snapshot: uids
    tap(buffer, lambda: scheduler)
    buffer._clear_groups("train", {"b", "a"})
    buffer._clear_groups("val", {"v"})
    assert buffer._materialize_batch("train", ["c"], {}) == ["c"]
    buffer._materialize_batch("val", ["v"], {})
    assert heard == [("evicted", ["a", "b"]), ("selected", ["c"])]
    assert buffer._has_enough_samples(1, "train", 5, {"x", "y"})
    assert not buffer._has_enough_samples(1, "val", 5, {"x", "y"})


def test_parts_of_a_step_are_put_together():
    """Counts add up over the parts, and what is of the run is the last part's."""
    world = World(
        np.random.default_rng(4),
        None,
        mode="separate_async",
        allocator="cero",
        budgeted=True,
        parts=2,
        part=3,
        steps=2,
        rollouts=2,
        n_min=0,
        n_max=6,
        baseline="mean",
        advantage="posterior",
        warmup=0.0,
        oldest=None,
        failing=0.0,
        pool=40,
    )
    scheduler = world.scheduler
    scheduler.step_begins(1)
    scheduler.allocate(np.array([f"u{i}" for i in range(6)], object), world.pool[:6])
    parts = []
    for _ in range(2):
        wanted = scheduler.expect(3)
        chosen = [uid for uid, group in scheduler.in_flight.groups.items() if group.launched][:wanted]
        scheduler.selected(chosen)
        keys = [f"{uid}_{i}_0" for uid in chosen for i in range(scheduler.in_flight.groups[uid].launched)]
        record = scheduler.open_record(keys, [{"response_len": 1}] * len(keys))
        record.metrics = scheduler.observe_all(
            record, Returned(np.ones(len(keys)), None, np.zeros(len(keys)))
        )
        record.metrics |= {"cero/score/prompt_mean": 0.9 if len(parts) else 0.1, "cero/staleness/mean": 2.0}
        record.metrics |= {"cero/group/count": 3.0 if len(parts) else 1.0, "actor/lr": 0.1}
        parts.append(record)
    whole = joined(parts)
    assert len(whole.uids) == 6 and whole.rollouts.sum() == whole.trials.sum() == whole.cap == 12
    assert whole.counts == {"sampled": 12, "kept": 12, "trained": 12}
    assert joined(parts[:1]) is parts[0]
    metrics = metrics_of_parts(parts)
    assert metrics["cero/rollouts/sampled"] == 12 and metrics["cero/budget/spent"] == 12
    assert metrics["cero/in_flight/prompts"] == 0 and "actor/lr" not in metrics
    # Means over prompts are over those of all parts, not over their rows.
    assert metrics["cero/score/prompt_mean"] == pytest.approx((0.1 + 3 * 0.9) / 4)
    assert metrics["cero/staleness/mean"] == 2.0 and metrics["cero/group/count"] == 4.0
    assert metrics["cero/n/mean"] == 2.0 and metrics["cero/n/std"] == whole.rollouts.std()


def test_an_end_without_rollouts_is_explained():
    world = World(
        np.random.default_rng(4), None, allocator="uniform", budgeted=True, part=2, parts=1, steps=1
    )
    scheduler = world.scheduler
    scheduler.allocate(np.array(["a", "b"], object), world.pool[[0, 0]])
    scheduler.evicted(["a", "b"])
    assert scheduler.admit(2) == 0
    with pytest.raises(
        RuntimeError, match=r"none can be sent: (\d+) of \1 rollouts are spent, \1 of them lost"
    ):
        scheduler.expect(2)


DAMAGED_FLIGHTS = {
    "prior": lambda column: column * np.nan,
    "history_mean": lambda column: column + 1,
    "launched": lambda column: column * 1.0,
    "prompt": lambda column: column.astype(np.int64),
    "sent_at": lambda column: column - 5,
    "buckets": lambda column: column + 2**14,
}


@pytest.mark.parametrize("column", DAMAGED_FLIGHTS)
def test_a_column_of_flights_that_no_run_can_reach(column):
    flights, other = InFlight("text"), InFlight("text")
    flights.send("uid", Group(1, 4, 0, 0.5, buckets=(7,)))
    state = flights.state_dict()
    state["table"][column] = DAMAGED_FLIGHTS[column](state["table"][column])
    for damaged in (state, flights.state_dict() | {"table": None}, None):
        with pytest.raises(ValueError, match="the file is damaged|no list of prompts in flight"):
            other.load_state_dict(damaged)
    assert not len(other) and not other.launched
    other.load_state_dict(flights.state_dict())
    assert other.groups == flights.groups
