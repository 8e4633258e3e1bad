"""Can a Ray process construct the workers that verl's class is the base of?"""

import subprocess
import sys

import pytest
import ray
from ray import cloudpickle

from cero.verl.agent_loop import RewardedWorker, SequentialWorker

CONSTRUCT = """
import pickle, sys

worker = pickle.loads(sys.stdin.buffer.read())
try:
    worker()
except TypeError as error:
    print(error)
"""


@pytest.mark.e2e
@pytest.mark.parametrize("worker", [RewardedWorker, SequentialWorker])
def test_another_process_constructs_it(worker):
    """As Ray does: it unpickles the class elsewhere. verl's __init__ is reached, and misses its arguments."""
    pickled = cloudpickle.dumps(ray.remote(worker).__ray_metadata__.modified_class)
    done = subprocess.run([sys.executable, "-c", CONSTRUCT], input=pickled, capture_output=True, check=True)
    assert b"AgentLoopWorker.__init__() missing 2 required positional arguments" in done.stdout
