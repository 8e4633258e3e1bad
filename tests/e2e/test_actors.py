"""Do the workers of the agent loop start as Ray's actors where verl's own class is behind them?

On a CPU another class stands there (cero/verl/cpu/agent_loop.py), so trainings of the tests do not show it.
"""

import json
import sys

import pytest
from tiny import run

pytestmark = pytest.mark.e2e

SCRIPT = """
import json
import ray
from verl.experimental.agent_loop import agent_loop

# The real class, and an initialiser of its base that needs no model.
from cero.verl import agent_loop as ours

ray.init(num_cpus=1, include_dashboard=False)
found = {}
for name in ("RewardedWorker", "SequentialWorker"):
    actor = ray.remote(getattr(ours, name)).remote(1, 2, 3)
    try:
        ray.get(actor.__ray_ready__.remote())
        found[name] = "started"
    except Exception as error:
        found[name] = str(error).strip().splitlines()[-1]
print("FOUND " + json.dumps(found))
"""


def test_workers_reach_verls_own_initialiser(tmp_path):
    """It gets numbers instead of a config, and must be the one to say so."""
    output = run([sys.executable, "-c", SCRIPT], tmp_path)
    found = json.loads(output.split("FOUND ", 1)[1].splitlines()[0])
    assert set(found) == {"RewardedWorker", "SequentialWorker"}
    for name, message in found.items():
        assert "super(" not in message and "object has no attribute" in message, (name, message)
