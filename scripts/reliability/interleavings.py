"""Do the counts agree, in whatever order verl's asynchronous trainers send, lose, train on and resume?

    python scripts/reliability/interleavings.py --runs 10000 --out runs/interleavings.json

Each run is drawn: its mode, allocator, sizes, and an order of events. Prompts are sent in portions of any
size. Groups come back late, out of order, in part or not at all. verl throws away those that failed or are
too old, and asks for others. The run is killed between any two events and goes on from its last checkpoint,
in whose queue prompts may be missing. The trainer here makes the calls that verl's would make
(`World.train`). A second set of books is kept beside the scheduler's (`Books`). After every event:

- what was launched has come back, was lost, was taken back, or is in flight;
- no portion costs more than its budget, and the run not more than its total;
- each outcome is in the posterior of its prompt, once, with its weight;
- each group's baseline goes by what was known when it was sent;
- after a kill all of this holds as it did at the checkpoint: what is sampled again is not paid again.

Exits with 1 if one was broken.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cero.analysis.runlog import RunLog
from cero.cli.arguments import at_least_one, at_least_zero
from cero.core.state import load_state, save_state
from cero.estimators.baseline import FADING, FLOOR, OptimalBaseline
from cero.verl.asynchronous import AsyncScheduler
from cero.verl.queue import Returned
from cero.verl.settings import DEFAULTS, Settings
from cero.verl.success import Success

MODES = ("colocate_async", "separate_async", "sync")
ALLOCATORS = ("uniform", "cero", "greedy", "variance", "thompson", "cero_resolve")
PATIENCE = 40  # times that the trainer waits before all groups in flight come back


class Broken(AssertionError):
    """Raised where a promise is broken."""


def need(holds, *what):
    """Raise `Broken`, saying `what`, unless it holds."""
    if not holds:
        raise Broken(" ".join(map(str, what)))


@dataclass
class Books:
    """Hold what must be so, counted apart from the scheduler.

    sent : dict of uid -> (prompt, rollouts, expected success, what the baseline goes by), in flight
    opened : likewise, of the part of a step that is being observed
    evidence : dict of prompt -> [successes, failures], weighted
    weights : sum and number of the baseline's weights, fading
    """

    launched: int = 0
    returned: int = 0
    lost: int = 0
    withdrawn: int = 0
    trained: int = 0
    sent: dict = field(default_factory=dict)
    opened: dict = field(default_factory=dict)
    evidence: dict = field(default_factory=dict)
    weights: tuple = (0.0, 0.0)


def settings_of(draw):
    """Return the `Settings` of a drawn run; draw : dict of `World.draw`."""
    options = {}
    if draw["allocator"] != "uniform":
        options = {"n_min": draw["n_min"], "n_max": draw["n_max"], "forgetting": 1.0}
    return Settings(
        allocator=draw["allocator"],
        options=options,
        rollouts_per_prompt=draw["rollouts"],
        epochs=2,
        budgeted=draw["budgeted"],
        success=Success(None, 0.0, 1.0),
        pass_rates=(None, 4.0),
        candidates=1,
        unchosen="drop",
        staleness=draw["staleness"],
        keep={"rule": "all", "ratio": 1.0, "count": 4},
        drop_zero_advantage=False,
        on_missing_state="error",
        log_allocations=False,
        poll_interval=None,
        stall_timeout=0,
        estimates=True,
        estimator={k: v for k, v in DEFAULTS["algorithm.cero"].items() if k not in ("baseline", "bucket")}
        | {"advantage": draw["advantage"]},
        baseline=draw["baseline"],
        bucket=None,
    )


class World:
    """Plays verl, its queue, its engine and its checkpoints around one `AsyncScheduler`.

    rng : numpy.random.Generator, draws the run; the same generator makes the same run
    folder : Path for checkpoints on disk
    """

    def __init__(self, rng, folder, **fixed):
        self.rng, self.folder, self.counts = rng, folder, Counter()
        self.draw = self._draw() | fixed
        self.settings = settings_of(self.draw)
        self.batch = self.draw["parts"] * self.draw["part"]
        self.total = self.draw["steps"] * self.batch * self.draw["rollouts"]
        self.pool = rng.integers(0, 2**64, self.draw["pool"], dtype=np.uint64)
        self.rates = dict(zip(self.pool.tolist(), rng.random(self.pool.size).tolist(), strict=True))
        self.saved, self.over = None, False
        self._start()

    def _draw(self):
        rng, mode = self.rng, MODES[self.rng.integers(3)]
        allocator = ALLOCATORS[rng.integers(len(ALLOCATORS))]
        rollouts = int(rng.integers(1, 5))
        part = int(rng.integers(1, 5))
        return {
            "mode": mode,
            "parts": int(rng.integers(2, 5)) if mode == "separate_async" else 1,
            "part": part,
            "steps": int(rng.integers(1, 6)),
            "rollouts": rollouts,
            "n_min": int(rng.integers(0, rollouts + 1)),
            "n_max": int(rng.integers(rollouts, part * rollouts + 1)),  # more is refused before a run
            "allocator": allocator,
            "budgeted": allocator != "uniform" or bool(rng.random() < 0.5),
            "baseline": ("mean", "optimal")[rng.integers(2)],
            "advantage": ("posterior", "mapp")[int(rng.random() < 0.3)],
            "staleness": (1.0, 0.5)[rng.integers(2)],
            "warmup": 0.0 if mode == "sync" else float(rng.choice([0, 0.5, 1, 1.5, 2])),
            "oldest": None if rng.random() < 0.6 else int(rng.integers(1, 4)),
            "pool": int(rng.integers(1, 40)),
            "saved_every": int(rng.integers(1, 4)),
            "failing": float(rng.choice([0, 0.02, 0.2])),
            "on_disk": 0.05,
        }

    def _start(self):
        """Start a process: what was not saved is gone."""
        baseline = OptimalBaseline() if self.draw["baseline"] == "optimal" else None
        allocator = self.settings.make_allocator(2, self.total)
        self.scheduler = AsyncScheduler(self.settings, allocator, baseline, RunLog(None))
        if self.saved is None:
            self.books, self.queue = Books(), {}
            self.step, self.read = 0, 0
        else:
            kept = self.saved
            self.books, self.queue = copy.deepcopy(kept["books"]), copy.deepcopy(kept["queue"])
            self.step, self.read = kept["step"], kept["read"]
            allocator.load_state_dict(kept["allocator"])
            self.scheduler.in_flight.load_state_dict(kept["in_flight"])
            if baseline is not None:
                baseline.load_state_dict(kept["baseline"])
        strange = self.scheduler.begin((self.draw["steps"] - self.step) * self.batch, self.queue)
        need(not strange, "the queue holds what nobody sent:", strange)
        for uid in [uid for uid in self.books.sent if self.books.sent[uid][1] and uid not in self.queue]:
            self.books.withdrawn += self.books.sent.pop(uid)[1]
        self.trainer = self.train()
        self.waits = 0

    # ---- what verl's trainer calls ----------------------------------------------------------------

    def train(self):
        """Yield after each event of a run, in the order of verl's `fit`."""
        scheduler, draw, restored = self.scheduler, self.draw, len(self.scheduler.in_flight)
        self.step += 1
        for prompt in self.queue.values():
            if prompt["status"] == "running":  # sampled again, from the start
                prompt |= {"rows": [], "step": self.step}
        yield "reissued"
        if draw["mode"] != "sync":
            yield from self.send(max(0, int(draw["warmup"] * self.batch) - restored))
        while self.step <= draw["steps"]:
            scheduler.step_begins(self.step)
            yield from self.send(self.batch)
            for _ in range(draw["parts"]):
                chosen = yield from self.sample(scheduler.expect(draw["part"]))
                yield from self.learn(chosen)
            if self.step % draw["saved_every"] == 0 or self.step == draw["steps"]:
                yield from self.save()
            self.step += 1
            yield "stepped"
        self.over = True

    def send(self, prompts):
        """Send up to `prompts` prompts, as the adapter's `_add_prompts_to_generate` does."""
        scheduler, ledger = self.scheduler, self.scheduler.allocator.ledger
        prompts = scheduler.admit(prompts)
        if not prompts:
            return
        places = [(self.read + i) % self.pool.size for i in range(prompts)]
        ids = self.pool[places]
        uids = [f"u{self.read + i}-{self.step}" for i in range(prompts)]
        self.read += prompts
        before, unsent = ledger.spent, scheduler.unsent
        need(prompts <= unsent, prompts, "prompts are sent, and training takes", unsent, "more")
        mean = scheduler.allocator.success_mean(ids)
        known = self._known(ids)
        dispatch = scheduler.allocate(np.array(uids, object), ids)
        cost = int(dispatch.rollouts.sum())
        need(cost == dispatch.step.cap == ledger.spent - before, "a portion costs", cost, dispatch.step.cap)
        if ledger.total is not None and not self.books.lost and not self.books.withdrawn:
            fair = (self.total - before) * prompts // unsent
            need(cost == max(fair, 1, prompts * getattr(scheduler.allocator, "n_min", 0)), "cost", cost, fair)
        for i, uid in enumerate(uids):
            launched = int(dispatch.rollouts[i])
            self.books.sent[uid] = (int(ids[i]), launched, float(mean[i]), tuple(known[i]))
            self.books.launched += launched
            if launched:
                self.queue[uid] = {
                    "status": "running",
                    "step": self.step,
                    "rows": [],
                    "version": self.step - 1,
                }
        self.counts["portions"] += 1
        self.counts["prompts"] += prompts
        yield "sent"

    def _known(self, ids):
        """Return what the baselines of `ids` go by now, from the books; floats, shape (n, 3)."""
        if self.scheduler.baseline is None:
            return np.zeros((ids.size, 3))
        right, wrong = self.scheduler.baseline.remembered(ids)
        total, number = self.books.weights
        return np.column_stack([right, wrong, np.full(ids.size, total / number if total > 0 else 0.0)])

    def sample(self, wanted):
        """Return the uids of `wanted` finished groups, as verl's ReplayBufferAsync.sample does."""
        scheduler, waits = self.scheduler, 0
        while True:
            gone = {uid for uid, p in self.queue.items() if p["status"] == "failure"}
            if self.draw["oldest"] is not None:
                old = self.draw["oldest"]
                gone |= {
                    uid
                    for uid, p in self.queue.items()
                    if p["status"] == "finished" and self.step - p["step"] + 1 > old
                }
            if gone:
                scheduler.evicted(sorted(gone))
                for uid in gone:
                    del self.queue[uid]
                    self.books.lost += self.books.sent.pop(uid)[1]
                self.counts["groups thrown away"] += len(gone)
                yield "evicted"
                yield from self.send(len(gone))
                continue
            ready = [uid for uid, p in self.queue.items() if p["status"] == "finished"]
            if len(ready) >= scheduler.at_most(wanted):
                return sorted(ready, key=lambda uid: self.queue[uid]["step"])[:wanted]
            waits += 1
            if waits > PATIENCE:
                for uid, prompt in self.queue.items():
                    if prompt["status"] == "running":
                        self.finish(uid)
            yield "waited"

    def learn(self, chosen):
        """Train on the groups `chosen` (list of uids), as `_balance_batch` and what follows it do."""
        scheduler, books = self.scheduler, self.books
        scheduler.selected(chosen)
        rows = [row for uid in chosen for row in self.queue[uid]["rows"]]
        keys = [key for key, _, _ in rows]
        order = self.rng.permutation(len(keys))
        tags = [{"response_len": 2, "min_global_steps": version} for _, _, version in rows]
        keys, tags = [keys[i] for i in order], [tags[i] for i in order]
        rewards = np.array([rows[i][1] for i in order], float)
        record = scheduler.open_record(keys, tags)
        for uid in chosen:
            del self.queue[uid]
        need(set(chosen) <= set(record.uids), "a group was selected and not taken")
        busy = {uid for uid, (_, n, _, _) in books.sent.items() if n}
        need(set(chosen) == set(record.uids) & busy, "other groups were taken than selected")
        if not books.lost and not books.withdrawn:
            need(len(record.uids) == self.draw["part"], "a part has", len(record.uids), "prompts")
        for place, uid in enumerate(record.uids):
            prompt, launched, mean, known = books.sent[uid]
            need(int(record.ids[place]) == prompt and record.rollouts[place] == launched, uid, "is another")
            need(record.history_mean[place] == mean, uid, "has another history")
            learned = scheduler.baseline is not None
            need(not learned or np.abs(record.known[place] - known).max() < 1e-6, uid, "has another baseline")
        books.opened = {uid: books.sent.pop(uid) for uid in record.uids}
        yield "opened"
        scheduler.observe_all(record, Returned(rewards, None, np.zeros(len(keys))))
        self._enter(record, chosen, keys, rewards, tags)
        yield "observed"
        if scheduler.baseline is not None and keys:
            self._compare_baselines(record, keys, rewards)
        books.trained += len(record.uids)
        self.counts["prompts trained on"] += len(record.uids)
        self.counts["rollouts trained on"] += len(keys)

    def _enter(self, record, chosen, keys, rewards, tags):
        """Enter into the books what came back of the record's groups."""
        books, groups = self.books, {uid: [] for uid in record.uids}
        for key, reward, tag in zip(keys, rewards.tolist(), tags, strict=True):
            groups[key.rsplit("_", 2)[0]].append((reward, tag["min_global_steps"]))
        for uid, outcomes in groups.items():
            prompt, launched, _, _ = books.opened.pop(uid)
            books.returned += len(outcomes)
            books.lost += launched - len(outcomes)
            if outcomes:
                lag = max(0, self.step - 1 - min(version for _, version in outcomes))
                weight = self.draw["staleness"] ** lag
                self.counts[f"groups {min(lag, 3)} versions old"] += 1
                entry = books.evidence.setdefault(prompt, [0.0, 0.0])
                won = sum(reward for reward, _ in outcomes)
                entry[0] += weight * won
                entry[1] += weight * (len(outcomes) - won)

    def _compare_baselines(self, record, keys, rewards):
        """Compute the baselines by their formula, and compare them with the scheduler's."""
        weights = self.rng.random(len(keys))
        found = self.scheduler.learn_baselines(record, keys, dict(zip(keys, weights.tolist(), strict=True)))
        place = {name: i for i, name in enumerate(record.sessions.names)}
        mine = self.books.weights
        unit_now = mine if mine[0] > 0 else (weights.sum(), weights.size)
        scaled, parts = np.zeros(len(keys)), [key.rsplit("_", 2)[0] for key in keys]
        for i, uid in enumerate(parts):
            unit = record.known[record.place[uid]][2]
            unit = unit if unit > 0 else unit_now[0] / unit_now[1]
            scaled[i] = weights[i] / unit + FLOOR
        for i, (key, uid) in enumerate(zip(keys, parts, strict=True)):
            right, wrong, _ = record.known[record.place[uid]]
            others = [j for j, other in enumerate(parts) if other == uid and j != i]
            won = right + sum(scaled[j] * rewards[j] for j in others)
            all_of = right + wrong + sum(scaled[j] for j in others)
            value = found[place[key.rpartition("_")[0]]]
            need(abs(value - won / all_of) < 1e-6, "the baseline of", key, "is", value, "not", won / all_of)
        self.books.weights = (
            FADING * mine[0] + weights.sum(),
            FADING * mine[1] + weights.size,
        )

    def save(self):
        """Save as `_save_checkpoint` does: the scheduler's files, then verl's queue, then the marker."""
        scheduler = self.scheduler
        states = {
            "allocator": scheduler.allocator.state_dict(),
            "in_flight": scheduler.in_flight.state_dict(),
        }
        if scheduler.baseline is not None:
            states["baseline"] = scheduler.baseline.state_dict()
        if self.rng.random() < self.draw["on_disk"]:
            for name, state in states.items():
                save_state(state, self.folder / f"{name}.npz")
            states = {name: load_state(self.folder / f"{name}.npz") for name in states}
            self.counts["checkpoints on disk"] += 1
        states = copy.deepcopy(states)
        yield "saved the scheduler"  # meanwhile groups finish
        queue = copy.deepcopy(self.queue)
        yield "saved the queue"
        books = copy.deepcopy(self.books)
        self.saved = states | {"queue": queue, "books": books, "step": self.step, "read": self.read}
        self.counts["checkpoints"] += 1
        yield "committed"

    # ---- what happens to it -------------------------------------------------------------------------

    def advance(self):
        """Let the trainer go on to its next event."""
        try:
            next(self.trainer)
        except StopIteration:
            need(self.over, "the trainer stopped")
        except RuntimeError as error:  # every group was lost, and nothing is left to replace them
            need(self.books.lost and "none can be sent" in str(error), error)
            self.counts["runs that ended without budget"] += 1
            self.over = True
        self.counts["events"] += 1
        self.check()

    def running(self):
        """Return the uids of the groups that are being sampled: list of str."""
        return [uid for uid, prompt in self.queue.items() if prompt["status"] == "running"]

    def finish(self, uid, fails=False):
        """Let a group finish; where it fails, or a reward is missing, some of its rollouts have no row."""
        prompt, rng = self.queue[uid], self.rng
        number, launched, _, _ = self.books.sent[uid]
        there = rng.random(launched) > (0.5 if fails else 0.05)
        if not fails and not there.any():
            there[0] = True
        won = rng.random(launched) < self.rates[number]
        versions = rng.integers(prompt["version"], max(self.step, prompt["version"] + 1), launched)
        prompt["rows"] = [
            (f"{uid}_{i}_0", float(won[i]), int(versions[i])) for i in range(launched) if there[i]
        ]
        prompt["status"] = "failure" if fails else "finished"
        self.counts["groups that failed" if fails else "groups that finished"] += 1

    def kill(self, missing=0.0):
        """Kill the run, and resume it; of its queue the share `missing` of the prompts is gone."""
        if self.saved is not None and missing:
            kept = {uid: p for uid, p in self.saved["queue"].items() if self.rng.random() >= missing}
            self.counts["prompts missing from a queue"] += len(self.saved["queue"]) - len(kept)
            self.saved["queue"] = kept
        self.counts["kills"] += 1
        self.over = False
        self._start()
        self.check()

    # ---- what must hold ---------------------------------------------------------------------------

    def check(self):
        """Compare the scheduler's counts with the books. Raise `Broken` where they differ."""
        books, flights = self.books, self.scheduler.in_flight
        allocator = self.scheduler.allocator
        for name in ("launched", "returned", "lost", "withdrawn"):
            need(getattr(flights, name) == getattr(books, name), name, getattr(flights, name), books)
        rollouts = sum(launched for _, launched, _, _ in books.sent.values())
        need(flights.rollouts == rollouts, "in flight are", flights.rollouts, "not", rollouts)
        over = books.returned + books.lost + books.withdrawn
        over += rollouts + sum(launched for _, launched, _, _ in books.opened.values())
        need(books.launched == over, "launched are", books.launched, "of which", over, "are accounted for")
        need(allocator.ledger.spent == books.launched - books.withdrawn, "spent", allocator.ledger.spent)
        if allocator.ledger.total is not None:
            need(allocator.ledger.spent <= self.total, "spent", allocator.ledger.spent, "of", self.total)
        if allocator.beliefs is not None and allocator.beliefs.forgetting == 1.0:
            table = allocator.table
            rows = table.rows(np.array(list(books.evidence), np.uint64))
            wanted = np.array(list(books.evidence.values())).reshape(-1, 2)
            for column, values in zip(("successes", "failures"), wanted.T, strict=True):
                need((rows >= 0).all(), "an outcome is of a prompt that is not known")
                found = table[column][rows]
                need(np.abs(found - values).max(initial=0.0) < 1e-9, column, "are", found, "not", values)
                need(abs(table[column].sum() - values.sum()) < 1e-6, column, "are credited to other prompts")

    def check_end(self):
        """Check the books of a run that has come to its end."""
        books = self.books
        if books.lost or books.withdrawn:
            return
        steps = self.draw["steps"] * self.batch
        need(books.trained == steps, books.trained, "prompts were trained on, not", steps)
        need(not books.sent and books.launched == self.total, "launched", books.launched, "of", self.total)

    def play(self, kills=0):
        """Play a drawn order of events to the run's end; return what happened, a Counter.

        kills : int, those so far; after 6 there are no more, so that the run ends
        """
        rng = self.rng
        while not self.over:
            if rng.random() < 0.5:
                for uid in self.running():
                    if rng.random() < 0.4:
                        self.finish(uid, fails=rng.random() < self.draw["failing"])
            if kills < 6 and rng.random() < 0.03:
                kills += 1
                self.kill(missing=float(rng.choice([0, 0, 0, 0.3, 1])))
            self.advance()
        self.check_end()
        return self.counts


def main(argv=None):
    """Play the runs that the command line asks for. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=at_least_one, default=1000, help="orders of events to draw")
    parser.add_argument(
        "--seed", type=at_least_zero, default=0, help="seed of the first; each run has its own"
    )
    parser.add_argument("--out", help="a file for what was counted, JSON")
    arguments = parser.parse_args(argv)
    began, modes, findings = time.monotonic(), {mode: Counter() for mode in MODES}, []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.runs):
            world = World(np.random.default_rng([arguments.seed, number]), Path(folder))
            try:
                world.play()
            except Exception as error:
                findings.append(
                    {"run": number, "draw": world.draw, "error": f"{type(error).__name__}: {error}"}
                )
                print(json.dumps(findings[-1]), flush=True)
            modes[world.draw["mode"]].update(world.counts | {"runs": 1})
    result = {
        "runs": arguments.runs,
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - began, 1),
        "modes": {mode: dict(sorted(counts.items())) for mode, counts in modes.items()},
        "findings": findings,
    }
    print(json.dumps({key: result[key] for key in ("runs", "seconds", "modes")}, indent=1))
    print(f"{len(findings)} findings")
    if arguments.out:
        Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
