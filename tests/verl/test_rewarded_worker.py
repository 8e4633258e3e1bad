"""Can a Ray process construct the workers that verl's class is the base of?"""

import subprocess
import sys

import pytest
import ray
from ray import cloudpickle

from cero.verl.agent_loop import RewardedWorker, SequentialWorker

CONSTRUCT = """
import pickle, sys

for worker in pickle.loads(sys.stdin.buffer.read()):
    try:
        worker()
    except TypeError as error:
        print(worker.__name__, error)
"""


@pytest.mark.e2e
def test_another_process_constructs_them():
    """As Ray does: it unpickles the class elsewhere. verl's __init__ is reached, and misses its arguments."""
    workers = [RewardedWorker, SequentialWorker]
    pickled = cloudpickle.dumps([ray.remote(each).__ray_metadata__.modified_class for each in workers])
    done = subprocess.run([sys.executable, "-c", CONSTRUCT], input=pickled, capture_output=True, check=True)
    said = done.stdout.decode().splitlines()
    missing = "AgentLoopWorker.__init__() missing 2 required positional arguments"
    for worker in workers:
        assert any(line.startswith(worker.__name__) and missing in line for line in said), said
