"""What do the log and the state do on a disk that is really full? A small one, mounted for the test alone."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

SCRIPT = """
import json, os, sys
import numpy as np
from cero import make_allocator
from cero.analysis.runlog import RunLog, read_log
from cero.core.state import load_state, save_state

folder = sys.argv[1]
filler, path = os.path.join(folder, "filler"), os.path.join(folder, "allocator.npz")

def fill():
    with open(filler, "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass

def state(prompts):
    allocator = make_allocator("cero", rollouts_per_prompt=8, epochs=3)
    allocator.allocate(np.arange(prompts), budget=8 * prompts)
    return allocator.state_dict()

log = RunLog(os.path.join(folder, "allocations.jsonl"))
ids = [f"{i:016x}" for i in range(100)]
line = (64, 64, ids, [8] * 100, [4.0] * 100, [8] * 100, {})
log.step(1, 0, *line)
save_state(state(20), path)
before = open(path, "rb").read()
fill()
said = []
for step in range(2, 12):
    log.step(step, 0, *line)
try:
    save_state(state(2000), path)
except OSError as error:
    said.append(error.errno)
found = {
    "errors": said,
    "intact": open(path, "rb").read() == before and load_state(path)["allocator"] == "cero",
    "files": sorted(os.listdir(folder)),
    "logged": [record["step"] for record in read_log(log.path)],
}
os.unlink(filler)
log.step(12, 0, *line)
log.close()
found["later"] = [record["step"] for record in read_log(log.path)]
print(json.dumps(found))
"""


def test_on_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=128k tmpfs '{disk}'"
    if not shutil.which("unshare") or subprocess.run([*mounted, mount], capture_output=True).returncode:
        pytest.skip("this machine lets no user mount a disk of its own (unshare, user namespaces)")
    run = subprocess.run(
        [*mounted, f'{mount} && exec "$0" -c "$1" "$2"', sys.executable, SCRIPT, str(disk)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert [os.strerror(each) for each in found["errors"]] == ["No space left on device"] and found["intact"]
    assert found["files"] == ["allocations.jsonl", "allocator.npz", "filler"]
    logged = found["logged"]
    assert logged == list(range(1, len(logged) + 1)) and len(logged) < 11
    assert found["later"] == list(range(1, 13))
    said = run.stderr.splitlines()
    assert len(said) == 1 and "the log can't be written (No space left on device)" in said[0]
