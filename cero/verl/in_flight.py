"""Which prompts were sent to be sampled, and have not been trained on yet? With what was known of them then.

verl's asynchronous trainers send prompts ahead. Their groups come back in any order, some never, and may be
trained on several steps later. What a baseline may use is what was known when a group was sent. What comes
back later depends on which groups were fast, and so on the rewards themselves.
"""

from dataclasses import dataclass, replace

import numpy as np

from cero.core.state import STATE_FILE, load_meta, load_state
from cero.estimators.shared import SLOTS, stacked
from cero.verl.resume import resume_folder

IN_FLIGHT_FILE = STATE_FILE.with_name("in_flight.npz")  # beside the allocator's state, in asynchronous modes
FORMAT, VERSION = "cero-in-flight", 1
COUNTS = ("launched", "returned", "lost", "withdrawn")
COLUMNS = ("uid", "prompt", "launched", "sent_at", "history_mean", "prior", "known", "buckets")

KINDS = {
    "prompt": "u", "launched": "i", "sent_at": "i", "history_mean": "f", "prior": "f", "known": "f",
    "buckets": "i",
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Hold one prompt that was sent to be sampled.

    prompt : int, the prompt's id
    launched : int, its rollouts
    version : int, the policy's version then: the number of training steps before
    history_mean : float in (0, 1), E[p] then
    prior : (a, b), parameters of its posterior then; zeros where they are not needed
    known : (right, wrong, unit) of `OptimalBaseline.known_now` then; zeros where no such baseline is learned
    buckets : tuple of int, of `cero.estimators.shared`; empty without algorithm.cero.bucket
    """

    prompt: int
    launched: int
    version: int
    history_mean: float
    prior: tuple = (0.0, 0.0)
    known: tuple = (0.0, 0.0, 0.0)
    buckets: tuple = ()


class InFlight:
    """Count what is sent, what comes back and what is lost; each rollout once.

    bucket : algorithm.cero.bucket, which says what the groups' buckets are; None: they have none

    Attributes
    ----------
    groups : dict of uid -> `Group`, in the order in which they were sent
    launched, returned, lost, withdrawn : int, rollouts so far
        Each rollout that was launched is in flight, or has become one of the other three: it came back with a
        reward, it failed or was thrown away, or it was taken back because it will never be sampled.
    """

    def __init__(self, bucket=None):
        self.bucket = bucket
        self.groups = {}
        self.launched = self.returned = self.lost = self.withdrawn = 0

    def __len__(self):
        return len(self.groups)

    @property
    def rollouts(self):
        """The rollouts in flight, int."""
        return sum(group.launched for group in self.groups.values())

    @property
    def busy(self):
        """The number of prompts in flight that have rollouts, int."""
        return sum(group.launched > 0 for group in self.groups.values())

    def send(self, uid, group):
        """Note that `group` (Group) was sent as `uid` (str). Raise ValueError if there is one already."""
        if uid in self.groups:
            raise ValueError(f"the prompt {uid} is in flight already; send each uid once")
        self.groups[uid] = group
        self.launched += group.launched

    def take(self, uids):
        """Return the groups of `uids` (list of str), which are in flight no more.

        Raises ValueError, and nothing has changed, if one of them is not in flight.
        """
        strange = [uid for uid in uids if uid not in self.groups]
        if strange or len(set(uids)) < len(uids):
            raise ValueError(f"the prompts {strange[:3] or uids[:3]} are not in flight, or named twice")
        return [self.groups.pop(uid) for uid in uids]

    def idle(self, count):
        """Return the uids of the `count` prompts without rollouts that were sent first: list of str."""
        return [uid for uid, group in self.groups.items() if not group.launched][:count]

    def landed(self, launched, returned):
        """Note that of `launched` rollouts of groups taken out, `returned` came back with a reward."""
        self.returned += returned
        self.lost += launched - returned

    def state_dict(self):
        """Return all of it, as plain data and arrays; `cero.core.state` writes it."""
        groups = list(self.groups.values())
        return {
            "format": FORMAT,
            "version": VERSION,
            "bucket": self.bucket,
            "counts": {name: getattr(self, name) for name in COUNTS},
            "table": {
                "uid": np.array([uid.encode() for uid in self.groups] or [b""], "S")[: len(groups)],
                "prompt": np.array([group.prompt for group in groups], np.uint64),
                "launched": np.array([group.launched for group in groups], np.int64),
                "sent_at": np.array([group.version for group in groups], np.int64),
                "history_mean": np.array([group.history_mean for group in groups], np.float64),
                "prior": np.array([group.prior for group in groups], np.float64).reshape(-1, 2),
                "known": np.array([group.known for group in groups], np.float64).reshape(-1, 3),
                "buckets": buckets_of(groups) if groups else np.zeros((0, 0), np.int16),
            },
        }

    def load_state_dict(self, state):
        """Go on from a `state_dict`. Raise ValueError, and change nothing, if it doesn't add up.

        Groups that were sent with another `bucket`, or with none, have no buckets any more.
        """
        if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("version") != VERSION:
            raise ValueError("this is no list of prompts in flight; give what state_dict() returned")
        counts, table = state.get("counts"), state.get("table")
        if not isinstance(counts, dict) or set(counts) != set(COUNTS):
            raise ValueError(f"it counts {counts!r}; the file is damaged")
        if any(type(count) is not int or not 0 <= count < 2**53 for count in counts.values()):
            raise ValueError(f"it counts {counts!r}; the file is damaged")
        try:
            for name, kind in KINDS.items():
                if table[name].dtype.kind != kind or not np.isfinite(table[name]).all():
                    raise ValueError(f"{name} holds what it can't")
            means = table["history_mean"]
            if (table["sent_at"] < 0).any() or ((means <= 0) | (means >= 1)).any():
                raise ValueError("sent_at or history_mean is out of range")
            if (table["prior"] < 0).any() or (table["known"] < 0).any():
                raise ValueError("prior or known holds a negative number")
            if ((table["buckets"] < -1) | (table["buckets"] >= SLOTS)).any():
                raise ValueError("buckets are out of range")
            columns = [table[name].tolist() for name in COLUMNS]
            if state.get("bucket") != self.bucket:
                columns[-1] = [()] * len(columns[-1])
            groups = {
                uid.decode(): Group(
                    prompt, launched, version, mean, tuple(prior), tuple(known), tuple(buckets)
                )
                for uid, prompt, launched, version, mean, prior, known, buckets in zip(*columns, strict=True)
            }
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"its columns don't fit ({error}); the file is damaged") from error
        over = counts["returned"] + counts["lost"] + counts["withdrawn"]
        rollouts = sum(group.launched for group in groups.values())
        negative = any(group.launched < 0 for group in groups.values())
        if negative or len(groups) < len(columns[0]) or rollouts != counts["launched"] - over:
            raise ValueError(
                f"{rollouts} rollouts are in flight, but of {counts['launched']} launched {over} are over; "
                "the file is damaged"
            )
        self.groups = groups
        for name, count in counts.items():
            setattr(self, name, count)


def buckets_of(groups):
    """Return the buckets of `groups` (list of `Group`, one or more): int16 array, shape (g, k)."""
    return stacked([np.array([group.buckets], np.int16).reshape(1, -1) for group in groups])


def left_in_flight(config):
    """Return the `InFlight` of the checkpoint that the run resumes from, empty where it has none.

    Raises ValueError as `resume_flights` does.
    """
    in_flight = InFlight()
    resume_flights(config, in_flight)
    return in_flight


def with_flights(config, outlook):
    """Return `outlook` (`cero.verl.resume.Outlook`) with a budget that counts what is in flight once.

    Rollouts in flight are spent, and are part of what the steps left may cost.
    """
    folder = resume_folder(config)
    if folder is None or outlook.saved is None:
        return outlook
    ledger = load_meta(folder / STATE_FILE)["ledger"]
    if ledger["total"] is None:
        total = outlook.total_budget - left_in_flight(config).rollouts
    else:
        total = ledger["total"] - outlook.saved.left + outlook.plan.left
    return replace(outlook, total_budget=max(total, ledger["spent"]))


def without_flights(config, outlook):
    """Return `outlook` (`cero.verl.resume.Outlook`) of a run that has no use for what is in flight.

    A synchronous run that resumes an asynchronous one can't train on what was under way. It is taken back.
    """
    rollouts = left_in_flight(config).rollouts
    if not rollouts or outlook.saved is None:
        return outlook
    ledger = load_meta(resume_folder(config) / STATE_FILE)["ledger"]
    paid = ledger["spent"] - rollouts
    if ledger["total"] is not None:
        paid = max(paid, ledger["total"] - outlook.saved.left)
    # What is in flight counts as spent until it is taken back, and the total may not lie below that.
    return replace(outlook, total_budget=max(paid + outlook.plan.left, ledger["spent"]))


def resume_flights(config, in_flight):
    """Have `in_flight`, an `InFlight`, go on from the checkpoint that the run resumes from.

    A checkpoint of a synchronous run, or one without the scheduler's state, has nothing in flight.

    Raises ValueError, naming the file, if it is damaged.
    """
    folder = resume_folder(config)
    path = None if folder is None else folder / IN_FLIGHT_FILE
    if path is None or not path.is_file():
        return
    try:
        in_flight.load_state_dict(load_state(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
