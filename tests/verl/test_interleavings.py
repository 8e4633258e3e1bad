"""Do the scheduler's counts agree in every order of events? A part of what scripts/reliability plays."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "reliability"))
import interleavings
from interleavings import MODES, Broken, World

from cero.verl.asynchronous import AsyncScheduler
from cero.verl.in_flight import InFlight


class Orders(RuleBasedStateMachine):
    """Hypothesis chooses what happens next to a run, and finds a short order of events that breaks it."""

    @initialize(seed=st.integers(0, 2**16), mode=st.sampled_from(MODES), lost=st.booleans())
    def start(self, seed, mode, lost):
        parts = 2 if mode == "separate_async" else 1
        warmup = 0.0 if mode == "sync" else 1.5
        self.world = World(
            np.random.default_rng(seed),
            None,
            mode=mode,
            parts=parts,
            warmup=warmup,
            oldest=2 if lost else None,
            on_disk=0.0,
        )

    @precondition(lambda self: not self.world.over)
    @rule(events=st.integers(1, 4))
    def go_on(self, events):
        for _ in range(events):
            if not self.world.over:
                self.world.advance()

    @precondition(lambda self: self.world.running())
    @rule(place=st.integers(0, 1000), fails=st.sampled_from([False, False, False, True]))
    def finish_one(self, place, fails):
        running = self.world.running()
        self.world.finish(running[place % len(running)], fails)

    @precondition(lambda self: self.world.running())
    @rule()
    def finish_all(self):
        for uid in self.world.running():
            self.world.finish(uid)

    @rule(missing=st.sampled_from([0.0, 0.0, 0.5, 1.0]))
    def kill(self, missing):
        self.world.kill(missing)

    @invariant()
    def add_up(self):
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self):
        if hasattr(self, "world"):
            self.world.failing = 0
            self.world.play(kills=6)  # to its end


Orders.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestOrders = Orders.TestCase


def played(count, seed, tmp_path):
    """Return what was counted in `count` drawn runs, or the first `Broken`."""
    counts = interleavings.Counter()
    for number in range(count):
        counts.update(World(np.random.default_rng([seed, number]), tmp_path).play())
    return counts


def test_drawn_orders(tmp_path):
    counts = played(25, 1, tmp_path)
    for happened in (
        "kills",
        "groups that failed",
        "groups thrown away",
        "groups 1 versions old",
        "checkpoints on disk",
        "prompts missing from a queue",
    ):
        assert counts[happened], happened


# ---- what is broken is found -----------------------------------------------------------------------


def never_lost(flights, launched, returned):
    flights.returned += launched


BREAKS = {
    "lost rollouts count as returned": lambda patch: patch.setattr(InFlight, "landed", never_lost),
    "a portion takes one more than its share": lambda patch: patch.setattr(
        AsyncScheduler, "_budget", with_one_more
    ),
    "more is sent than training takes": lambda patch: patch.setattr(
        AsyncScheduler, "admit", lambda self, prompts: prompts
    ),
    "evidence has no weight": lambda patch: patch.setattr(AsyncScheduler, "_settle", without_weights),
    "what never comes back stays spent": lambda patch: patch.setattr(
        AsyncScheduler, "withdraw", lambda self, uids: self.in_flight.take(uids)
    ),
    "the history of later": lambda patch: patch.setattr(AsyncScheduler, "open_record", with_later_history),
}


def with_one_more(scheduler, prompts, budget=AsyncScheduler._budget):
    asked, left = budget(scheduler, prompts), scheduler.allocator.ledger.left
    return asked if left is None else min(asked + 1, left, prompts * scheduler.allocator.n_max)


def without_weights(scheduler, record):
    record.lags = record.lags_of_groups()
    scheduler.allocator.observe(record.ids, record.won, record.trials)
    scheduler.in_flight.landed(int(record.rollouts.sum()), int(record.trials.sum()))


def with_later_history(scheduler, keys, tags, open_record=AsyncScheduler.open_record):
    record = open_record(scheduler, keys, tags)
    record.dispatches[0].history_mean = scheduler.allocator.success_mean(record.ids)
    return record


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_found(name, monkeypatch, tmp_path):
    BREAKS[name](monkeypatch)
    with pytest.raises(Broken):
        played(60, 3, tmp_path)
