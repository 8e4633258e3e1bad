"""What does verl's file logger say of a run, and what the card? For the other scripts of this folder."""

import json
import re
import subprocess

HELD_OUT = re.compile(r"val-core/[^/]+/(?:(.*)/)?acc/mean@\d+")  # group 1: the family


def read_records(path):
    """Return what verl logged in a file, step by step: list of dict with `step` and `data`.

    A line that is cut is left out: the run may be writing it, or was killed while it did.
    """
    records = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def held_out(data):
    """Return a validation's accuracies by family, from the metrics of a step: dict, empty without one."""
    return {match[1] or "": value for key, value in data.items() if (match := HELD_OUT.fullmatch(key))}


def ask_card(what, *options):
    """Return what nvidia-smi says of the card, as text. Raises OSError where there is none to ask."""
    query = ["nvidia-smi", f"--query-gpu={what}", f"--format={','.join(('csv', 'noheader', *options))}"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip()
