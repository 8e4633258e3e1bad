"""How long is the engine idle, and how long does the last group of a dispatch take, by a run's events?

Events are those of `cero.research.speed.groups`, as dicts. A window is a pair of times. Times are in seconds.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def read_events(path):
    """Return the events in a file, in the order of their times: list of dict.

    A last line that was cut off, because the run was killed while it was written, is left out.
    """
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    whole, rest = lines[:-1], lines[-1]
    if rest.endswith("}"):
        whole.append(rest)
    return sorted((json.loads(line) for line in whole), key=lambda event: event["t"])


def union(intervals):
    """Return the same set of times as intervals that don't overlap, in order: float array, shape (n, 2).

    intervals : pairs of begin and end, in any order; those that do not end after they begin are left out
    """
    merged = []
    for begin, end in sorted(map(tuple, intervals)):
        if end <= begin:
            continue
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return np.array(merged, np.float64).reshape(-1, 2)


def common(first, second):
    """Return the times that two unions share, as a union."""
    pairs = [(max(a, c), min(b, d)) for a, b in first for c, d in second if c < b and a < d]
    return union(pairs)


def length(intervals):
    """Return the seconds of a union, float."""
    return float(np.sum(intervals[:, 1] - intervals[:, 0]))


def awake(events):
    """Return the times in which the engine may sample, a union; the last may end at infinity."""
    found, since = [], None
    for event in events:
        if event["event"] == "resume" and since is None:
            since = event["t"]
        elif event["event"] == "pause" and since is not None:
            found.append((since, event["t"]))
            since = None
    return union([*found, (since, math.inf)] if since is not None else found)


@dataclass
class Group:
    """Holds what is known of a group: when it was begun and when its last rollout was done, its rollouts, and
    the number of its dispatch, from 0. Of a group that did not end, `end` is infinite and `rollouts` None.
    """

    begin: float
    end: float
    rollouts: int | None
    dispatch: int


def groups(events):
    """Return the groups of a run: list of `Group`, in the order in which they began.

    A group belongs to the last dispatch that was sent before it began.
    """
    found, dispatch = {}, -1
    for event in events:
        if event["event"] == "sent":
            dispatch += 1
        elif event["event"] == "begin":
            found[event["uid"]] = Group(event["t"], math.inf, None, dispatch)
        elif event["event"] == "end" and event["uid"] in found:
            group = found[event["uid"]]
            group.end = event["t"] if event["last"] is None else event["last"]
            group.rollouts = event["rollouts"]
    return list(found.values())


def idleness(events, window):
    """Return the shares of a window in which the engine samples nothing: a dict.

    paused : it may not, because the trainer trains
    empty : it may, but no rollout is in flight
    """
    span = union([window])
    open_ = common(span, awake(events))
    busy = common(open_, union([(group.begin, group.end) for group in groups(events)]))
    total = length(span)
    return {"paused": 1 - length(open_) / total, "empty": (length(open_) - length(busy)) / total}


def tails(events, window, least=8):
    """Return the tail of each dispatch that was sent and done within a window: list of dict.

    A dispatch is done when all of its groups are. Those of fewer than `least` groups are left out: they fill
    up for groups that failed.

    seconds : from the median group's end to the last one's
    awake : those of them in which the engine may sample
    rollouts : of the group that ended last
    mean : rollouts of a group of the dispatch
    """
    open_, by_dispatch = awake(events), {}
    for group in groups(events):
        by_dispatch.setdefault(group.dispatch, []).append(group)
    found = []
    for dispatch in sorted(by_dispatch):
        members = by_dispatch[dispatch]
        ends = np.array([group.end for group in members])
        if len(members) < least or min(g.begin for g in members) < window[0] or ends.max() > window[1]:
            continue
        middle, last = float(np.median(ends)), members[int(np.argmax(ends))]
        found.append(
            {
                "seconds": last.end - middle,
                "awake": length(common(open_, union([(middle, last.end)]))),
                "rollouts": last.rollouts,
                "mean": float(np.mean([group.rollouts for group in members])),
            }
        )
    return found
